"""What a column of numbers holds: a metric on one kind of views, and how it is printed and judged."""

from __future__ import annotations

from dataclasses import dataclass

from results.load import METRICS, VIEW_KINDS
from results.table import Column, Direction


@dataclass(frozen=True)
class Quantity:
    """A metric on one kind of views, averaged over a trial's objects."""

    view_kind: str
    metric: str
    column: Column
    #: the smallest difference that would matter to a reader; None where nobody can say
    relevant: float | None

    @property
    def name(self) -> str:
        """ "novel_psnr", as columns are called everywhere."""
        return f"{self.view_kind}_{self.metric}"


@dataclass(frozen=True)
class _Print:
    label: str
    direction: Direction | None
    precision: int
    relevant: float | None


# What is relevant is of the order of the smallest differences that papers on this task make a point of.
_PRINTS = {
    "psnr": _Print("PSNR", "up", 2, 0.2),
    "psnr_clamped": _Print("PSNR (clamped)", "up", 2, 0.2),
    "ssim": _Print("SSIM", "up", 3, 0.01),
    "ssim_clamped": _Print("SSIM (clamped)", "up", 3, 0.01),
    "lpips": _Print("LPIPS", "down", 3, 0.01),
    "lpips_clamped": _Print("LPIPS (clamped)", "down", 3, 0.01),
}
_GROUPS = {"conditioned": "Conditioned views", "novel": "Novel views"}


def quantity(
    view_kind: str,
    metric: str,
    *,
    label: str | None = None,
    group: str | None = None,
    direction: Direction | None = None,
    precision: int | None = None,
    relevant: float | None = None,
) -> Quantity:
    """A column with its usual print, unless told otherwise.  An unknown metric is not ranked by itself."""
    usual = _PRINTS.get(metric, _Print(metric, None, 3, None))
    column = Column(
        f"{view_kind}_{metric}",
        usual.label if label is None else label,
        _GROUPS[view_kind] if group is None else group,
        direction or usual.direction,
        usual.precision if precision is None else precision,
    )
    return Quantity(view_kind, metric, column, usual.relevant if relevant is None else relevant)


def named(name: str) -> Quantity:
    """The quantity called `name`.  Raises `ValueError` where that is not a kind of views and a metric."""
    view_kind, _, metric = name.partition("_")
    if view_kind not in VIEW_KINDS or not metric:
        allowed = ", ".join(item.name for item in STANDARD)
        raise ValueError(f"{name!r} is not a column; allowed: {allowed}, or another metric that was recorded")
    return quantity(view_kind, metric)


#: the published metrics on both kinds of views
STANDARD = tuple(quantity(kind, metric) for kind in VIEW_KINDS for metric in METRICS)
