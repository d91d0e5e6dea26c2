"""The example of CONTRIBUTING.md works: its loss, its test, and a step of training with it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobs.config import TrialConfig
from jobs.trial import run_trial
from model.losses import LOSSES
from results.records.journal import read_events

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
LOSS, TEST = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(NAME, TARGET) = re.findall(r'`"(\w+)": "([\w.]+:\w+)",`', TEXT)[0]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's loss, registered by the example's line."""
    module = ModuleType(TARGET.partition(":")[0])
    exec(compile(LOSS, "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(LOSSES, NAME, TARGET)


@pytest.mark.usefixtures("registered")
def test_the_examples_test_passes(weights) -> None:
    content: dict[str, object] = {}
    exec(compile(TEST, "CONTRIBUTING.md", "exec"), content)
    tests = [value for name, value in content.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test(weights)


@pytest.mark.usefixtures("registered")
def test_the_examples_loss_trains_without_another_change(home, tiny) -> None:
    stages = [{"iterations": 4, "lr": 1e-3, "losses": {NAME: 1.0}}]
    config = TrialConfig.model_validate(tiny(train={"batch_size": 2, "views_per_object": 3, "stages": stages}))
    result = run_trial(config, home)
    names = {name for event in read_events(result.folder) for name in event.get("values", {})}
    assert f"train/{NAME}" in names


def test_every_path_of_the_map_exists() -> None:
    root = Path(__file__).parent.parent
    paths = set(re.findall(r"`((?:sweep|jobs|model|results|tests)/[\w./]+)`", TEXT))
    missing = {path for path in paths if "NAME" not in path and not (root / path).exists()}
    assert missing <= {"model/losses/charbonnier.py", "tests/model/losses/test_charbonnier.py"}
