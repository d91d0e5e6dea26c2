"""Continues a finished training whose stages are the beginning of a new training's.

Nothing in a step depends on the length of a training: a stage has one learning rate, schedules of losses and moving
averages count from the start of their stage, and batches and dropout are functions of (seed, iteration).  A training
with the same settings and the same first stages, the last of them as long or shorter, therefore went through the states
that the new one would go through, and the new one ends, on a CPU, with the bits of a training in one go.

A stage begins without Adam's state, with the weights that are evaluated.  A training that ended with a whole stage is
therefore continued from its weights.  One that ended within a stage of the new training needs its last checkpoint,
which `run.keep_optimizer` keeps, and so does one whose weights are the best and not the last (`train.keep`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load

from jobs.checkpoint import Checkpoint, CheckpointFolder
from jobs.config import TrialConfig
from jobs.keys import training_key, training_weights
from results.records.atomic import write_json
from results.records.damage import DamagedFileError, read_object
from results.records.home import training_folder, trainings_folder
from results.records.journal import Journal
from results.records.training_folder import read_training, read_weights
from results.records.trial_folder import CHECKPOINTS_FOLDER, CONFIG_FILENAME, ENVIRONMENT_FILENAME

log = logging.getLogger(__name__)

#: Stages, as in a training's identity.
_Stages = list[dict[str, Any]]


@dataclass(frozen=True)
class Beginning:
    """A finished training that equals the beginning of another one."""

    #: key of the training
    key: str
    #: its iterations
    step: int
    #: whether its weights suffice to continue it; otherwise its last checkpoint is needed
    is_whole: bool
    #: why it cannot be continued; empty where it can
    obstacle: str = ""

    def __str__(self) -> str:
        if self.obstacle:
            return f"training {self.key} is its beginning, but cannot be continued: {self.obstacle}"
        return f"continues training {self.key} from iteration {self.step}"


class Beginnings:
    """The finished trainings of a home, as beginnings of others."""

    def __init__(self, home: Path) -> None:
        self._home = home
        #: stages as JSON -> keys of the trainings with these stages
        self._keys: dict[str, set[str]] = {}
        for folder in sorted(trainings_folder(home).glob("*")):
            stages = _stages(folder) if read_training(folder) is not None else None
            if stages is not None:
                self._keys.setdefault(json.dumps(stages), set()).add(folder.name)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def of(self, config: TrialConfig, fingerprint: str, weights: Mapping[str, str]) -> Beginning | None:
        """The longest beginning of a training that can be continued, else the longest one; None where there is none.

        fingerprint: the dataset's; weights: the sha256 of at least all frozen weights that the training uses.
        """
        found = []
        for text, keys in self._keys.items():
            shorter = _shortened(config, json.loads(text))
            if shorter is None:
                continue
            key = training_key(shorter, fingerprint, {name: weights[name] for name in training_weights(shorter)})
            if key in keys:
                found.append(self._beginning(key, shorter, config))
        return max(found, key=lambda each: (not each.obstacle, each.step), default=None)

    def _beginning(self, key: str, shorter: TrialConfig, config: TrialConfig) -> Beginning:
        step, stages = shorter.train.iterations, shorter.train.stages
        is_at_end = stages[-1] == config.train.stages[len(stages) - 1]
        is_whole = is_at_end and config.train.keep == "last"
        obstacle = ""
        if config.train.keep == "best" and not is_at_end and step % (config.eval.every or step):
            obstacle = f"it compared its weights at iteration {step}, and this one would not (eval.every)"
        elif not is_whole:
            obstacle = _obstacle_of(_checkpoints(training_folder(self._home, key)))
        return Beginning(key, step, is_whole, obstacle)


def continue_training(
    config: TrialConfig, key: str, fingerprint: str, weights: Mapping[str, str], home: Path
) -> Beginning | None:
    """Prepare a new training to continue a finished one of its home, if one is its beginning.

    Writes the finished training's journal, environment and state into the new one's folder, from which it resumes.
    The caller holds the training's lock.  Returns the beginning; None if the training has begun or starts anew.
    """
    if is_begun(home, key):
        return None
    found = Beginnings(home).of(config, fingerprint, weights)
    if found is None:
        return None
    if found.obstacle or not _take_over(found, config, home, training_folder(home, key)):
        log.info("training %s starts anew: %s", key, found if found.obstacle else f"training {found.key} is damaged")
        return None
    log.info("training %s %s", key, found)
    return found


def is_begun(home: Path, key: str) -> bool:
    """Whether a training is finished, or has a checkpoint."""
    folder = training_folder(home, key)
    return read_training(folder) is not None or not _checkpoints(folder).is_empty()


def _obstacle_of(checkpoints: CheckpointFolder) -> str:
    """The reason why a finished training cannot be continued from its checkpoints; "" where it can."""
    if checkpoints.is_empty():
        return "its optimiser state was not kept (run.keep_optimizer)"
    return "its optimiser state was written by an earlier version" if checkpoints.refusal() else ""


def refusal(home: Path, key: str) -> str:
    """The reason why a training cannot be resumed from its last checkpoint; "" where it can, or has none."""
    return _checkpoints(training_folder(home, key)).refusal()


def _take_over(beginning: Beginning, config: TrialConfig, home: Path, folder: Path) -> bool:
    """Write the state of a beginning into the folder of another training; False where it is damaged."""
    source = training_folder(home, beginning.key)
    finished = read_weights(source)
    if finished is None:
        return False
    record, data = finished
    saved = _of_weights(record, data, config) if beginning.is_whole else _checkpoints(source).latest()
    if saved is None or saved.step != beginning.step:
        return False
    lineage = [*record.get("continued_from", []), {"training": beginning.key, "step": beginning.step}]
    with Journal(folder) as journal:
        journal.repeat(source)
        journal.continued(beginning.key, beginning.step)
    write_json(folder / ENVIRONMENT_FILENAME, record["environment"])
    _checkpoints(folder).save(replace(saved, extra=saved.extra | {"continued_from": lineage}))
    return True


def _of_weights(record: Mapping[str, Any], data: bytes, config: TrialConfig) -> Checkpoint:
    """The state at the end of a stage, from the record and the weights of a training."""
    prefixes = ("network.", "average.") if config.train.ema is not None else ("network.",)
    # Files hold no memory that two tensors share.
    tensors = {f"{prefix}{name}": tensor.clone() for name, tensor in load(data).items() for prefix in prefixes}
    return Checkpoint(int(record["step"]), tensors, {"averages": {"seconds": record["seconds"]}})


def _shortened(config: TrialConfig, stages: _Stages) -> TrialConfig | None:
    """The configuration with these stages alone; None where they are not the beginning of its own."""
    own, plain, count = config.train.stages, config.identity()["train"]["stages"], len(stages)
    if not 0 < count <= len(own):
        return None
    last = stages[-1] | {"iterations": plain[count - 1]["iterations"]}
    iterations = stages[-1]["iterations"]
    if [*stages[:-1], last] != plain[:count] or not iterations <= last["iterations"]:
        return None
    kept = (*own[: count - 1], own[count - 1].model_copy(update={"iterations": iterations}))
    train = config.train.model_copy(update={"stages": kept})
    return config.model_copy(update={"train": train}) if train.iterations < config.train.iterations else None


def _stages(folder: Path) -> _Stages | None:
    """The stages of a training; None where its configuration is missing or damaged."""
    try:
        stages = read_object(folder / CONFIG_FILENAME)["train"]["stages"]
    except (OSError, DamagedFileError, KeyError, TypeError):
        return None
    is_sound = isinstance(stages, list) and all(
        isinstance(stage, dict) and isinstance(stage.get("iterations"), int) for stage in stages
    )
    return stages if is_sound else None


def _checkpoints(folder: Path) -> CheckpointFolder:
    return CheckpointFolder(folder / CHECKPOINTS_FOLDER)
