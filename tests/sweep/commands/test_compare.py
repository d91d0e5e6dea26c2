"""The tables that `splatsweep compare` prints."""

from __future__ import annotations

import io

from sweep.commands.compare import _quantity, _sentences
from sweep.terminal import Terminal
from tests.results.test_compare import compared, side, trained


def test_long_names_of_sweeps_are_printed_in_full() -> None:
    table = compared(side("my-ablation-v1", *trained("x", 20.0)), side("my-ablation-v2", *trained("x", 21.0)))
    stream = io.StringIO()
    Terminal(file=stream, width=80).print(_quantity(table, 0))
    assert [line.split() for line in stream.getvalue().splitlines()[1:3]] == [
        ["my-ablation-", "my-ablation-"],
        ["row", "v1", "v2", "difference", "p", "verdict"],
    ]


def test_sentences_explain_what_a_terminal_shows() -> None:
    table = compared(side("a", *trained("x", 20.0)), side("b", *trained("x", 21.0)))
    assert {"*", "±"} <= {sentence[0] for sentence in table.legend}, "marks of files"
    assert _sentences(table) == ["p is after Holm's correction over the table.", *table.notes]
    first, second = (side(name, *trained("x", 20.0), *trained("y", 20.0, data=name)) for name in "ab")
    marked = compared(first, second)
    assert _sentences(marked)[1:] == [*marked.notes, "a Not comparable: data a and b."]
