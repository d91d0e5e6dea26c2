"""Reconstruction methods: source views and context -> a scene.  One file or folder per method, one line here.

Untrained methods are the trivial baselines: they show what a score is worth, and are rows of every plan.
"""

from model.methods.base import Method
from model.registry import resolve

METHODS: dict[str, str] = {
    "splatter_image": "model.methods.splatter_image:SplatterImage",
    "pixelnerf": "model.methods.pixelnerf:PixelNerf",
    "blank": "model.methods.blank:Blank",
    "copy_input": "model.methods.copy_input:CopyInput",
}


def find_method(name: str) -> type[Method]:
    """The method of that name.  Raises `UnknownChoiceError`."""
    method: type[Method] = resolve(METHODS, name, "method")
    return method


def controls() -> tuple[str, ...]:
    """The trivial baselines: methods that need no training."""
    return tuple(name for name in METHODS if not find_method(name).trained)
