from pathlib import Path

import pytest

from results.records.ledger import FILENAME, Proposal, append_proposal, read_proposals


def test_proposals_are_read_by_study(tmp_path: Path) -> None:
    proposals = [Proposal("a", 0, {"x": 1}), Proposal("b", 0, {"x": 2}), Proposal("a", 1, {"x": 0.5})]
    for proposal in proposals:
        append_proposal(tmp_path, proposal)
    assert read_proposals(tmp_path, "a") == [proposals[0], proposals[2]]
    assert read_proposals(tmp_path / "nowhere", "a") == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"study": "a", "number": "one", "params": {}}',
        '{"study": "a", "number": 1}',
        "[" * 5000,
    ],
)
def test_a_line_that_is_no_proposal_is_passed_over_and_named(tmp_path: Path, caplog, line: str) -> None:
    append_proposal(tmp_path, Proposal("a", 0, {}))
    with (tmp_path / FILENAME).open("a") as stream:
        stream.write(line + "\n")
    append_proposal(tmp_path, Proposal("a", 2, {}))
    assert [proposal.number for proposal in read_proposals(tmp_path, "a")] == [0, 2]
    assert f"{tmp_path / FILENAME} cannot be used: line 2 is no proposal" in caplog.text


def test_a_line_that_is_being_written_is_no_proposal_yet(tmp_path: Path, caplog) -> None:
    append_proposal(tmp_path, Proposal("a", 0, {}))
    with (tmp_path / FILENAME).open("a") as stream:
        stream.write('{"study": "a"')
    assert len(read_proposals(tmp_path, "a")) == 1
    assert not caplog.records
