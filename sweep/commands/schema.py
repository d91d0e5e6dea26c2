"""The schema of sweep files, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print a JSON Schema of all keys of sweep.yaml, with which editors complete keys and mark mistakes.

    With `# yaml-language-server: $schema=sweep.schema.json` as a sweep file's first line, most editors find it.

    Example: [bold]splatsweep schema > sweep.schema.json[/]
    """
    from sweep.file.json_schema import sweep_schema

    print(json.dumps(sweep_schema(), indent=2))
