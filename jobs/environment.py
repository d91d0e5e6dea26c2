"""What a trial ran on: code, packages, machine.  Written beside every result."""

from __future__ import annotations

import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

_PACKAGES = ("splatsweep", "torch", "torchvision", "numpy", "ray", "mlflow", "timm", "lpips")


@cache
def describe_environment() -> dict[str, object]:
    """Git state of the code, versions of the packages that matter, and the machine."""
    return {
        "git": git_state(Path(__file__).parent),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
    }


def git_state(folder: Path) -> dict[str, object]:
    """The commit of the checkout around `folder` and whether it was changed since; empty outside a checkout."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
