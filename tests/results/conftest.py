"""A real MLflow store on SQLite, written like recorded trials, and its plan."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from results.records.tags import HASH

STEPS = (50, 100, 150, 200)


@dataclass(frozen=True)
class Tracking:
    """Replaces the sweep's `tracking` section."""

    uri: str | None = None


@dataclass(frozen=True)
class FakeSweep:
    """The only attributes of a sweep that the package `results` may use."""

    name: str = "study"
    tracking: Tracking = field(default_factory=Tracking)


def entry(key: str, name: str, seed: int = 0, status: str = "pending", **more: Any) -> dict[str, Any]:
    """The entry of one trial in plan.json."""
    config = {"data": {"name": "chairs", "resolution": 16}, "seed": seed, **more.pop("config", {})}
    return {
        "key": key,
        "name": name,
        "names": [name],
        "seed": seed,
        "config": config,
        "status": status,
        **more,
    }


def scores(psnr: float, ssim: float, lpips: float, objects: int = 3) -> pd.DataFrame:
    """Per-object scores with the given means over objects; conditioned views are 10 dB better."""
    rows = [
        (f"object_{index}", "test", kind, metric, value + (index - (objects - 1) / 2) / 100)
        for index in range(objects)
        for kind, gain in (("conditioned", 10.0), ("novel", 0.0))
        for metric, value in (
            ("psnr", psnr + gain),
            ("ssim", ssim),
            ("lpips", lpips),
            ("psnr_clamped", psnr + gain + 1),
        )
    ]
    return pd.DataFrame(rows, columns=["object", "split", "view_kind", "metric", "value"])


def pictures(seed: int, objects: int = 3, views: int = 2, side: int = 16) -> dict[str, np.ndarray]:
    """Sample renders; objects and ground truth are equal for all seeds, and renders differ."""
    truth, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    shape = (objects, views, 3, side, side)
    return {
        "objects": np.array([f"object_{index}" for index in range(objects)]),
        "source": truth.integers(0, 256, (objects, 3, side, side), dtype=np.uint8),
        "target": truth.integers(0, 256, shape, dtype=np.uint8),
        "render": own.integers(0, 256, shape, dtype=np.uint8),
    }


def turntable(name: str, side: int = 16) -> bytes:
    """An animation as trials write it: two images, and the object's name."""
    first, second = (Image.new("P", (side, side), colour) for colour in (0, 1))
    target = io.BytesIO()
    first.save(target, "GIF", save_all=True, append_images=[second], comment=name.encode())
    return target.getvalue()


class RecordedHome:
    """A home folder with a plan, and an MLflow store: a file in the home, or one at `uri`."""

    def __init__(self, home: Path, template: Path, uri: str | None = None) -> None:
        from mlflow import MlflowClient

        self.home = home
        if uri is None:
            shutil.copy(template, home / "mlflow.db")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{home / 'mlflow.db'}")
        place = None if uri and uri.startswith("http") else (home / "artifacts").as_uri()
        self._experiment = self._client.create_experiment("study", artifact_location=place)

    def plan(
        self, trials: list[dict[str, Any]], controls: list[dict[str, Any]] | None = None, sweep: str = "study"
    ) -> None:
        """Writes plan.json."""
        path = self.home / "sweeps" / sweep / "plan.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "sweep": sweep,
            "created": "2026-03-01T12:00:00+00:00",
            "trials": trials,
            "controls": controls or [],
        }
        path.write_text(json.dumps(content))

    def record(
        self,
        key: str,
        name: str,
        seed: int = 0,
        status: str = "finished",
        per_object: pd.DataFrame | None = None,
        samples: Mapping[str, np.ndarray] | None = None,
        animation: bytes | None = None,
        curves: Mapping[str, list[tuple[int, float]]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Writes one run with everything that a trial records; returns its id."""
        from mlflow.entities import Metric, RunTag

        run = self._client.create_run(self._experiment, run_name=name, start_time=1_772_366_400_000).info.run_id
        identity = {"key": key, "trial": name, "seed": str(seed), "sweep": "study", "status": status}
        all_tags = {f"splatsweep.{tag}": value for tag, value in identity.items()} | dict(tags or {})
        metrics = [
            Metric(metric, value, 1_772_366_400_000 + index, step)
            for metric, points in (curves or {}).items()
            for index, (step, value) in enumerate(points)
        ]
        self._client.log_batch(run, metrics=metrics, tags=[RunTag(*item) for item in all_tags.items()])
        if per_object is not None:
            self._artifact(run, "per_object.parquet", per_object.to_parquet)
        if samples is not None:
            self._artifact(run, "samples.npz", lambda path: np.savez_compressed(path, **samples))
        if animation is not None:
            self._artifact(run, "turntable.gif", lambda path: path.write_bytes(animation))
        if status != "running":
            self._client.set_terminated(run, status.upper(), end_time=1_772_366_460_000)
        return run

    def _artifact(self, run: str, name: str, write: Callable[[Path], Any]) -> None:
        path = self.home / name
        write(path)
        self._client.log_artifact(run, str(path))
        self._client.set_tag(run, HASH + name, hashlib.sha256(path.read_bytes()).hexdigest())
        path.unlink()


@pytest.fixture
def recorded(tmp_path: Path, empty_store: Path) -> RecordedHome:
    """An empty home to record trials in."""
    return RecordedHome(tmp_path, empty_store)


@pytest.fixture(scope="session")
def sweep() -> FakeSweep:
    """The sweep that the recorded home belongs to."""
    return FakeSweep()


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> RecordedHome:
    """The read-only home that `record_study` writes."""
    recorded = RecordedHome(tmp_path_factory.mktemp("study"), empty_store)
    record_study(recorded)
    return recorded


def record_study(recorded: RecordedHome) -> None:
    """Records two trained trials with two seeds each, a failed one, and both control rows."""
    recorded.plan(
        [
            entry("a0", "baseline", 0),
            entry("a1", "baseline", 1),
            entry("b0", "depth", 0, config={"depth": {"model": "oracle"}}),
            entry("b1", "depth", 1, config={"depth": {"model": "oracle"}}),
            entry("c0", "broken", 0, status="failed"),
        ],
        [entry("x0", "blank"), entry("x1", "copy_input")],
    )
    loss = {"train/loss": [(step, 1.0 / step) for step in STEPS], "val/psnr": [(100, 18.0), (200, 20.0)]}
    commit = {"mlflow.source.git.commit": "0123abc"}
    for key, name, seed, psnr in [
        ("a0", "baseline", 0, 20.0),
        ("a1", "baseline", 1, 21.0),
        ("b0", "depth", 0, 22.0),
        ("b1", "depth", 1, 22.5),
    ]:
        samples, animation = pictures(int(psnr)), turntable("object_0")
        recorded.record(key, name, seed, "finished", scores(psnr, 0.8, 0.2), samples, animation, loss, commit)
    recorded.record("c0", "broken", 0, "failed", tags={"splatsweep.error": "loss is not finite at step 7"})
    recorded.record("x0", "blank", per_object=scores(12.0, 0.6, 0.4), samples=pictures(100), tags=commit)
    recorded.record("x1", "copy_input", per_object=scores(14.0, 0.5, 0.3), samples=pictures(101), tags=commit)
