"""Missing or outdated compiled kernels raise an error with the remedy."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys

import pytest

from model.native import library


def test_missing_library(monkeypatch, tmp_path):
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
