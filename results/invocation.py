"""Commands for hints: quoted for a shell, with the file, the settings and the home of the current call."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

#: The home of commands without `--home`.
DEFAULT_HOME = Path("runs")


class Origin(Protocol):
    """The file that a sweep was read from, and the `--set` options that changed it."""

    @property
    def file(self) -> Path: ...

    @property
    def settings(self) -> Sequence[str]: ...


def command(verb: str, sweep: object, home: Path, *options: str) -> str:
    """The text of `splatsweep VERB` for a sweep, to run in the current directory.

    A sweep that was read from no file has none as its `origin`; SWEEP stands for the file.
    """
    words = ["splatsweep", verb]
    origin: Origin | None = getattr(sweep, "origin", None)
    if origin is None:
        words.append("SWEEP")
    else:
        words.append(str(origin.file))
        words += [word for setting in origin.settings for word in ("--set", setting)]
    return shlex.join([*words, *home_options(home), *options])


def home_command(home: Path, *words: str) -> str:
    """The text of `splatsweep WORDS` on a home, to run in the current directory."""
    return shlex.join(["splatsweep", *words, *home_options(home)])


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
