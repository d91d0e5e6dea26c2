"""Evaluates networks in files in the same way as trials: published ones, trained elsewhere, and ours on other data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from filelock import FileLock

from jobs.config import DEFAULT_METHOD, TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.requirements import Requirements
from jobs.data.store import Store
from jobs.device import choose_device, prepare
from jobs.environment import arithmetic_of, describe_environment
from jobs.evaluate import Evaluation, evaluate_predictions, predicting
from jobs.features import ContextReader
from jobs.keys import (
    EVALUATION_VERSION,
    NUMERICS_VERSION,
    evaluation_weights,
    training_key,
    training_weights,
    trial_key,
)
from jobs.model_file import OwnNetwork
from jobs.precision import products
from jobs.reconstructor import build_reconstructor
from jobs.samples import sample_sheet
from jobs.trained import report_other_weights
from jobs.trial import weight_identities
from model.context import find_source
from model.official import PublishedFile, read_weights, recognise
from model.scenes import Reconstructor
from model.weights import WeightStore
from model.weights.readers import reason_of, training_checkpoint
from results.records.atomic import write_json
from results.records.hashing import file_sha256
from results.records.home import cache_folder, weights_folder
from results.records.trial_folder import (
    CONFIG_FILENAME,
    ENVIRONMENT_FILENAME,
    MEASUREMENTS_FILENAME,
    RESULT_FILENAME,
    SHEET_FILENAME,
    read_result,
)


class Network(Protocol):
    """A trained network in a file, with the settings that it determines."""

    @property
    def path(self) -> Path: ...
    @property
    def sha256(self) -> str: ...
    @property
    def iteration(self) -> int | None:
        """Recorded number of training iterations; None where it is not recorded."""

    @property
    def frozen(self) -> Mapping[str, str]:
        """Sha256 of the frozen weights of its training by name; empty where they are not recorded."""

    def settings(self, dataset: str) -> dict[str, Any]:
        """Settings of a trial's configuration that the file determines, for evaluation on one of our datasets."""

    def check_method(self, name: str, dataset: str) -> None:
        """Raise ValueError where `name` is another method than that of the file."""

    def check(self, config: TrialConfig) -> None:
        """Raise ValueError where a configuration does not fit the network."""

    def load(self, network: Reconstructor) -> Reconstructor:
        """Give `network` copies of the tensors; returns it.  Raises ValueError where they do not fit."""


def read_network(path: Path) -> Network:
    """The network of a file: ours, or a published one.  Raises ValueError for any other file."""
    return OwnNetwork.read(path) if path.suffix == ".safetensors" else OfficialCheckpoint.read(path)


def stored_network(name: str, weights: WeightStore) -> Network:
    """The network that a store has, or fetches, under one of the names of `train.start`.

    Raises the errors of `WeightStore.load`, and `DamagedFileError` for one of ours that this version does not read.
    """
    tensors, path, sha256 = weights.load(name), weights.fetch(name), str(weights.identity(name))
    settings = weights.config(name)
    if settings:
        return OwnNetwork(path, sha256, TrialConfig.recorded(settings, path), tensors)
    return OfficialCheckpoint(path, sha256, None, recognise(tensors))


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A published file: its network's tensors, and the settings that follow from them."""

    path: Path
    sha256: str
    #: recorded number of training iterations; None where it is not recorded
    iteration: int | None
    file: PublishedFile
    frozen: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @classmethod
    def read(cls, path: Path) -> OfficialCheckpoint:
        """Read a file; nothing in it is executed.  Raises ValueError for anything but a published checkpoint."""
        sha256 = file_sha256(path)
        content = _load(path)
        try:
            file = recognise({name: tensor.float() for name, tensor in read_weights(content).items()})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(path, sha256, _whole(content.get("iteration")), file)

    def settings(self, dataset: str) -> dict[str, Any]:
        """Settings of a trial's configuration that the file determines, for evaluation on one of our datasets."""
        return self.file.settings(dataset)

    def check_method(self, name: str, dataset: str) -> None:
        """Raise ValueError where `name` is another method than that of the file."""
        method = self.settings(dataset)["model"].get("name", DEFAULT_METHOD)
        if name != method:
            raise ValueError(
                f"{self.path} is a file of model.name {method}, not of {name}; leave model.name out, since it follows "
                "from the file"
            )

    def load(self, network: Reconstructor) -> Reconstructor:
        """Give `network` copies of the tensors; returns it.  Raises ValueError where they do not fit."""
        try:
            return self.file.load(network)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def check(self, config: TrialConfig) -> None:
        """Raise ValueError where the configuration names another method, or lacks context that the network requires."""
        self.check_method(config.model.name, config.data.name)
        for source, (way, width) in self.file.contexts.items():
            if config.sources[source].choice == "none":
                switch = find_source(source).switch
                raise ValueError(
                    f"{self.path}: this network takes {source} context of width {width} by {way}; "
                    f"name its model, e.g. --set {source}.{switch}=... --set {source}.preprocess=published"
                )


@dataclass(frozen=True)
class OfficialResult:
    """Results of one evaluation of a checkpoint."""

    key: str
    folder: Path
    #: means over objects: "novel/psnr", "conditioned/lpips", ...
    metrics: dict[str, float]


def evaluate_checkpoint(checkpoint: Network, config: TrialConfig, home: Path) -> OfficialResult:
    """Evaluates a checkpoint on `config.data` with the settings of `config.eval`; returns an existing result at once.

    Writes `per_object.parquet`, samples and `result.json` into `home/official/<sha16>-<dataset>-<key>`.
    Raises ValueError where the tensors do not fit the configuration, or the dataset lacks what it needs.
    """
    checkpoint.check(config)
    store = open_dataset(config.data.name, config.data.options, home)
    if problems := Requirements(store).evaluation_problems(config):
        raise ValueError("; ".join(problems))
    weights = weight_identities(config, home, replaced=config.method.weights(config.model))
    report_other_weights(str(checkpoint.path), checkpoint.frozen, config, weights.get)
    used = {name: weights[name] for name in training_weights(config) if name in weights}
    used["checkpoint"] = checkpoint.sha256
    metrics = {name: weights[name] for name in evaluation_weights(config)}
    key = trial_key(training_key(config, store.fingerprint, used), config, store.fingerprint, metrics)
    folder = home / "official" / f"{checkpoint.sha256[:16]}-{config.data.name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        result = read_result(folder)
        if result is None:
            evaluation = _evaluate(checkpoint, config, store, home)
            result = _write(evaluation, folder, config) | {
                "key": key,
                "checkpoint": {"name": checkpoint.path.name, "sha256": checkpoint.sha256},
                "step": checkpoint.iteration,
                **store.provenance,
                "weights": weights,
                "numerics": NUMERICS_VERSION,
                "evaluation": EVALUATION_VERSION,
            }
            write_json(folder / RESULT_FILENAME, result)
    return OfficialResult(key, folder, result["metrics"])


def _evaluate(checkpoint: Network, config: TrialConfig, store: Store, home: Path) -> Evaluation:
    device = choose_device()
    frozen = WeightStore(weights_folder(home))
    # The features of a whole training split may take days.
    context = ContextReader(config, store, frozen, cache_folder(home), device, splits=(config.eval.split,))
    built = build_reconstructor(config, context.widths, frozen, initial=False)
    predictor = prepare(checkpoint.load(built), device)
    with products(config.train.precision):
        return evaluate_predictions(predicting(predictor, context, config), config, store, frozen, device)


def _write(evaluation: Evaluation, folder: Path, config: TrialConfig) -> dict[str, Any]:
    """Write all files but the result itself, and return its measured part."""
    evaluation.write(folder)
    sample_sheet(evaluation.samples).save(folder / SHEET_FILENAME)
    write_json(folder / CONFIG_FILENAME, config.identity())
    computed = arithmetic_of(config, choose_device())
    arithmetic = [] if computed is None else [computed.as_json()]
    write_json(folder / ENVIRONMENT_FILENAME, describe_environment() | {"arithmetic": arithmetic})
    return {
        "arithmetic": arithmetic,
        "metrics": evaluation.means(),
        "per_object_sha256": file_sha256(folder / MEASUREMENTS_FILENAME),
        "finished": time.time(),
    }


def _whole(value: Any) -> int | None:
    """A whole number of any type; None for all else."""
    is_whole = isinstance(value, Real) and value % 1 == 0  # NaN and infinity leave NaN
    return int(value) if is_whole else None


def _load(path: Path) -> Mapping[str, Any]:
    try:
        return training_checkpoint(path)
    except Exception as error:  # on other files the reader raises any kind of error
        raise ValueError(f"{path} is no checkpoint that can be read safely: {reason_of(error)}") from error
