import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import jobs.data
from jobs.data.importer import Importer, Item, UnreadableObjectError, importer_options
from jobs.data.prepare import (
    ImportFailedError,
    OptionsError,
    describe,
    parse_options,
    prepare,
    store_path,
)
from jobs.data.store import Frames, Store
from model.registry import UnknownChoiceError

TINY = {"train": 3, "val": 1, "test": 1, "views": 3, "image_size": 16, "supersampling": 1}


@importer_options
class FlakyOptions:
    objects: int = 4
    broken: int = 0
    label: str = "a"


@dataclass(frozen=True)
class Flaky(Importer[FlakyOptions]):
    """Grey squares, of which the first few cannot be read."""

    description = "grey squares"
    source = "a test"
    licence = "none"
    Options = FlakyOptions
    near, far = 1.0, 3.0
    max_skipped_share = 0.25

    def items(self, progress):
        return [Item(f"o{i}", "train", "square", f"o{i}", 2, i) for i in range(self.options.objects)]

    def load(self, item):
        if item.payload < self.options.broken:
            raise UnreadableObjectError(f"{item.name}.obj is truncated")
        cameras = np.tile(np.eye(4), (2, 1, 1))
        images = np.full((2, 3, 8, 8), item.payload, np.uint8)
        return Frames(images, cameras, np.full((2, 2), 8.0), np.full((2, 2), 4.0))


@pytest.fixture
def flaky(monkeypatch):
    """Registers the importer above, as a line in the registry would."""
    monkeypatch.setattr("jobs.data.chairs.Flaky", Flaky, raising=False)
    monkeypatch.setitem(jobs.data.DATASETS, "flaky", "jobs.data.chairs:Flaky")


def test_a_dataset_is_the_same_from_one_process_or_two(tmp_path):
    alone = Store.open(prepare("chairs", TINY, tmp_path / "one", workers=1))
    shared = Store.open(prepare("chairs", TINY, tmp_path / "two", workers=2))
    assert alone.path.name == shared.path.name
    assert alone.fingerprint == shared.fingerprint
    assert alone.fingerprint == shared.compute_fingerprint()
    assert alone.manifest.options == TINY | {"seed": 0}
    assert alone.manifest.importer == "chairs"


@pytest.mark.usefixtures("flaky")
def test_a_finished_store_is_returned_at_once(tmp_path):
    steps = []
    path = prepare("flaky", {}, tmp_path, progress=lambda *step: steps.append(step), workers=1)
    assert steps == [(i + 1, 4, f"o{i}") for i in range(4)]
    before = (path / "manifest.json").stat().st_mtime_ns
    assert prepare("flaky", {"objects": 4}, tmp_path, progress=lambda *_: pytest.fail("imported again")) == path
    assert (path / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("flaky")
def test_one_of_many_imports_and_the_others_wait(tmp_path):
    steps = []
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(prepare, "flaky", {}, tmp_path, lambda *step: steps.append(step), 1) for _ in range(4)]
    assert len({call.result() for call in calls}) == 1
    assert len(steps) == 4


@pytest.mark.usefixtures("flaky")
def test_what_a_killed_import_left_is_removed(tmp_path):
    path = store_path("flaky", {}, tmp_path)
    leftover = path.with_name(f".{path.name}.x7d2")
    leftover.mkdir(parents=True)
    (leftover / "images.npy").write_bytes(b"half")
    assert prepare("flaky", {}, tmp_path, workers=1) == path
    assert not leftover.exists()


@pytest.mark.usefixtures("flaky")
def test_options_name_the_store(tmp_path):
    default = store_path("flaky", {}, tmp_path)
    assert default.parent == tmp_path / "data"
    assert default.name.startswith("flaky-")
    assert len(default.name) == len("flaky-") + 8
    assert store_path("flaky", {"objects": 4}, tmp_path) == default
    assert store_path("flaky", {"objects": 5}, tmp_path) != default
    assert store_path("chairs", {}, tmp_path).name != default.name


@pytest.mark.usefixtures("flaky")
def test_unreadable_objects_are_listed_with_their_reason(tmp_path):
    store = Store.open(prepare("flaky", {"broken": 1}, tmp_path, workers=1))
    assert [(s.object, s.reason) for s in store.manifest.skipped] == [("o0", "o0.obj is truncated")]
    assert list(store.objects["object"]) == ["o1", "o2", "o3"]
    assert store.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]


@pytest.mark.usefixtures("flaky")
def test_too_many_unreadable_objects_stop_the_import(tmp_path):
    with pytest.raises(ImportFailedError, match=r"2 of 4 .* 25%[^$]*o1.obj is truncated"):
        prepare("flaky", {"broken": 2}, tmp_path, workers=1)
    assert [p.name for p in (tmp_path / "data").iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.usefixtures("flaky")
def test_options_are_resolved_and_frozen():
    options = parse_options("flaky", {"objects": 9})
    assert (options.objects, options.broken, options.label) == (9, 0, "a")
    with pytest.raises(AttributeError):
        options.objects = 3


def test_all_mistakes_in_options_are_told_at_once():
    with pytest.raises(OptionsError) as caught:
        parse_options("chairs", {"veiws": 3, "train": "many", "val": 0, "test": 1.5})
    problems = dict(caught.value.problems)
    assert problems.keys() == {"veiws", "train", "val", "test"}
    assert "allowed: image_size, seed, supersampling, test, train, val, views" in problems["veiws"]
    assert "did you mean 'views'?" in problems["veiws"]
    assert "'many'" in problems["train"]
    assert "got 0" in problems["val"]
    assert all(option in str(caught.value) for option in problems)


def test_an_unknown_dataset_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UnknownChoiceError, match=r"chiars.*allowed: chairs.*did you mean 'chairs'"):
        prepare("chiars", {}, tmp_path)


@pytest.mark.usefixtures("flaky")
def test_every_dataset_describes_itself(tmp_path):
    path = prepare("flaky", {}, tmp_path, workers=1)
    facts = {fact.name: fact for fact in describe(tmp_path)}
    assert facts.keys() == jobs.data.DATASETS.keys()
    assert facts["flaky"].prepared == [path]
    assert facts["chairs"].prepared == []
    for fact in facts.values():
        assert fact.description
        assert fact.source
        assert fact.licence
        assert json.loads(json.dumps(fact.options)) == fact.options


def test_a_script_without_a_main_guard_can_prepare(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; from jobs.data.prepare import prepare\n"
        "prepare('chairs', {'train': 2, 'val': 1, 'test': 1, 'views': 2, 'image_size': 8},"
        " Path(sys.argv[1]), workers=2)\n"
        "print('once')\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.stdout == "once\n"
