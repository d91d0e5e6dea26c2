"""Commands that are printed as hints: quoted for a shell, with the file, the settings and the home of the call."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.file.schema import Sweep

#: The home of commands that name none.
DEFAULT_HOME = Path("runs")


def command(verb: str, sweep: Sweep, home: Path, *options: str) -> str:
    """`splatsweep VERB` for a sweep, to be pasted into a terminal in the folder of this call."""
    words = ["splatsweep", verb]
    if sweep.origin is None:
        words.append("SWEEP")
    else:
        words.append(str(sweep.origin.file))
        words += [word for setting in sweep.origin.settings for word in ("--set", setting)]
    return shlex.join([*words, *home_options(home), *options])


def home_options(home: Path) -> list[str]:
    """`--home DIR`, where the home is not the one that a command without it takes."""
    return [] if home.absolute() == DEFAULT_HOME.absolute() else ["--home", str(home)]
