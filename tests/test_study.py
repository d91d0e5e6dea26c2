"""The README's tables of the study are what a report makes of the committed records."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from results.load import Evidence, load_results, read_evidence
from results.records.plan import PrimaryMetric
from results.statistics import paired_test
from results.table import Comparison
from results.tables import build_tables
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


def test_the_readme_says_what_the_seeds_could_have_shown(report: Path) -> None:
    evidence = read_evidence(load_sweep(PRESET), report.parents[1])
    assert evidence.plan.primary is None
    named = PrimaryMetric("novel_psnr", trials=42, finished=0)
    together, apart = (
        {name: _comparisons(replace(evidence, plan=replace(evidence.plan, primary=primary)), name) for name in SHOWN}
        for primary in (None, named)
    )
    sizes, primary_sizes = (
        [found.minimal_detectable for found in each["study-chairs"].values()] for each in (together, apart)
    )
    assert not any(found.is_significant for table in together.values() for found in table.values())
    better = {table: [row for row, found in apart[table].items() if found.is_significant] for table in SHOWN}
    assert better == {"study-chairs": ["true depth, Input"], "study-scans": ["true depth, Input"]}
    text = " ".join(README.split())
    assert f"differences of {min(sizes):.1f} dB (true depth) to {max(sizes):.0f} dB (TV) on chairs" in text
    assert f"With `primary: novel_psnr` they find {min(primary_sizes):.1f} to {max(primary_sizes):.1f} dB" in text


def _comparisons(evidence: Evidence, table: str) -> dict[str, Comparison]:
    """Comparisons of a table's rows in novel PSNR."""
    (built,) = [built for built in build_tables(["study"], evidence) if built.name == table]
    column = [column.name for column in built.columns].index("novel_psnr")
    found = {f"{row.label}, {row.group}": row.cells[column].comparison for row in built.rows}
    return {row: comparison for row, comparison in found.items() if comparison is not None}


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
