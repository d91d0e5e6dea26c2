"""The report in a browser: the findings of the accessibility checker axe, and its layout in a narrow window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from results.report import build_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_LOOK = """
addEventListener("load", async () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const { scrollWidth, clientWidth } = document.documentElement;
  const { violations, incomplete } = await axe.run(document, { resultTypes: ["violations", "incomplete"] });
  const told = (found) => found.flatMap(({ id, nodes }) => nodes.map(({ target, any }) => ({
    id, target: target.join(" "), why: any.map(({ data }) => data?.messageKey ?? "").join(" ") })));
  const found = document.createElement("pre");
  found.id = "found";
  const judged = { violations: told(violations), undecided: told(incomplete) };
  found.textContent = JSON.stringify({ ...judged, scrollWidth, clientWidth });
  document.body.replaceChildren(found);
});
"""


@pytest.fixture(scope="module")
def page(study, sweep, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of everything: tables, marks, missing trials, figures, pictures, turntables."""
    folder = tmp_path_factory.mktemp("page")
    return build_report(sweep, study.home, folder, ("auto", "paper")).read_text()


def look(page: str, folder: Path, width: int, *, dark: bool) -> dict[str, Any]:
    """The findings of a browser and axe in the page, with all its sections opened."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser is installed: {', '.join(BROWSERS)}")
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    scripts = f"<script>{axe}</script><script>{_LOOK}</script>"
    path = folder / "page.html"
    path.write_text(_POLICY.sub("", page).replace("</body>", f"{scripts}</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'user'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={width},1000"]
    command += ["--virtual-time-budget=60000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    content: dict[str, Any] = json.loads(html.unescape(found[1]))
    return content


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_wrong(page: str, tmp_path: Path, dark: bool) -> None:
    found = look(page, tmp_path, 1440, dark=dark)
    assert found["violations"] == []
    # It does not look behind drawings, whose text has the colours of the page, nor at texts of one sign.
    undecided = [one for one in found["undecided"] if one["why"] not in ("imgNode", "shortTextContent", "nonBmp")]
    assert undecided == []
    assert all("text" in one["target"] for one in found["undecided"] if one["why"] == "imgNode")


@pytest.mark.timeout(300)
def test_axe_would_see_what_is_wrong(page: str, tmp_path: Path) -> None:
    faint = page.replace("--muted: #5d646d", "--muted: #c9ced4").replace('<html lang="en">', "<html>")
    found = {one["id"] for one in look(faint, tmp_path, 1440, dark=False)["violations"]}
    assert found == {"color-contrast", "html-has-lang"}


@pytest.mark.timeout(300)
def test_a_narrow_window_scrolls_down_only(page: str, tmp_path: Path) -> None:
    found = look(page, tmp_path, 500, dark=False)  # the narrowest that a browser without a screen opens
    assert found["scrollWidth"] <= found["clientWidth"] <= 500
