"""The whole report, from a real store to files."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from results.errors import ResultsError
from results.report import build_report

#: beginning of the links to runs of a database
RUNS = "http://127.0.0.1:5000/#/experiments/1/runs/"
FILES = {
    "index.html",
    "report.json",
    "auto.tex",
    "auto_wide.tex",
    "auto_standalone.tex",
    "auto.md",
    "auto.csv",
    "auto.json",
    *(f"costs{suffix}" for suffix in (".tex", "_wide.tex", "_standalone.tex", ".md", ".csv", ".json")),
    "curves.pdf",
    "curves.png",
    "samples.png",
    "samples_median.png",
    "forest.pdf",
    "forest.png",
    "objects.pdf",
    "objects.png",
}
TURNTABLES = {"turntable_a0.gif", "turntable_b0.gif"}
FIGURES = {name for name in FILES if name.endswith((".pdf", ".png"))}
VOID = {"meta", "img", "col", "wbr", "br", "link", "input"}
HOSTILE = "<script>alert(1)</script>\" onerror=x ' & $"


class Page(HTMLParser):
    """A parser that collects elements and rejects markup with unmatched tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def index(study, sweep) -> Path:
    return build_report(sweep, study.home)


@pytest.fixture(scope="module")
def page(index: Path) -> Page:
    return Page(index.read_text())


def test_all_files_are_written_to_the_reports_folder(index: Path, study) -> None:
    assert index == study.home / "reports" / "study" / "index.html"
    assert {path.name for path in index.parent.iterdir()} == FILES | TURNTABLES
    assert all(path.stat().st_size > 60 for path in index.parent.iterdir())


def test_writing_elsewhere_and_over_damaged_files_gives_the_same_bytes(
    index: Path, study, sweep, tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "b"
    build_report(sweep, study.home, folder)
    (folder / "auto.tex").write_text("half of")
    assert build_report(sweep, study.home, folder) == folder / "index.html"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in index.parent.iterdir()
    }


def test_nothing_of_an_earlier_report_stays(recorded, sweep, tmp_path: Path) -> None:
    from tests.results.conftest import record_study

    record_study(recorded)
    folder = tmp_path / "report"
    build_report(sweep, recorded.home, folder, tables=["auto", "pivot"])
    assert (folder / "pivot.tex").exists()
    build_report(sweep, recorded.home, folder, tables=["auto"])
    assert {path.name for path in folder.iterdir()} == FILES | TURNTABLES
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_with_other_files_is_left_alone(study, sweep, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ResultsError, match=r"holds files that no report wrote \(thesis\.tex\)"):
        build_report(sweep, study.home, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ResultsError, match="is a file"):
        build_report(sweep, study.home, tmp_path / "thesis.tex")


def test_a_report_that_cannot_be_written_leaves_the_former_one(study, sweep, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "report"
    build_report(sweep, study.home, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            build_report(sweep, study.home, folder, notes="changed")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_the_current_directory_is_not_taken_from_the_shell(recorded, sweep, tmp_path: Path, monkeypatch) -> None:
    recorded.plan([])
    folder = tmp_path / "paper" / "tables"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for out in (Path(), Path("..")):
        with pytest.raises(ResultsError, match="holds the current directory"):
            build_report(sweep, recorded.home, out)
    assert build_report(sweep, recorded.home, Path("new")).is_file()


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EBUSY], ids=["of another user", "a mount point"])
def test_a_folder_that_cannot_be_replaced_is_named_with_the_way_out(
    recorded, sweep, tmp_path: Path, monkeypatch, reason: int
) -> None:
    def refuse(*_: object) -> Path:
        raise OSError(reason, os.strerror(reason))

    recorded.plan([])
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ResultsError, match=rf"cannot be written to .*{os.strerror(reason)}.* --out DIR"):
        build_report(sweep, recorded.home, tmp_path / "report")


def test_a_link_to_a_folder_stays_one(recorded, sweep, tmp_path: Path) -> None:
    recorded.plan([])
    folder, link = tmp_path / "paper" / "report", tmp_path / "here" / "report"
    for path in (folder, link.parent):
        path.mkdir(parents=True)
    link.symlink_to(folder)
    assert build_report(sweep, recorded.home, link) == link / "index.html"
    assert link.is_symlink()
    assert (folder / "index.html").is_file()
    assert [path.name for path in link.parent.iterdir()] == ["report"]


def test_a_link_in_the_home_does_not_lead_to_foreign_files(recorded, sweep, tmp_path: Path) -> None:
    recorded.plan([])
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    (recorded.home / "reports").mkdir(exist_ok=True)
    (recorded.home / "reports" / sweep.name).symlink_to(tmp_path / "thesis")
    with pytest.raises(ResultsError, match=r"holds files that no report wrote \(thesis\.tex\)"):
        build_report(sweep, recorded.home)
    assert (tmp_path / "thesis" / "thesis.tex").exists()


def test_two_processes_may_write_one_report(recorded, sweep, tmp_path: Path, monkeypatch) -> None:
    recorded.plan([])
    folder, rename, others = tmp_path / "report", Path.rename, iter(["first", "second"])

    def raced(path: Path, target: Path) -> Path:
        if target == folder and (other := next(others, None)):  # it is faster, twice
            folder.mkdir()
            (folder / other).write_text("of another process")
        return rename(path, target)

    build_report(sweep, recorded.home, folder)
    monkeypatch.setattr(Path, "rename", raced)
    build_report(sweep, recorded.home, folder, notes="changed")
    assert "changed" in (folder / "index.html").read_text()
    assert "first" not in {path.name for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_earlier_plan_can_be_reported(recorded, sweep, tmp_path: Path) -> None:
    from results.records.frozen_plans import earlier_plans, freeze
    from results.records.plan import Plan, PlannedTrial

    def plan(created: str, *keys: str) -> Plan:
        return Plan("study", created, tuple(PlannedTrial(key, (key,), 0, {}, "pending") for key in keys), ())

    freeze(plan("2026-03-01T12:00:00+00:00", "a", "b"), recorded.home)
    freeze(plan("2026-03-02T12:00:00+00:00", "a", "b", "c"), recorded.home)  # all that was planned still is
    assert earlier_plans("study", recorded.home) == []
    freeze(plan("2026-03-03T12:00:00+00:00", "c"), recorded.home)
    assert earlier_plans("study", recorded.home) == ["2026-03-02T120000"]
    assert "0 of 1 trials" in Page(build_report(sweep, recorded.home).read_text()).text
    earlier = build_report(sweep, recorded.home, tmp_path / "earlier", plan="2026-03-02")
    assert "0 of 3 trials" in Page(earlier.read_text()).text
    with pytest.raises(ResultsError, match=r"no earlier plan .* with 'noon'; there are: 2026-03-02T120000"):
        build_report(sweep, recorded.home, plan="noon")


def test_a_report_needs_neither_torch_nor_the_other_packages_nor_pyplot(study, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from types import SimpleNamespace
from results.report import build_report
sweep = SimpleNamespace(name="study", tracking=SimpleNamespace(uri=None))
build_report(sweep, Path(sys.argv[1]), Path(sys.argv[2]))
forbidden = {"torch", "sweep", "jobs", "model", "matplotlib.pyplot"}
print(sorted(forbidden & set(sys.modules)))
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(study.home), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_runs_link_to_their_pages_in_mlflow(index: Path) -> None:
    links = {attributes["href"] for tag, attributes in Page(index.read_text()).elements if tag == "a"}
    runs = {link for link in links if link.startswith(RUNS)}
    assert len(runs) == 7
    assert all(link.endswith("?workflowType=machine_learning") for link in runs)


def test_the_page_loads_nothing(index: Path) -> None:
    text = index.read_text().replace(f'<a href="{RUNS}', '<a href="#')
    assert not re.search(r"""(src|href|url|action|data)\s*[=(]\s*["']?\s*(https?:)?//""", text, re.IGNORECASE)
    for tag, attributes in Page(text).elements:
        assert tag not in ("link", "iframe", "object", "base", "form")
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("data:image/png;base64,", "data:image/gif;base64,", "#"))


def test_the_only_script_is_the_one_that_the_policy_names(index: Path) -> None:
    text = index.read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert text.count("<script") == 1


def test_the_page_compares_with_the_baseline_in_words(page: Page) -> None:
    assert "comparisons with baseline" in page.text
    descriptions = [element["aria-label"] for element in page.all("div") if element.get("role") == "img"]
    assert any("Differences to the baseline" in str(text) for text in descriptions)


def test_the_page_shows_numbers_states_and_provenance(page: Page) -> None:
    text = page.text
    assert "6 of 7 trials" in text
    for expected in ("22.25", "± 0.35", "failed", "loss is not finite at step 7", "0123abc", "depth.model"):
        assert expected in text
    assert "2026-03-01 12:01 UTC" in text


def test_pictures_stand_beside_ground_truth_with_a_description(page: Page) -> None:
    alts = [image["alt"] for image in page.all("img")]
    best = str(alts[0]).split(",")[0]
    assert alts[:4] == [
        f"{best}, input view",
        f"{best}, view 1, ground truth",
        f"{best}, view 1, rendered by baseline",
        f"{best}, view 1, error of baseline",
    ]
    # Three objects with an input and two views of the truth, of four renders and of their errors.
    pictures = [alt for alt in alts if "predicted" not in str(alt)]
    assert len(pictures) == 3 * (1 + 2 * (1 + 2 * 4))
    assert all(image["width"] == "96" for image in page.all("img"))


def test_a_turntable_is_still_until_it_is_opened(index: Path) -> None:
    outside, inside = (
        {str(image["alt"]): str(image["src"]) for image in Page(text).all("img")}
        for text in (
            re.sub(r"</summary>.*?</details>", "</summary></details>", index.read_text(), flags=re.DOTALL),
            "".join(re.findall(r"</summary>(.*?)</details>", index.read_text(), re.DOTALL)),
        )
    )
    for trial, key in (("baseline", "a0"), ("depth", "b0")):
        assert outside[f"object_0 predicted by {trial}, from the front"].startswith("data:image/png")
        animation = base64.b64encode((index.parent / f"turntable_{key}.gif").read_bytes()).decode()
        assert inside[f"object_0 predicted by {trial}, turning"] == f"data:image/gif;base64,{animation}"
    assert not any(address.startswith("data:image/gif") for address in outside.values())


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in header for header in page.all("th"))
    assert all(image.get("alt") for image in page.all("img"))
    regions = [element for element in page.all("div") if element.get("role") == "region"]
    assert regions
    assert all(region.get("tabindex") == "0" and region.get("aria-label") for region in regions)
    assert len(page.all("h1")) == 1
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {link["href"] for link in page.all("a") if link["href"] and not link["href"].startswith(RUNS)}
    assert {link.removeprefix("#") for link in links} <= targets


def test_names_cannot_inject_markup(recorded, sweep) -> None:
    entry = {"key": "a", "name": HOSTILE, "names": [HOSTILE, HOSTILE + "2"], "seed": 0, "status": "pending"}
    recorded.plan([{**entry, "config": {HOSTILE: HOSTILE}}])
    curve = {"train/loss": [(1, 1.0), (2, 0.5)]}
    recorded.record("a", "x", status="failed", curves=curve, tags={"splatsweep.error": HOSTILE})
    text = build_report(sweep, recorded.home).read_text()
    assert text.count("<script") == 1
    assert HOSTILE in Page(text).text
    assert not any("onerror" in attributes for _, attributes in Page(text).elements)


def test_numbers_can_be_followed_to_their_runs(index: Path) -> None:
    rows = json.loads((index.parent / "auto.json").read_text())["rows"]
    assert [source["key"] for source in rows[1]["sources"]] == ["b0", "b1"]
    assert all(len(source["run_id"]) == 32 for source in rows[1]["sources"])
    assert rows[1]["cells"]["novel_psnr"]["values"] == pytest.approx([22.0, 22.5])


def test_a_sweep_without_any_result_still_gets_a_report(recorded, sweep) -> None:
    recorded.plan([{"key": "a", "name": "base", "names": ["base"], "seed": 0, "config": {}, "status": "pending"}])
    index = build_report(sweep, recorded.home)
    text = Page(index.read_text()).text
    assert "0 of 1 trials" in text
    assert "base, seed 0: pending" in text
    assert {path.name for path in index.parent.iterdir()} == {
        name for name in FILES - FIGURES if not name.startswith("costs")
    }


def test_an_empty_plan_gets_a_report(recorded, sweep) -> None:
    recorded.plan([])
    assert "0 of 0 trials" in Page(build_report(sweep, recorded.home).read_text()).text


def test_errors_name_what_is_wrong(recorded, sweep) -> None:
    with pytest.raises(ResultsError, match="splatsweep run"):
        build_report(sweep, recorded.home)
    recorded.plan([])
    with pytest.raises(ResultsError, match="unknown table 'nope'; allowed: auto"):
        build_report(sweep, recorded.home, tables=["nope"])
