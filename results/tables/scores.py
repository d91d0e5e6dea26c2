"""Per-object scores as arrays, so that rows can be compared object by object and seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from results.load import Evidence, TrialRecord
from results.measurements import Measurements
from results.metrics import VIEW_KINDS, determines_object_scores, determines_scores
from results.records import tags
from results.table import Cell, Source
from results.tables.metric_columns import MetricColumn

Floats = NDArray[np.float64]
FINGERPRINT_TAG = tags.DATA_FINGERPRINT


@dataclass(frozen=True)
class Scores:
    """Scores of every finished trial of a sweep.

    Objects of datasets with different fingerprints are distinct, even if their names are equal.  Differences exist only
    between trials with equal settings of the evaluation.
    """

    #: (trials, quantities, objects); entries that are not `present` are undefined
    values: Floats
    present: NDArray[np.bool_]
    #: trial's key -> index
    trials: Mapping[str, int]
    #: quantity's name -> index
    quantities: Mapping[str, int]
    #: (trials, quantities): equal numbers mean that a quantity was measured with equal settings
    settings: NDArray[np.int64]

    @classmethod
    def of(cls, evidence: Evidence, quantities: Sequence[MetricColumn]) -> Scores:
        """Scores of these quantities that the trials of a sweep recorded."""
        scores = evidence.scores
        chosen = scores.measured.metric.among(quantity.metric for quantity in quantities)
        trials, found = _by_appearance(scores.key.codes[chosen])
        keys = [scores.key.names[code] for code in found]
        data = {record.planned.key: _fingerprint(record) for record in evidence.records}
        places = {fingerprint: place for place, fingerprint in enumerate(dict.fromkeys(data.values()))}
        datasets = np.array([places[data[key]] for key in keys], np.int64)
        splits, names = scores.measured.split, scores.measured.object
        identities = datasets[trials] * len(splits.names) + splits.codes[chosen]
        identities = identities * len(names.names) + names.codes[chosen]
        objects, _ = _by_appearance(identities)
        shape = len(keys), len(quantities), objects.max(initial=-1) + 1
        values, present = np.full(shape, np.nan), np.zeros(shape, bool)
        for index, quantity in enumerate(quantities):
            wanted = _is_of(scores.measured, quantity)[chosen]
            where = trials[wanted], index, objects[wanted]
            values[where] = scores.measured.value[chosen][wanted]
            present[where] = True
        numbers = {key: index for index, key in enumerate(keys)}
        settings = _settings(evidence, keys, quantities)
        return cls(values, present, numbers, {each.name: index for index, each in enumerate(quantities)}, settings)

    def means(self, keys: Sequence[str], quantity: MetricColumn) -> tuple[float, ...]:
        """Mean over objects of each finished trial of `keys`; a NaN among the objects makes it NaN."""
        return tuple(self._by_trial(keys, quantity).values())

    def cell(
        self,
        keys: Sequence[str],
        quantity: MetricColumn,
        *,
        reference: float | None = None,
        sources: tuple[Source, ...] | None = None,
    ) -> Cell:
        """A cell with the `means`, each with the key of its trial."""
        found = self._by_trial(keys, quantity)
        return Cell(tuple(found.values()), keys=tuple(found), reference=reference, sources=sources)

    def _by_trial(self, keys: Sequence[str], quantity: MetricColumn) -> dict[str, float]:
        found = [key for key in keys if key in self.trials]
        scores = zip(found, *self._of(found, quantity), strict=False)
        return {key: float(values[present].mean()) for key, values, present in scores if present.any()}

    def crossed(self, keys: Sequence[str], quantity: MetricColumn) -> Floats | None:
        """Scores (trials, objects) on the objects that all finished trials of `keys` share; None without any."""
        values, present = self._of(keys, quantity)
        found = present.any(1)
        shared = present[found].all(0)
        if not found.any() or not shared.any():
            return None
        return values[np.ix_(found, shared)]

    def differences(self, pairs: Sequence[tuple[str, str]], quantity: MetricColumn) -> Floats | None:
        """Scores of the first minus the second of each pair, (pairs, objects), on the objects that all share.

        Pairs that lack one of the two, or were evaluated with other settings, are left out; None where nothing is left.
        """
        column = self.quantities.get(quantity.name)
        if column is None:
            return None
        places = [(self.trials.get(key), self.trials.get(other)) for key, other in pairs]
        recorded = self._is_recorded
        complete = [
            (first, second)
            for first, second in places
            if first is not None
            and second is not None
            and recorded[first, column]
            and recorded[second, column]
            and self.settings[first, column] == self.settings[second, column]
        ]
        if not complete:
            return None
        index = np.array(complete).T
        shared = self.present[index, column].all((0, 1))
        if not shared.any():
            return None
        first, second = self.values[index, column]
        with np.errstate(invalid="ignore"):  # of two infinite scores, which is NaN
            return (first - second).compress(shared, axis=1)

    @cached_property
    def _is_recorded(self) -> NDArray[np.bool_]:
        """(trials, quantities): whether there is a score of any object."""
        recorded: NDArray[np.bool_] = np.any(self.present, axis=2)
        return recorded

    def _of(self, keys: Sequence[str], quantity: MetricColumn) -> tuple[Floats, NDArray[np.bool_]]:
        rows = [self.trials[key] for key in keys if key in self.trials]
        column = self.quantities.get(quantity.name)
        if column is None or not rows:
            return np.empty((0, 0)), np.empty((0, 0), bool)
        return self.values[rows, column], self.present[rows, column]


def _is_of(measured: Measurements, quantity: MetricColumn) -> NDArray[np.bool_]:
    """Whether a score belongs to a quantity, (N,)."""
    is_its = measured.view_kind.among([quantity.view_kind]) & measured.metric.among([quantity.metric])
    return is_its if quantity.category is None else is_its & measured.category.among([quantity.category])


def _fingerprint(record: TrialRecord) -> str:
    return record.run.tags.get(FINGERPRINT_TAG, "") if record.run else ""


def _settings(evidence: Evidence, keys: Sequence[str], quantities: Sequence[MetricColumn]) -> NDArray[np.int64]:
    """(trials, quantities): numbers of the settings that determine the scores of a trial; costs have none."""
    planned = {record.planned.key: record.planned.flat_config for record in evidence.records}
    of_trials = [tuple((n, repr(v)) for n, v in planned[key].items() if determines_scores(n)) for key in keys]
    known: dict[frozenset[tuple[str, str]], int] = {}
    number = {
        (settings, quantity.name): known.setdefault(
            frozenset(pair for pair in settings if determines_object_scores(pair[0], quantity.metric)), len(known)
        )
        for settings in dict.fromkeys(of_trials)
        for quantity in quantities
        if quantity.view_kind in VIEW_KINDS
    }
    found = [[number.get((settings, quantity.name), -1) for quantity in quantities] for settings in of_trials]
    return np.array(found, np.int64).reshape(len(keys), len(quantities))


def _by_appearance(codes: NDArray[np.int64] | NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes (N,) -> (N,) numbers 0, 1, ... in the order of first appearance, and the code that each stands for."""
    distinct, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order))
    return numbers[inverse], distinct[order].astype(np.int64)
