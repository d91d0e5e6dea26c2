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
    append_proposal(tmp_path, Proposal("a", 1, {}))
    assert [proposal.number for proposal in read_proposals(tmp_path, "a")] == [0, 1]
    assert not caplog.records


def test_a_proposal_that_a_full_disk_has_no_room_for_is_not_taken_for_written(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(1_000_000))
    written = []

    def fill() -> None:
        for number in range(10_000):
            append_proposal(small_disk, Proposal("a", number, {"x": 1 / 3}))
            written.append(number)

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert [proposal.number for proposal in read_proposals(small_disk, "a")] == written
