"""The provenance of a trial, as tags of its MLflow run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.records import tags
from results.records.arithmetic import arithmetic_tags
from results.records.training_folder import lineage_text
from results.records.trial_folder import read_environment, read_result


def provenance_tags(folder: Path) -> dict[str, str]:
    """Tags from a trial's folder: code, machine, and, once it has a result, data and frozen weights.

    Code and machine are those of its training; where another process evaluated it, `splatsweep.evaluation.*` has its.
    """
    content, result = read_environment(folder) or {}, read_result(folder) or {}
    values = {tags.PREFIX + name: str(content[name]) for name in ("host", "python") if name in content}
    values |= {tags.VERSION + name: str(version) for name, version in _object(content, "packages").items()}
    git = _object(content, "git")
    if "commit" in git:
        values[tags.COMMIT] = str(git["commit"])
        values[tags.CODE_CHANGED] = str(git.get("dirty")).lower()
    if earlier := [state for state in content.get("earlier_commits", ()) if isinstance(state, Mapping)]:
        values[tags.EARLIER_COMMITS] = json.dumps([tags.state_text(state) for state in earlier])
    values |= arithmetic_tags(content.get("arithmetic", ()))
    evaluation = _object(content, "evaluation")
    if evaluation:
        values[tags.EVALUATION + "host"] = str(evaluation.get("host"))
        values[tags.EVALUATION + "code"] = tags.state_text(_object(evaluation, "git"))
        drawn = arithmetic_tags(evaluation.get("arithmetic", ()))
        values |= {tags.EVALUATION + name.removeprefix(tags.ARITHMETIC): value for name, value in drawn.items()}
    for name, tag in (("data_fingerprint", tags.DATA_FINGERPRINT), ("data_checksum", tags.DATA_CHECKSUM)):
        if name in result:
            values[tag] = str(result[name])
    if result.get("continued_from"):
        values[tags.CONTINUED_FROM] = lineage_text(result["continued_from"])
    if "judged_step" in result:
        values[tags.JUDGED_STEP] = str(result["judged_step"])
    return values | {tags.WEIGHTS + name: str(sha256) for name, sha256 in _object(result, "weights").items()}


def _object(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that is a mapping; an empty one where it is anything else."""
    value = content.get(name)
    return value if isinstance(value, Mapping) else {}
