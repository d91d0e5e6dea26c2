"""The files under docker/ are consistent, as far as can be tested without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from tests.processes import PATIENCE_S

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


def pinned(package: str, text: str) -> str:
    """The version to which a requirements text pins a package."""
    found = re.search(rf"(?m)\b{re.escape(package)}(?:\[[a-z,]+\])?==([^\s\"]+)", text)
    assert found is not None, package
    return found.group(1)


def test_the_cuda_compiler_is_of_the_version_that_the_pinned_torch_is_built_for():
    dockerfile = (FOLDER / "cuda.Dockerfile").read_text()
    torch = metadata.distribution("torch")
    if torch.version.split("+")[0] != pinned("torch", (FOLDER.parent / "constraints.txt").read_text()):
        pytest.skip("another torch than the pinned one is installed")
    toolkits = [Requirement(text) for text in torch.requires or () if text.startswith("cuda-toolkit")]
    if not toolkits:
        pytest.skip("this torch is built without CUDA")
    version = pinned("cuda-toolkit", dockerfile)
    assert all(requirement.specifier.contains(version) for requirement in toolkits)
    assert f"/nvidia/cu{version.split('.')[0]}\n" in dockerfile


def test_the_image_has_the_rasterisers_that_presets_ask_for():
    from model.rasterizers import CUDA_BACKENDS, gsplat, inria
    from sweep.file.load import load_sweep
    from sweep.plan.grid import expand

    dockerfile = (FOLDER / "cuda.Dockerfile").read_text()
    commit = re.search(r"github\.com/graphdeco-inria/diff-gaussian-rasterization\.git@(\w+)", dockerfile)
    assert commit is not None
    assert commit.group(1) == inria.COMMIT, "the remedy that the adapter names is what the image installs"
    assert re.fullmatch("[0-9a-f]{40}", inria.COMMIT)
    assert tuple(map(int, pinned("gsplat", dockerfile).split(".")[:2])) >= gsplat.OLDEST

    #: the features of each commit, from its source
    has_antialiasing = {
        "59f5f77e3ddbac3ed9db93ec2cfe99ed6c5d121d": False,
        "9c5c2028f6fbee2be239bc4c9421ff894fe4fbe0": True,
    }
    asked = {
        (config.render.backend, config.render.antialiasing)
        for path in (FOLDER.parent / "sweep" / "presets").glob("*.yaml")
        for _, config in expand(load_sweep(path))
        if config.render.backend in CUDA_BACKENDS
    }
    assert ("inria", True) in asked
    assert has_antialiasing[commit.group(1)]


def test_what_compilers_of_today_want_is_in_the_build():
    """GCC 13 needs an explicit <cstdint>; torch's headers need C++20, while gsplat 1.5 requests C++17."""
    build = re.sub(r"\\\n\s*", "", (FOLDER / "cuda.Dockerfile").read_text())
    (line,) = (line for line in build.splitlines() if line.startswith("RUN") and "gsplat" in line)
    assert 'NVCC_PREPEND_FLAGS="-include cstdint"' in line
    assert 'NVCC_APPEND_FLAGS="-std=c++20"' in line
    assert "--no-build-isolation" in line
    assert "--no-binary gsplat" in line, "the wheel would compile at first use, in every container anew"


def _linter(name):
    """Path of a linter of the tests' environment, active or not, or on PATH."""
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    assert found is not None, f"{name} is not installed: pip install --editable '.[dev]'"
    return found


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_linted(path):
    done = subprocess.run([_linter("hadolint"), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["slurm.sh", "check-in-clean-root.sh"])
def test_scripts_are_linted(name):
    done = subprocess.run([_linter("shellcheck"), str(FOLDER / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_clean_root_is_made_by_instructions_that_its_script_knows(image):
    dockerfile = (FOLDER / f"{image}.Dockerfile").read_text()
    words = re.findall(r"^([A-Z]+) ", re.sub(r"\\\n", " ", dockerfile), re.MULTILINE)
    known = re.findall(r"^        ([A-Z\"|: ]+)\)", (FOLDER / "check-in-clean-root.sh").read_text(), re.MULTILINE)
    assert set(words) <= {word.strip() for case in known for word in case.split("|")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "gpu"], "--image gpu: there is no "),
        (["--imge", "cuda"], "--imge: an option that this script does not know"),
    ],
)
def test_clean_root_names_what_it_does_not_know(arguments, message):
    script = FOLDER / "check-in-clean-root.sh"
    done = subprocess.run([str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr


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
        image = pod["containers"][0]["image"].partition(":")[2]
        packages = re.search(r"apt-get install (.+) \\$", (FOLDER / f"{image}.Dockerfile").read_text(), re.MULTILINE)
        assert packages is not None
        assert "wget" in packages.group(1).split(), "KubeRay's probes call it in every pod"


FAKES = {
    "scontrol": """case "$1 $2" in
        "show hostnames") echo node1 ;;
        "show job") echo "   Requeue=$REQUEUE Restarts=0" ;;
        requeue*) echo "requeued $2" ;;
        esac""",
    "srun": 'echo "$@" >> "$SPLATSWEEP_HOME/steps"; if [ "$4" = bash ]; then "${@:4}"; fi',
    "hostname": 'if [ "$1" = --ip-address ]; then echo 127.0.1.1; else echo "10.0.0.1 fe80::1"; fi',
    "ray": """echo "$@" >> "$SPLATSWEEP_HOME/ray calls"
        until grep -q "ray start" "$SPLATSWEEP_HOME/steps"; do sleep 0.01; done""",
    "splatsweep": """trap 'echo stopped behind a checkpoint; exit 130' TERM
        echo "$@" ; while true; do sleep 0.05; done""",
}


@pytest.fixture
def slurm_job(tmp_path):
    """Starts docker/slurm.sh with stand-ins for Slurm, Ray and splatsweep, and waits until the sweep runs."""
    for name, body in FAKES.items():
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SPLATSWEEP_HOME": str(tmp_path)}
    variables |= {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node1", "SLURM_CPUS_PER_TASK": "8"}
    started = []

    def start(requeue):
        command = ["bash", str(FOLDER / "slurm.sh"), "my sweep.yaml", "--only", "a b"]
        environment = {**os.environ, **variables, "REQUEUE": str(int(requeue))}
        job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(job)
        lines = []
        while not any(line.startswith("run") for line in lines):
            lines.append(job.stdout.readline())
            assert lines[-1], lines
        assert lines[-1] == "run my sweep.yaml --only a b\n"
        return job

    start.started = started
    yield start
    for job in started:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)  # with the stand-in of the sweep


def test_slurm_job_without_a_head_ends(tmp_path, slurm_job):
    (tmp_path / "ray").write_text("#!/usr/bin/env bash\nexit 1\n")  # the stand-in of srun ends at once
    with pytest.raises(AssertionError):
        slurm_job(False)
    (job,) = slurm_job.started
    assert job.wait(PATIENCE_S) == 1


@pytest.mark.parametrize(
    ("number", "requeue", "is_requeued"),
    [(signal.SIGUSR1, True, True), (signal.SIGUSR1, False, False), (signal.SIGTERM, True, False)],
)
def test_slurm_job_is_requeued_when_its_time_is_up(tmp_path, slurm_job, number, requeue, is_requeued):
    job = slurm_job(requeue)
    job.send_signal(number)
    output, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 130
    assert "stopped behind a checkpoint" in output
    assert ("requeued 17" in output) == is_requeued
    assert ("the same sbatch command goes on" in output) == (number == signal.SIGUSR1 and not requeue)
    assert set((tmp_path / "ray calls").read_text().splitlines()) == {"status"}  # `ray stop` would end other jobs' Ray


def test_slurm_job_survives_a_signal_that_comes_while_the_sweep_starts(tmp_path, slurm_job):
    sweep = tmp_path / "splatsweep"
    sweep.write_text(sweep.read_text().replace("while true", "kill -USR1 $PPID; while true"))
    output, _ = slurm_job(True).communicate(timeout=PATIENCE_S)
    assert "stopped behind a checkpoint" in output
    assert "requeued 17" in output


def test_slurm_job_whose_time_is_up_before_ray_runs_is_requeued(tmp_path, slurm_job):
    (tmp_path / "ray").write_text("#!/usr/bin/env bash\nif [ $1 = status ]; then kill -USR1 $PPID; exit 1; fi\n")
    srun = "if [ $4 = bash ]; then echo 10.0.0.1; else exec sleep 60 > /dev/null; fi"
    (tmp_path / "srun").write_text(f"#!/usr/bin/env bash\n{srun}\n")
    with pytest.raises(AssertionError, match="requeued 17"):  # the end of the output, without a sweep
        slurm_job(True)
    (job,) = slurm_job.started
    assert job.wait(PATIENCE_S) == 130


def test_slurm_gives_ray_all_cpus_of_a_task_and_an_address_that_others_reach(tmp_path, slurm_job):
    slurm_job(False)
    steps = (tmp_path / "steps").read_text().splitlines()
    (node,) = (step for step in steps if "ray start" in step)
    assert "--cpus-per-task=8" in node
    assert "--num-cpus=8" in node
    assert "--node-ip-address=10.0.0.1 " in node
