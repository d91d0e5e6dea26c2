"""The queue of a search's trials: the planned ones first, then those that the study proposes.

Trials are identified by their keys.  A configuration whose key already has a result (of a planned trial, another
sweep or an earlier proposal) is not trained; the study receives that result.  After a crash the study is rebuilt from
the ledger and the trials' folders, and continues up to exactly the configured number of proposals.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from jobs.config import TrialConfig
from jobs.stop import is_requested
from results.records.damage import DamagedFileError, pass_over
from results.records.home import sweep_folder, trial_folder
from results.records.ledger import Proposal, append_proposal, read_proposals
from results.records.monitor import Monitor
from results.records.plan import ENDED
from results.records.trial_folder import PRUNE_FILENAME
from sweep.file.schema import Sweep
from sweep.plan.planner import Identities, Plan, PlannedTrial
from sweep.run.stop import request_prune, withdraw_prune
from sweep.search.outcome import Outcome, outcome, reported
from sweep.search.pruners import TrialLength
from sweep.search.space import configurations, examples, params_of
from sweep.search.study import Study

_PRUNE_INTERVAL_S = 1.0
#: The outcome of a proposal whose parameters do not fit together.
_MISFIT = Outcome("failed")


class SearchQueue:
    """A source of trials (`sweep.run.executors.queue`) that adds its proposals to the plan."""

    #: it always proposes the next trial, whatever runs
    is_growing = False

    def __init__(
        self,
        sweep: Sweep,
        home: Path,
        plan: Plan,
        first: Sequence[PlannedTrial],
        *,
        stop_file: Path | None = None,
        retried: Collection[str] = (),
        on_growth: Callable[[Plan], None] = lambda _: None,
        monitor: Monitor | None = None,
    ) -> None:
        """first: trials to run before any proposal; retried: keys of failed trials to run again.

        on_growth is called with the new plan before any trial of it is handed out; nothing is proposed once
        `stop_file` exists.
        """
        assert sweep.search is not None
        assert plan.search is not None
        self.plan = plan
        self._sweep, self._search, self._home = sweep, sweep.search, home
        self._state, self._stop_file, self._on_growth = plan.search, stop_file, on_growth
        self._folder = sweep_folder(home, sweep.name)
        self._identify = Identities(home)
        self._monitor = monitor or Monitor(home)
        self._lock = threading.RLock()
        self._queue = deque(first)
        self._handed: list[PlannedTrial] = []
        #: keys of trials that are queued or run
        self._open = {trial.key for trial in first}
        #: planned configurations in the space, one trial per seed, whose outcomes the study does not have yet
        self._evidence = self._planned_in_space()
        #: proposal -> keys, for proposals whose outcome the study does not have yet
        self._awaited: dict[int, tuple[str, ...]] = {}
        self._study = Study(self._search, self._trial_length())
        self._recall(retried)

    @property
    def trials(self) -> Sequence[PlannedTrial]:
        """All trials handed out or queued, in order."""
        with self._lock:
            return [*self._handed, *self._queue]

    def next(self) -> PlannedTrial | None:
        """The next trial; None when the search is complete or the stop file exists."""
        with self._lock:
            self._tell()
            if is_requested(self._stop_file):
                return None
            while not self._queue and self._state.proposed < self._search.trials:
                self._propose()
                self._tell()
            if not self._queue:
                return None
            self._handed.append(self._queue.popleft())
            return self._handed[-1]

    def ended(self, trial: PlannedTrial) -> None:
        """Marks a trial as no longer running."""
        with self._lock:
            self._open.discard(trial.key)
            self._tell()

    @contextmanager
    def pruning(self) -> Iterator[None]:
        """While the body runs, requests that running trials stop which the pruner rejects."""
        if self._search.pruner == "none":
            yield
            return
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(_PRUNE_INTERVAL_S):
                with self._lock:
                    self._prune()

        thread = threading.Thread(target=watch, name="pruner", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # Proposals

    def _recall(self, retried: Collection[str]) -> None:
        """Replays the ledger's proposals into the study, and queues those of their trials that have not ended."""
        self._tell()
        for proposal in read_proposals(self._folder, self._state.study):
            self._study.recall(proposal.number, proposal.params)
            self._register(proposal.number, [t for t in self.plan.trials if proposal.number in t.proposals], retried)
            self._tell()

    def _propose(self) -> None:
        number = self._state.proposed
        proposal = Proposal(self._state.study, number, self._study.ask(number))
        append_proposal(self._folder, proposal)
        trials = [self._planned(config, proposal) for config in configurations(self._sweep, proposal.params)]
        known = {trial.key: trial for trial in trials}
        rest = {trial.key for trial in self.plan.trials}
        self._state = self._state.refreshed((), proposed=number + 1)
        self.plan = replace(
            self.plan,
            trials=(
                *(known.get(trial.key, trial) for trial in self.plan.trials),
                *(trial for trial in trials if trial.key not in rest),
            ),
            search=self._state,
        )
        self._on_growth(self.plan)
        self._register(number, trials)

    def _planned(self, config: TrialConfig, proposal: Proposal) -> PlannedTrial:
        """A trial of a proposal: a new one, or one in the plan, which gets one more name."""
        identity = self._identify(config)
        for trial in self.plan.trials:
            if trial.key == identity.key:
                names, numbers = (*trial.names, proposal.name), (*trial.proposals, proposal.number)
                return replace(trial, names=names, proposals=numbers)
        status = self._monitor.look(identity.key).status
        return PlannedTrial(
            identity.key,
            (proposal.name,),
            config.seed,
            config,
            status,
            identity.missing,
            (proposal.number,),
            training=identity.training,
            defaults=config.omitted_defaults(),
        )

    def _register(self, number: int, trials: Sequence[PlannedTrial], retried: Collection[str] = ()) -> None:
        """Registers a proposal whose outcome is pending, and queues those of its trials that have to run."""
        self._awaited[number] = tuple(trial.key for trial in trials)
        for trial in trials:
            if trial.key in self._open:
                continue
            status = self._monitor.look(trial.key).status
            if status == "pruned" and self._search.pruner == "none":
                withdraw_prune(self._trial_folder(trial.key))
            elif status in ENDED and trial.key not in retried:
                continue
            self._open.add(trial.key)
            self._queue.append(trial)

    # Outcomes

    def _tell(self) -> None:
        """Passes new outcomes to the study: those of planned trials, then those of proposals."""
        for planned in list(self._evidence):
            self._tell_of_planned(planned)
        for number, keys in list(self._awaited.items()):
            if not self._open.isdisjoint(keys):
                continue
            found = outcome([self._monitor.look(key) for key in keys], self._search.metric) if keys else _MISFIT
            if found is not None:
                self._report(number, keys)
                self._study.tell(number, found)
                del self._awaited[number]

    def _tell_of_planned(self, planned: tuple[PlannedTrial, ...]) -> None:
        keys = [trial.key for trial in planned]
        if not self._open.isdisjoint(keys):
            return
        found = outcome([self._monitor.look(key) for key in keys], self._search.metric)
        params = params_of(self._search, planned[0].config)
        self._evidence.remove(planned)
        if found is not None and found.value is not None and params is not None:
            values = reported(self._monitor.look(keys[0]), self._search.metric) if len(keys) == 1 else {}
            self._study.add_evidence(params, found.value, values)

    def _planned_in_space(self) -> list[tuple[PlannedTrial, ...]]:
        """Planned configurations that lie in the search space, one trial per seed."""
        planned = {trial.key: trial for trial in self.plan.trials if not trial.is_proposed_only}
        groups = {}
        for trial in planned.values():
            params = params_of(self._search, trial.config)
            same = configurations(self._sweep, params) if params is not None else []
            keys = tuple(self._identify(config).key for config in same)
            if trial.key in keys and all(key in planned for key in keys):
                groups[keys] = tuple(planned[key] for key in keys)
        return list(groups.values())

    # Pruning

    def _prune(self) -> None:
        """Reports the scores of running trials to the study, and requests that those stop which it prunes."""
        names = {trial.key: trial for trial in self.plan.trials}
        for number, keys in self._awaited.items():
            if self._report(number, keys):
                for key in keys:
                    if key in self._open and names[key].is_proposed_only:
                        self._request_prune(self._trial_folder(key))

    def _request_prune(self, folder: Path) -> None:
        try:
            request_prune(folder, f"the {self._search.pruner} pruner stopped it")
        except OSError as error:  # network storage recovers
            problem = DamagedFileError(folder / PRUNE_FILENAME, error.strerror or str(error))
            pass_over(problem, "the trial trains until it can be written")

    def _report(self, number: int, keys: Sequence[str]) -> bool:
        """Reports a proposal's scores to the study; returns whether its trials should be pruned."""
        if self._search.pruner == "none" or not keys:
            return False
        return self._study.report(number, reported(self._monitor.look(keys[0]), self._search.metric))

    def _trial_length(self) -> TrialLength:
        config = examples(self._sweep)[0]
        iterations = config.train.iterations
        return TrialLength(config.eval.every or iterations, iterations)

    def _trial_folder(self, key: str) -> Path:
        return trial_folder(self._home, key)
