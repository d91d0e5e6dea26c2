"""LaTeX, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def typeset(path: Path) -> str:
    """Output of pdflatex while it makes a .pdf of a .tex file."""
    _require()
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def text_of(path: Path) -> str:
    """The text of a .pdf, laid out as on its pages."""
    _require()
    command = ["pdftotext", "-layout", path.name, "-"]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True).stdout


def _require() -> None:
    missing = [name for name in ("pdflatex", "pdftotext") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
