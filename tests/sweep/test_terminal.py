"""Text that looks like markup is printed literally everywhere."""

from __future__ import annotations

import ast
import io
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from results.invocation import command, completed, remember_home
from sweep.file.schema import Origin, Sweep
from sweep.terminal import Terminal, counted

ROOT = Path(__file__).parent.parent.parent

ODD = ["ours [ema]", "no [/lpips]", "[bold]", "[red]x[/red]", ":smile:", "a\\[b", "[link=x]", "runs[old]", "[/]"]


def printed(*objects: object, width: int | None = 200, **options: object) -> str:
    stream = io.StringIO()
    Terminal(file=stream, width=width).print(*objects, **options)
    return stream.getvalue()


@pytest.mark.parametrize("text", ODD)
def test_text_is_printed_as_it_is(text: str) -> None:
    assert printed(text) == f"{text}\n"
    assert printed(text, markup=True, emoji=True) == f"{text}\n"
    assert printed(Text.assemble((text, "red"), f": {text}")) == f"{text}: {text}\n"


@pytest.mark.parametrize("text", ODD)
def test_tables_hold_text_as_it_is(text: str) -> None:
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    assert printed(table).count(text) == 4
    assert text in printed(Panel(text, title="x"))


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=60))
def test_any_text_is_printed_as_it_is(text: str) -> None:
    assert printed(text) == f"{text}\n"


def test_a_long_line_is_not_broken_so_that_it_can_be_pasted() -> None:
    path = "/a/very/long/path" * 20
    assert printed(path, width=80) == f"{path}\n"


def test_a_table_in_a_pipe_is_as_wide_as_it_must_be_and_not_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal would wrap lines that end in blanks, as `less` shows them."""
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table("trial", "state", box=None)
    table.add_row("n" * 150, "finished, and more")
    table.add_row("other", "")
    heading, first, second = printed(table, width=None).splitlines()
    assert heading.split() == ["trial", "state"]
    assert first == f" {'n' * 150}  finished, and more"
    assert second == " other"


def test_nothing_but_the_terminal_makes_consoles_or_reads_markup() -> None:
    """All commands share one console; only docstrings of commands are markup."""
    offences = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in (ROOT / "sweep").rglob("*.py")
        if path != ROOT / "sweep" / "terminal.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for name in [ast.unparse(node.func).rpartition(".")[2]]
        if (
            name in ("Console", "from_markup", "render_markup", "escape")
            and ast.unparse(node.func) not in ("re.escape",)
        )
        or any(keyword.arg == "markup" and ast.unparse(keyword.value) != "False" for keyword in node.keywords)
    ]
    assert not offences


@pytest.mark.parametrize("name", [*ODD, "it's", "$HOME", "a b", "--x", "*?[a-z]", '"quoted"', "`date`", "Größe"])
def test_commands_can_be_pasted(name: str) -> None:
    sweep = Sweep(name="a").read_from(Origin(Path(f"my {name}.yaml"), (f"base.x={name}", "seeds=[0, 1]")))
    words = shlex.split(command("run", sweep, Path("/runs[old] 2"), f"--only={name}", "--retry-failed"))
    assert words == [
        "splatsweep",
        "run",
        f"my {name}.yaml",
        "--set",
        f"base.x={name}",
        "--set",
        "seeds=[0, 1]",
        "--home",
        "/runs[old] 2",
        f"--only={name}",
        "--retry-failed",
    ]


def test_commands_leave_out_the_home_that_is_taken_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = Sweep(name="a").read_from(Origin(Path("a.yaml")))
    assert command("stop", sweep, tmp_path / "runs") == "splatsweep stop a.yaml"
    assert command("stop", sweep, tmp_path / "other") == f"splatsweep stop a.yaml --home {tmp_path / 'other'}"


@pytest.mark.parametrize(
    "text",
    [
        "weights 'x' are not here; run: splatsweep weights fetch x",
        "cannot run yet:\n  no data; run: splatsweep data prepare srn --source DIR\nor choose others with --only",
        "look at it with: splatsweep ui",
    ],
)
def test_hints_of_code_that_knows_no_home_get_that_of_the_call(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    remember_home(tmp_path / "runs")
    assert completed(text) == text
    remember_home(Path("/my runs"))
    hint = next(line for line in completed(text).splitlines() if "splatsweep" in line)
    assert shlex.split(hint.partition(": splatsweep ")[2])[-2:] == ["--home", "/my runs"]
    assert completed(completed(text)) == completed(text)
    remember_home(tmp_path / "runs")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 trials"), (0.25, "0.25 trial"), (1, "1 trial"), (1.5, "1.5 trials"), (1_234_567, "1234567 trials")],
)
def test_units_have_the_form_of_their_number(number: float, text: str) -> None:
    assert counted(number, "trial") == text
