"""Unweighted scalar losses over renderings, or the scenes behind them.  One file per loss, one line here.

`train.stages` defines their weights and schedules.
"""

LOSSES: dict[str, str] = {
    "l1": "model.losses.l1:L1",
    "l2": "model.losses.l2:L2",
    "lpips": "model.losses.lpips:Lpips",
    "ssim": "model.losses.ssim:Ssim",
    "tv": "model.losses.tv:TotalVariation",
    "edge": "model.losses.edge:Edge",
    "edge_published": "model.losses.edge_published:EdgePublished",
    "big_gaussians": "model.losses.big_gaussians:BigGaussians",
    "small_gaussians": "model.losses.small_gaussians:SmallGaussians",
}

#: The trunk that each variant of LPIPS needs.
LPIPS_TRUNKS = {"vgg": "vgg16", "alex": "alexnet"}
#: The variant of the loss `lpips`.
LPIPS_OF_LOSS = "vgg"
