"""What all figures share: colours, line styles, and saving to bytes that are the same every time."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, safe for colour-blind readers, without black; yellow, faint on white, is last
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#f0e442")
LINE_STYLES = ("-", "--", "-.", ":")
#: Text and axes.  Matplotlib leaves pure black out of SVG; this it writes, to be replaced by `currentColor`.
FOREGROUND = "#010203"

# Three of matplotlib's settings can only be given globally; the lock keeps two reports from mixing them.
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "splatsweep", "pdf.fonttype": 42}
_settings_lock = threading.Lock()
_NO_DATES: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {},
}


def line_look(index: int) -> tuple[str, str]:
    """Colour and line style of the trial at `index`: first the colours, then the same colours dashed."""
    style = LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
    return PALETTE[index % len(PALETTE)], style


def save(figure: Figure, kind: str, dpi: int = 200) -> bytes:
    """The figure as "pdf", "png" or "svg"; equal figures give equal bytes."""
    import matplotlib as mpl

    target = io.BytesIO()
    with _settings_lock, mpl.rc_context(_SETTINGS):
        figure.savefig(target, format=kind, dpi=dpi, metadata=_NO_DATES[kind], transparent=kind == "svg")
    return target.getvalue()


def inline_svg(figure: Figure) -> str:
    """An `<svg>` element for HTML: text in the page's colour, lines in its `--series-N` or the palette's."""
    svg = save(figure, "svg").decode()
    svg = svg[svg.index("<svg") :].replace(FOREGROUND, "currentColor")
    for index, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--series-{index}, {colour})")
    return svg
