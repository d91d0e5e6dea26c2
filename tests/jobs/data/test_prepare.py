import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
from filelock import FileLock

import jobs.data
from jobs.data.importers.base import Importer, ImportFailedError, Item, UnreadableObjectError
from jobs.data.importers.workers import load_in_order
from jobs.data.prepare import (
    UNREADABLE,
    MissingDatasetError,
    describe,
    find_prepared,
    needs_source,
    parse_options,
    prepare,
    store_path,
)
from jobs.data.store import Frames, Store
from jobs.data.writer import JOURNAL, partial_path
from model.options import OptionsError, options
from model.registry import UnknownChoiceError
from sweep.commands.data import parse_options as parse_settings
from tests.processes import PATIENCE_S

ROOT = Path(__file__).parents[3]
TINY = {"train": 3, "val": 1, "test": 1, "views": 3, "image_size": 16, "supersampling": 1}


@options
class FlakyOptions:
    objects: int = 4
    broken: int = 0
    label: str = "a"


@dataclass(frozen=True)
class Flaky(Importer[FlakyOptions]):
    """An importer of grey squares, of which the first few cannot be read."""

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
    monkeypatch.setattr("jobs.data.importers.chairs.Flaky", Flaky, raising=False)
    monkeypatch.setitem(jobs.data.DATASETS, "flaky", "jobs.data.importers.chairs:Flaky")


def test_a_dataset_is_the_same_from_one_process_or_two(tmp_path):
    alone = Store.open(prepare("chairs", TINY, tmp_path / "one", workers=1))
    shared = Store.open(prepare("chairs", TINY, tmp_path / "two", workers=2))
    assert alone.path.name == shared.path.name
    assert alone.fingerprint == shared.fingerprint
    assert alone.checksum == shared.compute_checksum()
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
    assert sorted(done for done, _, _ in steps if done) == [1, 2, 3, 4]


@pytest.mark.usefixtures("flaky")
def test_who_waits_for_another_import_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.lock._WAIT_S", 0.01)
    path = store_path("flaky", {}, tmp_path)
    path.parent.mkdir()
    lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
    lock.acquire()
    told = []

    def progress(*step):
        told.append(step)
        lock.release(force=True)

    assert prepare("flaky", {}, tmp_path, progress, workers=1) == path
    assert told[0] == (0, 1, "another process prepares it; this one waits")
    assert len(Store.open(path).objects) == 4


@pytest.fixture
def killed(tmp_path) -> Callable[..., tuple[Path, list[psutil.Process]]]:
    """A function: options -> the store's path of an import killed by SIGKILL halfway, and its workers."""

    def kill(options):
        code = "import sys, json; from pathlib import Path; from jobs.data.prepare import prepare; "
        code += "prepare('chairs', json.loads(sys.argv[2]), Path(sys.argv[1]), workers=2)"
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "home"), json.dumps(options)], cwd=ROOT)
        path = store_path("chairs", options, tmp_path / "home")
        journal = partial_path(path) / JOURNAL
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
            assert process.poll() is None
            time.sleep(0.01)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
        return path, workers

    return kill


def test_a_killed_import_resumes_and_ends_with_the_same_bytes(killed, tmp_path):
    options = TINY | {"train": 60, "views": 8, "image_size": 32, "supersampling": 2}
    path, workers = killed(options)
    assert not path.exists()
    steps = []
    resumed = Store.open(prepare("chairs", options, tmp_path / "home", lambda *step: steps.append(step[0]), workers=1))
    assert 2 < steps[0] < 62
    undisturbed = Store.open(prepare("chairs", options, tmp_path / "other", workers=1))
    assert resumed.fingerprint == undisturbed.fingerprint
    assert resumed.checksum == undisturbed.checksum == resumed.compute_checksum()
    assert [entry.name for entry in path.parent.iterdir() if not entry.name.endswith(".lock")] == [path.name]
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert alive == [], "workers end with the process that they worked for"


@pytest.mark.usefixtures("flaky")
def test_an_interrupted_import_reads_no_object_twice(tmp_path, monkeypatch):
    read = []
    original = Flaky.load

    def load(self, item):
        read.append(item.name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return original(self, item)

    monkeypatch.setattr(Flaky, "load", load)
    with pytest.raises(KeyboardInterrupt):
        prepare("flaky", {"broken": 1}, tmp_path, workers=1)
    store = Store.open(prepare("flaky", {"broken": 1}, tmp_path, workers=1))
    assert read == ["o0", "o1", "o2", "o2", "o3"]
    assert [entry.object for entry in store.manifest.skipped] == ["o0"]
    assert store.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]


@dataclass(frozen=True)
class Crashing(Flaky):
    """An importer that crashes the process which reads its second object, like broken native code."""

    def load(self, item):
        if item.payload == 1:
            os._exit(11)
        return super().load(item)


def test_a_crash_of_a_worker_names_the_objects_that_it_may_be_about(tmp_path):
    importer = Crashing(FlakyOptions(objects=2), tmp_path)
    items = importer.items(lambda *_: None)
    with pytest.raises(ImportFailedError, match=r"reading one of .*'o1' died"):
        list(load_in_order(importer, items, workers=2))


@dataclass(frozen=True)
class Mistaken(Flaky):
    """An importer with a mistake that shows on its second object."""

    def load(self, item):
        if item.payload == 1:
            raise ValueError("cannot unpack")
        return super().load(item)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_error_names_the_object(tmp_path, workers):
    importer = Mistaken(FlakyOptions(objects=2), tmp_path)
    with pytest.raises(ValueError, match="cannot unpack") as caught:
        list(load_in_order(importer, importer.items(lambda *_: None), workers))
    assert caught.value.__notes__ == ["(while the object 'o1' was read)"]


@pytest.mark.usefixtures("flaky")
def test_only_a_few_objects_are_read_ahead(tmp_path):
    """With a slow writer, images must not accumulate in memory."""
    importer = Flaky(FlakyOptions(objects=40), tmp_path)
    listed = Recorded(importer.items(lambda *_: None))
    with contextlib.closing(load_in_order(importer, listed, workers=2)) as loaded:
        next(loaded)
        assert listed.taken <= 10
        assert len(list(loaded)) == 39


class Recorded(list):
    """A list that counts how many of its entries were read."""

    taken = 0

    def __iter__(self):
        for item in super().__iter__():
            self.taken += 1
            yield item


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
    with pytest.raises(ImportFailedError, match=r"2 of 4 .* 25%.*--max-unreadable 50%[^$]*o1.obj is trunc"):
        prepare("flaky", {"broken": 2}, tmp_path, workers=1)
    assert not store_path("flaky", {"broken": 2}, tmp_path).exists()


@pytest.mark.usefixtures("flaky")
def test_options_are_resolved_and_frozen():
    options = parse_options("flaky", {"objects": 9})
    assert (options.objects, options.broken, options.label) == (9, 0, "a")
    with pytest.raises(AttributeError):
        options.objects = 3


def test_all_mistakes_in_options_are_reported_at_once():
    with pytest.raises(OptionsError) as caught:
        parse_options("chairs", {"veiws": 3, "train": "many", "val": 0, "test": 1.5})
    problems = dict(caught.value.problems)
    assert problems.keys() == {"veiws", "train", "val", "test"}
    assert "allowed: image_size, seed, supersampling, test, train, val, views" in problems["veiws"]
    assert "did you mean 'views'?" in problems["veiws"]
    assert problems["train"] == "must be a whole number, got 'many'"
    assert problems["val"] == "must be at least 1, got 0"
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
        assert fact.licence
        assert json.loads(json.dumps(fact.options)) == fact.options
        assert fact.meanings.keys() == fact.options.keys()
        assert fact.name == "flaky" or not any(meaning.startswith("None") for meaning in fact.meanings.values())
        assert needs_source(fact.name) == (fact.needs_source is not None)


def test_a_script_without_a_main_guard_can_prepare(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; from jobs.data.prepare import prepare\n"
        "prepare('chairs', {'train': 2, 'val': 1, 'test': 1, 'views': 2, 'image_size': 8},"
        " Path(sys.argv[1]), workers=2)\n"
        "print('once')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "once\n"


@dataclass(frozen=True)
class Listed(Flaky):
    """An importer of the same squares, named by the files of a folder; a list file may exclude some."""

    needs_source = "text files"
    file_roles: ClassVar = {"exclude": "names to leave out"}

    def items(self, progress):
        excluded = {line for path in self.files.get("exclude", ()) for line in path.read_text().split()}
        names = sorted(path.stem for path in self.root.glob("*.txt") if path.stem not in excluded)
        return [
            Item(name, "train", "square", name, 2, 1, source_frame=1 if name == "b" else None, remark="small")
            for name in names
        ]


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("jobs.data.importers.chairs.Listed", Listed, raising=False)
    monkeypatch.setitem(jobs.data.DATASETS, "listed", "jobs.data.importers.chairs:Listed")
    folder = tmp_path / "source"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").touch()
    return folder


def test_the_error_of_a_missing_source_has_the_command_that_prepares_it(source, tmp_path):
    command = r"has text files; run: splatsweep data prepare listed --set label=b --source DIR"
    with pytest.raises(MissingDatasetError, match=command):
        prepare("listed", {"label": "b"}, tmp_path)
    for prepared, other in ({"label": "b"}, "label=b"), ({}, "its defaults or label=b"):
        prepare("listed", prepared, tmp_path / "home", workers=1, source=source)
        with pytest.raises(MissingDatasetError, match=f"is not prepared with these options but with {other}, and is"):
            prepare("listed", {"label": "c"}, tmp_path / "home")
    with pytest.raises(ValueError, match=r"source '.*nowhere' is not a folder; listed needs text files"):
        prepare("listed", {}, tmp_path, source=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="'chairs' makes or fetches its own data"):
        prepare("chairs", TINY, tmp_path, source=source)
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("flaky")
@pytest.mark.parametrize("label", ["b", "1", "true", "a b: [c", "it's"])
def test_of_a_dataset_prepared_with_other_options_the_commands_are_given(tmp_path, label):
    path = prepare("flaky", {"objects": 2, "label": label}, tmp_path, workers=1)
    with pytest.raises(MissingDatasetError, match="it is prepared with other options") as caught:
        find_prepared("flaky", {}, tmp_path)
    words = shlex.split(str(caught.value).splitlines()[1])
    assert words[:4] == ["splatsweep", "data", "check", "flaky"]
    assert words[-2:] == ["--home", str(tmp_path)]
    assert find_prepared("flaky", parse_settings(words[5:-2:2]), tmp_path).path == path


def test_a_prepared_dataset_needs_its_source_no_more(source, tmp_path):
    assert not store_path("listed", {}, tmp_path).exists()
    path = prepare("listed", {}, tmp_path, workers=1, source=source)
    assert prepare("listed", {}, tmp_path) == path
    found = find_prepared("listed", {}, tmp_path)
    assert found.path == path
    assert found.manifest.evaluation == {"source_frame": 0, "objects": {"b": 1}}
    assert {remark.object: remark.text for remark in found.manifest.remarks} == dict.fromkeys("abc", "small")


def test_a_store_of_another_source_is_not_taken_for_this_one(source, tmp_path):
    path = prepare("listed", {}, tmp_path, workers=1, source=source)
    assert Store.open(path).manifest.folder == str(source)
    (tmp_path / "link").symlink_to(source)
    assert prepare("listed", {}, tmp_path, source=tmp_path / "link") == path, "the same folder"
    moved = shutil.copytree(source, tmp_path / "moved")
    refusal = rf"was made from {source}, not from {moved}; .* leave out --source; .* another --home, or delete that"
    with pytest.raises(ValueError, match=refusal):
        prepare("listed", {}, tmp_path, source=moved)
    assert prepare("listed", {}, tmp_path) == path, "the way out, where it is the same data"
    elsewhere = Store.open(prepare("listed", {}, tmp_path / "home", workers=1, source=moved))
    assert (elsewhere.path.name, elsewhere.fingerprint) == (path.name, Store.open(path).fingerprint)

    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["folder"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert prepare("listed", {}, tmp_path, source=moved) == path, "a store of an earlier version records no folder"


def test_files_of_the_user_are_recorded_and_part_of_the_fingerprint(source, tmp_path, monkeypatch):
    exclude = tmp_path / "bad.lst"
    exclude.write_text("b\n")
    stores = [
        Store.open(prepare("listed", {}, tmp_path / home, workers=1, source=source, files=files))
        for home, files in (("with", {"exclude": [exclude]}), ("without", {}))
    ]
    assert [list(store.objects["object"]) for store in stores] == [["a", "c"], ["a", "b", "c"]]
    (recorded,) = stores[0].manifest.files["exclude"]
    assert (recorded.name, recorded.content) == ("bad.lst", "b\n")
    assert stores[0].path.name == stores[1].path.name, "paths are not part of a store's identity"

    prepare("listed", {}, tmp_path / "with", files={"exclude": [exclude]})  # the same again
    exclude.write_text("c\n")
    with pytest.raises(ValueError, match=r"made with other 'exclude' files \(bad.lst\)"):
        prepare("listed", {}, tmp_path / "with", files={"exclude": [exclude]})
    with pytest.raises(ValueError, match=r"reads no file 'exlude'; allowed: exclude"):
        prepare("listed", {}, tmp_path, source=source, files={"exlude": [exclude]})
    with pytest.raises(ValueError, match=r"gone.lst: there is no such file"):
        prepare("listed", {}, tmp_path, source=source, files={"exclude": [tmp_path / "gone.lst"]})
    monkeypatch.setattr(Listed, "single_files", {"exclude"})
    with pytest.raises(ValueError, match=r"dataset 'listed' reads one file 'exclude'; got .*bad.lst, .*other.lst"):
        prepare("listed", {}, tmp_path, source=source, files={"exclude": [exclude, tmp_path / "other.lst"]})


def test_an_empty_source_is_refused(source, tmp_path):
    for file in source.iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"source holds no object; needed: text files"):
        prepare("listed", {}, tmp_path, source=source)


@pytest.mark.usefixtures("flaky")
def test_an_object_of_another_size_is_left_out(tmp_path, monkeypatch):
    original = Flaky.load

    def load(self, item):
        frames = original(self, item)
        return replace(frames, images=frames.images[..., :4, :4]) if item.name == "o2" else frames

    monkeypatch.setattr(Flaky, "load", load)
    store = Store.open(prepare("flaky", {}, tmp_path, workers=1))
    (skipped,) = store.manifest.skipped
    assert skipped.object == "o2"
    assert "(3, 4, 4), before (3, 8, 8)" in skipped.reason


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The objects read so far, in order."""
    names: list[str] = []
    original = Flaky.load
    monkeypatch.setattr(Flaky, "load", lambda self, item: (names.append(item.name), original(self, item))[1])
    return names


@pytest.mark.usefixtures("flaky")
def test_an_import_finds_all_that_is_bad_and_keeps_what_was_read(tmp_path, read):
    with pytest.raises(ImportFailedError, match=r"60 of 100 .*the first 50, and all in .*.txt(?s:.*)o49.obj") as e:
        prepare("flaky", {"objects": 100, "broken": 60}, tmp_path, workers=1)
    listed = Path(str(e.value).split("all in ")[1].split(":\n")[0]).read_text().splitlines()
    assert [line.split(":")[0] for line in listed] == [f"o{i}" for i in range(60)]
    assert len(read) == 100
    read.clear()
    store = Store.open(prepare("flaky", {"objects": 100, "broken": 60}, tmp_path, workers=1, max_unreadable=0.6))
    assert read == [f"o{i}" for i in range(60)], "only what could not be read is tried again"
    assert len(store.objects) == 40
    assert len(store.manifest.skipped) == 60
    assert not (store.path / UNREADABLE).exists(), "the list of the first attempt"


@pytest.mark.usefixtures("flaky")
def test_a_share_stands_for_one_object_at_least(tmp_path):
    options = {"objects": 5, "broken": 1}
    with pytest.raises(ImportFailedError, match=r"1 of 5 objects .*, more than the 0% that are tolerated"):
        prepare("flaky", options, tmp_path, workers=1, max_unreadable=0.0)
    store = Store.open(prepare("flaky", options, tmp_path, workers=1, max_unreadable=0.01))
    assert [entry.object for entry in store.manifest.skipped] == ["o0"]
    with pytest.raises(ImportFailedError, match="1 of 1 objects"):
        prepare("flaky", {"objects": 1, "broken": 1}, tmp_path, workers=1, max_unreadable=1.0)
    with pytest.raises(ValueError, match="max_unreadable 5; allowed: 0 to 1"):
        prepare("flaky", options, tmp_path, max_unreadable=5)


@pytest.mark.usefixtures("flaky")
def test_pictures_that_show_nothing_are_warned_of(tmp_path):
    store = Store.open(prepare("flaky", {"objects": 2}, tmp_path, workers=1))
    text = "2 of 2 pictures show nothing (first frame 0)"
    assert [(remark.object, remark.text) for remark in store.manifest.remarks] == [("o0", text), ("o1", text)]


@pytest.mark.usefixtures("flaky")
def test_objects_of_one_name_are_refused(tmp_path, monkeypatch):
    original = Flaky.items
    monkeypatch.setattr(Flaky, "items", lambda self, progress: original(self, progress) * 2)
    with pytest.raises(ValueError, match="4 objects are listed more than once, first 'o0'"):
        prepare("flaky", {}, tmp_path, workers=1)


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("name", ["source/caf\udce9.txt", "caf\udce9/a.txt"])
def test_names_that_no_store_can_hold_are_refused_before_anything_is_read(tmp_path, name):
    """As of archives from systems with other encodings."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(ValueError, match=r"the name '.*caf.udce9' is not in UTF-8, .* rename it"):
        prepare("listed", {}, tmp_path, lambda *_: pytest.fail("read"), workers=1, source=file.parent)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("srn_chairs", "srn_cars"),
        ("gso", "objaverse"),
        ("gso", "transforms"),
        ("nmr", "colmap"),
        ("co3d", "transforms"),
        ("objaverse", "gso"),
    ],
)
def test_a_folder_of_another_dataset_is_named(layouts, tmp_path, name, layout):
    layouts[layout].write(tmp_path / "source")
    home, source = tmp_path / "home 1", tmp_path / "source"
    with pytest.raises(ValueError, match=f"needed: .*it looks like .*{layout}") as caught:
        prepare(name, {}, home, workers=1, source=source)
    command = ["splatsweep", "data", "prepare", layout, "--source", str(source), "--home", str(home)]
    assert command in [shlex.split(line) for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("layout", "reason"), [("co3d_raw", "category hydrant, and"), ("co3d_preprocessed", "hydrant_for_gs, and")]
)
def test_a_category_that_the_files_do_not_have_is_refused(layouts, tmp_path, layout, reason):
    layouts[layout].write(tmp_path / "source")
    source = tmp_path / "source" / ("hydrant" if layout == "co3d_raw" else "")
    with pytest.raises(ValueError, match=rf"{reason} option category is 'teddybear'"):
        layouts[layout].prepare(source, tmp_path / "home", category="teddybear")
