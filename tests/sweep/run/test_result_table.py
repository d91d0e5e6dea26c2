"""The first table of a report, on the terminal."""

from __future__ import annotations

import io

import pytest

from results.table import Cell, Column, Row, Section, Source, Table, ranked
from sweep.run.result_table import result_table
from sweep.terminal import Terminal


def drawn(width: int | None, name: str = "ours [ema]", is_terminal: bool = True, state: str = "failed") -> str:
    columns = tuple(
        Column(f"{group}_{label}", label, f"{group} views", "up" if label != "LPIPS" else "down", 2)
        for group in ("Conditioned", "Novel")
        for label in ("PSNR", "SSIM", "LPIPS")
    )
    source = Source("k", 0, "finished")
    rows = (
        Row(name, tuple(Cell((20.0 + i, 21.0 + i)) for i in range(6)), (source,)),
        Row("no [/lpips]", tuple(Cell() for _ in range(6)), (Source("k", 0, state),), state),
    )
    table = ranked(Table("auto", "", columns, (Section(rows),)))
    stream = io.StringIO()
    terminal = Terminal(file=stream, width=width)
    terminal._force_terminal, terminal._color_system = is_terminal, None
    terminal.print(result_table(table, terminal))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_and_names_are_whole(width: int) -> None:
    text = drawn(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for words in ("ours [ema]", "no [/lpips]", "(failed)", "20.50", "–"):
        assert words in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_spreads_and_then_columns_go_before_names_are_torn(is_terminal: bool) -> None:
    name = "xattn_positional true depth seed"
    wide, narrow, narrowest = (drawn(width, name, is_terminal) for width in (160, 80, 50))
    assert ("±" in wide, "±" in narrow) == (True, False)
    assert "left out" not in narrow
    assert "left out" in narrowest
    assert "Conditioned" not in narrowest
    assert "LPIPS" in narrowest
    for text, width in ((narrow, 80), (narrowest, 50)):
        assert max(map(len, text.splitlines())) <= width
        assert min(len(line.split("  ")[0]) for line in text.splitlines() if "25.50" in line) >= 12


def test_a_pipe_has_all_columns_and_spreads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = drawn(None, "xattn_positional true depth seed " * 3, is_terminal=False)
    assert "±" in text
    assert "Conditioned" in text
    assert "left out" not in text


def test_a_name_of_wide_characters_is_not_folded_where_there_is_room() -> None:
    assert "深度模型的消融实验研究与对比" in drawn(160, "深度模型的消融实验研究与对比")


def test_a_state_is_a_whole_word() -> None:
    assert "(unrecorded)" in drawn(80, "tv", state="unrecorded")


def test_a_header_is_not_torn_where_names_are_short() -> None:
    assert drawn(80, "a", state="ok").splitlines()[2].startswith("Trial ")


def test_a_table_without_rows_says_why() -> None:
    stream = io.StringIO()
    terminal = Terminal(file=stream, width=80)
    terminal.print(result_table(Table("pivot", "", (), (), notes=("Nothing to show: no axis.",)), terminal))
    assert "Nothing to show: no axis." in stream.getvalue()
