"""Renders the background only, independent of the source: a trivial baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.methods.base import Method, MethodOptions, SceneKind, Setting

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.scenes import Reconstructor


class BlankOptions(MethodOptions):
    """No options of its own."""

    name: Literal["blank"] = "blank"


class Blank(Method):
    """The background colour everywhere."""

    Options: ClassVar[type[MethodOptions]] = BlankOptions
    scene: ClassVar[SceneKind] = "pictures"
    trained: ClassVar[bool] = False

    @classmethod
    def build(cls, options: Any, setting: Setting, contexts: Sequence[Fusion]) -> Reconstructor:
        from model.methods.untrained import Background

        return Background()
