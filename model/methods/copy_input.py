"""Renders the source picture for every camera: a trivial baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from model.methods.base import Method, MethodOptions, SceneKind, Setting

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.scenes import Reconstructor


class CopyInputOptions(MethodOptions):
    """No options of its own."""

    name: Literal["copy_input"] = "copy_input"


class CopyInput(Method):
    """The first source picture for every camera."""

    Options: ClassVar[type[MethodOptions]] = CopyInputOptions
    scene: ClassVar[SceneKind] = "pictures"
    trained: ClassVar[bool] = False

    @classmethod
    def build(cls, options: Any, setting: Setting, contexts: Sequence[Fusion]) -> Reconstructor:
        from model.methods.untrained import FirstSource

        return FirstSource()
