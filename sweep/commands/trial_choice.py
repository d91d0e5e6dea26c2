"""Naming a trial on the command line: TRIAL with `--sweep` and `--seed`, or `--best METRIC`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweep.commands.common import say, user_path

TRIAL_HELP = "A trial's key, its beginning, its name, `NAME seed N`, or its folder; none with --best."

Trial = Annotated[
    str | None,
    typer.Argument(help=TRIAL_HELP, metavar="TRIAL", show_default=False),
]
SweepOf = Annotated[
    Path | None,
    typer.Option(
        "--sweep",
        help="The sweep of TRIAL or of --best: its file or its name.",
        metavar="FILE",
        show_default=False,
        parser=user_path,
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="The seed, if several trials have that name.", metavar="N", show_default=False)
]
Best = Annotated[
    str | None,
    typer.Option(
        help="The trained trial with the best score, e.g. novel_psnr, of the sweep or the home.",
        metavar="METRIC",
        show_default=False,
    ),
]


def chosen_trial(
    home: Path, text: str | None, sweep: Path | None = None, seed: int | None = None, best: str | None = None
) -> Path:
    """The folder of the trial that these options choose.

    Raises ValueError where they choose none or several, listing candidates.
    """
    from results.records.find import best_trial_folder, find_trial_folder

    if (text is None) == (best is None):
        raise ValueError(f"give TRIAL or --best METRIC{', not both' if text is not None else ''}")
    name = None if sweep is None else sweep_name(sweep, home)
    if best is not None:
        if seed is not None:
            raise ValueError("--seed goes with TRIAL; --best chooses the seed itself")
        return best_trial_folder(best, home, name, say)
    assert text is not None
    return find_trial_folder(text, home, name, seed)


def chosen_network(
    home: Path, text: str | None, sweep: Path | None = None, seed: int | None = None, best: str | None = None
) -> Path:
    """`chosen_trial` for a command that uses its network; says so where this is the one of a checkpoint."""
    from results.records.home import training_folder
    from results.records.training_folder import read_training, training_of
    from results.records.trial_folder import CHECKPOINTS_FOLDER

    trial = chosen_trial(home, text, sweep, seed, best)
    training = training_folder(trial.parent.parent, training_of(trial) or trial.name)
    if read_training(training) is None and any((training / CHECKPOINTS_FOLDER).glob("*.safetensors")):
        say(f"trial {trial.name} is not finished: its network is that of its last checkpoint")
    return trial


def sweep_name(path: Path, home: Path) -> str:
    """The name of a sweep, from its file or its name.  Raises ValueError, listing the home's sweeps, for another."""
    from results.records.frozen_plans import sweep_names
    from sweep.file.load import load_sweep

    planned = sweep_names(home)
    if str(path) in planned and not path.is_file():  # a folder may have the same name
        return str(path)
    if path.exists():
        return load_sweep(path, configurations=False).name
    raise ValueError(f"--sweep {path}: no such file, nor a sweep of {home}; there are: {', '.join(planned) or 'none'}")
