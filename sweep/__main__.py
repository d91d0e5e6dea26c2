"""The console script, and `python -m sweep`: an interruption ends it with code 130 also while commands are imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from sweep.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
