"""Layout of the home: every folder and file in it that the rest of the code names."""

from __future__ import annotations

import os
from pathlib import Path

SWEEP_FILE_FILENAME = "sweep-file.json"


def user_path(text: str | Path) -> Path:
    """A path that a user names, on the command line, in a variable or in a file: `~` is expanded.

    Raises ValueError for `~NAME` of an unknown user, and for no text at all, as of a variable that is not set.
    """
    if not str(text):
        raise ValueError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: {error}") from None


def trials_folder(home: Path) -> Path:
    """Parent of the trials' folders."""
    return home / "trials"


def trial_folder(home: Path, key: str) -> Path:
    """Folder of one trial; `results.records.trial_folder` names its files."""
    return trials_folder(home) / key


def trainings_folder(home: Path) -> Path:
    """Parent of the trainings' folders."""
    return home / "trainings"


def training_folder(home: Path, key: str) -> Path:
    """Folder of one training; `results.records.training_folder` names its files."""
    return trainings_folder(home) / key


def sweeps_folder(home: Path) -> Path:
    """Parent of the sweeps' folders."""
    return home / "sweeps"


def sweep_folder(home: Path, sweep: str) -> Path:
    """Folder with the plan of a sweep, its search's ledger, its lock and its stop file."""
    return sweeps_folder(home) / sweep


def plan_file(home: Path, sweep: str) -> Path:
    """Frozen plan of a sweep."""
    return sweep_folder(home, sweep) / "plan.json"


def earlier_plans_folder(home: Path, sweep: str) -> Path:
    """Plans of a sweep that later ones replaced."""
    return sweep_folder(home, sweep) / "plans"


def code_file(home: Path, sweep: str) -> Path:
    """Git state of the code when a sweep was last run."""
    return sweep_folder(home, sweep) / "code.json"


def sweep_file(home: Path, sweep: str) -> Path:
    """Content of the sweep file when the plan was made."""
    return sweep_folder(home, sweep) / SWEEP_FILE_FILENAME


def driver_lock_file(home: Path, sweep: str) -> Path:
    """Lock that the driver of a sweep holds."""
    return sweep_folder(home, sweep) / "driver.lock"


def reports_folder(home: Path) -> Path:
    """Parent of the reports, where no other place is given."""
    return home / "reports"


def report_folder(home: Path, sweep: str) -> Path:
    """Report of a sweep, where no other place is given."""
    return reports_folder(home) / sweep


def data_folder(home: Path) -> Path:
    """Packed datasets, a folder each."""
    return home / "data"


def cache_folder(home: Path) -> Path:
    """Files that can be computed or fetched again: features, downloads."""
    return home / "cache"


def weights_folder(home: Path) -> Path:
    """Pretrained weights: `$SPLATSWEEP_WEIGHTS` where it is set, else in the home."""
    return user_path(os.environ.get("SPLATSWEEP_WEIGHTS") or home / "weights").absolute()


def database_file(home: Path) -> Path:
    """MLflow store of the home."""
    return home / "mlflow.db"


def database_lock(home: Path) -> Path:
    """Lock of the writers of the MLflow store."""
    return home / "mlflow.lock"


def artifacts_folder(home: Path) -> Path:
    """Artifacts of the MLflow store's runs."""
    return home / "artifacts"


def removed_folder(home: Path) -> Path:
    """Things that are being removed; nothing reads them."""
    return home / "removed"


def ray_folder(home: Path) -> Path:
    """State of Ray Tune, a folder for each run of a sweep."""
    return home / "ray"
