"""The first table of a report, on the terminal."""

from __future__ import annotations

import io

import pytest

from results.table import Cell, Column, Row, Section, Source, Table, ranked
from sweep.run.result_table import result_table
from sweep.terminal import Terminal


def drawn(width: int) -> str:
    columns = tuple(
        Column(f"{group}_{label}", label, f"{group} views", "up" if label != "LPIPS" else "down", 2)
        for group in ("Conditioned", "Novel")
        for label in ("PSNR", "SSIM", "LPIPS")
    )
    source = Source("k", 0, "finished")
    rows = (
        Row("ours [ema]", tuple(Cell((20.0 + i, 21.0 + i)) for i in range(6)), (source,)),
        Row("no [/lpips]", tuple(Cell() for _ in range(6)), (Source("k", 0, "failed"),), "failed"),
    )
    table = ranked(Table("auto", "", columns, (Section(rows),)))
    stream = io.StringIO()
    terminal = Terminal(file=stream, width=width)
    terminal._force_terminal, terminal._color_system = True, None
    terminal.print(result_table(table, terminal))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_and_names_are_whole(width: int) -> None:
    text = drawn(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in ("ours [ema]", "no [/lpips]", "(failed)", "20.50", "–"):
        assert words in text
