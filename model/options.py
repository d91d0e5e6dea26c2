"""Options of a choice that has some, such as a depth model's noise: typed fields, and mistakes in them as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from model.registry import nearest

#: Decorates a class of typed fields with defaults: frozen, strict about types, closed to unknown names.  Its
#: values must be JSON's, because they are hashed.
options = pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid", strict=True))


@options
class NoOptions:
    """Of a choice without options."""


class OptionsError(ValueError):
    """Options that a choice does not have, or values of the wrong type.

    `problems` lists (option, what is wrong), one for each.
    """

    def __init__(self, where: str, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{where}.{option}: {problem}" for option, problem in problems))


def parse_options(cls: type, values: Mapping[str, Any], *, choice: str, where: str) -> Any:
    """An instance of `cls`, which is made with `options`.

    choice: whose options these are, e.g. "chairs"; where: their place in a configuration, e.g. "data.options".
    Raises `OptionsError` with all that is wrong.
    """
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        allowed = sorted(field.name for field in dataclasses.fields(cls))
        raise OptionsError(where, [_problem(choice, dict(detail), allowed) for detail in error.errors()]) from error


def _problem(choice: str, detail: Mapping[str, Any], allowed: list[str]) -> tuple[str, str]:
    option = ".".join(str(part) for part in detail["loc"])
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        hint = nearest(option, allowed)
        problem = f"{choice} has no such option; allowed: {', '.join(allowed) or 'none'}"
        return option, problem + (f"; did you mean {hint!r}?" if hint else "")
    return option, f"{detail['msg']}, got {detail['input']!r}"
