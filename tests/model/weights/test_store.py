import errno
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.registry import UnknownChoiceError
from model.weights import WEIGHTS, MissingWeightsError, WeightStore, find_weight, readers
from model.weights.readers import Published
from model.weights.sources import Delivery, WeightsSourceError, file_sha256
from tests.tiny_checkpoints import write_tiny_checkpoint

NAME = "vgg16"


class Delivers:
    """A source that delivers the given content."""

    sha256 = None
    read = staticmethod(readers.state_dict)

    def __init__(self, tensors, *, cached: bool, genuine: bool = True, config=None) -> None:
        self._cached = cached
        self._delivery = Delivery(Published(tensors, config or {}), str(self), genuine)

    def __str__(self) -> str:
        return "the shelf" if self._cached else "the shop"

    def cached(self):
        return self._delivery if self._cached else None

    def download(self, folder):
        return self._delivery


class Offline:
    sha256 = None
    read = staticmethod(readers.state_dict)

    def __str__(self) -> str:
        return "far away"

    def cached(self):
        return None

    def download(self, folder):
        (folder / "file.part").write_bytes(b"half of it")
        raise WeightsSourceError("far away: no route to host")


@pytest.fixture
def store(tmp_path, monkeypatch) -> WeightStore:
    """A store that accepts any tensors for any weights, since other tests check their content."""
    monkeypatch.setattr("model.weights.store.mistaken", lambda *_: None)
    monkeypatch.setattr("model.weights.store.not_loadable", lambda *_: None)
    return WeightStore(tmp_path / "weights")


@pytest.fixture
def sources(monkeypatch):
    """A function that replaces the sources of one entry of the table, and its hash."""

    def replace_sources(*found, sha256="5" * 64) -> None:
        monkeypatch.setitem(WEIGHTS, NAME, replace(WEIGHTS[NAME], sources=found, sha256=sha256))

    return replace_sources


def test_tensors_keep_their_published_order(store, sources):
    tensors = {"z": torch.arange(3.0), "a": torch.ones(2, 2)}
    sources(Delivers(tensors, cached=False))
    loaded = store.load(NAME)
    assert list(loaded) == ["z", "a"]
    assert torch.equal(loaded["z"], tensors["z"])
    assert store.source(NAME) == "the shop"
    assert store.names() == [NAME]


def test_the_architecture_is_kept_beside_the_tensors(store, sources):
    sources(Delivers({"a": torch.ones(1)}, cached=False, config={"hidden_size": 7}))
    assert store.config(NAME) == {"hidden_size": 7}
    assert store.preprocessor(NAME) == {}


def test_tied_weights_are_stored(store, sources):
    shared = torch.ones(3)
    sources(Delivers({"a": shared, "b": shared}, cached=False))
    assert torch.equal(store.load(NAME)["b"], shared)


def test_local_files_are_preferred_to_downloads(store, sources):
    sources(Delivers({"a": torch.zeros(1)}, cached=False), Delivers({"a": torch.ones(1)}, cached=True))
    assert store.load(NAME)["a"] == 1
    assert store.source(NAME) == "the shelf"


def test_the_next_source_is_tried_where_one_is_out_of_reach(store, sources):
    sources(Offline(), Delivers({"a": torch.ones(1)}, cached=False))
    assert store.load(NAME)["a"] == 1
    assert not (store.folder / "downloads" / NAME).exists(), "parts are left behind"


def test_the_error_of_unavailable_weights_has_a_remedy(store, sources):
    sources(Offline())
    with pytest.raises(MissingWeightsError) as caught:
        store.load(NAME)
    message = str(caught.value)
    assert str(store.folder / NAME) in message
    assert "far away: not in this machine's caches" in message
    assert "far away: no route to host" in message
    assert f"splatsweep weights fetch {NAME}" in message
    assert not store.has(NAME)
    assert (store.folder / "downloads" / NAME / "file.part").is_file(), "a broken download cannot go on"


def test_the_error_of_a_network_of_the_users_asks_for_its_file(store):
    with pytest.raises(MissingWeightsError) as caught:
        store.load("network:mine")
    assert str(caught.value).endswith("wrote: splatsweep weights fetch network:mine --from FILE")
    assert "On a machine with a network" not in str(caught.value)


def test_a_full_disk_is_the_systems_error_and_keeps_what_is_stored(small_disk, store, sources, tmp_path):
    """safetensors' own error would not tell it from damaged weights."""
    full = replace(store, folder=small_disk / "weights")
    sources(Delivers({"a": torch.zeros(1)}, cached=True))
    full.fetch(NAME)
    torch.save({"a": torch.ones(10**6)}, tmp_path / "larger.pth")
    with pytest.raises(OSError, match="No space left on device") as caught:
        full.adopt(NAME, tmp_path / "larger.pth")
    assert caught.value.errno == errno.ENOSPC
    assert full.load(NAME)["a"] == 0
    assert not list(full.folder.glob("*.partial"))


def test_a_damaged_file_is_noticed(store, sources):
    sources(Delivers({"a": torch.ones(100)}, cached=False))
    path = store.fetch(NAME)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "is damaged" in store.problem(NAME)
    with pytest.raises(MissingWeightsError, match="is damaged"):
        store.load(NAME)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"name": "vgg16"}', '{"name": 1, "sha256": [], "source": 2, "genuine": 3}']
)
def test_a_damaged_record_is_named_with_its_remedy_and_stops_nothing_else(store, sources, content):
    sources(Delivers({"a": torch.ones(2)}, cached=True))
    record = store.fetch(NAME).with_suffix(".json")
    record.write_text(content)
    remedy = rf"{NAME}\.json is damaged .*delete .*run: splatsweep weights fetch {NAME}"
    assert re.search(remedy, store.problem(NAME))
    assert (store.identity(NAME), store.source(NAME), store.names()) == (None, None, [])
    with pytest.raises(MissingWeightsError, match=remedy):
        store.load(NAME)
    record.unlink()
    record.with_suffix(".safetensors").unlink()
    assert store.load(NAME)["a"].tolist() == [1, 1]


class TestIdentity:
    def test_is_the_tables_before_there_is_a_file_and_for_a_genuine_one(self, store, sources):
        sources(Delivers({"a": torch.ones(1)}, cached=False))
        assert store.identity(NAME) == "5" * 64
        store.fetch(NAME)
        assert store.identity(NAME) == "5" * 64

    def test_does_not_change_with_a_source_that_has_another_file(self, store, sources):
        strange = Delivers({"a": torch.zeros(1)}, cached=True, genuine=False)
        sources(strange)
        with pytest.raises(MissingWeightsError, match=r"the shelf: not known to be .* sha256, 5{64}, means"):
            store.fetch(NAME)
        assert (store.identity(NAME), store.has(NAME)) == ("5" * 64, False)
        sources(strange, Delivers({"a": torch.ones(1)}, cached=False))
        assert store.load(NAME)["a"] == 1
        assert store.identity(NAME) == "5" * 64

    def test_of_what_an_earlier_version_stored_from_such_a_source_stays_that_of_the_file(self, store, sources):
        sources(Delivers({"a": torch.ones(1)}, cached=False, genuine=False), sha256=None)
        path = store.fetch(NAME)
        sources(Offline())
        assert store.identity(NAME) == file_sha256(path)
        assert store.load(NAME)["a"] == 1

    def test_is_unknown_where_no_hash_is_published_and_no_file_here(self, store, sources):
        sources(Offline(), sha256=None)
        assert store.identity(NAME) is None

    def test_covers_the_architecture_and_nothing_else(self, tmp_path, sources):
        def identity(folder, config):
            tensors = {"b": torch.ones(2), "a": torch.ones(1)}
            sources(Delivers(tensors, cached=False, genuine=False, config=config), sha256=None)
            store = WeightStore(tmp_path / folder)
            store.fetch(NAME)
            return store.identity(NAME)

        assert identity("one", {"heads": 2, "act": "gelu"}) == identity("two", {"act": "gelu", "heads": 2})
        assert identity("one", {"heads": 2, "act": "gelu"}) != identity("three", {"heads": 4, "act": "gelu"})


class TestFilesPutThereByHand:
    def test_are_identified_alike_before_and_after_their_first_use(self, tmp_path):
        write_tiny_checkpoint("dinov2_small", tmp_path)
        store = WeightStore(tmp_path)
        before = store.identity("dinov2_small")
        store.load("dinov2_small")
        assert before == store.identity("dinov2_small") != find_weight("dinov2_small").sha256

    def test_have_no_identity_where_they_cannot_be_stored(self, tmp_path, monkeypatch, caplog):
        write_tiny_checkpoint("dinov2_small", tmp_path)
        monkeypatch.setattr(
            "model.weights.store.save_file", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied"))
        )
        assert WeightStore(tmp_path).identity("dinov2_small") is None
        assert "denied" in caplog.text

    @pytest.mark.parametrize("name", [f"{NAME}.pth", f"{NAME}.pt", f"{NAME}.bin"])
    def test_come_before_all_sources(self, name, store, sources):
        sources(Delivers({"a": torch.zeros(1)}, cached=True))
        store.folder.mkdir()
        torch.save({"a": torch.ones(1)}, store.folder / name)
        assert store.load(NAME)["a"] == 1
        assert store.source(NAME) == str(store.folder / name)

    def test_a_users_safetensors_file_is_distinguished_from_a_stored_one(self, store, sources):
        sources(Delivers({"a": torch.zeros(1)}, cached=True))
        store.folder.mkdir()
        save_file({"a": torch.ones(1)}, store.folder / f"{NAME}.safetensors")
        assert not store.has(NAME)
        assert store.load(NAME)["a"] == 1

    def test_a_hub_folder(self, store):
        folder = store.folder / "clip_vit_b32"
        folder.mkdir(parents=True)
        save_file({"a": torch.ones(1)}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"hidden_size": 7}')
        assert store.load("clip_vit_b32")["a"] == 1
        assert store.config("clip_vit_b32") == {"hidden_size": 7}

    def test_weights_of_another_hash_have_another_identity(self, store, caplog):
        store.folder.mkdir()
        torch.save({"features.0.weight": torch.ones(1)}, store.folder / "vgg16.pth")
        store.fetch("vgg16")
        assert "not the published file" in caplog.text
        assert store.identity("vgg16") != WEIGHTS["vgg16"].sha256

    def test_with_a_published_hash_are_read_by_the_source_that_has_it(self, store, sources, tmp_path):
        path = tmp_path / "download.bin"
        torch.save({"a": torch.ones(1)}, path)
        known = Delivers({}, cached=False)
        known.sha256 = file_sha256(path)[:8]
        other = Delivers({}, cached=False)
        other.read = lambda _: pytest.fail("read by the wrong source")
        sources(other, known)
        store.adopt(NAME, path)
        assert store.identity(NAME) == "5" * 64

    def test_that_cannot_be_read_are_named_and_no_other_place_is_tried(self, store, sources):
        sources(Delivers({"a": torch.zeros(1)}, cached=True))
        store.folder.mkdir()
        (store.folder / f"{NAME}.pth").write_bytes(b"no weights at all")
        with pytest.raises(MissingWeightsError, match=rf"{NAME}\.pth cannot be read"):
            store.load(NAME)

    def test_adopted_ones_replace_what_is_here(self, store, sources, tmp_path):
        sources(Delivers({"a": torch.zeros(1)}, cached=False))
        store.fetch(NAME)
        torch.save({"a": torch.ones(1)}, tmp_path / "mine.pth")
        store.adopt(NAME, tmp_path / "mine.pth")
        assert store.load(NAME)["a"] == 1
        with pytest.raises(MissingWeightsError, match="there is no"):
            store.adopt(NAME, tmp_path / "yours.pth")


def test_an_unknown_name_gets_the_known_ones(store):
    with pytest.raises(UnknownChoiceError, match=r"unknown weights 'vgg19'; allowed: .*did you mean 'vgg16'"):
        store.load("vgg19")


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224.augreg_in21k", "hub:facebook/dino-vits16", "hub:gpt2"])
def test_any_model_of_timm_and_of_the_hub_has_a_name(name, store):
    assert name.partition(":")[2] in str(find_weight(name).sources[0])
    torch_file = store.folder / f"{name.replace(':', '--').replace('/', '--')}.pth"
    store.folder.mkdir()
    torch.save({"a": torch.ones(1)}, torch_file)
    assert store.load(name)["a"] == 1
    assert store.names() == [name]


@pytest.mark.parametrize(
    "name", ["hub:../../etc/passwd", "hub:a/b/c", "hub:..", "timm:a/b", "timm:.hidden", "hub:a/../b", "hub:a--b"]
)
def test_names_that_lead_out_of_the_folder_are_refused(name, store):
    with pytest.raises(UnknownChoiceError):
        store.load(name)


def test_two_processes_fetch_once(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; import torch; from dataclasses import replace\n"
        "from model.weights import WEIGHTS, WeightStore\n"
        "from model.weights.readers import Published\n"
        "from model.weights.sources import Delivery\n"
        "class Slow:\n"
        "    def cached(self): return None\n"
        "    def download(self, folder):\n"
        "        time.sleep(0.5); print('downloaded')\n"
        "        return Delivery(Published({'a': torch.ones(1)}), 'slow', True)\n"
        "WEIGHTS['vgg16'] = replace(WEIGHTS['vgg16'], sources=(Slow(),))\n"
        "WeightStore(Path(sys.argv[1])).load('vgg16')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed.count("downloaded") == 1
    assert json.loads((tmp_path / "vgg16.json").read_text())["sha256"]


class TestTensorsOfAnotherModel:
    """They are rejected before they replace a valid file."""

    @pytest.fixture
    def real(self, tmp_path) -> WeightStore:
        return WeightStore(tmp_path / "weights")

    def test_the_good_file_stays(self, real, tmp_path):
        write_tiny_checkpoint("alexnet", real.folder)
        before = real.fetch("alexnet").read_bytes()
        write_tiny_checkpoint("vgg16", tmp_path)
        with pytest.raises(
            MissingWeightsError, match=r"vgg16.pth is not stored as weights 'alexnet': .*those of vgg16"
        ):
            real.adopt("alexnet", tmp_path / "vgg16.pth")
        assert real.fetch("alexnet").read_bytes() == before
        assert real.problem("alexnet") is None

    def test_a_part_of_the_tensors_is_not_enough(self, real, tmp_path):
        write_tiny_checkpoint("dpt_large", tmp_path)
        part = {
            name: t for name, t in load_file(tmp_path / "dpt_large" / "model.safetensors").items() if "neck" not in name
        }
        save_file(part, tmp_path / "dpt_large" / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            MissingWeightsError, match=r"not stored as weights 'dpt_large': .*missing or of another shape: neck"
        ):
            real.adopt("dpt_large", tmp_path / "dpt_large")
        assert real.names() == []

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [({"patch_size": 0}, "ZeroDivisionError"), ({"hidden_act": "sine"}, "KeyError: 'sine'"), ({"dtype": "f"}, "f")],
    )
    def test_an_impossible_configuration_is_named(self, real, tmp_path, settings, reason):
        write_tiny_checkpoint("dinov2_small", tmp_path)
        config = tmp_path / "dinov2_small" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | settings))
        with pytest.raises(MissingWeightsError, match=f"no network can be built from them: .*{reason}"):
            real.adopt("dinov2_small", config.parent)
        assert real.names() == []

    def test_a_file_put_there_by_hand_is_looked_at_as_well(self, real):
        write_tiny_checkpoint("vgg16", real.folder)
        (real.folder / "vgg16.pth").rename(real.folder / "alexnet.pth")
        with pytest.raises(MissingWeightsError, match=r"alexnet.pth is not stored as weights 'alexnet'"):
            real.load("alexnet")

    def test_what_an_earlier_version_stored_is_found_by_check(self, store, tmp_path):
        write_tiny_checkpoint("vgg16", tmp_path)
        store.adopt("alexnet", tmp_path / "vgg16.pth")  # by a store that takes anything
        problem = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from model.weights import WeightStore; "
                "print(WeightStore(Path(sys.argv[1])).problem('alexnet'))",
                str(store.folder),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "they are those of vgg16; delete it and run: splatsweep weights fetch alexnet" in problem
