"""Shows on a machine with a GPU that all is right there, and how fast it is, in at most six minutes: `make gpu`.

    python tests/gpu/check.py --out runs/gpu
    python tests/gpu/check.py --only raster step

Parts run one after another: the tests that are marked `gpu`, `bench raster`, training steps at two sizes, 200 steps
beside a CPU's, and a sweep of the preset `quick` under Ray with four trials on a GPU, killed in its middle and run
again.  Each has a time limit, and what a part has measured by then counts.  The folder gets a log of each, `parts.json`
as they end, and the summary: `summary.txt` and `summary.json`, with a verdict on each requirement (`acceptance.py`).

Nothing is installed or fetched.  A part that lacks something says what, and does not count as failed; the sweep needs
the weights that `make weights` fetches.  Without a GPU it says so and ends well.  All is well where nothing failed, and
no requirement on results; those on speed depend on the card.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parent.parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.gpu.acceptance import acceptance  # noqa: E402

State = Literal["passed", "failed", "timed out", "not run"]

SPLATSWEEP = (sys.executable, "-c", "from sweep.cli import main; main()")
PRESET = REPOSITORY / "sweep" / "presets" / "quick.yaml"
#: Folders with tests marked `gpu`; collecting all tests would take longer than running these.
FOLDERS = ("tests/gpu", "tests/model", "tests/jobs")
#: Processes that share the tests, where pytest-xdist is installed.
TEST_PROCESSES = 6
#: The share of a GPU per trial, so that several trials share one.
SHARE = 0.25
#: Iterations between checkpoints: some before the kill, also in short stages.
CHECKPOINT_EVERY = 40


@dataclass(frozen=True)
class Outcome:
    """The outcome of one part."""

    name: str
    state: State
    seconds: float = 0.0
    #: a sentence: counts, the best figures, or what was lacking
    detail: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One check, and its time limit in seconds."""

    name: str
    limit: float
    run: Callable[[float, Path], Outcome]


def run_limited(command: Sequence[str | Path], limit: float, log: Path, stdout: Path | None = None) -> int | None:
    """Run a command from the repository; its exit code, or None where it was ended after `limit` seconds.

    Errors, and without `stdout` all that it prints, go to `log`.  All processes of its group end with it.
    """
    with log.open("ab") as errors, (stdout or log).open("ab") as output:
        process = _start(command, output, errors)
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(command: Sequence[str | Path], output: IO[bytes], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts a command in a process group of its own, so that all its processes can be ended."""
    return subprocess.Popen(
        list(map(str, command)),
        cwd=REPOSITORY,
        stdout=output,
        stderr=errors,
        env=_environment(),
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    weights = os.environ.get("SPLATSWEEP_WEIGHTS") or str(REPOSITORY / "runs" / "weights")
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    # Triton's default; the sweep's new home would have a cache of its own, and compile every kernel again.
    kernels = os.environ.get("TRITON_CACHE_DIR") or str(Path.home() / ".triton" / "cache")
    return {**os.environ, "PYTHONPATH": path, "SPLATSWEEP_WEIGHTS": weights, "TRITON_CACHE_DIR": kernels}


# Parts


def require(*packages: str) -> None:
    """Raises `ModuleNotFoundError` naming the first of these packages that is not installed."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def tests(limit: float, folder: Path) -> Outcome:
    """The tests that are marked `gpu`."""
    require("pytest", "hypothesis")
    report = folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}", *FOLDERS]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(TEST_PROCESSES)]  # most of the time goes into compiling kernels, on the CPU
    code = run_limited(command, limit, folder / "tests.log")
    if code is None:
        return Outcome("tests", "timed out")
    if not report.exists():
        return Outcome("tests", "failed", detail=f"pytest ended with {code} and no report; see tests.log")
    return tests_outcome(code, report)


def tests_outcome(code: int, report: Path) -> Outcome:
    """The outcome of the tests, from pytest's exit code and its JUnit report."""
    root = ElementTree.parse(report).getroot()
    cases = list(root.iter("testcase"))
    bad = [
        f"{case.get('name')}" for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = [reason for case in cases for reason in case.iter("skipped")]
    figures = {
        "passed": len(cases) - len(bad) - len(skipped),
        "failed": bad,
        "skipped": sorted({reason.get("message", "") for reason in skipped}),
    }
    detail = f"{figures['passed']} passed, {len(bad)} failed, {len(skipped)} skipped"
    detail += f": {', '.join(bad)}" if bad else ""
    return Outcome("tests", "passed" if code == 0 else "failed", detail=detail, figures=figures)


def bench(name: str, *options: str) -> Callable[[float, Path], Outcome]:
    """A benchmark of `splatsweep bench`."""

    def run(limit: float, folder: Path) -> Outcome:
        result = folder / f"{name}.json"
        code = run_limited((*SPLATSWEEP, "bench", name, *options, "--json"), limit, folder / f"{name}.log", result)
        if code is None:
            return Outcome(name, "timed out")
        if code != 0:
            return Outcome(name, "failed", detail=f"exit code {code}; see {name}.log")
        return bench_outcome(name, json.loads(result.read_text()))

    return run


def bench_outcome(name: str, result: Mapping[str, Any]) -> Outcome:
    """The outcome with the rows measured on the GPU: those with that device, or all where rows have no device."""
    rows = [row for row in result["rows"] if row.get("device", "cuda") == "cuda"]
    if not rows or not result["machine"].get("gpu"):
        return Outcome(name, "not run", detail="the benchmark has no row for this GPU")
    return Outcome(name, "passed", detail=f"{len(rows)} rows", figures={"rows": rows, "notes": result["notes"]})


def measured(name: str, *arguments: str) -> Callable[[float, Path], Outcome]:
    """Rows of `measure.py`, also where it was ended in its middle."""

    def run(limit: float, folder: Path) -> Outcome:
        stem = name.replace(" ", "-")
        result = folder / f"{stem}.jsonl"
        script = REPOSITORY / "tests" / "gpu" / "measure.py"
        code = run_limited((sys.executable, script, *arguments), limit, folder / f"{stem}.log", result)
        return measured_outcome(name, code, result.read_text())

    return run


def measured_outcome(name: str, code: int | None, printed: str) -> Outcome:
    """The outcome from the lines that were printed; the last one may be cut off."""
    rows = []
    for line in printed.splitlines():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    complete = [row for row in rows if not {"lacks", "fails"} & row.keys()]
    reasons = [f"{_name_of(row)}: {row.get('lacks', row.get('fails'))}" for row in rows if row not in complete]
    detail = "; ".join([f"{len(complete)} rows", *reasons])
    if code not in (0, None):
        detail += f"; exit code {code}"
    failed = code != 0 or any("fails" in row for row in rows)
    state: State = "timed out" if code is None else "failed" if failed else "passed"
    return Outcome(name, state, detail=detail, figures={"rows": complete})


def _name_of(row: Mapping[str, Any]) -> str:
    """Its measure, or the case of a benchmark."""
    return row.get("measure") or " ".join(row[name] for name in ("size", "backend", "execution", "precision"))


def sweep(limit: float, folder: Path) -> Outcome:
    """The preset `quick` under Ray, several trials on a GPU, killed and run again."""
    require("ray", "mlflow")
    lacking = missing_weights(PRESET)
    if lacking:
        detail = f"weights {', '.join(lacking)} are not here; `make weights` fetches them where there is a network"
        return Outcome("sweep", "not run", detail=detail)
    settings = ("--set", f"run.gpus_per_trial={SHARE}", "--set", f"run.checkpoint_every={CHECKPOINT_EVERY}")
    return killed_and_resumed((PRESET, *settings), limit, folder)


def killed_and_resumed(arguments: Sequence[str | Path], limit: float, folder: Path) -> Outcome:
    """Runs `splatsweep run ARGUMENTS` in its own home, kills the driver after a checkpoint, and runs it again."""
    home, log, deadline = folder / "home", folder / "sweep.log", time.monotonic() + limit
    command = [*SPLATSWEEP, "run", *arguments, "--home", home]
    with log.open("wb") as output:
        driver = _start(command, output, output)
        while driver.poll() is None and time.monotonic() < deadline and not _checkpoints(home):
            time.sleep(0.05)
        was_running = driver.poll() is None
        driver.kill()
        driver.wait()
    if not was_running:
        return Outcome("sweep", "failed", detail="the sweep ended before it could be killed; see sweep.log")
    code = run_limited(command, deadline - time.monotonic(), log)
    if code is None:
        return Outcome("sweep", "timed out")
    return sweep_outcome(code, home)


def _checkpoints(home: Path) -> list[Path]:
    return [*home.glob("trainings/*/checkpoints/*.json"), *home.glob("trials/*/checkpoints/*.json")]


def sweep_outcome(code: int, home: Path) -> Outcome:
    """The outcome of a sweep that was killed and run again, from the files in its home."""
    from results.records.journal import read_events

    (plan,) = home.glob("sweeps/*/plan.json")
    trials = json.loads(plan.read_text())["trials"]
    states = {trial["name"]: trial["status"] for trial in trials}
    folders = [home / "trials" / trial["key"] for trial in trials]
    resumed = sum(
        any(event["event"] == "start" and event["step"] > 0 for event in read_events(folder)) for folder in folders
    )
    results = [
        json.loads((folder / "result.json").read_text()) for folder in folders if (folder / "result.json").exists()
    ]
    arithmetic = {json.dumps(entry, sort_keys=True) for result in results for entry in result.get("arithmetic", ())}
    figures = {
        "states": states,
        "resumed": resumed,
        "arithmetic": [json.loads(text) for text in sorted(arithmetic)],
    }
    finished = sum(state == "finished" for state in states.values())
    detail = f"{finished} of {len(states)} trials finished, {resumed} resumed from a checkpoint"
    is_well = code == 0 and finished == len(states) and resumed > 0
    return Outcome("sweep", "passed" if is_well else "failed", detail=detail, figures=figures)


def missing_weights(sweep_file: Path) -> list[str]:
    """Names of frozen weights that a sweep needs and that are not here."""
    from jobs.keys import frozen_weights
    from model.weights import WeightStore
    from sweep.file.load import load_sweep
    from sweep.plan.grid import expand

    here = WeightStore(Path(_environment()["SPLATSWEEP_WEIGHTS"])).names()
    needed = {name for _, config in expand(load_sweep(sweep_file)) for name in frozen_weights(config)}
    return sorted(needed - set(here))


PARTS = (
    Part("tests", 85, tests),
    Part("raster", 20, bench("raster", "--quick")),
    Part("step", 105, measured("step", "step")),
    Part("agreement", 55, measured("agreement", "agreement")),
    Part("sweep", 95, sweep),
)


# The summary


def summary_text(machine: Mapping[str, Any], outcomes: Iterable[Outcome]) -> str:
    """The summary as text: the machine, one line per part, and the tables of the benchmarks."""
    outcomes = list(outcomes)
    lines = [f"{name}: {value}" for name, value in machine.items() if value is not None]
    lines += ["", *(f"{o.state:<10} {o.name:<11} {o.seconds:5.0f} s  {o.detail}".rstrip() for o in outcomes)]
    for outcome in outcomes:
        rows = outcome.figures.get("rows", [])
        lines += ["", f"{outcome.name}:", *_table(rows)] if rows else []
        lines += [f"  skipped: {reason}" for reason in outcome.figures.get("skipped", ())]
        lines += [f"  arithmetic: {_pairs(entry)}" for entry in outcome.figures.get("arithmetic", ())]
    lines += ["", "requirements:", *(f"  {line}" for line in acceptance([asdict(each) for each in outcomes]))]
    lines += ["", "all well" if is_well(outcomes) else "not all well"]
    return "\n".join(lines) + "\n"


def is_well(outcomes: Iterable[Outcome]) -> bool:
    """Whether no part failed or took too long, and no requirement on results failed; others need not have run."""
    outcomes = list(outcomes)
    lines = acceptance([asdict(outcome) for outcome in outcomes])
    is_wrong = any(line.verdict == "failed" and not line.is_speed for line in lines)
    return not is_wrong and not any(outcome.state in ("failed", "timed out") for outcome in outcomes)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A text table of the non-empty columns, numbers with three digits."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if any(row.get(name) is not None for row in rows)]
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _pairs(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in entry.items())


def describe_machine() -> dict[str, Any]:
    """The GPU, and the versions of the software that determines its results."""
    import torch

    from sweep.plan.drawing import installed

    card = torch.cuda.get_device_properties(0)
    return {
        "card": f"{torch.cuda.device_count()} x {card.name}, {card.total_memory / 2**30:.0f} GiB",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}, compute capability {card.major}.{card.minor}",
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "rasterisers": ", ".join(f"{name} {text}".strip() for name, text in installed().items()),
    }


def check(parts: Iterable[Part], folder: Path, machine: Mapping[str, Any]) -> int:
    """Runs the parts, records each as it ends, and writes the summary.  Returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for part in parts:
        print(f"{part.name} (at most {part.limit:.0f} s) ...", flush=True)
        started = time.monotonic()
        try:
            outcome = part.run(part.limit, folder)
        except ModuleNotFoundError as error:
            outcome = Outcome(part.name, "not run", detail=f"the package {error.name} is not here")
        except Exception as error:  # one part must not take the others' outcomes with it
            outcome = Outcome(part.name, "failed", detail=f"{type(error).__name__}: {error}")
        detail = outcome.detail or (f"more than {part.limit:.0f} s" if outcome.state == "timed out" else "")
        seconds = time.monotonic() - started
        outcomes.append(Outcome(part.name, outcome.state, seconds, detail, outcome.figures))
        _write_json(folder / "parts.json", [asdict(each) for each in outcomes])
    text = summary_text(machine, outcomes)
    (folder / "summary.txt").write_text(text)
    parts_done = [asdict(each) for each in outcomes]
    content = {
        "machine": dict(machine),
        "parts": parts_done,
        "requirements": [asdict(line) | {"verdict": line.verdict} for line in acceptance(parts_done)],
        "all_well": is_well(outcomes),
    }
    _write_json(folder / "summary.json", content)
    print(f"\n{text}\nalso in {folder / 'summary.txt'} and {folder / 'summary.json'}")
    return 0 if is_well(outcomes) else 1


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2))


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description="Show that all is right on this machine's GPU.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "gpu", help="folder of logs and summary")
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART", help=", ".join(names))
    given = parser.parse_args()
    folder: Path = given.out
    if not torch.cuda.is_available():
        print("no GPU is here: nothing was run")
        return 0
    stamp = time.strftime("%Y%m%d-%H%M%S")
    parts = [part for part in PARTS if part.name in given.only]
    return check(parts, folder.absolute() / stamp, describe_machine())


if __name__ == "__main__":
    sys.exit(main())
