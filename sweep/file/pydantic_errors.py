"""Converts pydantic's errors to findings with plain messages and the allowed names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from model.options import MAPPING, in_words
from sweep.file.diagnostics import ABSENT, Finding, Path, key_path, split_allowed

#: How pydantic marks that a mapping's key is wrong, at the end of a location.
_KEY_MARK = "[key]"

#: Words that are written where null is meant.
_NOTHING = ("all", "never", "no", "none", "None", "off", False)
#: Words that are written where an optional mapping with its defaults is meant.
_DEFAULTS = ("on", "yes", "true", True)


def explain(
    error: ValidationError,
    model: type[BaseModel],
    locate: Callable[[Path, str], Path],
    sections: Mapping[str, type[BaseModel]] | None = None,
) -> Iterator[Finding]:
    """Pydantic's errors about a `model` as findings.

    `locate(location, message)` returns where in the sweep file a value of the model was written; `sections` are the
    types of those fields whose type depends on their value.
    """
    for details in error.errors(include_url=False):
        yield _finding(details, model, locate, sections or {})


def _finding(
    details: ErrorDetails,
    model: type[BaseModel],
    locate: Callable[[Path, str], Path],
    sections: Mapping[str, type[BaseModel]],
) -> Finding:
    kind, location = details["type"], details["loc"]
    is_key = kind == "extra_forbidden" or (bool(location) and location[-1] == _KEY_MARK)
    location = tuple(piece for piece in location if piece != _KEY_MARK)
    message, listed = split_allowed(_message(details))
    path = locate(location, message)
    section = sections.get(str(location[0])) if location else None
    inner = location if section is None else location[1:]
    if type(None) in get_args(_annotation(section or model, inner)):
        if details["input"] in _NOTHING:
            message += ", or null"
        elif details["input"] in _DEFAULTS and message == MAPPING:
            message += ", {} for its defaults"
    return Finding(
        path=key_path(path) if is_key else path,
        message=message,
        value=location[-1] if is_key else _value(details),
        allowed=listed or _allowed(details, section or model, inner),
        at="key" if is_key else "value",
    )


def _value(details: ErrorDetails) -> Any:
    if details["type"] == "missing":
        return ABSENT
    context = details.get("ctx", {})
    if "path" in context or not details["loc"]:  # for parts that do not fit, the check names the value to show
        return context.get("value", ABSENT)
    return details["input"]


def _message(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    if "reason" in context:  # it quotes the value, which a Finding stores separately
        return context["reason"].replace(f" {details['input']!r}", "", 1)
    return "not one of the allowed values" if details["type"] == "literal_error" else in_words(details)


def _allowed(details: ErrorDetails, model: type[BaseModel], location: Path) -> tuple[str, ...]:
    if details["type"] == "extra_forbidden":
        section = _first(_annotation(model, location[:-1]), _is_model)
        return tuple(section.model_fields) if section else ()
    if details["type"] == "literal_error":
        literal = _first(_annotation(model, location), lambda a: get_origin(a) is Literal)
        return tuple(str(value) for value in get_args(literal))
    return tuple(details.get("ctx", {}).get("allowed", ()))


def _annotation(model: Any, location: Path) -> Any:
    """The type declared at a location.  Indices and free keys stay inside their container's type."""
    annotation = model
    for piece in location:
        section = _first(annotation, _is_model)
        if section is not None and piece in section.model_fields:
            annotation = section.model_fields[piece].annotation
        elif section is not None and section.model_config.get("extra") == "allow":
            annotation = get_type_hints(section)["__pydantic_extra__"]
    return annotation


def _first(annotation: Any, wanted: Callable[[Any], bool]) -> Any:
    """The annotation or the first of its arguments, at any depth, that is wanted."""
    if wanted(annotation):
        return annotation
    return next((found for a in get_args(annotation) if (found := _first(a, wanted)) is not None), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
