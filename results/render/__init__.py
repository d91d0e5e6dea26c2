"""File formats of a table: suffix of the file -> `"module:renderer"`; a renderer turns a `Table` into text.

The HTML page (`results.render.html`) holds more than a table and is not in this list.
"""

from __future__ import annotations

#: a report's page, and the list of its other files (`results.unchanged`), which no table may overwrite
PAGE_FILENAME, MANIFEST_FILENAME = "index.html", "report.json"
RENDERERS = {
    ".tex": "results.render.latex:render",
    "_wide.tex": "results.render.latex:render_wide",
    "_standalone.tex": "results.render.latex:render_standalone",
    ".md": "results.render.markdown:render",
    ".csv": "results.render.csv:render",
    ".json": "results.render.json:render",
}


def table_filenames(name: str) -> list[str]:
    """The files of a table in a report."""
    return [f"{name}{suffix}" for suffix in RENDERERS]
