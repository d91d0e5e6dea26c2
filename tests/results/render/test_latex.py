"""LaTeX: the paper's layout, inert text, and a document that compiles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from results.render.latex import escape, render, render_standalone
from results.table import Table


def test_has_the_papers_layout(table: Table) -> None:
    text = render(table)
    assert r"& \multicolumn{1}{c}{Conditioned views} & \multicolumn{2}{c}{Novel views} \\" in text
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-4}" in text
    base = (
        r"base\textsuperscript{a} & \underline{30.50}\,{\scriptsize$\pm$\,0.71} & "
        r"\textbf{20.20}\,{\scriptsize$\pm$\,0.14} & "
        r"\underline{0.250}\,{\scriptsize$\pm$\,0.000} \\"
    )
    assert base in text.splitlines()
    assert r"gone & \multicolumn{3}{c}{\emph{failed}} \\" in text.splitlines()
    assert r"partly & 29.00 & nan & -- \\" in text.splitlines()
    assert r"copy\_input & $\infty$ & 14.00 & 0.300 \\" in text.splitlines()
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert r"\textsuperscript{a}\,a note" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("_%&#${}", r"\_\%\&\#\$\{\}"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ("λ=0.1", r"\ensuremath{\lambda}=0.1"),
        ("Ω", r"\ensuremath{\Omega}"),
        ("u\u0308ber café", "über café"),
        ("\N{SLIGHTLY SMILING FACE}ą\n", "{[}U+1F642{]}{[}U+0105{]} "),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_text_cannot_issue_commands(hostile: str) -> None:
    assert "\\input" not in escape(hostile)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_compiles_as_it_is(table: Table, tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(render_standalone(table), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    if shutil.which("pdftotext"):
        subprocess.run(["pdftotext", "-layout", "table.pdf"], cwd=tmp_path, check=True)
        text = (tmp_path / "table.txt").read_text()
        assert "c&d#e$f{g}h" in text
        assert r"j\k <script>alert(1)</script> |*`x`[y]" in text
