"""Reconstructors without anything to learn."""

from __future__ import annotations

from model.scenes import PictureScene, Reconstructor
from model.types import Context, Views


class Background(Reconstructor):
    """Predicts the background for every source."""

    def forward(self, source: Views, context: Context) -> PictureScene:
        return PictureScene(None)


class FirstSource(Reconstructor):
    """Predicts the first source image for every view."""

    def forward(self, source: Views, context: Context) -> PictureScene:
        return PictureScene(source.images[:, 0])
