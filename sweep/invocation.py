"""Commands for hints: quoted for a shell, with the file, the settings and the home of the current call."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.file.schema import Sweep

#: The home of commands without `--home`.
DEFAULT_HOME = Path("runs")


def command(verb: str, sweep: Sweep, home: Path, *options: str) -> str:
    """The text of `splatsweep VERB` for a sweep, to run in the current directory."""
    words = ["splatsweep", verb]
    if sweep.origin is None:
        words.append("SWEEP")
    else:
        words.append(str(sweep.origin.file))
        words += [word for setting in sweep.origin.settings for word in ("--set", setting)]
    return shlex.join([*words, *home_options(home), *options])


def home_options(home: Path) -> list[str]:
    """`--home DIR`, or nothing where the home is the default."""
    return [] if home.absolute() == DEFAULT_HOME.absolute() else ["--home", str(home)]


#: `--home DIR` of this call, for hints of code that does not know the home.
_home_of_call: list[str] = []
#: A hint at the end of a line, unless it has the option already.
_HINT = re.compile(r"(?:run|with): (splatsweep (?!.*--home).*)$", re.MULTILINE)


def remember_home(home: Path) -> None:
    """Sets the home that `completed` adds to hints."""
    _home_of_call[:] = home_options(home)


def completed(text: str) -> str:
    """Adds the home of this call to a message's hints (`run: splatsweep ...` at the end of a line)."""
    more = shlex.join(_home_of_call)
    return _HINT.sub(lambda hint: f"{hint[0]} {more}", text) if more else text
