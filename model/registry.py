"""Choices by name: `name -> "module:attribute"`, imported when chosen.

Each axis has one literal dictionary in its package's `__init__.py`, so an optional dependency is needed only
for choices that use it.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any


def nearest(value: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most similar to `value`, or one that contains it; None where none is close."""
    names = list(allowed)
    containing = (name for name in names if len(value) > 2 and value in name)
    return next(iter(difflib.get_close_matches(value, names, n=1, cutoff=0.5)), next(containing, None))


def is_choice(value: Any, registry: Mapping[str, str]) -> bool:
    """Whether a value of any type is a registered name."""
    return isinstance(value, str) and value in registry


class UnknownChoiceError(ValueError):
    """A name, or a value that is none, is not in its registry."""

    def __init__(self, axis: str, value: Any, allowed: Iterable[str]) -> None:
        self.axis, self.value, self.allowed = axis, value, sorted(allowed)
        hint = nearest(value, self.allowed) if isinstance(value, str) else None
        super().__init__(
            f"unknown {axis} {value!r}; allowed: {', '.join(self.allowed)}"
            + (f"; did you mean {hint!r}?" if hint else "")
        )


class RegistryError(ValueError):
    """An entry of a registry names a module or an attribute that does not exist."""

    def __init__(self, axis: str, name: str, entry: str, missing: str) -> None:
        super().__init__(f"{axis} {name!r} is registered as {entry!r}, and there is no {missing}; mend its line")


@cache
def _parts(path: str) -> tuple[str, str]:
    """Module and attribute of a registry's entry."""
    module, _, attribute = path.partition(":")
    return module, attribute


def resolve(registry: Mapping[str, str], name: str, axis: str) -> Any:
    """The object registered as `name`.

    Raises `UnknownChoiceError` with the allowed names, and `RegistryError` where its entry leads nowhere.
    """
    if name not in registry:
        raise UnknownChoiceError(axis, name, registry)
    module, attribute = _parts(registry[name])
    # A plan of thousands of trials calls this thousands of times; re-importing a module takes microseconds.
    loaded = sys.modules.get(module)
    if loaded is None:
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # a package that the module imports
                raise
            raise RegistryError(axis, name, registry[name], f"module {error.name}") from error
    if not hasattr(loaded, attribute):
        raise RegistryError(axis, name, registry[name], f"{attribute!r} in module {module}")
    return getattr(loaded, attribute)
