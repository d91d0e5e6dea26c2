"""The README's tables of the study are what a report makes of the committed records."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from results.load import load_results
from results.statistics import paired_test
from sweep.spec import load_sweep
from tests.processes import run

REPOSITORY = Path(__file__).parent.parent
PRESET = REPOSITORY / "sweep" / "presets" / "study.yaml"
RECORDS = REPOSITORY / "results" / "examples" / "study"
README = (REPOSITORY / "README.md").read_text()
#: name of a table -> its text in the README, between two comments
SHOWN = dict(re.findall(r"<!-- table (\S+) -->\n(.*?)\n<!-- end -->", README, re.DOTALL))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report that is made from a copy of the records."""
    home = tmp_path_factory.mktemp("records") / "home"
    shutil.copytree(RECORDS, home)
    run("report", PRESET, home=home)
    return home / "reports" / "study"


@pytest.mark.parametrize("name", ["study-chairs", "study-scans"])
def test_every_number_of_the_readme_is_reproduced(report: Path, name: str) -> None:
    first_table = re.search(r"(?:^\|.*\n)+", (report / f"{name}.md").read_text(), re.MULTILINE)
    assert first_table is not None
    assert SHOWN[name].strip() == first_table[0].strip()


def test_a_number_is_traced_to_its_runs(report: Path) -> None:
    output = run("explain", "study-chairs", "baseline", "novel_psnr", "--sweep", PRESET, home=report.parents[1])
    assert re.search(r"\b[0-9a-f]{16}\b", output), "no key"
    assert "seed 0" in output


@pytest.mark.parametrize("dataset", ["chairs", "scans"])
def test_the_baseline_is_above_what_needs_no_training(report: Path, dataset: str) -> None:
    """With intervals that exclude zero; the README has those for a copied input."""
    frame = load_results(load_sweep(PRESET), report.parents[1])
    frame = frame[(frame["split"] == "test") & (frame["view_kind"] == "novel") & (frame["metric"] == "psnr")]
    scores = frame.pivot(index=["trial", "seed"], columns="object", values="value")
    baseline = scores.loc["baseline" if dataset == "chairs" else "scans baseline"].dropna(axis=1)
    blank, copied = (
        paired_test(baseline - scores.loc[f"{control} name={dataset}"][baseline.columns].iloc[0])
        for control in ("blank", "copy_input")
    )
    assert blank.low > 0
    assert copied.low > 0
    assert f"{copied.difference:.2f} dB ({copied.low:.2f} to {copied.high:.2f})" in " ".join(README.split())
