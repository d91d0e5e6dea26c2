"""File formats of a table: suffix of the file -> `"module:renderer"`; a renderer turns a `Table` into text.

The HTML page (`results.render.html`) holds more than a table and is not in this list.
"""

RENDERERS = {
    ".tex": "results.render.latex:render",
    "_wide.tex": "results.render.latex:render_wide",
    "_standalone.tex": "results.render.latex:render_standalone",
    ".md": "results.render.markdown:render",
    ".csv": "results.render.csv:render",
    ".json": "results.render.json:render",
}
