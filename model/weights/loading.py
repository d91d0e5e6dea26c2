"""Checks that tensors fit their network, by building it with them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from model.weights.readers import Published


class _Delivered:
    """A substitute for a weight store, with one set of weights that is not stored."""

    def __init__(self, content: Published) -> None:
        self._content = content

    def load(self, _: str) -> dict[str, Tensor]:
        return self._content.tensors

    def config(self, _: str) -> dict[str, Any]:
        return self._content.config

    def preprocessor(self, _: str) -> dict[str, Any]:
        return self._content.preprocessor


def not_loadable(name: str, content: Published) -> str | None:
    """The reason why the network of this name cannot be built with these tensors; None where it can or is unknown."""
    from model.context import SOURCES, find_source  # these import model.weights
    from model.registry import resolve

    for source in map(find_source, SOURCES):
        for choice in source.models:
            cls = resolve(source.models, choice, source.noun)
            if getattr(cls, "name", None) == name:
                try:
                    cls(_Delivered(content), output_type=cls.output_types[0])
                except ValueError as error:
                    return str(error)
                # The libraries divide by sizes, and look up names, of a configuration that they do not check.
                except Exception as error:
                    return f"no network can be built from them: {type(error).__name__}: {error}"
                return None
    return None
