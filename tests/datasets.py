"""A dataset without images, for tests of planning."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from jobs.data.store import SPLITS


def planned_dataset(fingerprint: str = "f" * 64, resolution: int = 64, **facts: Any) -> SimpleNamespace:
    """A stand-in for a store in planning: 300 objects in each split, with 16 frames each, depth and masks."""
    rows = [(f"{split}_{number}", split) for split in SPLITS for number in range(300)]
    objects = pd.DataFrame(rows, columns=["object", "split"])
    objects["num_frames"] = 16
    objects["first_frame"] = 16 * np.arange(len(objects))
    manifest = SimpleNamespace(
        evaluation={"source_frame": 0}, importer="chairs", near=1.5, far=3.5, bounds_from_origin=False
    )
    default = {"objects": objects, "manifest": manifest, "depth": np.zeros(1), "mask": np.zeros(1)}
    return SimpleNamespace(fingerprint=fingerprint, resolution=resolution, **(default | facts))
