"""The qualitative figure of a paper: chosen objects and views, reconstructed by several rows of a sweep.

It is written as a LaTeX figure with one file for each picture, as one picture with errors, and as a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.figures.grid import draw, enlarged, enlargement, png
from results.gallery import Gallery, Pictures
from results.records.atomic import write_atomically, write_json
from results.render.latex import escape

FIGURE, STANDALONE, OVERVIEW, RECORD = "figure.tex", "figure_standalone.tex", "overview.png", "figure.json"
PICTURES = "pictures"

_OF_PICTURES = ("data.name", "data.options", "data.resolution")
_LONGEST = 60  # letters of a name in a file's
_WIDTH, _HEIGHT = 0.98, 1.0  # at most, of all pictures beside and below each other, in units of the line
_FIGURE = r"""%% Needs \usepackage{graphicx}; in a document elsewhere also \graphicspath{{FOLDER OF THIS FILE/}}.
\begin{figure*}[t]
\centering\small
\setlength{\tabcolsep}{1pt}
\newcommand{\splatsweephead}[1]{\parbox[b]{%(side)s\linewidth}{\centering #1\strut}}
\newcommand{\splatsweeppsnr}[1]{\\[-2pt]{\scriptsize #1}} %% without: \newcommand{\splatsweeppsnr}[1]{}
\newcommand{\splatsweeppicture}[2][]{\parbox[t]{%(side)s\linewidth}{%%
  \centering\includegraphics[width=\linewidth]{%(folder)s/#2}\splatsweeppsnr{#1}}}
\begin{tabular}{@{}%(columns)s@{}}
%(lines)s
\end{tabular}
\caption{%(caption)s}
\label{fig:qualitative}
\end{figure*}
"""
_STANDALONE = r"""\documentclass{article}
\usepackage[margin=12mm]{geometry}
\usepackage{graphicx}
\pagestyle{empty}
\begin{document}
\input{figure.tex}
\end{document}
"""


@dataclass(frozen=True)
class QualitativeFigure:
    """K objects seen from M views each, as the rows of `gallery` reconstruct them."""

    gallery: Gallery
    #: (K, M) numbers of the views among an object's
    views: NDArray[np.int64]
    #: row -> PSNR (K, M) of its unclamped renders, dB
    psnr: Mapping[str, NDArray[np.float64]]
    #: row -> the facts on its trial that are recorded: key, seed
    trials: Mapping[str, Mapping[str, Any]]

    def write(self, folder: Path) -> None:
        """Writes all files into a folder; those of the same name are replaced."""
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        scale = enlargement(*self.gallery.source.shape[-2:])
        for name, picture in self._pictures():
            write_atomically(folder / PICTURES / name, png(enlarged(picture, scale)))
        write_atomically(folder / OVERVIEW, png(draw(self.gallery)))
        write_atomically(folder / FIGURE, self._latex().encode())
        write_atomically(folder / STANDALONE, _STANDALONE.encode())
        write_json(folder / RECORD, self._record())

    def _pictures(self) -> Iterator[tuple[str, Pictures]]:
        """Name of the file and pixels of each picture."""
        for k in range(len(self.gallery.objects)):
            yield self._input(k), self.gallery.source[k]
            for m in range(self.views.shape[1]):
                yield self._file(k, m, "truth"), self.gallery.target[k, m]
                for place, (row, pictures) in enumerate(self.gallery.renders.items()):
                    yield self._file(k, m, _stem(place, row)), pictures[k, m]

    def _input(self, k: int) -> str:
        return f"{_stem(k, self.gallery.objects[k])}_input.png"

    def _file(self, k: int, m: int, column: str) -> str:
        return f"{_stem(k, self.gallery.objects[k])}_view{self.views[k, m]}_{column}.png"

    def _latex(self) -> str:
        rows, lines = list(self.gallery.renders), []
        for k in range(len(self.gallery.objects)):
            for m in range(self.views.shape[1]):
                cells = [_picture(self._input(k)) if m == 0 else "", _picture(self._file(k, m, "truth"))]
                for place, row in enumerate(rows):
                    cells.append(_picture(self._file(k, m, _stem(place, row)), _decibels(self.psnr[row][k, m])))
                lines.append(" & ".join(cells))
        headings = [rf"\splatsweephead{{{escape(text)}}}" for text in ("Input", "Ground truth", *rows)]
        height, width = self.gallery.source.shape[-2:]
        side = min(_WIDTH / len(headings), _HEIGHT / len(lines) * width / height)
        return _FIGURE % {
            "side": f"{side:.4f}",
            "folder": PICTURES,
            "columns": "c" * len(headings),
            "lines": " \\\\\n".join([" & ".join(headings), *lines]),
            "caption": self._caption(),
        }

    def _caption(self) -> str:
        ranks = self.gallery.ranks or ("",) * len(self.gallery.objects)
        named = [f"{name} ({rank})" if rank else name for name, rank in zip(self.gallery.objects, ranks, strict=True)]
        return escape(f"Objects: {', '.join(named)}. Below each picture, its PSNR in dB.")

    def _record(self) -> dict[str, Any]:
        """The trials by row, and by object its views and their PSNR, None where that is not finite."""
        return {
            "rows": self.trials,
            "objects": {
                name: {
                    "rank": self.gallery.ranks[k] if self.gallery.ranks else "",
                    "views": self.views[k].tolist(),
                    "psnr": {
                        row: [value if np.isfinite(value) else None for value in scores[k].tolist()]
                        for row, scores in self.psnr.items()
                    },
                }
                for k, name in enumerate(self.gallery.objects)
            },
        }


def pictures_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by dotted key, that determine the pictures of a row's objects."""
    return {key: value for key, value in config.items() if key.startswith(_OF_PICTURES)}


def _stem(place: int, name: str) -> str:
    """A part of a file's name that LaTeX accepts; the place makes it unique."""
    return f"{place + 1}-{re.sub(r'[^A-Za-z0-9]+', '-', name)[:_LONGEST].strip('-')}"


def _decibels(psnr: float) -> str:
    return r"\ensuremath{\infty}" if np.isposinf(psnr) else f"{psnr:.2f}"


def _picture(name: str, psnr: str = "") -> str:
    return rf"\splatsweeppicture{f'[{psnr}]' if psnr else ''}{{{name}}}"
