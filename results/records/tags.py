"""Tags of MLflow runs."""

from __future__ import annotations

import json
from collections.abc import Mapping

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

#: JSON: the name of each artifact -> its SHA-256
HASHES = f"{PREFIX}sha256"
#: in runs of earlier versions an artifact's name follows, and the value is its SHA-256
HASH = f"{PREFIX}sha256."
#: experiment's description, which MLflow's pages show
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
#: iterations after which the judged weights were best (`train.keep: best`)
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


def code_of(found: Mapping[str, str], digits: int | None = None) -> str:
    """The commit in a run's tags, with a word where its code had uncommitted changes; empty without a commit."""
    commit = found.get(COMMIT, "")[:digits]
    return f"{commit} with changes" if commit and found.get(CODE_CHANGED) == "true" else commit


def differ(scores: str | None, recorded: str | None) -> bool:
    """Whether two hashes of scores are known and differ; runs of earlier versions record none."""
    return None not in (scores, recorded) and scores != recorded
