import pytest
import torch

from jobs.metrics.base import EvaluatedViews
from jobs.metrics.iou import Iou


def test_iou_of_known_silhouettes(weights):
    ours, theirs = torch.zeros(3, 1, 4, 4, dtype=torch.bool), torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    theirs[:2, :, :2] = True  # 8 pixels
    ours[0, :, 1:3] = True  # 8 pixels, 4 of them shared
    images = torch.zeros(3, 3, 4, 4)
    metric = Iou(weights, "vgg")
    assert metric(EvaluatedViews(images, ours), EvaluatedViews(images, theirs), None).tolist()[:2] == [
        pytest.approx(4 / 12),
        0,
    ]
    assert metric(EvaluatedViews(images, theirs), EvaluatedViews(images, theirs), None).tolist()[:2] == [1, 1]
    assert metric.defined(EvaluatedViews(images, theirs)).tolist() == [True, True, False]
