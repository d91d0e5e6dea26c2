"""Tags of MLflow runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: beginning of all of them
PREFIX = "splatsweep."

KEY = f"{PREFIX}key"
#: state of the trial; written last, so that a run with this tag is complete
STATUS = f"{PREFIX}status"
TRIAL = f"{PREFIX}trial"
SEED = f"{PREFIX}seed"
SWEEP = f"{PREFIX}sweep"
#: moment at which the run was created, nanoseconds since 1970; its start is that of its trial
CREATED = f"{PREFIX}created_ns"
#: tags that identify the trial and its run; all others describe where and how it ran
IDENTITY = (KEY, STATUS, TRIAL, SEED, SWEEP, CREATED)

#: why a trial failed
ERROR = f"{PREFIX}error"
#: why a search pruned a trial
PRUNED = f"{PREFIX}pruned"

#: study that proposed a trial, and the proposal's number in it
SEARCH = f"{PREFIX}search"
SEARCH_NUMBER = f"{PREFIX}search.number"

#: identity of the data, a part of the key
DATA_FINGERPRINT = f"{PREFIX}data_fingerprint"
#: SHA-256 of the data themselves, which for rendered pictures depends on the processor
DATA_CHECKSUM = f"{PREFIX}data_checksum"
CODE_CHANGED = f"{PREFIX}code_changed_since_commit"
#: MLflow's own name for the commit, which its pages show
COMMIT = "mlflow.source.git.commit"

#: JSON: the commits under which the training began, before the last process resumed it under another one
EARLIER_COMMITS = f"{PREFIX}earlier_commits"
#: host, code, backend and device follow, where another process than that of the training evaluated a trial
EVALUATION = f"{PREFIX}evaluation."

#: JSON: the name of each artifact -> its SHA-256
HASHES = f"{PREFIX}sha256"
#: in runs of earlier versions an artifact's name follows, and the value is its SHA-256
HASH = f"{PREFIX}sha256."
#: MLflow's own name for the description of an experiment or a run, which its pages show
DESCRIPTION = "mlflow.note.content"
#: tag of the run that holds the report of a sweep, by the sweep's name; it is no trial and has no key
REPORT = f"{PREFIX}report"
#: the name of frozen weights follows; the value is their SHA-256
WEIGHTS = f"{PREFIX}weights."
#: a field of `results.records.arithmetic.Arithmetic` follows
ARITHMETIC = f"{PREFIX}arithmetic."
#: tag of an experiment: the name that sweeps request, even if the experiment was renamed
EXPERIMENT = f"{PREFIX}experiment"

#: the trainings that a trial's training continues, as text
CONTINUED_FROM = f"{PREFIX}continued_from"
#: iterations after which the evaluated weights were best (`train.keep: best`)
JUDGED_STEP = f"{PREFIX}judged_step"

#: a package's name follows
VERSION = f"{PREFIX}version."


def artifact_hash(tags: Mapping[str, str], name: str) -> str | None:
    """The SHA-256 of an artifact that a run's tags record; None where they record none."""
    try:
        recorded = json.loads(tags.get(HASHES, "{}"))
    except ValueError:
        recorded = {}
    found = recorded.get(name) if isinstance(recorded, dict) else None
    return found if isinstance(found, str) else tags.get(HASH + name)


def state_text(git: Mapping[str, Any], digits: int | None = None) -> str:
    """A commit, with a word where its code had uncommitted changes; empty without a commit."""
    commit = str(git.get("commit", ""))[:digits]
    return f"{commit} with changes" if commit and git.get("dirty") else commit


def code_of(found: Mapping[str, str], digits: int | None = None) -> str:
    """The commits of a training in a run's tags, in order of use; empty without any."""
    last = state_text({"commit": found.get(COMMIT, ""), "dirty": found.get(CODE_CHANGED) == "true"}, digits)
    earlier = json.loads(found.get(EARLIER_COMMITS, "[]"))
    shortened = [" ".join((name[:digits], *rest)) for name, *rest in map(str.split, earlier)]
    return " then ".join([*shortened, *([last] if last else [])])


def evaluation_of(found: Mapping[str, str]) -> dict[str, str]:
    """Host, code and arithmetic of the evaluation, where another process than that of the training made it."""
    return {name.removeprefix(EVALUATION): value for name, value in found.items() if name.startswith(EVALUATION)}


def differ(scores: str | None, recorded: str | None) -> bool:
    """Whether two hashes of scores are known and differ; runs of earlier versions record none."""
    return None not in (scores, recorded) and scores != recorded
