"""Every code block of the README is true: commands exist with their options, sweep files are valid, Python runs.

A block has a kind by its language and content; one of no kind fails its test.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from sweep.cli import app
from sweep.spec import load_sweep
from tests.processes import PATIENCE_S, tiny_sweep

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

#: commands that run in the test, in their order; all others are parsed with their options
RUN = ("init", "validate")


class Block(NamedTuple):
    """A fenced block."""

    line: int
    language: str
    text: str


def blocks() -> list[Block]:
    found = re.finditer(r"^```([^\n`]*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(README[: match.start()].count("\n") + 1, match[1].strip(), match[2]) for match in found]


def kind(block: Block) -> str:
    """The way in which a block is checked.  Raises ValueError for a block that would not be checked."""
    lines = [line for line in block.text.splitlines() if line.strip()]
    if block.language == "python":
        return "python"
    if block.language == "yaml":
        return "sweep" if "name:" in block.text.split() else "fragment"
    if block.language == "bash" and all(line.startswith(("splatsweep ", "make ")) for line in lines):
        return "commands"
    if block.language == "" and lines[0].startswith("$ splatsweep "):
        return "session"
    if block.language == "" and len(lines) == 1 and "->" in lines[0]:
        return "diagram"
    raise ValueError(
        f"README.md line {block.line}: a {block.language or 'plain'} block of no kind that is checked here"
    )


BLOCKS = blocks()


def of_kind(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if classified(block) in kinds]


def classified(block: Block) -> str | None:
    try:
        return kind(block)
    except ValueError:
        return None  # `test_every_block_is_checked` fails


def name(block: Block) -> str:
    return f"line {block.line}"


def parse(arguments: list[str]) -> None:
    """Parses a command line as `splatsweep` does, and runs nothing.  Raises ValueError for one that it refuses."""
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        first, *arguments = arguments
        if first not in command.commands:
            raise ValueError(f"no command {first!r}")
        command = command.commands[first]
    try:
        command.make_context(command.name, arguments)
    except Exception as error:  # Typer has a `UsageError` of its own, which it does not export
        if not hasattr(error, "format_message"):
            raise
        raise ValueError(error.format_message()) from error


def commands(block: Block) -> list[list[str]]:
    """Words of a block's commands, without comments."""
    lines = block.text.splitlines()
    if kind(block) == "session":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_every_block_is_checked() -> None:
    assert len(BLOCKS) > 10
    for block in BLOCKS:
        kind(block)


@pytest.mark.parametrize(
    "text", ["```\nno kind\n```", "```bash\nrm -rf runs\n```", "```toml\na = 1\n```"], ids=["plain", "bash", "toml"]
)
def test_other_blocks_would_be_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "README", text)
    [block] = blocks()
    with pytest.raises(ValueError, match="of no kind"):
        kind(block)


@pytest.mark.parametrize("block", of_kind("commands", "session"), ids=name)
def test_commands_exist_with_their_options(block: Block) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for program, *arguments in commands(block):
        if program == "make":
            assert arguments[0] in targets
        else:
            parse(arguments)


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(ValueError, match="No such option: --outt"):
        parse(["report", "my.yaml", "--outt", "paper"])
    with pytest.raises(ValueError, match="Missing argument"):
        parse(["report"])
    with pytest.raises(ValueError, match="no command 'reprot'"):
        parse(["reprot", "my.yaml"])


def test_commands_in_the_text_exist() -> None:
    groups: Any = get_command(app)
    named = re.findall(r"`splatsweep ([a-z]+)", README)
    assert len(named) > 10
    assert set(named) <= set(groups.commands)
    make = re.findall(r"`make ([a-z-]+)", README)
    assert set(make) <= set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def test_quick_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for block in of_kind("commands"):
        for program, *arguments in commands(block):
            if program == "splatsweep" and arguments[0] in RUN:
                result = CliRunner().invoke(app, arguments, env={"SPLATSWEEP_HOME": str(tmp_path / "home")})
                assert result.exit_code == 0, result.output
                ran.append(arguments[0])
    assert tuple(ran) == RUN


@pytest.mark.parametrize("block", of_kind("sweep"), ids=name)
def test_sweep_files_are_valid(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(block.text)
    assert load_sweep(path).name


def alternatives(text: str) -> list[str]:
    """The fragments of a block: its lines, where a key occurs twice; else the block itself."""
    keys = re.findall(r"^([a-z_]+):", text, re.MULTILINE)
    return text.splitlines() if len(set(keys)) < len(keys) else [text]


@pytest.mark.parametrize("block", of_kind("fragment"), ids=name)
def test_parts_of_sweep_files_are_valid(block: Block, tmp_path: Path) -> None:
    for number, part in enumerate(alternatives(block.text)):
        whole = {
            "name": "part",
            "base": {"eval": {"every": 1000}},
            "trials": {"baseline": {}, "other": {"train.batch_size": 4}},
        }
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(whole | yaml.safe_load(part)))
        assert load_sweep(path).name == "part"


@pytest.mark.parametrize("block", of_kind("python"), ids=name)
def test_python_runs_on_a_fresh_home(block: Block, tmp_path: Path) -> None:
    """The example as it stands, but with a preset that trains for a second, in a home without anything."""
    preset = '"sweep/presets/quick.yaml"'
    assert block.text.count(preset) == 1
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_sweep(20).replace("run: {", "run: {executor: inline, "))
    script = block.text.replace(preset, repr(str(path)))
    end = "\nassert set(frame.columns) >= set('trial key seed split object view_kind metric value'.split()), frame\n"
    end += "assert {'baseline', 'tv', 'blank'} <= set(frame['trial']), frame\n"
    done = subprocess.run(
        [sys.executable, "-c", script + end],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "reports" / "tiny" / "index.html").exists()
