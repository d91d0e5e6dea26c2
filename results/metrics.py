"""Facts on metrics that need no torch: required data, label, and which direction is better.

`jobs/metrics/` computes them, under the same names.  A score is a metric on one kind of views:
`novel/psnr` in journals and MLflow, `novel_psnr` in sweep files and tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["up", "down"]

#: Kinds of views: those from the sources' own cameras, and all others.
VIEW_KINDS = ("conditioned", "novel")

#: The metrics of the published tables: computed where nothing else is chosen.
PUBLISHED = ("psnr", "ssim", "lpips")

#: Suffix of metrics that are computed after colours are clamped to [0, 1].
CLAMPED = "_clamped"


@dataclass(frozen=True)
class MetricFacts:
    """Printing and direction of a metric, and the data that it needs."""

    label: str
    #: which way is better
    direction: Direction
    #: digits behind the point
    precision: int = 3
    #: smallest difference that matters in practice, of the order of those that papers on this task emphasise
    relevant: float | None = None
    unit: str = ""
    #: ground truth that it needs besides colours: `mask`, `depth` of the dataset
    of_truth: frozenset[str] = frozenset()
    #: parts of a rendering that it needs besides colours: `opacity`, `inverse_depth`
    of_rendering: frozenset[str] = frozenset()


_MASK, _DEPTH, _GEOMETRY = frozenset({"mask"}), frozenset({"depth"}), frozenset({"opacity", "inverse_depth"})

METRICS: dict[str, MetricFacts] = {
    "psnr": MetricFacts("PSNR", "up", 2, 0.2, "dB"),
    "ssim": MetricFacts("SSIM", "up", 3, 0.01),
    "lpips": MetricFacts("LPIPS", "down", 3, 0.01),
    "dists": MetricFacts("DISTS", "down", 3, 0.01),
    "psnr_masked": MetricFacts("PSNR (object)", "up", 2, 0.2, "dB", of_truth=_MASK),
    "ssim_masked": MetricFacts("SSIM (object)", "up", 3, 0.01, of_truth=_MASK),
    "iou": MetricFacts("IoU", "up", 3, 0.01, of_truth=_MASK, of_rendering=frozenset({"opacity"})),
    "abs_rel": MetricFacts("AbsRel", "down", 3, 0.01, of_truth=_DEPTH, of_rendering=_GEOMETRY),
    "delta1": MetricFacts("δ < 1.25", "up", 3, 0.01, of_truth=_DEPTH, of_rendering=_GEOMETRY),
}


#: Settings beside `eval` that determine the pictures of an evaluation, and those of `eval` that change no score.
_OF_SCORES = ("data.resolution", "model.input_views")
_NOT_OF_SCORES = ("eval.every", "eval.val_objects", "eval.metrics")


def determines_scores(key: str) -> bool:
    """Whether scores are comparable only between trials with the same value of a setting: `eval.lpips`, say."""
    return key in _OF_SCORES or (key.startswith("eval.") and not key.startswith(_NOT_OF_SCORES))


#: Settings of `eval` that choose objects, and those that a single metric reads.
_OF_OBJECTS = ("eval.split", "eval.objects")
_OF_METRIC = {"eval.lpips": "lpips"}


def determines_object_scores(key: str, metric: str) -> bool:
    """Whether a metric of one object is comparable only between trials with the same value of a setting."""
    reader = _OF_METRIC.get(key)
    return determines_scores(key) and key not in _OF_OBJECTS and reader in (None, metric.removesuffix(CLAMPED))


def facts_of(metric: str) -> MetricFacts | None:
    """Facts of a metric or its clamped variant; None for an unknown metric, recorded by other code."""
    known = METRICS.get(metric.removesuffix(CLAMPED))
    if known is None or not metric.endswith(CLAMPED):
        return known
    return replace(known, label=f"{known.label} (clamped)")


def split_column(name: str) -> tuple[str, str]:
    """`novel_psnr_masked` -> ("novel", "psnr_masked").  Raises ValueError where it does not begin with a view kind."""
    view_kind, _, metric = name.partition("_")
    if view_kind not in VIEW_KINDS or not metric:
        raise ValueError(f"{name!r} is not a column; allowed: {', '.join(columns())}, or another that was recorded")
    return view_kind, metric


def columns() -> list[str]:
    """The scores of all metrics on both kinds of views, as sweep files and tables name them."""
    return [f"{view_kind}_{metric}" for view_kind in VIEW_KINDS for metric in METRICS]


def score_name(column: str) -> str:
    """`novel_psnr` -> `novel/psnr`, as journals and MLflow name it."""
    return "/".join(split_column(column))
