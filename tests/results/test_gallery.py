"""Sample renders: valid and rejected files, and the order of rows."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from results.gallery import (
    Gallery,
    TrialSamples,
    galleries,
    median,
    read_pictures,
    read_turntable,
    representative,
    representative_objects,
)


def arrays(side: int = 8, truth: int = 0, render: int = 0) -> dict[str, np.ndarray]:
    def flat(value: int, *shape: int) -> np.ndarray:
        return np.full((*shape, 3, side, side), value, dtype=np.uint8)

    return {
        "objects": np.array(["a", "b"]),
        "source": flat(truth, 2),
        "target": flat(truth, 2, 3),
        "render": flat(render, 2, 3),
    }


def samples(trial: str, seed: int = 0, **more: int) -> TrialSamples:
    content = arrays(**more)
    return TrialSamples(
        trial, f"{trial}{seed}", seed, ("a", "b"), *(content[n] for n in ("source", "target", "render"))
    )


def test_a_turntable_has_a_name_and_a_still(tmp_path: Path) -> None:
    path = tmp_path / "turntable.gif"
    Image.new("P", (20, 20), 3).save(path, comment=b"chair_\xff1")
    name, animation, still, side = read_turntable(path)
    assert (name, animation, side) == ("chair_\N{REPLACEMENT CHARACTER}1", path.read_bytes(), 20)
    assert Image.open(io.BytesIO(still)).format == "PNG"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"GIF89a", "not an animation"), (b"\x89PNG", "not an animation"), (bytes(1_000_001), "at most")],
)
def test_what_is_no_turntable_is_refused_by_name(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "turntable.gif"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"turntable.gif: .*{reason}"):
        read_turntable(path)


def test_round_trip(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", **arrays(render=7))
    objects, _, _, render = read_pictures(tmp_path / "samples.npz")
    assert objects == ("a", "b")
    assert render.shape == (2, 3, 3, 8, 8)
    assert (render == 7).all()


@pytest.mark.parametrize(
    "damage",
    [
        {"render": np.zeros((2, 2, 3, 8, 8), np.uint8)},
        {"target": np.zeros((2, 3, 8, 8), np.uint8)},
        {"objects": np.array(["a"])},
        {"objects": np.array(["a", None], dtype=object)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, damage: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "samples.npz", **{**arrays(), **damage})
    with pytest.raises(ValueError, match=r"samples\.npz"):
        read_pictures(tmp_path / "samples.npz")


@pytest.mark.parametrize("kept", [0, 1, 40, 300, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "samples.npz"
    np.savez_compressed(path, **arrays(render=7))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"samples\.npz: not a file of sample renders"):
        read_pictures(path)


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez_compressed(path, **arrays(render=7))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"samples\.npz: not a file of sample renders"):
        read_pictures(path)


def test_a_missing_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", source=arrays()["source"])
    with pytest.raises(ValueError, match="not a file of sample renders"):
        read_pictures(tmp_path / "samples.npz")


def test_trials_with_the_same_views_share_a_gallery_and_the_first_seed_is_shown() -> None:
    one, two = galleries(
        [
            samples("base", 0, render=1),
            samples("base", 1, render=2),
            samples("tv", 0),
            samples("large", side=16),
        ]
    )
    assert list(one.renders) == ["base", "tv"]
    assert (one.renders["base"] == 1).all()
    assert list(two.renders) == ["large"]


def test_other_ground_truth_is_another_gallery() -> None:
    assert len(galleries([samples("base"), samples("tv", truth=9)])) == 2


def shades(errors: list[int]) -> Gallery:
    """One object for each error, which is the same in both renders, against a black truth."""
    black = np.zeros((len(errors), 2, 3, 4, 4), dtype=np.uint8)
    render = black + np.array(errors, dtype=np.uint8).reshape(-1, 1, 1, 1, 1)
    names = tuple(f"object_{error}" for error in errors)
    return Gallery(names, black[:, 0], black, {"first": render, "second": render})


def test_the_best_the_median_and_the_worst_object_are_shown() -> None:
    shown = representative(shades([30, 10, 50, 20, 40]))
    assert shown.objects == ("object_10", "object_30", "object_50")
    assert shown.ranks == ("best", "median", "worst")
    assert [int(pictures.max()) for pictures in shown.renders["second"]] == [10, 30, 50]


def test_the_median_object_is_shown_alone_where_there_is_one() -> None:
    alone = median(representative(shades([30, 10, 50, 20, 40])))
    assert alone is not None
    assert (alone.objects, alone.ranks) == (("object_30",), ("median",))
    assert [pictures.max() for pictures in (alone.source, alone.target, *alone.renders.values())] == [0, 0, 30, 30]
    assert median(representative(shades([20, 10]))) is None


def test_the_rule_averages_over_variants() -> None:
    gallery = shades([30, 10, 20])
    # The second variant fails on the objects that the first renders best.
    worse = gallery.renders["second"].copy()
    worse[1] = 255
    shown = representative(
        Gallery(gallery.objects, gallery.source, gallery.target, {**gallery.renders, "second": worse})
    )
    assert shown.objects == ("object_20", "object_30", "object_10")


def test_trivial_baselines_do_not_count_beside_trained_trials() -> None:
    gallery = shades([30, 10, 20])
    copied = np.full_like(gallery.target, 255)
    copied[0] = 0  # without error on the object that the trained trials render worst
    renders = {**gallery.renders, "copy_input": copied}

    def shown(trivial: set[str]) -> tuple[str, ...]:
        seeds = dict.fromkeys(renders, 0)
        views = (gallery.objects, gallery.source, gallery.target)
        return representative(Gallery(*views, renders, seeds, trivial=frozenset(trivial))).objects

    assert shown({"copy_input"}) == ("object_10", "object_20", "object_30")
    assert shown(set()) == shown({*renders}) == ("object_30", "object_10", "object_20")


def test_galleries_know_which_trials_are_trivial() -> None:
    [gallery] = galleries([samples("base"), replace(samples("blank"), is_trivial=True)])
    assert gallery.trivial == {"blank"}
    assert representative(gallery).trivial == {"blank"}


def test_few_objects_are_all_shown() -> None:
    assert representative(shades([20, 10])).objects == ("object_10", "object_20")
    assert representative(shades([20, 10])).ranks == ("best", "worst")
    assert representative(shades([20])).ranks == ("",)
    assert representative_objects({"a": 20.0}) == {"a": ""}


def test_an_object_without_a_score_is_the_worst() -> None:
    scores = {"a": 20.0, "b": float("nan"), "c": 25.0, "d": 22.0}
    assert representative_objects(scores) == {"c": "best", "a": "median", "b": "worst"}
