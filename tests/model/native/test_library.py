"""Missing or outdated compiled kernels raise an error with the remedy."""

from __future__ import annotations

import importlib.machinery
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from model.native import library


def test_copy_without_the_library_uses_the_installed_one(monkeypatch, tmp_path):
    """As a job, which runs a copy of the code in the cluster's environment."""
    (tmp_path / "direct_url.json").write_text(json.dumps({"url": "file:///a%20b", "dir_info": {"editable": True}}))
    installed = metadata.PathDistribution(tmp_path)
    monkeypatch.setattr(metadata, "distribution", lambda _: installed)
    assert list(library._installed_folders()) == [tmp_path.parent / "model" / "native", Path("/a b/model/native")]
    monkeypatch.setattr(library, "_installed_folders", lambda own=Path(library.__file__).parent: [tmp_path, own])
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    library.load_library.__wrapped__()


def test_missing_library(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "_installed_folders", list)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    with pytest.raises(library.KernelsMissingError, match=r"not built .* C\+\+17 compiler .*pip install"):
        library.load_library.__wrapped__()


def test_damaged_library(monkeypatch, tmp_path):
    (tmp_path / f"_native{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    with pytest.raises(library.KernelsMissingError, match="cannot be loaded"):
        library.load_library.__wrapped__()


def test_library_of_another_version(monkeypatch):
    monkeypatch.setattr(library, "INTERFACE_VERSION", -1)
    with pytest.raises(library.KernelsMissingError, match="this code needs -1"):
        library.load_library.__wrapped__()


def test_importing_the_registry_loads_neither_torch_nor_the_library():
    code = "import sys, model.rasterizers; sys.exit('torch' in sys.modules or 'ctypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_generic_kernels_are_always_there():
    assert library.rasteriser_kernels()[-1] == "generic"
