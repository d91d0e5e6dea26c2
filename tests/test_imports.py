"""Imports run one way: sweep -> jobs -> model, and sweep, jobs -> results, which needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "model": set(),
    "results": set(),
    "jobs": {"model", "results"},
    "sweep": {"jobs", "model", "results"},
}
#: The file that may name datasets, because their names are part of a file format.
NAMES_DATASETS = ROOT / "model" / "official" / "datasets.py"
#: External packages that a layer must not import.
FOREIGN = {"model": {"ray", "mlflow"}, "jobs": {"ray"}, "results": {"torch", "ray"}, "sweep": set()}


def imported(path: Path) -> set[str]:
    """Top-level names of all imports of a file, also those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package):
    forbidden = (set(MAY_IMPORT) - {package} - MAY_IMPORT[package]) | FOREIGN[package]
    offences = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path) & forbidden
    }
    assert not offences


def test_no_dataset_is_named_outside_the_datasets_and_presets():
    from jobs.data import DATASETS

    offences = [
        f"{path.relative_to(ROOT)} names {name!r}"
        for package in ("model", "results")
        for path in (ROOT / package).rglob("*.py")
        if path != NAMES_DATASETS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        for name in DATASETS
        if node.value == name
    ]
    assert not offences


def test_reports_are_built_without_torch():
    code = "import sys, results.report, sweep.spec; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_top_level_folder_is_known():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    folders = {name.split("/")[0] for name in tracked if "/" in name}
    assert folders <= {"sweep", "model", "jobs", "results", "tests", "docker", ".ci"}
