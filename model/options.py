"""Typed options that reject unknown keys: sections of a configuration, and options of a single choice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function

from model.registry import UnknownChoiceError, nearest


class Section(BaseModel):
    """A part of a configuration: immutable, strictly typed; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def one_of(axis: str, allowed: Collection[str]) -> GetPydanticSchema:
    """A text that is one of `allowed`; editors get the list as well."""

    def check(value: str) -> str:
        if value not in allowed:
            error = UnknownChoiceError(axis, value, allowed)
            context = {"reason": str(error), "allowed": error.allowed}
            raise PydanticCustomError("unknown_choice", "{reason}", context)
        return value

    return GetPydanticSchema(
        lambda source, handler: no_info_after_validator_function(check, handler(source)),
        lambda schema, handler: handler(schema) | {"enum": sorted(allowed)},
    )


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise PydanticCustomError("not_finite", "must be a finite number")
    return value


#: Lists of YAML are stored as tuples, so that a configuration cannot change after hashing.
as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
#: torch and numpy count no further
MOST = 2**31 - 1
Count = Annotated[int, Field(gt=0, le=MOST)]
Finite = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_finite)]
Counts = Annotated[tuple[Count, ...], as_tuple]


class MisfitError(ValueError):
    """Values of a configuration are valid individually but do not fit together.

    `key` is the dotted key to show, `allowed` the list of its possible values, if there is one.
    """

    def __init__(self, key: str, reason: str, allowed: Collection[str] = ()) -> None:
        self.key, self.reason, self.allowed = key, reason, tuple(allowed)
        super().__init__(reason + (f"; allowed: {', '.join(self.allowed)}" if self.allowed else ""))


WHOLE, MAPPING = "must be a whole number", "must be a mapping of keys to values"
_NUMBER, _LIST = "must be a number", "must be a list"
#: Type of a pydantic error -> message, with the values of the error's context.
_WORDS = {
    "bool_type": "must be true or false",
    "dataclass_type": MAPPING,
    "dict_type": MAPPING,
    "extra_forbidden": "unknown key",
    "finite_number": "must be a finite number",
    "float_type": _NUMBER,
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": WHOLE,
    "int_type": WHOLE,
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": _LIST,
    "literal_error": "must be {expected}",
    "missing": "missing key",
    "model_attributes_type": MAPPING,
    "model_type": MAPPING,
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_type": "must be text",
    "too_short": "must have {min_length} or more entries",
    "tuple_type": _LIST,
}


def in_words(details: Mapping[str, Any] | ErrorDetails) -> str:
    """The message of a pydantic error, in the words of sweep files."""
    if details["type"] in _WORDS:
        return _WORDS[details["type"]].format_map(details.get("ctx", {}))
    return str(details["msg"]).removeprefix("Value error, ")


def in_one_line(error: pydantic.ValidationError) -> str:
    """All problems of a pydantic error, each behind its place."""
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {in_words(each)}" for each in error.errors())


#: Decorates a class of typed fields with defaults: frozen, strictly typed; unknown names are errors.  Its
#: values must be JSON's, because they are hashed.
options = pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid", strict=True))


class AddedLater:
    """Type of the mark `ADDED_LATER`."""


#: Marks a field added to a class already in use: `pooling: Annotated[str, ADDED_LATER] = "mean"`.  Its default
#: is the former behaviour; at its default it is omitted from a configuration's identity, so that existing keys
#: do not change.
ADDED_LATER = AddedLater()


def known_values(instance: Any, values: Any) -> Any:
    """`values`, the plain form of `instance`, without the fields marked `ADDED_LATER` that have their default.

    instance: options, a pydantic model, or a list, tuple or mapping of such.  Values whose plain form is no mapping,
    such as a number, are unchanged.
    """
    if not isinstance(values, dict | list | tuple):
        return values
    if isinstance(values, dict) and isinstance(instance, Mapping):
        return {name: known_values(instance[name], value) for name, value in values.items()}
    if isinstance(values, list | tuple) and isinstance(instance, list | tuple):
        return [known_values(item, value) for item, value in zip(instance, values, strict=True)]
    cls: Any = type(instance)
    if not isinstance(values, dict) or not hasattr(cls, "__pydantic_fields__"):
        return values
    later = _later_defaults(cls)
    return {
        name: known_values(getattr(instance, name), value)
        for name, value in values.items()
        if name not in later or getattr(instance, name) != later[name]
    }


@cache
def _later_defaults(cls: Any) -> Mapping[str, Any]:
    """The fields of a class that are marked `ADDED_LATER`, with their defaults."""
    return {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in cls.__pydantic_fields__.items()
        if ADDED_LATER in field.metadata
    }


def omitted_defaults(instance: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of options, or of a section and the options in it, that `known_values` omits.

    Returns `prefix` + dotted key -> default.
    """
    cls: Any = type(instance)
    found: dict[str, Any] = {}
    if hasattr(cls, "__pydantic_fields__"):
        later = _later_defaults(cls)
        for name in cls.__pydantic_fields__:
            value = getattr(instance, name)
            if name in later and value == later[name]:
                found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
            else:
                found |= omitted_defaults(value, f"{prefix}{name}.")
    return found


@options
class NoOptions:
    """Options of a choice that has none."""


class OptionsError(ValueError):
    """Unknown options of a choice, or values of the wrong type.

    `problems` lists pairs (option, problem).
    """

    def __init__(self, where: str, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{where}.{option}: {problem}" for option, problem in problems))


def parse_options(cls: type, values: Mapping[str, Any], *, choice: str, where: str) -> Any:
    """An instance of `cls`, a class decorated with `options`.

    choice: the choice with these options, e.g. "chairs"; where: their path in a configuration, e.g. "data.options".
    Raises `OptionsError` with all problems.
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
    if detail["type"] == "missing":
        return option, f"{choice} needs this option"
    return option, f"{in_words(detail)}, got {detail['input']!r}"
