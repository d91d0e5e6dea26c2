"""Trainings of a home: each runs once, and all trials that evaluate it read its weights."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save

from jobs.checkpoint import Checkpoint, CheckpointFolder
from jobs.config import TrialConfig
from jobs.contexts import frozen_class, frozen_options
from jobs.continuation import continue_training
from jobs.data.prepare import open_dataset
from jobs.data.store import SPLITS, Store
from jobs.device import prepare, prepare_loss, steady_memory
from jobs.environment import arithmetic_of, drawing_backend, training_environment
from jobs.evaluate import Evaluation
from jobs.execution import CompileMode, captures_steps, choose_execution, prepare_training, share_compiled_code
from jobs.features import ContextReader
from jobs.keys import NUMERICS_VERSION, training_identity, training_weights
from jobs.lock import exclusive_lock
from jobs.reconstructor import build_reconstructor
from jobs.training import Pace, TrainedNetwork, train
from model.losses import LOSSES
from model.losses.base import Loss
from model.registry import resolve
from model.scenes import Reconstructor
from model.weights import WeightStore
from results.invocation import home_command
from results.records.arithmetic import Execution
from results.records.atomic import write_atomically, write_json
from results.records.frozen_plans import read_plans
from results.records.home import cache_folder, plan_file, training_folder, trial_folder, weights_folder
from results.records.journal import Journal
from results.records.training_folder import (
    RECORD_FILENAME,
    WEIGHTS_FILENAME,
    read_training,
    read_weights,
    training_of,
)
from results.records.trial_folder import CHECKPOINTS_FOLDER, CONFIG_FILENAME, ENVIRONMENT_FILENAME, LOCK_FILENAME

#: Digits of a fingerprint in messages.
_SHOWN = 8

log = logging.getLogger(__name__)

#: A network -> its evaluation on the validation split.
Validate = Callable[[Reconstructor, ContextReader], Evaluation]


class FinishedTraining(NamedTuple):
    """A finished training, ready to reconstruct."""

    reconstructor: Reconstructor
    context: ContextReader
    #: as `results.records.training_folder` describes it
    record: dict[str, Any]


class LoadedNetwork(NamedTuple):
    """A trained network with everything needed to use it."""

    config: TrialConfig
    reconstructor: Reconstructor
    context: ContextReader


class OpenedTraining(NamedTuple):
    """A training with its configuration and its dataset, before its network is loaded."""

    home: Path
    folder: Path
    config: TrialConfig
    store: Store

    def load(self, device: torch.device | str = "cpu", splits: Collection[str] | None = None) -> LoadedNetwork:
        """The evaluated network; if unfinished, that of its last checkpoint.  Raises ValueError without weights.

        Its context is of views of these splits, by default of the evaluated one.
        """
        weights = WeightStore(weights_folder(self.home))
        wanted = splits or (self.config.eval.split,)
        in_order = [split for split in SPLITS if split in wanted]
        cache = cache_folder(self.home)
        context = ContextReader(self.config, self.store, weights, cache, device, splits=in_order)
        network = load_network(self.folder, self.config, context.widths, weights, device)
        return LoadedNetwork(self.config, network, context)


class _SharedJournal:
    """Writes a training's metrics to its own journal and to that of the trial that runs it."""

    def __init__(self, *journals: Journal) -> None:
        self._journals = journals

    def start(self, step: int) -> None:
        """Training continues after `step` finished iterations."""
        for journal in self._journals:
            journal.start(step)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values measured after `step` finished iterations."""
        for journal in self._journals:
            journal.metrics(step, values)


def train_once(
    config: TrialConfig,
    key: str,
    store: Store,
    home: Path,
    *,
    frozen: Mapping[str, str],
    weights: WeightStore,
    journal: Journal,
    validate: Validate,
    device: torch.device,
    pace: Pace,
    compile_mode: CompileMode = "auto",
    keep_optimizer: bool = False,
) -> FinishedTraining:
    """The training of a key: loaded from its folder if finished, otherwise trained to its end.

    A training that was not begun continues a finished one of the home that is its beginning (`jobs.continuation`);
    `keep_optimizer` keeps the last checkpoint, so that others can continue this one.
    Afterwards `journal`, the trial's, holds all metrics of the training, including earlier ones.  If another trial
    runs the training at the moment, this waits for it.  `frozen` maps all frozen weights in use to their sha256.
    Raises the errors of `train`.
    """
    folder = training_folder(home, key)
    folder.mkdir(parents=True, exist_ok=True)
    begun = partial(journal.start, 0)  # waiting and computing features may take hours
    with exclusive_lock(folder / LOCK_FILENAME, f"training {key}", pace.should_stop, begun):
        continue_training(config, key, store.fingerprint, frozen, home)
        journal.repeat(folder)
        splits = (config.eval.split,) if config.is_given else SPLITS
        context = ContextReader(
            config, store, weights, cache_folder(home), device, pace.should_stop, begun, splits=splits
        )
        network = prepare(build_reconstructor(config, context.widths, weights), device)
        record = _restored(folder, network)
        if record is not None:
            journal.start(record["step"])
        else:
            mode = "never" if config.is_given else compile_mode
            execution, in_one_graph = _prepared(network, config, device, mode, home)
            write_json(folder / CONFIG_FILENAME, training_identity(config))
            environment = training_environment(folder, arithmetic_of(config, device, execution))
            write_json(folder / ENVIRONMENT_FILENAME, environment)
            with steady_memory(device), Journal(folder) as own:
                trained = train(
                    network,
                    context,
                    _losses(config, weights, device),
                    store,
                    config,
                    journal=_SharedJournal(own, journal),
                    checkpoints=CheckpointFolder(folder / CHECKPOINTS_FOLDER),
                    validate=lambda current: validate(current, context),
                    device=device,
                    pace=pace,
                    captures_steps=in_one_graph,
                )
            network = trained.network
            known = {"key": key, "environment": environment, "keeps_optimizer": keep_optimizer, **store.provenance}
            known["weights"] = {name: frozen[name] for name in training_weights(config)}
            record = _written(folder, trained, config, known)
        if record.get("keeps_optimizer"):
            CheckpointFolder(folder / CHECKPOINTS_FOLDER).keep_newest()
        else:  # checkpoints have three to five times the size of the weights
            shutil.rmtree(folder / CHECKPOINTS_FOLDER, ignore_errors=True)
    return FinishedTraining(network, context, record)


def load_trained(home: Path, key: str, device: torch.device | str = "cpu") -> LoadedNetwork:
    """The evaluated network of a trial or a training with this key; if unfinished, that of its last checkpoint.

    Raises the errors of `open_trained` and `OpenedTraining.load`.
    """
    return open_trained(home, key).load(device)


def open_trained(home: Path, key: str) -> OpenedTraining:
    """The training of a trial, or with this key.  Raises the errors of `find_trained`."""
    folder, config = find_trained(home, key)
    return OpenedTraining(home, folder, config, dataset_of(folder, config, home))


def load_network(
    folder: Path, config: TrialConfig, widths: Mapping[str, int], weights: WeightStore, device: torch.device | str
) -> Reconstructor:
    """The network whose weights, or last checkpoint, `folder` holds; `widths` are those of its contexts.

    Raises ValueError where there are neither.
    """
    network = prepare(build_reconstructor(config, widths, weights, initial=False), torch.device(device))
    record = _restored(folder, network)
    if record is None:
        network.load_state_dict(last_checkpoint(folder).evaluated)
    else:
        report_other_weights(f"training {folder.name}", record.get("weights", {}), config, weights.identity)
    return network.eval()


def report_other_weights(
    network: str, former: Mapping[str, str], config: TrialConfig, identity: Callable[[str], str | None]
) -> None:
    """Logs a warning for every frozen model of the context whose weights are not those of the training any more.

    network: its name in the warning; former: the sha256 of its frozen weights by name, where recorded; identity: name
    -> sha256 of the weights that there are now.
    """
    for section in config.sources.values():
        model = frozen_class(section)
        for name in () if model is None else model.weights(frozen_options(section)):
            then, now = former.get(name), identity(name)
            if then and now and then != now:
                log.warning(
                    "%s: trained with other weights %s (%s) than there are now (%s); "
                    "it may reconstruct worse with these",
                    network,
                    name,
                    then[:_SHOWN],
                    now[:_SHOWN],
                )


def last_checkpoint(folder: Path) -> Checkpoint:
    """The last checkpoint in a folder that has no usable weights.  Raises ValueError where there is none."""
    checkpoint = CheckpointFolder(folder / CHECKPOINTS_FOLDER).latest()
    if checkpoint is None:
        raise ValueError(
            f"{folder} has no usable weights, and no checkpoint (an archive has neither); `splatsweep run` trains it"
        )
    return checkpoint


def dataset_of(
    folder: Path,
    config: TrialConfig,
    home: Path,
    find: Callable[[str, Mapping[str, Any], Path], Store] = open_dataset,
) -> Store:
    """The dataset of the training in a folder; `find` opens it.  A warning says where it has been prepared anew since.

    Its pictures and cameras may then be others than those of the training.
    """
    store = find(config.data.name, config.data.options, home)
    record = read_training(folder) or {}
    former = {record[name] for name in store.provenance if record.get(name)}
    if former and former.isdisjoint(store.provenance.values()):
        log.warning(
            "training %s was of other data (%s) than dataset %s as it is prepared now (%s): its cameras and pictures "
            "may be others",
            folder.name,
            record["data_fingerprint"][:_SHOWN],
            config.data.name,
            store.fingerprint[:_SHOWN],
        )
    return store


def _prepared(
    network: Reconstructor, config: TrialConfig, device: torch.device, compile_mode: CompileMode, home: Path
) -> tuple[Execution, bool]:
    """Prepares a network for training.  Returns how it runs, and whether a whole step is captured as one graph."""
    execution = choose_execution(device, compile_mode)
    share_compiled_code(cache_folder(home))
    in_one_graph = captures_steps(execution, drawing_backend(config, device), device)
    precision = config.train.precision
    return prepare_training(network, device, execution, precision, in_captured_step=in_one_graph), in_one_graph


def _losses(config: TrialConfig, weights: WeightStore, device: torch.device) -> dict[str, Loss]:
    """The losses of all stages by name, on the device."""
    names = sorted({name for stage in config.train.stages for name in stage.losses})
    return {
        name: prepare_loss(resolve(LOSSES, name, "loss")(weights), device, config.train.precision) for name in names
    }


def _written(folder: Path, trained: TrainedNetwork, config: TrialConfig, known: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the weights and the record of a finished training, which has the `known` members; returns the record."""
    data = save({name: tensor.detach().contiguous() for name, tensor in trained.network.state_dict().items()})
    write_atomically(folder / WEIGHTS_FILENAME, data)
    record = {
        **known,
        "step": config.train.iterations,
        "judged_step": trained.step,
        "seconds": trained.seconds,
        "continued_from": trained.continued_from,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "numerics": NUMERICS_VERSION,
        "finished": time.time(),
    }
    write_json(folder / RECORD_FILENAME, record)
    return record


def _restored(folder: Path, network: Reconstructor) -> dict[str, Any] | None:
    """Loads a finished training's weights into `network` and returns its record; None if unfinished or damaged."""
    found = read_weights(folder)
    if found is None:
        return None
    record, data = found
    network.load_state_dict(load(data))
    return record


def find_trained(home: Path, key: str) -> tuple[Path, TrialConfig]:
    """The folder of the training of a trial, or with this key, and its configuration.

    Raises ValueError for an unknown key, a planned trial that has not begun, and a trial without a network.
    """
    trial = trial_folder(home, key)
    folder = training_folder(home, training_of(trial) or key)
    for path in (trial / CONFIG_FILENAME, folder / CONFIG_FILENAME):
        if path.is_file():
            config = TrialConfig.read(path)
            if not config.is_trained:
                raise ValueError(f"trial {key} has no network ({config.model.name})")
            return folder, config
    for plan in read_plans(home):
        for planned in plan.everything:
            if key in (planned.key, planned.training):
                training = training_folder(home, planned.training or key)
                if read_training(training) is not None:  # it is to be evaluated
                    return training, TrialConfig.recorded(planned.config, plan_file(home, plan.sweep))
                hint = home_command(home, "run", "SWEEP")
                raise ValueError(
                    f"trial {planned.name!r}, seed {planned.seed}, of sweep {plan.sweep!r} has not begun; "
                    f"run its sweep file with: {hint}"
                )
    raise ValueError(f"{key} is neither a trial nor a training of {home}")
