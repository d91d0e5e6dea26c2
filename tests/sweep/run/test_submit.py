"""A sweep as a job of a Ray head node on the loopback interface, with token authentication."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from sweep.cli import app
from sweep.run.submit import (
    JOB_VARIABLE,
    UPLOAD_LIMIT_MIB,
    SubmitError,
    follow_job,
    lost_home_warning,
    stage,
    submit_job,
)
from tests.processes import PATIENCE_S, Home, free_port, run, tiny_sweep


@dataclass(frozen=True)
class Head:
    address: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    if shlex.quote(sys.executable) != sys.executable:
        pytest.skip("Ray starts no jobs where the path of Python has spaces")
    folder = tempfile.mkdtemp(prefix="ray-")  # short: the path of a socket has at most 107 characters
    head = Head(f"http://127.0.0.1:{(dashboard := free_port())}", secrets.token_hex(32))
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--node-ip-address",
        "127.0.0.1",
    ]
    command += ["--port", str(free_port()), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
    # Fixed by default, and taken where another cluster runs on this machine.
    command += ["--dashboard-agent-listen-port", str(free_port()), "--ray-client-server-port", str(free_port())]
    command += ["--num-cpus", "2", "--disable-usage-stats", "--temp-dir", folder]
    process = subprocess.Popen(
        command,
        env={**os.environ, **head.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    started = any("Ray runtime started" in line for line in process.stdout)
    assert started, "no head node"
    yield head
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    shutil.rmtree(folder, ignore_errors=True)


def status_of(address: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}/api/jobs/", headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def home(prepared_home, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("jobs") / "home"
    shutil.copytree(prepared_home, path)
    return path


@pytest.fixture
def sweep(tmp_path) -> Path:
    (tmp_path / "tiny.yaml").write_text(tiny_sweep())
    return tmp_path / "tiny.yaml"


def test_sweep_runs_as_a_job_with_a_token_and_not_without(head, home, sweep, weights):
    submit = ("submit", sweep, "--address", head.address, "--env", f"SPLATSWEEP_WEIGHTS={weights.folder}")

    assert status_of(head.address) == 401
    assert status_of(head.address, Authorization=f"Bearer {secrets.token_hex(32)}") == 403
    refused = run(*submit, home=home, code=2, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    assert "requires another token" in refused
    assert head.token not in refused
    assert not (home / "sweeps").exists()

    output = run(*submit, "--only", "baseline", home=home, **head.environment)
    assert "2 trials: 0 finished before, 1 to run" in output
    assert Home(home).trials()["baseline"]["status"] == "finished"
    assert (home / "reports" / "tiny" / "index.html").exists()


def test_a_plain_ray_job_resumes_the_sweep(head, home, sweep, weights, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    stage(sweep, checkout)
    variables = {"SPLATSWEEP_HOME": str(home), "SPLATSWEEP_WEIGHTS": str(weights.folder)}
    job = ["--submission-id", "again", "--runtime-env-json", json.dumps({"env_vars": variables}), "--working-dir", "."]
    submit = ["submit", *job, "--", "splatsweep", "run", sweep.name]

    def ray_job(verb: str, *arguments: str, token: str = head.token) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ray")), "job", verb, "--address", head.address, *arguments]
        environment = {**os.environ, **head.environment, "RAY_AUTH_TOKEN": token}
        return subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    refused = ray_job(*submit, token=secrets.token_hex(32))
    assert refused.returncode != 0
    assert "Planning" not in refused.stdout
    done = ray_job(*submit)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = ray_job("logs", "again").stdout  # where much runs at once, Ray may end `submit` before it has shown all
    assert "2 trials: 1 finished before, 1 to run" in printed
    assert {trial["status"] for trial in Home(home).trials().values()} == {"finished"}
    assert f"Report: {home / 'reports' / 'tiny' / 'index.html'}" in printed


def test_home_that_a_job_would_lose_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lost_home_warning(tmp_path / "runs") is None
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    assert "SPLATSWEEP_HOME" in lost_home_warning(tmp_path / "runs")
    assert lost_home_warning(tmp_path.parent / "runs") is None


def test_job_brings_its_code_and_the_files_beside_it(tmp_path, monkeypatch):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (here / "sweep.yaml").write_text(tiny_sweep())
    (here / "table.yaml").write_text("rows: []")
    (here / "other.yml").write_text("rows: []")
    (here / "notes.txt").write_text("mine")
    (here / ".#sweep.yaml").symlink_to("me@laptop.4711:1")  # an editor's lock
    (here / "private.yaml").write_text("name: of another user")
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "private.yaml")
    stage(here / "sweep.yaml", there)
    assert {path.name for path in there.iterdir()} == {
        "sweep",
        "model",
        "jobs",
        "results",
        "sweep.yaml",
        "table.yaml",
        "other.yml",
    }
    assert not list(there.rglob("__pycache__"))
    assert not list(there.rglob("*.so")), "it would replace the one that is compiled for the cluster"
    script = "import json, sweep.cli, model, jobs.trial; print(json.dumps([sweep.cli.__file__, jobs.trial.__file__]))"
    found = subprocess.run([sys.executable, "-c", script], cwd=there, capture_output=True, text=True, check=True)
    assert all(Path(path).is_relative_to(there) for path in json.loads(found.stdout))


@pytest.mark.parametrize(
    "name", ["{folder}/other.yaml", "../other.yaml", "folder/other.yaml", "{folder}/here/own.yaml"]
)
@pytest.mark.parametrize("line", ["tables: [{name}]", "extends: {name}", "extends: beside.yaml", ""])
def test_job_that_names_a_file_of_another_folder_is_refused(tmp_path, line, name):
    there, here, name = tmp_path / "there", tmp_path / "here", name.format(folder=tmp_path)
    there.mkdir()
    (here / "folder").mkdir(parents=True)
    for path in (tmp_path / "other.yaml", here / "folder/other.yaml", here / "own.yaml"):
        path.write_text("seeds: [0]\n" if "extends" in line else "tables: [{name: mine, kind: auto}]\n")
    (here / "beside.yaml").write_text(f"extends: {name}\n")
    (here / "sweep.yaml").write_text(f"{tiny_sweep()}\n{line.format(name=name)}\n")
    named = f"{here / name}: .*copy this one there, and name it {Path(name).name}"
    with pytest.raises(SubmitError, match=named):
        stage(here / "sweep.yaml", there, [] if line else [f"tables=[{name}]"])


class Cluster:
    """A client of a job server whose answers to a job are errors, and at last its number."""

    def __init__(self, *errors: str) -> None:
        self.errors, self.sent = list(errors), list[dict[str, Any]]()

    def submit_job(self, **job: Any) -> str:
        job["files"] = {path.name for path in Path(job["runtime_env"]["working_dir"]).iterdir()}
        self.sent.append(job)
        if self.errors:
            raise RuntimeError(self.errors.pop(0))
        return "raysubmit_1"


def submitted(sweep: Path, cluster: Cluster, monkeypatch, **options: Any) -> str:
    monkeypatch.setattr("sweep.run.submit._client", lambda _: cluster)
    arguments = {"settings": ["seeds=[0]"], "options": ["--only=a b"], "environment": {"A": "b c"}} | options
    return submit_job(sweep, "http://head:8265", Path("/shared/my runs"), **arguments)


def test_job_is_sent_with_its_names_as_they_are(tmp_path, monkeypatch):
    sweep, cluster = tmp_path / "it's $HOME", Cluster()
    sweep.write_text(f"{tiny_sweep()}\nextends: base")
    (tmp_path / "base").write_text("seeds: [0]\n")
    assert submitted(sweep, cluster, monkeypatch) == "raysubmit_1"
    (job,) = cluster.sent
    run = ["run", "it's $HOME", "--home", "/shared/my runs", "--set", "seeds=[0]", "--only=a b"]
    assert shlex.split(job["entrypoint"])[3:] == run
    assert job["runtime_env"]["env_vars"] == {"A": "b c"}
    assert job["files"] == {"sweep", "model", "jobs", "results", "it's $HOME", "base"}
    assert not Path(job["runtime_env"]["working_dir"]).exists()
    (tmp_path / "table.yaml").write_text("tables: []\n")
    with pytest.raises(SubmitError, match="copy this one there"):
        submitted(sweep, cluster, monkeypatch, settings=[f"tables=[{tmp_path}/table.yaml]"])


@pytest.mark.parametrize(
    ("errors", "seconds", "sent"),
    [(["No available agent"] * 2, 1, 3), (["No available agent"] * 2, 70, 2), (["no room"], 1, 1)],
)
def test_job_waits_for_a_head_node_that_has_just_started(sweep, monkeypatch, errors, seconds, sent):
    cluster, now = Cluster(*errors), [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: now.append(now.pop() + seconds))
    monkeypatch.setattr("sweep.run.submit.time", clock)
    if sent > len(errors):
        assert submitted(sweep, cluster, monkeypatch) == "raysubmit_1"
    else:
        with pytest.raises(SubmitError, match=f"http://head:8265 refused the job: {errors[0]}"):
            submitted(sweep, cluster, monkeypatch)
    assert len(cluster.sent) == sent


@pytest.mark.parametrize("address", ["head:8265", "head", "ray://head:10001", "auto", ""])
def test_address_that_is_no_url_is_refused_at_once(address):
    with pytest.raises(SubmitError, match=f"'{address}' is no address of a job server, such as http://head:8265"):
        follow_job("raysubmit_1", address, print)


@pytest.mark.parametrize("error", [ConnectionError("refused"), RuntimeError("404"), ValueError("no JSON")])
def test_address_without_a_job_server_is_named(error, monkeypatch):
    def connect(_address):
        raise error

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", connect)
    with pytest.raises(SubmitError, match=f"no job server answers at http://head:8265: {error}"):
        follow_job("raysubmit_1", "http://head:8265", print)


@pytest.mark.parametrize("is_seen", [True, False])
def test_submitted_sweep_is_described_truly(tmp_path, sweep, monkeypatch, is_seen):
    sent = []
    monkeypatch.setattr("sweep.run.submit.submit_job", lambda *arguments: sent.append(arguments) or "raysubmit_1")
    home = tmp_path / "home"
    if is_seen:
        home.mkdir()
    arguments = ["submit", str(sweep), "--address", "http://head:8265", "--home", str(home), "--take-over"]
    shown = CliRunner().invoke(app, [*arguments, "--no-follow"]).output
    stopping = "splatsweep stop" if is_seen else "ray job stop raysubmit_1 --address http://head:8265"
    assert f"to stop it: {stopping}" in " ".join(shown.split())
    ((*_, options, variables),) = sent
    assert options == ["--take-over"]
    assert len(variables["SPLATSWEEP_COMMIT"].removesuffix("-dirty")) == 40


def followed(monkeypatch, written: list[str], status: JobStatus, code: int | None, error: BaseException | None) -> int:
    """The result of following a job whose log is cut off by an error, or ends."""

    class Client:
        async def tail_job_logs(self, _name):
            yield "Planning"
            if error is not None:
                raise error

        def get_job_info(self, _name):
            return SimpleNamespace(driver_exit_code=code, status=status)

    monkeypatch.setattr("sweep.run.submit._client", lambda _address: Client())
    return follow_job("raysubmit_1", "http://head:8265", written.append)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "the log ended before the job"),
        (RuntimeError("closed unexpectedly"), "closed unexpectedly"),
        (aiohttp.ClientError("no websocket"), "no websocket"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_job_whose_log_is_cut_off_goes_on_and_is_said_to(monkeypatch, error, reason):
    written: list[str] = []
    with pytest.raises(SubmitError, match=rf"\({reason}\); it goes on .*ray job logs raysubmit_1 --follow"):
        followed(monkeypatch, written, JobStatus.RUNNING, None, error)
    assert written == ["Planning"]


def test_job_goes_on_after_ctrl_c_and_is_said_to(monkeypatch):
    written: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        followed(monkeypatch, written, JobStatus.RUNNING, None, KeyboardInterrupt())
    assert "it goes on" in written[-1]
    assert "ray job logs raysubmit_1 --follow --address http://head:8265" in written[-1]


@pytest.mark.parametrize(
    ("status", "code", "result"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 1, 1),
        (JobStatus.SUCCEEDED, None, 0),
        (JobStatus.STOPPED, None, 130),
        (JobStatus.FAILED, None, 2),
    ],
)
def test_job_that_has_ended_passes_on_its_exit_code(monkeypatch, status, code, result):
    assert followed(monkeypatch, [], status, code, None) == result


def test_job_that_is_too_large_is_refused(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (here / "sweep.yaml").write_text(tiny_sweep())
    with (here / "large.yaml").open("wb") as stream:
        stream.truncate((UPLOAD_LIMIT_MIB + 1) * 2**20)
    with pytest.raises(SubmitError, match=f"at most {UPLOAD_LIMIT_MIB} MiB"):
        stage(here / "sweep.yaml", there)
