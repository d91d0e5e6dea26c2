import re

import pytest
import torch

from jobs.adam import FlatAdam
from jobs.checkpoint import KEEP, Checkpoint, CheckpointFolder, FormerCheckpointError, capture
from jobs.flat import backward, flatten_parameters
from results.records.disk import DiskFullError


def trained(steps: int) -> tuple[torch.nn.Linear, FlatAdam]:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = FlatAdam(flatten_parameters(network), lr=0.1, eps=1e-15)
    for _ in range(steps):
        step(network, optimizer)
    return network, optimizer


def step(network: torch.nn.Linear, optimizer: FlatAdam) -> None:
    backward(network(torch.ones(4, 3)).square().sum(), network, optimizer.weights)
    optimizer.step()


def test_what_is_saved_is_what_is_restored(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(3)
    folder.save(capture(3, network, optimizer, network, {"note": 0.1}))
    step(network, optimizer)

    again, again_optimizer = trained(0)
    saved = folder.latest()
    assert (saved.step, saved.extra) == (3, {"note": 0.1})
    saved.restore(again, again_optimizer)
    step(again, again_optimizer)
    assert torch.equal(again.weight, network.weight)
    assert torch.equal(again.bias, network.bias)


def test_one_of_an_earlier_version_is_refused(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    tensors = capture(1, network, optimizer, network, {}).tensors
    folder.save(Checkpoint(1, {name.replace("optimizer.", "optimizer.0."): t for name, t in tensors.items()}, {}))
    assert re.search(f"an earlier version .* delete {re.escape(str(tmp_path))}$", folder.refusal())
    with pytest.raises(FormerCheckpointError, match=re.escape(folder.refusal())):
        folder.latest()


def test_one_of_this_version_or_damaged_is_not_refused(tmp_path):
    folder = CheckpointFolder(tmp_path)
    assert folder.refusal() == ""
    network, optimizer = trained(1)
    folder.save(capture(1, network, optimizer, network, {}))
    assert folder.refusal() == ""
    (tmp_path / "000000001.safetensors").write_bytes(b"damaged")
    assert folder.refusal() == ""


def test_weights_alone_leave_adam_at_its_start():
    network, optimizer = trained(3)
    tensors = capture(3, network, optimizer, network, {}).tensors
    again, again_optimizer = trained(0)
    Checkpoint(3, {name: t for name, t in tensors.items() if "optimizer" not in name}, {}).restore(
        again, again_optimizer
    )
    assert torch.equal(again.weight, network.weight)
    assert not any(tensor.any() for tensor in again_optimizer.state.values())


def test_a_network_that_lies_differently_in_memory_continues(tmp_path):
    """Networks are channels last on some devices only."""
    images = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def build(layout):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(4, 6, 3).to(memory_format=layout)
        return network, FlatAdam(flatten_parameters(network), lr=0.1, eps=1e-15)

    def train(network, optimizer):
        backward(network(images).square().sum(), network, optimizer.weights)
        optimizer.step()

    network, optimizer = build(torch.channels_last)
    train(network, optimizer)
    folder = CheckpointFolder(tmp_path)
    folder.save(capture(1, network, optimizer, network, {}))
    train(network, optimizer)

    again, again_optimizer = build(torch.contiguous_format)
    folder.latest().restore(again, again_optimizer)
    train(again, again_optimizer)
    torch.testing.assert_close(again.weight, network.weight)


def test_the_last_two_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    for number in (1, 2, 3, 4):
        folder.save(capture(number, network, optimizer, network, {}))
    assert sorted(int(path.stem) for path in tmp_path.glob("*.json")) == [3, 4]
    assert len(list(tmp_path.iterdir())) == 2 * KEEP


def truncated(data: bytes) -> bytes:
    return data[:-7]


def emptied(_: bytes) -> bytes:
    return b""


def zeroed(data: bytes) -> bytes:
    return bytes(len(data))


def flipped(data: bytes) -> bytes:
    """The content with one bit flipped: in the last digit of a JSON record, or in the middle of other content."""
    digits = [index for index, byte in enumerate(data) if chr(byte).isdigit()]
    place = digits[-1] if data.startswith(b"{") else len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", [truncated, emptied, zeroed, flipped])
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path, suffix, damage):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    for number in (1, 2):
        folder.save(capture(number, network, optimizer, network, {"seconds": 0.25}))
    newest = max(tmp_path.glob(f"*{suffix}"))
    newest.write_bytes(damage(newest.read_bytes()))
    assert folder.latest().step == 1


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_tensors_and_their_record_are_a_checkpoint_together_alone(tmp_path, suffix):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    folder.save(capture(1, network, optimizer, network, {}))
    next(tmp_path.glob(f"*{suffix}")).unlink()
    assert folder.latest() is None


def test_the_newest_is_kept_for_a_training_that_continues_it(tmp_path):
    folder = CheckpointFolder(tmp_path)
    assert folder.is_empty()
    network, optimizer = trained(1)
    for number in (1, 2):
        folder.save(capture(number, network, optimizer, network, {}))
    folder.keep_newest()
    assert {path.name for path in tmp_path.iterdir()} == {"000000002.safetensors", "000000002.json"}
    assert not folder.is_empty()


def test_every_bit_of_the_record_is_guarded(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    folder.save(capture(7, network, optimizer, network, {"seconds": 0.25}))
    (record,) = tmp_path.glob("*.json")
    sound = record.read_bytes()
    for place in range(len(sound)):
        for bit in range(8):
            record.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
            found = folder.latest()
            # A flipped bit may change insignificant white space, but must not change a number unnoticed.
            assert found is None or (found.step, found.extra) == (7, {"seconds": 0.25})


def test_a_full_disk_costs_the_new_one_only(small_disk):
    folder = CheckpointFolder(small_disk / "checkpoints")
    network, optimizer = trained(1)
    folder.save(capture(1, network, optimizer, network, {}))
    large = torch.nn.Linear(1000, 1000)
    with pytest.raises(DiskFullError, match=r"no space left to write .*; make room"):
        folder.save(capture(2, large, FlatAdam(flatten_parameters(large), lr=0.1, eps=1e-15), large, {}))
    assert folder.latest().step == 1
    assert len(list(folder.folder.iterdir())) == 2
    folder.save(capture(3, network, optimizer, network, {}))
    assert folder.latest().step == 3


def test_what_killed_writers_left_is_cleared_away(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    for number in (1, 3):
        (tmp_path / f"00000000{number}.safetensors.4711.partial").write_bytes(b"half")
    (tmp_path / "000000002.safetensors").write_bytes(b"without its record")
    folder.save(capture(3, network, optimizer, network, {}))
    assert {path.name for path in tmp_path.iterdir()} == {"000000003.safetensors", "000000003.json"}


def test_progress_is_kept_where_all_later_checkpoints_are_damaged(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    for number in (500, 1000):
        folder.save(capture(number, network, optimizer, network, {}))
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"")
    assert folder.latest() is None
    folder.save(capture(250, network, optimizer, network, {}))
    assert folder.latest().step == 250
    assert [path.stem for path in tmp_path.glob("*.json")] == ["000000250"]
