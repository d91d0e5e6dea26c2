"""Networks of the transformers library, from a hub repository's configuration and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def hub_network(task: str, config: Mapping[str, Any], *, name: str) -> nn.Module:
    """The architecture `task`, such as "Dinov2Model", of `config`; initialised from torch's generator.

    `config` is the content of the hub's config.json, or part of it; the library's defaults complete it.
    Raises ValueError where the library cannot read it.
    """
    cls, parsed = _parsed(task, config, name)
    network: nn.Module = cls(parsed)
    return network


def load_hub_network(
    task: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, name: str, unused: tuple[str, ...] = ()
) -> nn.Module:
    """The same with the hub's tensors, in float32; tensors that the architecture lacks are ignored.

    The library itself loads them, because it maps the names of its older versions.
    `unused`: prefixes of tensors that may be missing, because nothing reads them.
    Raises ValueError where another tensor is missing or of another shape.
    """
    cls, parsed = _parsed(task, config, name)
    with _quiet():
        network, found = cls.from_pretrained(
            None,
            config=parsed,
            state_dict=dict(tensors),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # so that they are reported, and rejected below
            output_loading_info=True,
        )
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(unused))
    wrong = missing + sorted(str(key[0]) for key in found["mismatched_keys"])
    if wrong:
        listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(f"these are not the weights of {name}: missing or of another shape: {listed}")
    loaded: nn.Module = network
    return loaded


def _parsed(task: str, config: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    import transformers  # takes seconds, so it is imported only for such models
    from huggingface_hub.errors import StrictDataclassError

    cls = getattr(transformers, task)
    try:
        return cls, cls.config_class.from_dict(dict(config))
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"the configuration of {name} is not one of {task}: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the library's progress bar and its report of missing tensors, which are reported here."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
