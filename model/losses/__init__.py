"""Unweighted scalar losses over rendered views.  One file per loss, one line here; weights live in `train.stages`."""

LOSSES: dict[str, str] = {
    "l1": "model.losses.l1:L1",
    "l2": "model.losses.l2:L2",
    "lpips": "model.losses.lpips:Lpips",
    "tv": "model.losses.tv:TotalVariation",
    "edge": "model.losses.edge:Edge",
    "edge_published": "model.losses.edge_published:EdgePublished",
}
