"""A terminal that prints all text literally.

Names, errors, paths and hints come from files and users, and may contain text that Rich reads as markup or an emoji.
`Terminal` interprets neither, in printed lines and in the cells and titles of tables; `style=` sets colours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.text import Text

if TYPE_CHECKING:
    from results.records.plan import Status

_PIPE_WIDTH, _UNLIMITED = 80, 10_000

#: state of a trial -> its colour, in the order in which states are counted
STATE_STYLES: dict[Status, str] = {
    "pending": "",
    "to be evaluated": "blue",
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
    "pruned": "yellow",
    "blocked": "magenta",
}


class Terminal(Console):
    """A console without markup that wraps no text and, in a pipe, truncates and pads no table."""

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> None:
        super().__init__(stderr=stderr, file=file, width=width, markup=False, emoji=False, highlight=False)
        self._is_width_given = width is not None

    def render_str(self, text: str, **options: Any) -> Text:
        """Renders text literally, whatever the `markup` option is."""
        return super().render_str(text, **{**options, "markup": False, "emoji": False, "highlight": False})

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints texts or renderables; lines of text are not wrapped, so that paths can be copied."""
        drawn = [item for item in objects if not isinstance(item, (str, Text))]
        if not drawn:
            super().print(*objects, **{"soft_wrap": True, **options})
        elif not self._is_piped():
            super().print(*objects, **options)
        else:
            with self._as_wide_as(drawn), self.capture() as printed:
                super().print(*objects, **options)
            self.out("\n".join(line.rstrip(" ") for line in printed.get().split("\n")), end="")

    @contextmanager
    def _as_wide_as(self, drawn: Sequence[RenderableType]) -> Iterator[None]:
        """Widens the console to the natural width of the renderables."""
        before = self._width
        self._width = max(_PIPE_WIDTH, *map(self._wanted_width, drawn))
        try:
            yield
        finally:
            self._width = before

    def _is_piped(self) -> bool:
        """Whether no width is given: no terminal, no argument, no COLUMNS."""
        return not (self.is_terminal or self._is_width_given or os.environ.get("COLUMNS"))

    def _wanted_width(self, item: RenderableType) -> int:
        return Measurement.get(self, self.options.update(width=_UNLIMITED), item).maximum


def table_width(console: Console) -> int:
    """The width that a table may have on a console: any in a pipe, where `Terminal` widens itself."""
    return _UNLIMITED if isinstance(console, Terminal) and console._is_piped() else console.width


def counted(number: float, unit: str) -> str:
    """A number with its unit: 2 trials, 1 trial, 0.25 GPU."""
    return f"{number:.10g} {unit}" + ("" if 0 < number <= 1 else "s")


#: the standard output, and the error stream
console, errors = Terminal(), Terminal(stderr=True)


def escape_unencodable() -> None:
    """Makes the standard streams escape characters that their encoding lacks, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
