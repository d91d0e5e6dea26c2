"""The command `make gpu`: its parts respect their time limits and are recorded, and its summary has their results."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from jobs.precision import products
from tests.gpu import check, measure
from tests.gpu.acceptance import acceptance
from tests.gpu.check import REPOSITORY, Outcome, Part
from tests.processes import LONG, tiny_sweep, wait_for

MACHINE = {"card": "1 x NVIDIA H100", "torch": "2.14.1, CUDA 13.0", "driver": None}
ROWS = [
    {"workload": "8 x 4 at 128 px", "backend": "gsplat", "device": "cuda", "both ms": 5.7123, "threads": None},
    {"workload": "8 x 4 at 128 px", "backend": "inria", "device": "cuda", "both ms": 21.0, "threads": None},
]


def test_summary_names_the_machine_the_parts_and_the_figures():
    outcomes = [
        Outcome("tests", "passed", 52.3, "57 passed, 0 failed, 3 skipped", {"skipped": ["needs gsplat"]}),
        Outcome("raster", "passed", 30.0, "2 rows", {"rows": ROWS}),
        Outcome("sweep", "not run", 0.0, "weights vgg16 are not here"),
    ]
    text = check.summary_text(MACHINE, outcomes)
    assert text.splitlines()[:2] == ["card: 1 x NVIDIA H100", "torch: 2.14.1, CUDA 13.0"]
    assert "passed     tests          52 s  57 passed, 0 failed, 3 skipped" in text
    assert "not run    sweep           0 s  weights vgg16 are not here" in text
    assert "  passed       GPU tests that failed: 0, at most 0" in text
    assert "  not measured killed sweeps that did not go on to their end: at most 0" in text
    assert "  workload         backend  device  both ms\n  8 x 4 at 128 px  gsplat   cuda    5.71\n" in text
    assert "skipped: needs gsplat" in text
    assert text.endswith("all well\n")
    assert "not all well" not in text


@pytest.mark.parametrize(
    ("state", "well"), [("passed", True), ("not run", True), ("failed", False), ("timed out", False)]
)
def test_what_failed_or_took_too_long_is_not_well(state, well):
    outcomes = [Outcome("a", "passed"), Outcome("b", state)]
    assert check.is_well(outcomes) is well
    assert check.summary_text(MACHINE, outcomes).endswith("\nall well\n") is well


@pytest.mark.parametrize(
    ("rows", "well"),
    [
        ([{"measure": "agreement", "execution": "graph", "difference": 1e-5}], True),
        ([{"measure": "agreement", "execution": "graph", "difference": 0.3}], False),
        ([{"measure": "host reads", "execution": "eager", "waits": "called a synchronizing operation"}], False),
    ],
)
def test_wrong_results_are_not_well_and_a_slow_card_is(rows, well):
    slow = [step_row("laptop", "gsplat", "graph", "tf32", 70.0, 0.9)]
    outcomes = [Outcome("step", "passed", figures={"rows": slow})]
    outcomes.append(Outcome("agreement", "passed", figures={"rows": rows}))
    assert check.is_well(outcomes) is well


def test_a_part_that_breaks_leaves_the_others(tmp_path, capsys):
    def breaks(limit, folder):
        raise RuntimeError(f"no such thing within {limit:g} s in {folder.name}")

    parts = [Part("tests", 3, breaks), Part("second", 4, lambda _, __: Outcome("second", "timed out"))]
    parts.append(Part("third", 5, lambda _, __: Outcome("third", "passed", figures={"rows": ROWS})))
    assert check.check(parts, tmp_path / "out", MACHINE) == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["all_well"] is False
    assert summary["machine"] == MACHINE
    assert [(part["name"], part["state"]) for part in summary["parts"]] == [
        ("tests", "failed"),
        ("second", "timed out"),
        ("third", "passed"),
    ]
    assert summary["parts"][0]["detail"] == "RuntimeError: no such thing within 3 s in out"
    assert summary["parts"][1]["detail"] == "more than 4 s"
    of_tests = summary["requirements"][0]
    assert (of_tests["name"], of_tests["verdict"]) == ("GPU tests that failed", "failed")
    assert json.loads((tmp_path / "out" / "parts.json").read_text()) == summary["parts"]
    assert (tmp_path / "out" / "summary.txt").read_text() in capsys.readouterr().out


def test_a_package_that_is_lacking_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None if name in ("pytest", "ray") else object())
    for part, name in ((check.tests, "pytest"), (check.sweep, "ray")):
        with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
            part(1.0, tmp_path)


def test_a_part_that_misses_a_package_is_not_a_failure(tmp_path):
    def misses(_limit, _folder):
        raise ModuleNotFoundError("No module named 'trimesh'", name="trimesh")

    assert check.check([Part("first", 3, misses)], tmp_path, MACHINE) == 0
    (part,) = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert (part["state"], part["detail"]) == ("not run", "the package trimesh is not here")


def test_all_parts_together_fit_into_six_minutes():
    assert sum(part.limit for part in check.PARTS) <= 360
    assert [part.name for part in check.PARTS] == [
        "tests", "raster", "step", "agreement", "sweep",
    ]  # fmt: skip


def step_row(size: str, backend: str, execution: str, precision: str, ms: float, share: float) -> dict[str, Any]:
    row = {"size": size, "case": "ours", "backend": backend, "execution": execution, "precision": precision}
    return row | {"device": "cuda", "ms": ms, "of published": share}


def test_every_requirement_has_its_verdict_and_figure():
    raster = [
        {"workload": f"8 x 4 at {side} px", "backend": backend, "execution": execution, "both ms": ms}
        for side, backend, execution, ms in (
            (128, "gsplat", "eager", 5.0),
            (128, "triton", "eager", 4.5),
            (128, "triton", "graph", 2.0),
            (128, "inria", "eager", 21.0),
            (32, "triton", "eager", 1.0),
        )
    ]
    laptop = [
        step_row("laptop", "gsplat", "graph", "tf32", 7.0, 0.2),
        step_row("laptop", "triton", "graph", "tf32", 3.0, 0.1),
        {"size": "laptop", "case": "ours", "backend": "cpu", "device": "cpu", "ms": 30.0},
    ]
    paper = [
        step_row("paper", "gsplat", "graph", "tf32", 40.0, 0.36),
        step_row("paper", "gsplat", "eager", "tf32", 41, 0.34),
    ]
    agreement = [
        {"measure": "agreement", "execution": "eager", "backend": "triton", "difference": 2e-6},
        {"measure": "agreement", "execution": "graph", "backend": "triton", "difference": 2e-3},
        {
            "measure": "host reads",
            "execution": "graph",
            "backend": "triton",
            "waits": "called a synchronizing operation",
        },
        {"measure": "lpips", "shift": 5e-4},
    ]
    rows = {"raster": raster, "step": [*laptop, *paper], "agreement": agreement}
    parts = [{"name": name, "state": "passed", "figures": {"rows": found}} for name, found in rows.items()]
    parts += [
        {"name": "tests", "state": "failed", "figures": {"failed": ["a", "b"]}},
        {"name": "sweep", "state": "timed out", "figures": {}},
    ]
    lines = {line.name: (line.verdict, line.figure) for line in acceptance(parts)}
    assert len(lines) == 20
    assert lines.pop("GPU tests that failed") == ("failed", 2)
    assert lines.pop("paper, TF32: step, of the published style's") == ("passed", 0.34)
    assert lines.pop("laptop with gsplat: ms a step") == ("passed", 7)
    assert lines.pop("laptop: step, of two CPU cores'") == ("passed", pytest.approx(0.1))
    assert lines.pop("laptop with triton, one graph: ms a step") == ("passed", 3)
    assert lines.pop("32 renders at 128 px, inria: ms") == ("passed", 21)
    assert lines.pop("32 renders at 128 px: triton, of gsplat's time") == ("failed", pytest.approx(0.9))
    assert lines.pop("32 renders at 128 px: triton as a graph, of gsplat's time") == ("passed", pytest.approx(0.4))
    assert lines.pop("200 steps, eager: losses, relative difference from the CPU's") == ("passed", 2e-6)
    assert lines.pop("200 steps, graph: losses, relative difference from the CPU's") == ("failed", 2e-3)
    assert lines.pop("a step, graph: waits of the host") == ("failed", 1)
    assert lines.pop("LPIPS in bf16 and channels last: shift") == ("passed", 5e-4)
    assert {verdict for verdict, _ in lines.values()} == {"not measured"}


def test_what_was_measured_before_the_limit_counts():
    lines = [json.dumps({"measure": "lpips", "shift": 1e-4}), json.dumps({"measure": "compiling", "lacks": "no gcc"})]
    outcome = check.measured_outcome("agreement", None, "\n".join([*lines, '{"measure": "agr']))
    assert outcome == Outcome(
        "agreement",
        "timed out",
        detail="1 rows; compiling: no gcc",
        figures={"rows": [{"measure": "lpips", "shift": 1e-4}]},
    )
    case = {"size": "paper", "case": "ours", "backend": "inria", "execution": "graph", "precision": "tf32", "ms": None}
    failed = check.measured_outcome("step", 0, json.dumps(case | {"fails": "ExecutionError: the step"}))
    assert failed.detail == "0 rows; paper inria graph tf32: ExecutionError: the step"
    assert failed.state == "failed", "although the others were measured"
    assert check.measured_outcome("step", 0, json.dumps(case | {"lacks": "no gsplat"})).state == "passed"
    assert check.measured_outcome("agreement", 1, "").state == "failed"
    assert check.measured_outcome("agreement", 0, lines[0]).state == "passed"


def test_losses_agree_with_themselves():
    """The measurement of 200 steps, shortened, with the CPU in the GPU's place."""
    with measure._chairs(measure.GPU_SIZES[0]) as store:
        (row,) = measure.agreement(torch.device("cpu"), store, 2, ("eager",), "cpu")
    assert row == {"measure": "agreement", "execution": "eager", "backend": "cpu", "difference": 0.0}


def test_the_shift_of_lpips_is_small_and_not_zero(weights, monkeypatch):
    features, allowed = measure.LpipsDistance.features, []

    def recorded(self, images, *, in_bf16):
        allowed.append(torch.backends.cudnn.allow_tf32)
        return features(self, images, in_bf16=in_bf16)

    monkeypatch.setattr(measure.LpipsDistance, "features", recorded)
    with products("tf32"):
        row = measure.lpips_shift(torch.device("cpu"), weights, images=1, side=16)
    assert 0 < row["shift"] < 1e-2
    assert allowed == [False] * 4, "float32 itself is compared"


def _is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_every_test_that_is_marked_lies_where_it_is_looked_for():
    tests = REPOSITORY / "tests"
    marked = [path for path in tests.rglob("test_*.py") if "mark.gpu" in path.read_text() and path != Path(__file__)]
    assert len(marked) >= 4
    folders = [REPOSITORY / folder for folder in check.FOLDERS]
    assert all(any(path.is_relative_to(folder) for folder in folders) for path in marked)


def test_a_command_is_ended_with_all_that_it_started(tmp_path):
    pid = tmp_path / "pid"
    command = ("sh", "-c", f"sleep 600 & echo $! > {pid}.new; mv {pid}.new {pid}; wait")
    limit = 0.0
    while not pid.exists():  # the limit may have come before the shell did anything
        limit += 1.0
        assert check.run_limited(command, limit, tmp_path / "log") is None
    child = int(pid.read_text())
    wait_for(lambda: _is_gone(child), "the end of what the command started")


def test_parts_share_compiled_kernels(tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check._environment()["TRITON_CACHE_DIR"] == str(tmp_path / ".triton" / "cache")
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    assert check._environment()["TRITON_CACHE_DIR"] == "elsewhere"


def test_output_and_errors_go_where_they_belong(tmp_path):
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert check.run_limited((sys.executable, "-c", code), 60, tmp_path / "log", tmp_path / "out") == 3
    assert ((tmp_path / "out").read_text(), (tmp_path / "log").read_text()) == ("out\n", "err\n")


def test_counts_are_those_of_pytest(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase>'
        '<testcase name="c"><skipped message="needs gsplat"/></testcase></testsuite></testsuites>'
    )
    outcome = check.tests_outcome(1, report)
    assert (outcome.state, outcome.detail) == ("failed", "1 passed, 1 failed, 1 skipped: b")
    assert outcome.figures["skipped"] == ["needs gsplat"]


def test_figures_of_a_benchmark_are_those_of_the_gpu():
    result = {
        "machine": {"gpu": "NVIDIA H100"},
        "notes": ["a note"],
        "rows": [*ROWS, {"device": "cpu", "both ms": 36.0}],
    }
    outcome = check.bench_outcome("raster", result)
    assert (outcome.state, outcome.figures["rows"]) == ("passed", ROWS)
    assert check.bench_outcome("raster", result | {"machine": {"gpu": None}}).state == "not run"


def test_weights_that_are_lacking_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path))
    outcome = check.sweep(1.0, tmp_path)
    assert outcome.state == "not run"
    assert "vgg16" in outcome.detail
    assert "`make weights`" in outcome.detail


def test_a_killed_sweep_resumes(prepared_home, weights, tmp_path):  # noqa: ARG001 - the commands find them
    shutil.copytree(prepared_home, tmp_path / "home")
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(tiny_sweep(LONG))
    outcome = check.killed_and_resumed((sweep, "--executor", "inline"), 600, tmp_path)
    assert outcome.state == "passed", (outcome, (tmp_path / "sweep.log").read_text())
    assert outcome.detail == "2 of 2 trials finished, 1 resumed from a checkpoint"
    assert outcome.figures["arithmetic"] == [
        {"backend": "cpu", "execution": "eager", "precision": "float32", "device": "cpu"}
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_reports_that_and_succeeds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check.py", "--out", str(tmp_path / "gpu")])
    assert check.main() == 0
    assert capsys.readouterr().out == "no GPU is here: nothing was run\n"
    assert not (tmp_path / "gpu").exists()
