"""Style shared by all figures: colours, line styles, and saving to reproducible bytes."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, safe for colour-blind readers, without black; yellow, faint on white, is last
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#f0e442")
LINE_STYLES = ("-", "--", "-.", ":")
#: Text and axes.  Matplotlib omits pure black from SVG; it writes this colour, which is replaced by `currentColor`.
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


def dress(axes: Axes, title: str, x_label: str) -> None:
    """Applies the style of every panel: two thin axes, a faint grid, small type; names are printed verbatim."""
    # With a height given, matplotlib does not look for one at every drawing; nothing stands above the axes.
    axes.set_title(title, fontsize=8, color=FOREGROUND, loc="left", y=1.0, parse_math=False)
    axes.set_xlabel(x_label, fontsize=7.5, color=FOREGROUND)
    axes.tick_params(which="both", colors=FOREGROUND, labelsize=7, width=0.6)
    axes.grid(True, color=FOREGROUND, alpha=0.12, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FOREGROUND)
        spine.set_linewidth(0.6)


def wrapped(name: str, width: int, lines: int) -> str:
    """A name in at most `lines` lines of `width` characters, broken between words, and inside of those too long.

    What does not fit loses its middle: names that begin alike often differ at their ends.
    """
    for kept in range(width * lines, width, -2):
        text = _filled(shortened(name, kept), width)
        if text.count("\n") < lines:
            return text
    return shortened(name, width)


def _filled(text: str, width: int) -> str:
    """Text in lines of at most `width` characters."""
    lines = [""]
    for word in text.split(" "):
        # Settings of a grid's point, `depth.model=midas_small`, may be broken behind punctuation.
        pieces = [word] if len(word) <= width else re.findall(r"[^_=.:/-]+[_=.:/-]*|[_=.:/-]+", word)
        for piece in [part for whole in pieces for part in _cut(whole, width)]:
            joint = " " if lines[-1] and piece is pieces[0] else ""
            if len(lines[-1]) + len(joint) + len(piece) <= width:
                lines[-1] += joint + piece
            else:
                lines.append(piece)
    return "\n".join(lines).lstrip("\n")


def _cut(text: str, width: int) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)]


def shortened(name: str, most: int) -> str:
    """A name of at most `most` characters, with an ellipsis for its middle where it is longer."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def name_ticks(axis: Axis, labels: Sequence[str]) -> None:
    """Sets ticks at 0, 1, ... with text that is never parsed as mathematics: a name may hold a dollar sign."""
    axis.set_ticks(range(len(labels)), labels)
    for tick in axis.get_major_ticks():
        tick.label1.set_parse_math(False)


def save(figure: Figure, kind: str, dpi: int = 200) -> bytes:
    """The figure as "pdf", "png" or "svg"; equal figures give equal bytes."""
    import matplotlib as mpl

    target = io.BytesIO()
    with _settings_lock, mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # DejaVu Sans has no emoji: a PDF shows a box in a name that holds one, a browser the character itself.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        if (engine := figure.get_layout_engine()) is not None:
            # The layout takes longer than the drawing, so it is kept for the other formats.
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(target, format=kind, dpi=dpi, metadata=_NO_DATES[kind], transparent=kind == "svg")
    return target.getvalue()


def inline_svg(figure: Figure, name: str = "figure") -> str:
    """An `<svg>` element for HTML: text in the page's colour, lines in its `--series-N` or the palette's.

    All of its ids begin with `name`, which must be unique among the figures of a page.
    """
    svg = save(figure, "svg").decode()
    svg = svg[svg.index("<svg") :].replace(FOREGROUND, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to groups
    svg = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    for index, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--series-{index}, {colour})")
    return svg
