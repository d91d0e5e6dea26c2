"""Tables listed in files, including the paper's."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from results.errors import ResultsError
from results.load import Evidence
from results.table import Table, rounded
from results.tables import build_tables

#: the published values, as printed; None where the paper has no conditioned views
PUBLISHED = {
    "paper-1": {
        "PixelNeRF": "21.76 0.780 0.203",
        "Splatter Image (800k)": "21.80 0.800 0.150",
        "Splatter Image (30k)": "20.95 0.773 0.240",
    },
    "paper-2": {
        "DINO": "32.21 0.961 0.072 21.26 0.786 0.221",
        "CLIP": "31.72 0.959 0.077 20.91 0.775 0.230",
    },
    "paper-3": {
        "Input MiDaS_small": "30.17 0.938 0.111 20.76 0.776 0.230",
        "Input DPT_Hybrid": "28.77 0.929 0.126 20.23 0.766 0.250",
        "Input DPT_Large": "32.36 0.962 0.083 21.12 0.789 0.200",
        "X-Attn MiDaS_small": "32.77 0.966 0.060 21.11 0.787 0.206",
        "X-Attn DPT_Large": "32.71 0.966 0.059 21.15 0.788 0.206",
    },
    "paper-4": {
        "TV": "32.31 0.960 0.079 21.19 0.773 0.243",
        "Edge": "13.61 0.743 0.297 12.52 0.683 0.342",
    },
}
CONFIGS = {
    "baseline": {},
    "DINO": {"semantic": {"encoder": "dinov2_vitl14_reg_lc", "fusion": "xattn"}},
    "CLIP": {"semantic": {"encoder": "clip_vit_b32", "fusion": "concat"}, "batch_size": 4},
    "Input MiDaS_small": {"depth": {"model": "midas_small", "fusion": "input"}},
    "Input DPT_Hybrid": {"depth": {"model": "dpt_hybrid", "fusion": "input"}},
    "Input DPT_Large": {"depth": {"model": "dpt_large", "fusion": "input"}},
    "X-Attn MiDaS_small": {"depth": {"model": "midas_small", "fusion": "xattn"}},
    "X-Attn DPT_Large": {"depth": {"model": "dpt_large", "fusion": "xattn"}},
    "TV": {"losses": {"tv": 0.01}},
    "Edge": {"losses": {"edge_published": 0.01}},
    "PixelNeRF": {"model": {"name": "pixelnerf"}, "batch_size": 4},
}
COLUMNS = [f"{kind}_{metric}" for kind in ("conditioned", "novel") for metric in ("psnr", "ssim", "lpips")]


def config_of(name: str) -> dict[str, object]:
    own = CONFIGS[name]
    stage = {"iterations": 25000, "losses": {"l2": 1.0, **own.get("losses", {})}}
    return {
        "model": own.get("model", {"name": "splatter_image"}),
        "semantic": own.get("semantic", {"encoder": "none"}),
        "depth": own.get("depth", {"model": "none"}),
        "train": {"batch_size": own.get("batch_size", 8), "ema": None, "stages": [stage]},
    }


def means_of(name: str) -> list[float]:
    """The means of a trial's six columns, chosen so that rounding up, down and to zeros all occur."""
    first = 20.0 + list(CONFIGS).index(name)
    return [first + 0.004999, 0.9004 + first / 1e4, 0.0005 + first / 1e4, first - 10 + 0.995, 0.7995, 0.2]


@pytest.fixture(scope="module")
def paper(make) -> dict[str, Table]:
    """The four tables of a sweep with the paper's trials and known means."""
    records = []
    for name in CONFIGS:
        for seed, shift in enumerate((-0.001, 0.001)):
            around = np.linspace(-0.01, 0.01, 5)
            scores = {column: mean + shift + around for column, mean in zip(COLUMNS, means_of(name), strict=True)}
            records.append(make.record(name, seed, scores, config=config_of(name)))
    return {table.name: table for table in build_tables(["paper"], make.evidence(*records))}


def test_the_papers_tables_have_its_layout(paper: dict[str, Table]) -> None:
    assert list(paper) == list(PUBLISHED)
    labels = {name: [f"{row.group} {row.label}".strip() for row in table.rows] for name, table in paper.items()}
    assert labels == {name: list(rows) for name, rows in PUBLISHED.items()}
    assert paper["paper-1"].column_groups == [("Novel views", 3)]
    for name in ("paper-2", "paper-3", "paper-4"):
        assert paper[name].column_groups == [("Conditioned views", 3), ("Novel views", 3)]
    assert [row.group for row in paper["paper-3"].rows] == ["Input"] * 3 + ["X-Attn"] * 2


def test_published_values_stand_as_printed_with_their_citation(paper: dict[str, Table]) -> None:
    for name, table in paper.items():
        assert "tables 1 to 4" in table.citation
        for row in table.rows:
            texts = [
                rounded(cell.reference, column.precision) for cell, column in zip(row.cells, table.columns, strict=True)
            ]
            assert " ".join(texts) == PUBLISHED[name][f"{row.group} {row.label}".strip()]


def test_our_values_stand_beside_them_with_exact_rounding(paper: dict[str, Table]) -> None:
    names = {"Splatter Image (30k)": "baseline"}
    for table in paper.values():
        for row in table.rows:
            if row.is_published_only:
                continue
            name = f"{row.group} {row.label}".strip()
            expected = dict(zip(COLUMNS, means_of(names.get(name, name)), strict=True))
            for cell, column in zip(row.cells, table.columns, strict=True):
                assert math.isclose(cell.mean, expected[column.name], abs_tol=1e-9)
                assert rounded(cell.mean, column.precision) == f"{expected[column.name]:.{column.precision}f}"
                assert cell.n == 2


def test_rows_without_a_trial_say_so(paper: dict[str, Table]) -> None:
    assert [row.state for row in paper["paper-1"].rows] == ["finished", "not in this sweep", "finished"]


def test_rows_that_select_no_trial_are_published_only(make, tmp_path: Path) -> None:
    row = "{label: theirs, references: {novel_psnr: 21.8}}"
    table = f"tables: [{{name: mine, caption: mine, columns: [novel_psnr], sections: [{{rows: [{row}]}}]}}]"
    (theirs,) = build_tables([written(tmp_path, table)], make.evidence(*make.trained("a", 20.0)))[0].rows
    assert theirs.is_published_only
    assert theirs.state == "published only"


def test_the_published_network_has_its_row_and_not_that_of_the_network_trained_here(make) -> None:
    given = {**config_of("baseline"), "train": {"start": "splatter_image_hydrants", "stages": []}}
    records = [make.record("baseline", 0, {"novel_psnr": [20.0]}, config=config_of("baseline"))]
    records.append(make.record("published", 0, {"novel_psnr": [22.0]}, config=given))
    table = build_tables(["paper"], make.evidence(*records))[0]
    assert [row.cells[0].mean for row in table.rows] == [None, 22.0, 20.0]
    assert table.rows[1].notes[-1].endswith("starting weights splatter_image_hydrants instead of new.")


def test_rows_are_compared_with_a_baseline_that_stands_elsewhere(paper: dict[str, Table]) -> None:
    comparisons = [row.cells[3].comparison for row in paper["paper-4"].rows]
    assert [item.baseline for item in comparisons] == ["Splatter Image (30k)"] * 2
    assert [round(item.difference, 6) for item in comparisons] == [8.0, 9.0]


def test_conditions_other_than_the_baselines_are_noted_at_the_row(paper: dict[str, Table]) -> None:
    dino, clip = paper["paper-2"].rows
    assert dino.notes == ()
    assert clip.notes == ("Conditions differ from baseline: batch size 4 instead of 8.",)


def test_contradictions_of_the_published_marks_are_listed(paper: dict[str, Table]) -> None:
    marks = [remark for remark in paper["paper-3"].remarks if "contradict" in remark]
    assert len(marks) == 2
    assert "Input DPT_Large has the best novel SSIM (0.789)" in marks[0]
    assert "Input DPT_Large has the best novel LPIPS (0.200)" in marks[1]
    (lpips,) = [remark for remark in paper["paper-4"].remarks if "LPIPS" in remark]
    assert "TV (0.243)" in lpips


def test_a_sweep_without_the_papers_trials_has_a_note(make) -> None:
    tables = build_tables(["paper"], make.evidence(*make.trained("other", 20.0, config={"depth": {"model": "x"}})))
    assert [row.state for row in tables[1].rows] == ["not in this sweep"] * 2
    assert all(cell.mean is None for table in tables for row in table.rows for cell in row.cells)


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


MINE = """
tables:
  - name: mine
    caption: Mine
    row_header: Way
    columns: [novel_psnr, {metric: lpips, label: "LPIPS (VGG)", group: Ours, precision: 2, relevant: 0.05}]
    baseline: plain
    notes: [Said below.]
    sections:
      - label: Without
        rows: [{label: plain, select: {depth.model: null}}]
      - label: With
        ranked: false
        rows:
          - {label: any depth, group: G, select: {depth.model: "dpt_*"}, references: {novel_psnr: 1.5}, notes: [Odd.]}
          - {label: by name, select: {trial: [b1, b2]}}
"""


def depths(make) -> Evidence:
    return make.evidence(
        *make.trained("a", 20.0, config={"depth": {"model": "none"}}),
        *make.trained("b1", 21.0, config={"depth": {"model": "dpt_large"}}),
        *make.trained("b2", 22.0, config={"depth": {"model": "dpt_hybrid"}}),
        *make.trained("c", 23.0, config={"depth": {"model": "midas"}}),
        *make.trained("blank", 10.0, config={"depth": {"model": "none"}}, control=True),
    )


def test_a_table_file_determines_everything(make, tmp_path: Path) -> None:
    (table,) = build_tables([written(tmp_path, MINE)], depths(make))
    assert (table.name, table.caption, table.row_header) == ("mine", "Mine", "Way")
    assert "Said below." in table.notes
    assert [(column.label, column.group, column.precision) for column in table.columns] == [
        ("PSNR", "Novel views", 2),
        ("LPIPS (VGG)", "Ours", 2),
    ]
    assert [(section.label, section.ranked) for section in table.sections] == [("Without", True), ("With", False)]
    assert table.rows[0].cells[0].mean == pytest.approx(20.0)
    assert table.rows[1].cells[0].reference == 1.5


def test_a_row_that_several_configurations_match_becomes_one_of_each(make, tmp_path: Path) -> None:
    """A mean over different configurations would not be meaningful."""
    (table,) = build_tables([written(tmp_path, MINE)], depths(make))
    assert [row.label for row in table.rows] == [
        "plain",
        "any depth (b1)",
        "any depth (b2)",
        "by name (b1)",
        "by name (b2)",
    ]
    assert [row.cells[0].n for row in table.rows] == [3] * 5
    assert table.rows[1].notes == ("Odd.", "2 configurations match 'any depth'; each has a row of its own.")


def test_the_baseline_is_not_compared_with_itself_whatever_its_row_is_called(make, tmp_path: Path) -> None:
    text = MINE.replace("baseline: plain", "baseline: {label: other, select: {depth.model: null}}")
    (table,) = build_tables([written(tmp_path, text.replace("ranked: false", "ranked: true"))], depths(make))
    compared = {row.label: row.cells[0].comparison for row in table.rows}
    assert [label for label, found in compared.items() if found is None] == ["plain"]
    assert compared["any depth (b1)"].baseline == "other"


def test_marks_of_a_metric_without_a_direction_contradict_nothing(make, tmp_path: Path) -> None:
    rows = (
        "[{label: a, references: {novel_x: 1.0}, published_unmarked: [novel_x]}, {label: b, references: {novel_x: 2}}]"
    )
    for direction, found in (("", 0), (", direction: down", 1), (", direction: up", 0)):
        columns = f"[{{metric: x{direction}}}]"
        text = f"tables: [{{name: mine, caption: Mine, columns: {columns}, sections: [{{rows: {rows}}}]}}]"
        (table,) = build_tables([written(tmp_path, text)], make.evidence())
        assert len(table.remarks) == found
    (table,) = build_tables([written(tmp_path, text.replace("novel_x: 2", "novel_x: 1"))], make.evidence())
    assert not table.remarks, "a tie has no best"


@pytest.mark.parametrize(("published", "count"), [(1.5, 0), (1.4, 0), (1.6, 1)])
def test_what_is_published_as_worse_than_the_baseline_is_listed(
    make, tmp_path: Path, published: float, count: int
) -> None:
    baseline = f"baseline: {{label: base, select: {{depth.model: null}}, references: {{novel_psnr: {published}}}}}"
    (table,) = build_tables([written(tmp_path, MINE.replace("baseline: plain", baseline))], depths(make))
    assert len(table.remarks) == count


def test_a_baseline_that_stands_in_two_rows_is_one(make, tmp_path: Path) -> None:
    text = MINE.replace("{label: by name, select: {trial: [b1, b2]}}", "{label: plain, select: {depth.model: none}}")
    (table,) = build_tables([written(tmp_path, text.replace("ranked: false", "ranked: true"))], depths(make))
    assert table.rows[1].cells[0].comparison.baseline == "plain"


def test_a_baseline_that_several_configurations_match_is_none(make, tmp_path: Path) -> None:
    text = MINE.replace("baseline: plain", "baseline: any depth")
    (table,) = build_tables([written(tmp_path, text)], depths(make))
    assert "Nothing is compared: 2 configurations are the baseline 'any depth'." in table.notes
    assert not any(cell.comparison for row in table.rows for cell in row.cells)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: plain", "baseline: plane", "no row 'plane' with trials; allowed: plain, any depth, by name"),
        (
            "label: plain, select: {depth.model: null}",
            "label: plain",
            "'plain' with trials; allowed: any depth, by name",
        ),
        ("columns: [novel_psnr,", "columns: [psnr,", "'psnr' is not a column; allowed: conditioned_psnr"),
        ("columns: [novel_psnr,", "columns: [novel_pnsr,", "unknown metric 'pnsr'; allowed: psnr.*mean novel_psnr"),
        ("columns: [novel_psnr,", "columns: [novel_psnr, {metric: psnr},", "the column 'novel_psnr' is listed 2 times"),
        ("{novel_psnr: 1.5}", "{novel_psnr: .nan}", "novel_psnr: Input should be a finite number"),
        ("{novel_psnr: 1.5}", "{novel_ssim: 1.5}", "no column 'novel_ssim'; allowed: novel_psnr, novel_lpips"),
        ("caption: Mine", "captoin: Mine", r"captoin: .*\(received 'Mine'\)"),
        ("precision: 2", "precision: two", r"precision.*\(received 'two'\)"),
        ("name: mine", "name: ../mine", r"name: must be letters.*\(received '../mine'\)"),
        ("- name: mine", "- kind: pie\n    name: mine", "unknown kind 'pie'; allowed: auto"),
        ("tables:", "tabels:", "a table file holds the one key `tables`"),
        ("label: plain", "label: [plain", "is not YAML"),
        ("label: plain", "label: !!int plain", "is not YAML: invalid literal for int"),
        ("label: plain", "label: 2026-13-01", "is not YAML: month must be in"),
        ("label: plain", f"label: {'[' * 3000}", "nested too deeply"),
    ],
)
def test_mistakes_in_a_table_file_are_named(make, tmp_path: Path, old: str, new: str, message: str) -> None:
    assert MINE.count(old) == 1
    with pytest.raises(ResultsError, match=message) as error:
        build_tables([written(tmp_path, MINE.replace(old, new))], depths(make))
    assert "mine.yaml" in str(error.value)


def test_a_file_that_is_not_there_and_a_name_that_is_not_known_are_refused(make, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"absent\.yaml: cannot be read"):
        build_tables([str(tmp_path / "absent.yaml")], depths(make))
    with pytest.raises(
        ResultsError, match=r"unknown table 'mine'; allowed: auto, .*paper.* or the path of a table file"
    ):
        build_tables(["mine"], depths(make))


def test_two_tables_of_one_name_are_refused(make, tmp_path: Path) -> None:
    text = MINE.replace("name: mine", "name: auto")
    with pytest.raises(ResultsError, match=r"two tables are called 'auto'.*: auto and .*\.yaml$"):
        build_tables(["auto", "costs", written(tmp_path, text)], depths(make))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report", r"^report\.json would be a file of the report itself, and of table 'report' \(.*mine\.yaml\)"),
        (
            "auto_wide",
            r"^auto_wide\.tex would be a file of table 'auto' \(auto\), and of table 'auto_wide'",
        ),
        ("costs_standalone", r"of table 'costs' \(which reports have unasked\), and of table 'costs_standalone'"),
    ],
)
def test_tables_that_would_write_one_file_are_refused(make, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        build_tables(["auto", written(tmp_path, MINE.replace("name: mine", f"name: {name}"))], depths(make))


def test_a_column_may_be_of_one_category(make, tmp_path: Path) -> None:
    trial = make.record("baseline", 0, {"novel_psnr": [20.0, 22.0, 30.0]}, categories=["car", "car", "chair"])
    columns = "[{metric: psnr, category: car}, {metric: psnr, category: boat}]"
    sections = "[{rows: [{label: all, select: {}}]}]"
    text = f"tables: [{{name: mine, caption: Mine, columns: {columns}, sections: {sections}}}]"
    (table,) = build_tables([written(tmp_path, text)], make.evidence(trial))
    assert [(column.name, column.label) for column in table.columns] == [
        ("novel_psnr[car]", "PSNR (car)"),
        ("novel_psnr[boat]", "PSNR (boat)"),
    ]
    assert [cell.values for cell in table.rows[0].cells] == [(21.0,), ()]
    assert table.notes == ("No object has the category boat; recorded: car, chair.",)


def test_a_column_that_no_trial_has_is_explained(make, tmp_path: Path) -> None:
    """The trials of this evidence have no other metric than PSNR."""
    notes = {}
    for column in ("", "novel_lpips", "cost_render_ms"):
        text = re.sub(r"\{metric: lpips.*?\}", column, MINE)
        (table,) = build_tables([written(tmp_path, text)], depths(make))
        notes[column] = [note for note in table.notes if note.startswith("No trial")]
    assert notes == {
        "": [],
        "novel_lpips": ["No trial of this table has novel_lpips; eval.metrics lists what trials measure."],
        "cost_render_ms": [
            "No trial of this table has cost_render_ms; `splatsweep evaluate SWEEP --costs` measures costs."
        ],
    }
