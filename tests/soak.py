"""Kills everything that runs a sweep, at random moments, and looks whether the sweep comes out as if nothing had been.

    python tests/soak.py --rounds 20

Each round runs a small sweep under Ray with its results on an MLflow server, kills one kind of process with SIGKILL,
runs the sweep again until it is through, and compares with one that was left in peace: every trial finished, metrics
the same to the last bit, one MLflow run a key and none left RUNNING, and no trial repeated more than the iterations
behind its last checkpoint.  Ends with exit code 1 where a round found anything else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from results.records.journal import read_events
from tests.processes import CHECKPOINT_EVERY, Home, run, start, tiny_sweep, wait_for
from tests.servers import MlflowServer

TRIALS = ("baseline", "tv", "blank", "copy_input")
#: The most runs of a sweep after the kill; the death of Ray's head may end the first one too.
ATTEMPTS = 3


def owners(home: Home) -> list[int]:
    """Processes that currently train a trial, according to the journals."""
    found = set()
    for folder in home.path.glob("trials/*"):
        last = [event for event in read_events(folder) if event["event"] in ("start", "stopped", "failed")][-1:]
        found.update(event["pid"] for event in last if event["event"] == "start" and psutil.pid_exists(event["pid"]))
    return sorted(found)


def named(driver: int, name: str) -> list[int]:
    """Descendants of a driver, by the file that they run."""
    return [child.pid for child in psutil.Process(driver).children(recursive=True) if name in child.name()]


def victims(kind: str, driver: int, home: Home, chance: random.Random) -> list[int]:
    """Processes to kill; empty where there is no process of the kind at the moment."""
    if kind == "worker":
        return chance.sample(owners(home), min(1, len(owners(home))))
    if kind == "two workers":
        return owners(home)[:2]
    if kind == "head":
        return named(driver, chance.choice(["gcs_server", "raylet"]))
    return [driver]


KINDS = ("worker", "two workers", "driver", "head", "server")


@contextmanager
def running(server: MlflowServer) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.kill()


def one_round(kind: str, sweep: Path, home: Home, server: MlflowServer, chance: random.Random) -> list[str]:
    """Runs a sweep, kills processes of a kind, and runs it again; returns a log of these events."""
    tracking = f"tracking={{uri: {server.uri}, experiment: {home.path.name}}}"
    log = [f"{kind}:"]
    command = ("run", sweep, "--executor", "ray", "--set", tracking)
    driver = start(*command, home=home.path)
    wait_for(lambda: len(owners(home)) == 2 or driver.poll() is not None, "two trials at work")
    time.sleep(chance.uniform(0, 5))
    if kind == "server":
        log.append(f"killed after iteration {progress(home)}")
        server.kill()
        time.sleep(chance.uniform(0, 6))
        server.start()
    else:
        pids = victims(kind, driver.pid, home, chance) if driver.poll() is None else []
        assert pids, f"{kind}: nobody was there to be killed"
        log.append(f"killed {pids} after iteration {progress(home)}")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    code = ended(driver)
    log.append(f"exit {code}")
    for _ in range(ATTEMPTS):
        if code == 0:
            break
        code = ended(start(*command, home=home.path))
        log.append(f"again: exit {code}")
    return log


def ended(driver: subprocess.Popen[str], seconds: float = 300) -> int:
    """The exit code of a driver; a hanging one is killed and reported."""
    try:
        driver.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        driver.kill()
        driver.communicate()
        raise AssertionError(f"the driver did not end within {seconds:.0f} s") from None
    return driver.returncode


def progress(home: Home) -> list[int]:
    """The last iteration that each trial has recorded."""
    return [
        max((e["step"] for e in read_events(folder) if e["event"] == "metrics"), default=0)
        for folder in sorted(home.path.glob("trials/*"))
    ]


def findings(home: Home, undisturbed: Home, server: MlflowServer) -> list[str]:
    """All differences of a sweep from an undisturbed one."""
    from mlflow import MlflowClient

    found = []
    for name in TRIALS:
        if home.trials()[name]["status"] != "finished":
            found.append(f"{name} is {home.trials()[name]['status']}")
        elif home.measured(name) != undisturbed.measured(name):
            found.append(f"{name} measured other values")
        if any(steps > CHECKPOINT_EVERY for steps in home.retrained(name)):
            found.append(f"{name} repeated {home.retrained(name)} iterations")
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(home.path.name)
    runs = client.search_runs([experiment.experiment_id], "tags.`splatsweep.key` LIKE '%'") if experiment else []
    if sorted(each.info.run_name for each in runs) != sorted(TRIALS):
        found.append(f"MLflow holds {sorted(each.info.run_name for each in runs)}")
    found += [f"{r.info.run_name} is {r.info.status} in MLflow" for r in runs if r.info.status != "FINISHED"]
    for each in runs:
        ours = {metric for _, metric in home.measured(each.info.run_name)}
        missing = ours - each.data.metrics.keys()
        found += [f"MLflow lacks {sorted(missing)} of {each.info.run_name}"] if missing else []
    return found


def main(rounds: int, seed: int, kinds: list[str]) -> int:
    chance = random.Random(seed)
    unsound = 0
    with tempfile.TemporaryDirectory(prefix="splatsweep-soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        sweep = folder / "tiny.yaml"
        sweep.write_text(tiny_sweep(1500))
        undisturbed = Home(folder / "undisturbed")
        undisturbed.path.mkdir()
        run("run", sweep, "--executor", "inline", home=undisturbed.path)
        server = MlflowServer(folder)
        with running(server):
            for number, kind in zip(range(rounds), itertools.cycle(kinds), strict=False):
                home = Home(folder / f"round-{number}")
                home.path.mkdir()
                shutil.copytree(undisturbed.path / "data", home.path / "data")
                found = attempt(lambda kind=kind, home=home: one_round(kind, sweep, home, server, chance), number)
                found += findings(home, undisturbed, server)
                unsound += bool(found)
                print(f"    {'; '.join(found) or 'sound'}", flush=True)
                forget(server, home)
    print(f"{rounds - unsound} of {rounds} rounds sound (seed {seed})")
    return 1 if unsound else 0


def attempt(round_: Callable[[], list[str]], number: int) -> list[str]:
    """Runs a round and prints its log; a hanging driver is a finding."""
    started = time.monotonic()
    try:
        print(f"round {number + 1}: {' '.join(round_())} in {time.monotonic() - started:.0f} s", flush=True)
    except AssertionError as error:
        print(f"round {number + 1}: {error}", flush=True)
        return [str(error)]
    return []


def forget(server: MlflowServer, home: Home) -> None:
    """Deletes a round's MLflow runs, since the next round has trials with the same keys."""
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(home.path.name)
    if experiment is not None:
        client.delete_experiment(experiment.experiment_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    sys.exit(main(options.rounds, options.seed, options.kinds))
