"""Kinds of tables: name -> `"module:builder"`.

A builder takes the frames of `results.load.load_results` and `results.load.load_trials` and returns a
`results.table.Table`: numbers, no markup.
"""

TABLES = {
    "auto": "results.tables.auto:build",
}
