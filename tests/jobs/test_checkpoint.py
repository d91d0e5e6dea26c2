import pytest
import torch

from jobs.checkpoint import KEEP, CheckpointFolder, capture


def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.Adam]:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, eps=1e-15)
    for _ in range(steps):
        step(network, optimizer)
    return network, optimizer


def step(network: torch.nn.Linear, optimizer: torch.optim.Adam) -> None:
    optimizer.zero_grad()
    network(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()


def test_what_is_saved_is_what_is_restored(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(3)
    folder.save(capture(3, network, optimizer, {"note": 0.1}))
    step(network, optimizer)

    again, again_optimizer = trained(0)
    saved = folder.latest()
    assert (saved.step, saved.extra) == (3, {"note": 0.1})
    saved.restore(again, again_optimizer)
    step(again, again_optimizer)
    assert torch.equal(again.weight, network.weight)
    assert torch.equal(again.bias, network.bias)


def test_restored_state_lies_in_memory_as_its_weights_do(tmp_path):
    """Otherwise a fused optimizer would pair each weight with another one's state."""
    folder = CheckpointFolder(tmp_path)
    images = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def build():
        torch.manual_seed(0)
        network = torch.nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
        return network, torch.optim.Adam(network.parameters(), lr=0.1, eps=1e-15, fused=True)

    def train(network, optimizer):
        optimizer.zero_grad()
        network(images).square().sum().backward()
        optimizer.step()

    network, optimizer = build()
    train(network, optimizer)
    folder.save(capture(1, network, optimizer, {}))
    train(network, optimizer)

    again, again_optimizer = build()
    folder.latest().restore(again, again_optimizer)
    train(again, again_optimizer)
    assert torch.equal(again.weight, network.weight)


def test_the_last_two_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    for number in (1, 2, 3, 4):
        folder.save(capture(number, network, optimizer, {}))
    assert sorted(int(path.stem) for path in tmp_path.glob("*.json")) == [3, 4]
    assert len(list(tmp_path.iterdir())) == 2 * KEEP


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: b"\0" * len(data)])
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path, suffix, damage):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    for number in (1, 2):
        folder.save(capture(number, network, optimizer, {}))
    newest = max(tmp_path.glob(f"*{suffix}"))
    newest.write_bytes(damage(newest.read_bytes()))
    assert folder.latest().step == 1


def test_tensors_without_their_record_are_not_a_checkpoint(tmp_path):
    folder = CheckpointFolder(tmp_path)
    network, optimizer = trained(1)
    folder.save(capture(1, network, optimizer, {}))
    next(tmp_path.glob("*.json")).unlink()
    assert folder.latest() is None
