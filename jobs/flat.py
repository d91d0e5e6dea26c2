"""Flattens the weights of a network, and their gradients, into one contiguous tensor.

Operations on all weights then take one call instead of hundreds: Adam, clearing gradients, their norm.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: Numbers in 64 bytes of float32, the largest alignment that a library asks for.
_ALIGNED = 16


def backward(loss: Tensor, network: nn.Module, flat: nn.Parameter) -> None:
    """Replaces the gradient of `flat`, which `flatten_parameters(network)` returned, by that of `loss`."""
    assert flat.grad is not None
    if flat.is_cuda:
        gather_gradients(loss, network, flat.grad)
    else:
        flat.grad.zero_()
        loss.backward()


def gather_gradients(loss: Tensor, network: nn.Module, out: Tensor) -> None:
    """Copies the gradients of all parameters into `out` (N,) together.

    Adding each to its part takes hundreds of kernel launches on a GPU; on a CPU it is faster.
    """
    trained = _by_memory(_trained(network))
    gradients = torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)
    torch.cat([_in_memory_order(g, p) for g, p in zip(gradients, trained, strict=True)], out=out)


def _in_memory_order(values: Tensor, like: Tensor) -> Tensor:
    """The values (N,) in the order in which `like`, a tensor of the same shape, lies in memory."""
    return values.permute(sorted(range(like.dim()), key=like.stride, reverse=True)).reshape(-1)


def flatten_parameters(network: nn.Module) -> nn.Parameter:
    """Moves the trained parameters of `network` into one (N,), which is returned, with a gradient of zero.

    The network's own parameters become views of it, each in its current layout, and their gradients views of its
    gradient.  They must not be replaced: clear gradients with `zero_grad(set_to_none=False)`.
    Raises ValueError where there is nothing to train, or parameters of several types.
    """
    places = _places(network)
    kinds = {(p.dtype, p.device) for p, _ in places}
    if len(kinds) != 1:
        raise ValueError(f"trained parameters must be of one type on one device, not {sorted(map(str, kinds))}")
    flat = nn.Parameter(places[0][0].new_empty(sum(p.numel() for p, _ in places)))
    flat.grad = torch.zeros_like(flat)
    for parameter, first in places:
        layout = (parameter.shape, parameter.stride(), first)
        parameter.data = flat.data.as_strided(*layout).copy_(parameter.data)
        parameter.grad = flat.grad.as_strided(*layout)
    return flat


def to_logical_order(flat: Tensor, network: nn.Module) -> Tensor:
    """A number for each weight, (N,), from the order of memory to that of the parameters' indices.

    The layout of a network in memory depends on the device and on torch's version; this order does not.
    """
    return torch.cat([part.reshape(-1) for part in _parts(flat, network)])


def to_memory_order(logical: Tensor, network: nn.Module) -> Tensor:
    """The inverse of `to_logical_order`."""
    flat = torch.empty_like(logical)
    first = 0
    for part in _parts(flat, network):
        part.copy_(logical[first : first + part.numel()].view(part.shape))
        first += part.numel()
    return flat


def _parts(flat: Tensor, network: nn.Module) -> Iterator[Tensor]:
    """Views of (N,), each of the shape and the layout of a trained parameter, in the order of the indices."""
    for parameter, first in _places(network):
        yield flat.as_strided(parameter.shape, parameter.stride(), first)


def _places(network: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """The trained parameters in the order of their indices, and where each begins in memory."""
    trained, begins, end = _trained(network), {}, 0
    for parameter in _by_memory(trained):
        begins[parameter] = end
        end += parameter.numel()
    return [(parameter, begins[parameter]) for parameter in trained]


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _by_memory(trained: list[nn.Parameter]) -> list[nn.Parameter]:
    """Parameters in the order of memory.

    Those whose size is a multiple of `_ALIGNED` come first, so that all of them are aligned for vector instructions:
    one odd parameter would make the convolutions after it slower.
    """
    return sorted(trained, key=lambda parameter: parameter.numel() % _ALIGNED != 0)
