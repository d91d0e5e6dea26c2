"""Checks a configuration's requirements against the dataset's store, before anything is trained.

Planning and trials use the same checks, so that errors are found before training.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

from jobs.config import TrialConfig
from jobs.contexts import frozen_class
from jobs.data.sampling import evaluation_frames
from jobs.data.store import SPLITS, Store
from model.context import find_source
from model.rasterizers import NEAR_PLANE
from results.metrics import METRICS


class Requirements:
    """Checks configurations against one store; repeated queries are cached."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Thousands of trials of a plan read the same few facts, each of which takes a search in the store's objects.
        self._cached_problem = cache(self._evaluation_problem)
        self._rows = cache(self._rows_of)
        self._lacks = cache(self._lacking)

    def problems(self, config: TrialConfig) -> list[str]:
        """Requirements of `config` that the store does not meet, one sentence each that begins with the key."""
        return list(dict.fromkeys(self._found(config)))

    def evaluation_problems(self, config: TrialConfig) -> list[str]:
        """The problems of evaluating a network that is trained already."""
        return list(dict.fromkeys(self._found_in_evaluation(config)))

    def _found(self, config: TrialConfig) -> Iterator[str]:
        if config.iterations:
            yield from self._training_problems(config)
        yield from self._found_in_evaluation(config)

    def _found_in_evaluation(self, config: TrialConfig) -> Iterator[str]:
        name, store = config.data.name, self._store
        if config.data.resolution > store.resolution:
            yield (
                f"data.resolution {config.data.resolution}: dataset {name!r} has images of {store.resolution} px; "
                "see its options for larger ones"
            )
        if config.is_trained:
            yield from self._context_problems(config)
            if config.method.scene == "gaussians" and (problem := self._before_the_near_plane()):
                yield f"data.name {name}: {problem}"
        views = config.model.input_views
        if problem := self._cached_problem(config.eval.split, config.eval.objects, views):
            yield f"eval.split {config.eval.split}: {problem}"
        for metric in config.metrics:
            if lacking := self._lacks(metric):
                fitting = ", ".join(other for other in METRICS if not self._lacks(other))
                yield f"eval.metrics {metric}: dataset {name!r} has no {' and no '.join(lacking)}; allowed: {fitting}"

    def _before_the_near_plane(self) -> str | None:
        """The reason why Gaussians in the middle of the depth bounds, where networks start, are not drawn; or None."""
        facts = self._store.manifest
        if facts.bounds_from_origin or facts.near + facts.far > 2 * NEAR_PLANE:
            return None
        return (
            f"its depth bounds are {facts.near:.3g} and {facts.far:.3g} scene units, and rasterisers draw no "
            f"Gaussians at a camera z up to {NEAR_PLANE}; leave out data.options.normalised: false, "
            "or scale its cameras"
        )

    def _lacking(self, metric: str) -> list[str]:
        """Ground truth that a metric needs and the store does not have."""
        return [need for need in sorted(METRICS[metric].of_truth) if getattr(self._store, need) is None]

    def _training_problems(self, config: TrialConfig) -> Iterator[str]:
        train, views = config.train, config.model.input_views
        objects = self._rows("train")
        if not len(objects):
            yield f"data.name {config.data.name}: there is nothing to train on; {self._present()}"
        else:
            frames, fewest = self._fewest_frames
            if train.views_per_object > frames:
                yield f"train.views_per_object {train.views_per_object}: {fewest}, which is the most"
            if views > frames:
                yield f"model.input_views {views}: {fewest}, which is the most"
            if train.batch_size > len(objects):
                yield (
                    f"train.batch_size {train.batch_size}: the train split has {len(objects)} objects, which is the "
                    "most that a batch holds without one twice"
                )
        every = config.eval.every
        if every and (problem := self._cached_problem("val", config.eval.val_objects, views)):
            yield f"eval.every {every}: {problem}"

    @cached_property
    def _fewest_frames(self) -> tuple[int, str]:
        """The least number of frames that an object of the train split has, and a phrase that names it."""
        objects = self._rows("train")
        row = objects.loc[objects["num_frames"].idxmin()]
        return int(row["num_frames"]), f"object {row['object']!r} of the train split has {row['num_frames']} frames"

    def _context_problems(self, config: TrialConfig) -> Iterator[str]:
        for source, section in config.sources.items():
            model = frozen_class(section)
            if model is None:
                continue
            key = f"{source}.{find_source(source).switch} {section.choice}"
            if model.needs_depth and self._store.depth is None:
                yield f"{key}: it reads the dataset's own depth, and {config.data.name} as it is prepared has none"
            if model.cached:  # required of all views that can be a source, independent of the evaluation
                for split in SPLITS[1:]:
                    if len(self._rows(split)) and (
                        problem := self._cached_problem(split, None, config.model.input_views)
                    ):
                        yield f"{key}: {problem}"

    def _evaluation_problem(self, split: str, limit: int | None, input_views: int) -> str | None:
        """The reason why the first `limit` objects of a split cannot be evaluated from their sources, or None."""
        rows = self._rows(split)
        if not len(rows):
            return f"the dataset has no objects in the {split} split; {self._present()}"
        novel = False
        for row in rows.head(len(rows) if limit is None else limit).itertuples():
            try:
                novel |= len(evaluation_frames(row, self._store.manifest.evaluation, input_views)) > input_views
            except ValueError as error:
                return f"{error} ({split} split; the protocol of {self._store.manifest.importer})"
        return None if novel else f"no object of the {split} split has views beside its {input_views} sources"

    def _rows_of(self, split: str) -> Any:
        return self._store.objects[self._store.objects["split"] == split]

    def _present(self) -> str:
        counts = {split: len(self._rows(split)) for split in SPLITS}
        return "it has " + ", ".join(f"{count} in {split}" for split, count in counts.items() if count)
