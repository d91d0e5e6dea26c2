"""The worker's side of trials on nodes that do not see the home: they run in a scratch home and send their files.

The trial's files travel by `sweep.run.executors.ray.trial_sync`.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

from jobs.config import TrialConfig
from jobs.data.prepare import MissingDatasetError, open_dataset
from jobs.keys import frozen_weights, keys_of
from jobs.trial import Runtime, TrialResult, run_trial, weight_identities
from model.weights import MissingWeightsError, WeightStore
from results.records.disk import DiskFullError, full_disk_explained
from results.records.home import weights_folder
from results.records.permissions import widen_umask
from sweep.run.executors.ray.scratch import SCRATCH_VARIABLE, require_apart, scratch_home
from sweep.run.executors.ray.trial_sync import Call, TrialSync
from sweep.run.executors.run_guarded import GuardedRun, TrialFunction, run_guarded


class NodeLacksError(RuntimeError):
    """A node that does not see the home lacks the planned dataset or weights."""


def run_remotely(
    call: Call,
    key: str,
    training: str | None,
    config: TrialConfig,
    home: Path,
    runtime: Runtime,
    fail_fast: bool,
    work: TrialFunction = run_trial,
    gpu_share: float = 1.0,
) -> GuardedRun:
    """Like `run_guarded`, but in the scratch home; `call` transfers the trial's files from and to `home`.

    training: key of the trial's training; None for a trivial baseline.  A full disk stops the sweep, also where it
    interrupts the transfer.  Other errors of the scratch home and of the transfer are raised; one is ValueError, where
    the scratch home and the home share trials.
    """
    scratch = scratch_home()
    require_apart(scratch, home)
    widen_umask(scratch)  # others who may write there use the folders of workers too
    try:
        with full_disk_explained(scratch), TrialSync(call, key, training, scratch) as sync:
            runtime = replace(runtime, stop_file=str(sync.stop_file))
            work = _with_same_inputs(key, home, sync, work)
            return run_guarded(key, config, scratch, runtime, fail_fast, work, gpu_share)
    except DiskFullError as error:
        call("report_full_disk", f"node {socket.gethostname()}: {error}")
        return GuardedRun()


def _with_same_inputs(key: str, home: Path, sync: TrialSync, work: TrialFunction) -> TrialFunction:
    """Wraps `work` with a check that the node has the dataset and weights that the trial was planned with.

    Its training continues one of the driver's home where it can, as it would on a node that sees the home.
    """

    def there(config: TrialConfig, scratch: Path, runtime: Runtime) -> TrialResult:
        place = f"node {socket.gethostname()} does not see {home} and works in {scratch}"
        try:
            store, weights = open_dataset(config.data.name, config.data.options, scratch), weights_folder(scratch)
            for name in frozen_weights(config):
                WeightStore(weights).fetch(name)
        except (MissingDatasetError, MissingWeightsError) as error:
            hint = f"on that node, give --home {scratch}, or set {SCRATCH_VARIABLE} to a folder that has it"
            raise NodeLacksError(f"{place}: {error}\n({hint})") from error
        identities = weight_identities(config, scratch)
        if keys_of(config, store.fingerprint, identities).trial != key:
            content = ", ".join([f"dataset {store.fingerprint}", *(f"{n} {sha}" for n, sha in identities.items())])
            raise NodeLacksError(
                f"{place}, where the dataset or weights differ from those that were planned: {content}"
            )
        sync.continue_training(config, store.fingerprint, identities)
        return work(config, scratch, runtime)

    return there
