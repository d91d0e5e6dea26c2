"""Frozen depth models: images -> one map per view.  One file per model, one line here."""

DEPTH: dict[str, str] = {
    "none": "model.depth.none:NoDepth",
    "oracle": "model.depth.oracle:OracleDepth",
    "constant": "model.depth.constant:ConstantDepth",
}
