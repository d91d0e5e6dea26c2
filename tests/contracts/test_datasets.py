"""Contract of every dataset: typed options, facts, a protocol, and a valid import of a tiny source in its layout."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.data import DATASETS
from jobs.data.importers.base import Importer
from jobs.data.importers.files import recorded_reads
from jobs.data.inspect import check
from jobs.data.meshes.ray_tracing import render
from jobs.data.prepare import parse_options, prepare, store_path
from jobs.data.sampling import evaluation_frames
from jobs.data.store import SPLITS, Store
from model.options import OptionsError
from model.registry import resolve
from tests.jobs.data.conftest import CENTRES, LAYOUTS, write_srn_object

#: Procedural datasets, with options for their smallest size.
MADE = {"chairs": {"train": 2, "val": 1, "test": 1, "views": 3, "image_size": 16, "supersampling": 1}}
#: Datasets whose source is downloaded and too large for a test.
FETCHED = ("scans",)
#: The distance of ShapeNet-SRN's cameras.
SRN_RADIUS = {"srn_cars": 1.3, "srn_chairs": 2.0}
#: Words in the problems of a source of three views, which lacks the published source frames.
PUBLISHED_FRAMES = ("source frame", "input views")


def tiny(name: str, folder: Path) -> Store:
    """The dataset of a tiny source in its public layout."""
    if name in MADE:
        return Store.open(prepare(name, MADE[name], folder, workers=1))
    source = folder / "source"
    if name in SRN_RADIUS:
        around = CENTRES / np.linalg.norm(CENTRES, axis=1, keepdims=True) * SRN_RADIUS[name]
        for split in SPLITS:
            write_srn_object(source / f"{name.removeprefix('srn_')}_{split}" / f"of_{split}", around)
        return Store.open(prepare(name, {}, folder, workers=1, source=source))
    layout = next((layout for layout in LAYOUTS.values() if layout.name == name), None)
    assert layout is not None, f"{name} has no tiny source: add it to LAYOUTS, or its smallest options to MADE"
    layout.write(source)
    return layout.prepare(source, folder)


@pytest.fixture(params=DATASETS)
def name(request) -> str:
    return request.param


@pytest.fixture
def importer(name) -> type[Importer]:
    return resolve(DATASETS, name, "dataset")


def test_what_is_rendered_here_says_so(importer):
    """Its fingerprint must not depend on the processor."""
    assert importer.renders == (getattr(sys.modules[importer.__module__], "render", None) is render)


def test_options_are_typed_have_defaults_and_refuse_what_they_do_not_know(name, importer):
    defaults = dataclasses.asdict(parse_options(name, {}))
    assert json.loads(json.dumps(defaults)) == defaults, "they are hashed as JSON"
    with pytest.raises(OptionsError, match="no such option"):
        parse_options(name, {"no_such_option": 1})
    for option in defaults:
        with pytest.raises(OptionsError, match=option):
            parse_options(name, {option: {"a": "mapping"}})
    assert importer.later_options.keys() <= defaults.keys()


def test_options_that_came_later_leave_old_stores_where_they_are(name, importer, tmp_path):
    for option, before in importer.later_options.items():
        assert store_path(name, {option: before}, tmp_path) == store_path(name, {}, tmp_path)


def test_facts_are_stated(importer):
    assert importer.description
    assert importer.source
    assert importer.licence
    assert importer.needs_source != ""


def test_the_protocol_names_sources(importer):
    assert {"source_frame", "source_frames"} & importer.evaluation.keys()


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in FETCHED])
def test_a_tiny_source_is_imported_and_sound(name, tmp_path):
    store = tiny(name, tmp_path)
    assert store.manifest.importer == name
    assert sum(store.manifest.counts.values()) == len(store.objects) > 0
    assert store.manifest.skipped == []
    problems = [problem for problem in check(store) if not any(text in problem for text in PUBLISHED_FRAMES)]
    assert problems == []
    assert store.manifest.far - store.manifest.near > 0
    if "source_frame" in store.manifest.evaluation:
        for row in store.objects.itertuples():
            assert len(evaluation_frames(row, store.manifest.evaluation)) == row.num_frames


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_that_are_read_are_sources(layout, tmp_path):
    """An interrupted import reads an object again if one of its sources has changed."""
    layout = LAYOUTS[layout]
    layout.write(tmp_path)
    files = {role: [path(tmp_path)] for role, path in layout.files.items()}
    options = parse_options(layout.name, layout.options)
    importer = resolve(DATASETS, layout.name, "dataset")(options, tmp_path, tmp_path, files)
    for item in importer.items(lambda *_: None):
        with recorded_reads() as read:
            importer.load(item)
        sources = set(importer.sources(item))
        assert read
        assert all(sources & {file, *file.parents} for file in read)
