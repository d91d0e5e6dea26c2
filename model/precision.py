"""Precision of float32 products on a GPU.

TF32 rounds the factors of a product to 10 bits of fraction, bfloat16 to 7; float32 has 23.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Enables or disables TF32 for the products of matrices and the convolutions in the body."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Products of positions and cameras, whose errors would be visible, for any precision of the network.

    Those of the backward pass have the precision of the training or a higher one: errors of gradients are not visible.
    """
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        with tf32(False):
            yield
