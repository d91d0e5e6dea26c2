"""Reconstructors without anything to learn."""

from __future__ import annotations

from model.scenes import PictureScene, Reconstructor
from model.types import Context, Views


class Background(Reconstructor):
    """Sees nothing."""

    def forward(self, source: Views, context: Context) -> PictureScene:
        return PictureScene(None)


class FirstSource(Reconstructor):
    """Takes the first source picture for the object."""

    def forward(self, source: Views, context: Context) -> PictureScene:
        return PictureScene(source.images[:, 0])
