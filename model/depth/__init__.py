"""Frozen depth models: source views -> one map each.  One file per model, one line here; "none" is no depth."""

DEPTH: dict[str, str] = {
    "oracle": "model.depth.oracle:OracleDepth",
}
