"""Requirements on a GPU, a line with a bound each, judged by the figures of `make gpu`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
Verdict = Literal["passed", "failed", "not measured"]


@dataclass(frozen=True)
class Line:
    """One requirement; `figure` must be at most `bound`."""

    name: str
    bound: float
    figure: float | None
    #: it depends on the card
    is_speed: bool = False

    @property
    def verdict(self) -> Verdict:
        if self.figure is None:
            return "not measured"
        return "passed" if self.figure <= self.bound else "failed"

    def __str__(self) -> str:
        figure = "" if self.figure is None else f"{self.figure:.3g}, "
        return f"{self.verdict:<12} {self.name}: {figure}at most {self.bound:g}"


def acceptance(parts: Iterable[Mapping[str, Any]]) -> list[Line]:
    """All lines, from the parts of a summary: name, state and figures of each; what was not measured says so."""
    found = {part["name"]: part for part in parts}
    steps = _rows(found, "step")
    raster, measures = _rows(found, "raster"), _rows(found, "agreement")

    def step(figure: str, **wanted: Any) -> float | None:
        return _least(steps, figure, case="ours", **wanted)

    on_two_cores, laptop = step("ms", size="laptop", device="cpu"), step("ms", size="laptop", device="cuda")
    paper = {precision: step("of published", size="paper", precision=precision) for precision in ("tf32", "bf16")}
    in_one_graph = step("ms", size="laptop", backend="triton", execution="graph")
    inria = _least(raster, "both ms", workload="8 x 4 at 128 px", backend="inria")
    as_called = {"triton": "eager", "triton as a graph": "graph"}
    lines = [
        Line("GPU tests that failed", 0, _failures(found.get("tests"))),
        Line("paper, TF32: step, of the published style's", 0.35, paper["tf32"], is_speed=True),
        Line("paper, bf16: step, of the published style's", 0.25, paper["bf16"], is_speed=True),
        Line("laptop with gsplat: ms a step", 8, step("ms", size="laptop", backend="gsplat"), is_speed=True),
        Line("laptop: step, of two CPU cores'", 1, _ratio(laptop, on_two_cores), is_speed=True),
        Line("laptop with triton, one graph: ms a step", 4, in_one_graph, is_speed=True),
        Line("32 renders at 128 px, inria: ms", 22, inria, is_speed=True),
    ]
    for side, bound in ((32, 0.3), (64, 0.3), (128, 0.8)):
        workload = f"8 x 4 at {side} px"
        theirs = _least(raster, "both ms", workload=workload, backend="gsplat")
        for name, execution in as_called.items():
            ours = _least(raster, "both ms", workload=workload, backend="triton", execution=execution)
            of_gsplat = f"32 renders at {side} px: {name}, of gsplat's time"
            lines.append(Line(of_gsplat, bound, _ratio(ours, theirs), is_speed=True))
    for execution in ("eager", "graph", "compiled"):
        difference = _least(measures, "difference", measure="agreement", execution=execution)
        lines.append(Line(f"200 steps, {execution}: losses, relative difference from the CPU's", 1e-4, difference))
    for execution in ("eager", "graph"):
        waits = [row["waits"] for row in measures if row["measure"] == "host reads" and row["execution"] == execution]
        lines.append(Line(f"a step, {execution}: waits of the host", 0, float(any(waits)) if waits else None))
    lines.append(Line("LPIPS in bf16 and channels last: shift", 1e-3, _least(measures, "shift", measure="lpips")))
    lines.append(Line("killed sweeps that did not go on to their end", 0, _failures(found.get("sweep"))))
    return lines


def _rows(parts: Mapping[str, Mapping[str, Any]], name: str) -> Sequence[Row]:
    rows: Sequence[Row] = parts.get(name, {}).get("figures", {}).get("rows", [])
    return rows


def _least(rows: Iterable[Row], figure: str, **wanted: Any) -> float | None:
    """The smallest figure of the rows with these values; None without such a row."""
    values = [
        row[figure]
        for row in rows
        if row.get(figure) is not None and all(row.get(name) == value for name, value in wanted.items())
    ]
    return min(values, default=None)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _failures(part: Mapping[str, Any] | None) -> float | None:
    """0 for a part that passed, for one that failed the number of what it lists, or 1; None for others."""
    if part is None or part["state"] not in ("passed", "failed"):
        return None
    return 0.0 if part["state"] == "passed" else float(len(part["figures"].get("failed", ())) or 1)
