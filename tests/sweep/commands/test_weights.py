import os
import re
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from model.weights import WeightStore
from sweep.cli import app
from tests.tiny_checkpoints import write_tiny_checkpoint


@pytest.fixture
def store(tmp_path, monkeypatch) -> Iterator[WeightStore]:
    """An empty store for the commands, on a simulated machine without network and caches."""
    from huggingface_hub import close_session, constants

    close_session()  # one that was opened elsewhere has that place's settings

    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path / "weights"))
    yield WeightStore(tmp_path / "weights")
    close_session()


def weights(*arguments, code=0):
    result = CliRunner().invoke(app, ["weights", *map(str, arguments)], env={"COLUMNS": "400", "TERM": "dumb"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def test_the_list_shows_stored_files_and_their_origin(store):
    write_tiny_checkpoint("clip_vit_b32", store.folder)
    store.fetch("clip_vit_b32")
    store.adopt("hub:some/clip", store.folder / "clip_vit_b32")
    lines = {line.split()[0]: line for line in weights("list").output.splitlines() if line}
    assert store.identity("clip_vit_b32")[:8] in lines["clip_vit_b32"]
    assert "not the published file: its own hash enters keys" in lines["clip_vit_b32"]
    assert "not the published" not in lines["hub:some/clip"], "there is no published hash"
    assert re.search(r"MIT +a2bf730a +no$", lines["clip_vit_l14"].rstrip())
    assert "hub:some/clip" in lines


def test_fetch_from_a_path(store, tmp_path):
    write_tiny_checkpoint("dinov2_small", tmp_path / "elsewhere")
    weights("fetch", "dinov2_small", "--from", tmp_path / "elsewhere" / "dinov2_small")
    assert store.source("dinov2_small") == str(tmp_path / "elsewhere" / "dinov2_small")
    assert "sound: dinov2_small" in weights("check").output


@pytest.mark.parametrize("arguments", [("fetch", "--from", "x"), ("fetch", "vgg16", "alexnet", "--from", "x")])
def test_a_path_is_of_one_name(arguments):
    assert "one NAME" in str(weights(*arguments, code=1).exception)


def test_fetch_wants_to_know_what():
    assert "--for SWEEP" in str(weights("fetch", code=1).exception)


def test_fetch_for_a_sweep_gets_what_its_trials_need_and_no_more(store, tmp_path):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "name: two\n"
        "base: {eval: {lpips: alex}}\n"
        "trials:\n"
        "  baseline: {}\n"
        "  clip: {semantic.encoder: clip_vit_b32}\n"
        "  control: {semantic.encoder: random, semantic.options: {of: dinov2_base}}\n"
    )
    for name in ("alexnet", "clip_vit_b32", "vgg16", "dinov2_small", "dinov2_base"):
        write_tiny_checkpoint(name, store.folder)
    weights("fetch", "--for", sweep)
    # the second stage of a default training uses LPIPS with VGG16
    assert store.names() == ["alexnet", "clip_vit_b32", "vgg16"]


def test_what_cannot_be_had_does_not_stop_the_others(store):
    write_tiny_checkpoint("dinov2_small", store.folder)
    errors = weights("fetch", "clip_vit_l14", "dinov2_small", code=2).stderr
    assert "splatsweep weights fetch clip_vit_l14" in errors
    assert "https://huggingface.co/openai/clip-vit-large-patch14" in errors
    assert str(store.folder / "clip_vit_l14") in errors
    assert store.names() == ["dinov2_small"]


def test_check_names_what_is_damaged_or_missing(store):
    assert "no weights" in weights("check").output
    write_tiny_checkpoint("dinov2_small", store.folder)
    path = store.fetch("dinov2_small")
    os.truncate(path, path.stat().st_size - 1)
    assert f"{path} is damaged" in weights("check", code=2).stderr
    assert "splatsweep weights fetch vgg16" in weights("check", "vgg16", code=2).stderr
