"""Notes on a table row: missing seeds, and conditions in which it differs from the rows it is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from results.costs import KIND
from results.load import TrialRecord
from results.records import tags
from results.records.arithmetic import recorded_arithmetic
from results.tables.metric_columns import MetricColumn
from results.tables.scores import FINGERPRINT_TAG

#: below a table with costs of several devices
DEVICES = "Times of different devices, which the rows name, cannot be compared."

_SHORT = 7
#: Names in notes of the conditions that determine the pictures (`results.metrics.determines_object_scores`) or make
#: the objects others.
_PICTURES = {"resolution", "input views", "split"}
#: Name in notes -> field of the recorded arithmetic.
_ARITHMETIC = {
    "rasteriser": "backend",
    "execution": "execution",
    "precision": "precision",
    "device": "device",
}


def row_notes(records: Sequence[TrialRecord], beside: Sequence[TrialRecord] = ()) -> tuple[str, ...]:
    """Notes on a row of `records`; `beside` are the trials of the baseline, or others that it is compared with."""
    notes = []
    finished = [record for record in records if record.state == "finished"]
    if 0 < len(finished) < len(records):
        notes.append(f"{len(finished)} of {len(records)} seeds: {states(records)}.")
    notes += _unlike_seeds(finished)
    notes += _differing_conditions(records, beside)
    names = dict.fromkeys(name for record in records for name in record.planned.names)
    others = [name for name in names if name != records[0].planned.name] if records else []
    if others:
        notes.append(f"The same configuration as {', '.join(others)}.")
    return tuple(notes)


def states(records: Sequence[TrialRecord]) -> str:
    """ "failed", or per state and seed where they differ: "failed (seed 1), pending (seeds 2, 3)"."""
    seeds: dict[str, list[int]] = defaultdict(list)
    for record in records:
        seeds[record.state].append(record.planned.seed)
    if len(seeds) == 1:
        return records[0].state
    return ", ".join(
        f"{state} (seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))})"
        for state, numbers in seeds.items()
        if state != "finished"
    )


def absence(records: Sequence[TrialRecord]) -> str:
    """Why a row of these trials has no values: their states, or that finished ones do not have what a table shows."""
    state = states(records)
    return "not measured" if state == "finished" else state


def devices(records: Iterable[TrialRecord]) -> list[str]:
    """Names of the devices that the costs of trials were measured on."""
    return list(dict.fromkeys(record.costs.device for record in records if record.costs.is_measured))


def has_several_devices(quantities: Iterable[MetricColumn], records: Iterable[TrialRecord]) -> bool:
    """Whether quantities include costs, and those of the trials were measured on several devices."""
    return any(quantity.view_kind == KIND for quantity in quantities) and len(devices(records)) > 1


def device_notes(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """A note that names the devices of a row's costs."""
    names = devices(records)
    return (f"Measured on {' and '.join(names)}.",) if names else ()


def _unlike_seeds(finished: Sequence[TrialRecord]) -> list[str]:
    """A note where the seeds of one row did not run on the same data, code or arithmetic."""
    notes = []
    for what, of in (("data", _data), ("code", _code), ("arithmetic", _arithmetic)):
        seeds: dict[str, list[str]] = defaultdict(list)
        for record in finished:
            if value := of(record):
                seeds[value].append(str(record.planned.seed))
        if len(seeds) > 1:
            listed = "; ".join(f"{value} (seed {', '.join(numbers)})" for value, numbers in seeds.items())
            notes.append(f"Its seeds differ in {what}: {listed}.")
    return notes


def _differing_conditions(records: Sequence[TrialRecord], beside: Sequence[TrialRecord]) -> list[str]:
    """A note where training or evaluation of the row differs from `beside` in more than the setting under study."""
    if not records or not beside or records[0].planned.control:
        return []
    own, other = (_conditions(side) | _arithmetic_conditions(side, records, beside) for side in (records, beside))
    differing = [name for name in own if own[name] and other[name] and own[name] != other[name]]
    if not differing:
        return []
    listed = "; ".join(f"{name} {own[name]} instead of {other[name]}" for name in differing)
    left_out = " Scores are not compared." if _PICTURES & set(differing) else ""
    left_out = left_out or (" LPIPS is not compared." if "LPIPS network" in differing else "")
    return [f"Conditions differ from {beside[0].planned.name}: {listed}.{left_out}"]


def _conditions(records: Sequence[TrialRecord]) -> dict[str, str]:
    """Name -> value of the conditions that compared rows should share; "" where unknown."""
    config = records[0].planned.config
    train: Mapping[str, Any] = config.get("train", {})
    render: Mapping[str, Any] = config.get("render", {})
    evaluation: Mapping[str, Any] = config.get("eval", {})
    finished = [record for record in records if record.state == "finished"]
    stages = train.get("stages")
    return {
        "batch size": str(train.get("batch_size", "")),
        "iterations": ""
        if stages is None
        else " + ".join(str(stage.get("iterations", "?")) for stage in stages) or "0",
        "starting weights": str(train.get("start", "new")) if train else "",
        "moving average of weights": _switch(train["ema"]) if "ema" in train else "",
        # The configured precision counts where a run does not record its arithmetic.
        "precision": str(train.get("precision", "")),
        "antialiasing": _switch(render["antialiasing"]) if "antialiasing" in render else "",
        "resolution": str(config.get("data", {}).get("resolution", "")),
        "input views": str(config.get("model", {}).get("input_views", "")),
        "split": str(evaluation.get("split", "")),
        "evaluated objects": str(evaluation["objects"] or "all") if "objects" in evaluation else "",
        "LPIPS network": str(evaluation.get("lpips", "")),
        "data": _joined(_data(record) for record in finished),
        "code": _of_all(_code(record) for record in finished),
    }


def _arithmetic_conditions(side: Sequence[TrialRecord], *compared: Sequence[TrialRecord]) -> dict[str, str]:
    """Arithmetic settings of `side`, by name; empty unless all compared trials recorded theirs."""
    finished = [record for records in compared for record in records if record.state == "finished"]
    if not all(_arithmetic(record) for record in finished):
        return {}
    recorded = [recorded_arithmetic(record.run.tags) for record in side if record.run]
    return {name: _joined(entry.get(field, "") for entry in recorded) for name, field in _ARITHMETIC.items()}


def _switch(value: object) -> str:
    if value is None or value is False:
        return "off"
    return "on" if value is True else f"on ({_settings(value)})"


def _settings(value: object) -> str:
    return ", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, Mapping) else str(value)


def _joined(values: Any) -> str:
    return " and ".join(dict.fromkeys(filter(None, values)))


def _of_all(values: Iterable[str]) -> str:
    """The value that all share; "" where seeds differ, which is noted by itself."""
    found = set(values)
    return found.pop() if len(found) == 1 else ""


def _data(record: TrialRecord) -> str:
    return record.run.tags.get(FINGERPRINT_TAG, "")[:_SHORT] if record.run else ""


def _arithmetic(record: TrialRecord) -> str:
    return ", ".join(recorded_arithmetic(record.run.tags).values()) if record.run else ""


def _code(record: TrialRecord) -> str:
    return tags.code_of(record.run.tags, _SHORT) if record.run else ""
