"""Overrides of a configuration: from the defaults, through `base`, to one trial.

A key may be nested (`{train: {batch_size: 4}}`) or dotted (`train.batch_size: 4`).  An index selects one element of a
list, and `*` selects all (`train.stages.*.losses.tv`).  Mappings merge; all other values replace.  Every value keeps
its place in the sweep file, so that a mistake can be shown there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError

from jobs.config import DEFAULT_METHOD, TrialConfig
from model.methods import METHODS, find_method
from model.methods.base import MethodOptions
from model.options import MisfitError
from model.registry import is_choice
from sweep.file.diagnostics import Finding, Path, key_path
from sweep.file.pydantic_errors import explain

#: A dotted key in a message, such as `data.resolution`.
_DOTTED = re.compile(r"\b[a-z_]+(?:\.[a-z0-9_]+)+\b")

#: The section whose keys are those of the chosen method.
METHOD_SECTION = "model"
_DEFAULT_KEYS = find_method(DEFAULT_METHOD).Options.model_fields


class Remove(Enum):
    """A value that removes its key."""

    REMOVE = "remove"


REMOVE: Final = Remove.REMOVE


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one key of a trial's configuration."""

    keys: tuple[str, ...]
    value: Any
    #: where in the sweep file each of `keys` was written; parts of one dotted key share a place
    trail: tuple[Path, ...]

    @property
    def origin(self) -> Path:
        """The place where the value was written."""
        return self.trail[-1]


class OverrideError(ValueError):
    """A key that does not exist."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(f"{'.'.join(map(str, finding.path))}: {finding.message}")


def flatten(value: Any, origin: Path, key: str | None = None) -> Iterator[Setting]:
    """The settings in a nested or dotted mapping, in its order.

    `origin` is the place of the value, `key` the dotted key that it belongs to, if any.
    """
    keys = () if key is None else tuple(key.split("."))
    yield from _flatten(value, origin, keys, (origin,) * len(keys))


def _flatten(value: Any, origin: Path, keys: tuple[str, ...], trail: tuple[Path, ...]) -> Iterator[Setting]:
    if not isinstance(value, Mapping) or (keys and not value):
        yield Setting(keys, value, trail)
        return
    for key, inner in value.items():
        written, parts = (*origin, key), tuple(str(key).split("."))
        yield from _flatten(inner, written, keys + parts, trail + (written,) * len(parts))


class _Section:
    """One section of a draft, validated on first use, because most drafts share most of their sections."""

    def __init__(self, name: str, value: Any, origins: Mapping[Path, Path]) -> None:
        self._name = name
        #: the value to validate, without keys that the chosen method does not have
        self.value = method_keys(value, origins) if name == METHOD_SECTION else value

    @cached_property
    def validated(self) -> Any:
        """The validated section, or the plain value of an unknown one.  Raises pydantic's `ValidationError`."""
        return (
            _adapter(self._name).validate_python(self.value) if self._name in TrialConfig.model_fields else self.value
        )


@cache
def _adapter(section: str) -> TypeAdapter[Any]:
    field = TrialConfig.model_fields[section]
    checked: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(checked)


def named_options(value: Any) -> type[MethodOptions] | None:
    """The options class of the method that the section `model` names; None where there is no such method."""
    name = value.get("name", DEFAULT_METHOD) if isinstance(value, dict) else DEFAULT_METHOD
    if not is_choice(name, METHODS):
        return None
    try:
        return find_method(name).options_for(value)
    except MisfitError:
        return None


def chosen_options(value: Any) -> type[MethodOptions]:
    """The options class of the method that the section `model` names; the default method's where it names none."""
    return named_options(value) or find_method(DEFAULT_METHOD).Options


def method_keys(value: Any, origins: Mapping[Path, Path]) -> Any:
    """The section `model`, restricted to the keys of the chosen method.

    Rows of several methods share one `base`, so keys and defaults of other methods are left out.  A key that no method
    has is kept, so that validation reports it.
    """
    if not isinstance(value, dict):
        return value
    own = chosen_options(value).model_fields
    is_default = own is _DEFAULT_KEYS
    if is_default and own.keys() >= value.keys():
        return value
    written = {key[1] for key in origins if key[0] == METHOD_SECTION and len(key) > 1}
    replaced = (METHOD_SECTION,) in origins  # the whole section was written, so nothing in it is a default
    return {
        key: item
        for key, item in value.items()
        if (key in own and (is_default or replaced or key in written)) or key not in known_method_keys()
    }


@cache
def known_method_keys() -> frozenset[str]:
    """The keys of all methods."""
    return frozenset(key for options in _all_options() for key in options.model_fields)


def variants_with(key: str) -> list[str]:
    """The methods, and backbones of methods, that have a key."""
    found = [options.model_fields for options in _all_options() if key in options.model_fields]
    return [" ".join(fields[part].default for part in ("name", "backbone") if part in fields) for fields in found]


def _all_options() -> list[type[MethodOptions]]:
    return [options for name in METHODS for options in find_method(name).all_options()]


@dataclass(frozen=True)
class Draft:
    """A configuration under construction.  Drafts are immutable, because they share their common parts."""

    values: Any
    #: key -> its place in the sweep file, in the order of writing
    origins: Mapping[Path, Path]
    _sections: Mapping[str, _Section] = field(compare=False, repr=False)
    #: cache of the last setting applied and its result, since neighbouring points of a grid share their first settings
    _latest: list[tuple[Setting, Draft]] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def defaults(cls) -> Draft:
        """The draft of a trial without any setting."""
        values = TrialConfig().model_dump(mode="json")
        return cls(values, {}, {name: _Section(name, value, {}) for name, value in values.items()})

    def apply(self, setting: Setting) -> Draft:
        """This draft with one more setting.  Raises `OverrideError` where its key does not exist."""
        if self._latest and self._latest[0][0] is setting:
            return self._latest[0][1]
        origins = dict(self.origins)
        draft = self._with(_put(self.values, (), setting.keys, setting, origins), origins)
        self._latest[:] = [(setting, draft)]
        return draft

    def _with(self, values: Any, origins: Mapping[Path, Path]) -> Draft:
        kept = {name for name, value in values.items() if name in self._sections and value is self.values[name]}
        sections = {
            name: self._sections[name] if name in kept else _Section(name, value, origins)
            for name, value in values.items()
        }
        return Draft(values, origins, sections)

    def origin(self, key: Path) -> Path | None:
        """The place where the value of `key` was written; None for a default."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return (*self.origins[key[:length]], *key[length:])
        return None

    def config(self) -> TrialConfig:
        """The configuration.  Raises pydantic's `ValidationError`."""
        try:
            values = {name: section.validated for name, section in self._sections.items()}
        except ValidationError:
            # Validating everything again finds the mistakes of all sections, under their complete keys.
            values = {name: section.value for name, section in self._sections.items()}
        return TrialConfig.model_validate(values)

    def value_findings(self) -> list[Finding]:
        """The mistakes in single sections; whether these fit together is not checked."""
        findings, wrong = self._explained(())
        return [] if () in wrong else findings

    def findings(self, written_at: Path) -> list[Finding]:
        """All mistakes in the configuration; one that belongs to no single setting is placed at `written_at`."""
        findings, wrong = self._explained(written_at)
        if findings and () not in wrong:
            # Pydantic validates whether the sections fit together only where each is valid by itself.
            later, _ = self._with_defaults_at(wrong)._explained(written_at)
            findings += [finding for finding in later if not _names_any(finding.message, wrong)]
        return findings

    def _explained(self, written_at: Path) -> tuple[list[Finding], set[Path]]:
        """The findings, and the keys that they concern."""
        keys: set[Path] = set()

        def locate(key: Path, message: str) -> Path:
            keys.add(key)
            return self.origin(key) or self._last_written(message) or written_at

        try:
            self.config()
        except ValidationError as error:
            return list(
                explain(error, TrialConfig, locate, {METHOD_SECTION: chosen_options(self.values.get(METHOD_SECTION))})
            ), keys
        return [], keys

    def _last_written(self, message: str) -> Path | None:
        """The place of the last-written key in `message`, which names the keys that do not fit together.

        Where all of these have defaults, the place of the last-written key of their section.
        """
        named = [_key(dotted) for dotted in _DOTTED.findall(message)]
        order = {key: position for position, key in enumerate(self.origins)}
        # A key may have been written as part of a mapping or list; whole sections do not count.
        written = [
            (order[key[:length]], length, key)
            for key in named
            if (length := next((n for n in range(len(key), 1, -1) if key[:n] in order), None)) is not None
        ]
        if written:
            return self.origin(max(written)[2])
        sections = {key[0] for key in named}
        return next((origin for key, origin in reversed(list(self.origins.items())) if key[0] in sections), None)

    def _with_defaults_at(self, wrong: Iterable[Path]) -> Draft:
        """This draft with defaults in place of the values at the keys `wrong`, cut off after two levels."""
        values = {name: dict(part) if isinstance(part, dict) else part for name, part in self.values.items()}
        defaults = Draft.defaults().values
        for name, *inner in wrong:
            if not inner or not isinstance(values[name], dict) or name not in defaults:
                _reset(values, name, defaults)
            else:
                _reset(values[name], inner[0], defaults[name])
        return self._with(values, self.origins)


def _key(dotted: str) -> Path:
    return tuple(int(part) if part.isdecimal() else part for part in dotted.split("."))


def _reset(node: dict[Any, Any], key: Any, defaults: Mapping[Any, Any]) -> None:
    if key in defaults:
        node[key] = defaults[key]
    else:
        node.pop(key, None)


def _names_any(message: str, keys: Iterable[Path]) -> bool:
    """Whether a message names a key whose invalid value was replaced by the default."""
    return any(".".join(map(str, key[:2])) in message for key in keys)


def build(draft: Draft, settings: Sequence[Setting]) -> Draft:
    """A draft with settings applied in turn."""
    for setting in settings:
        draft = draft.apply(setting)
    return draft


def _put(node: Any, at: Path, keys: tuple[str, ...], setting: Setting, origins: dict[Path, Path]) -> Any:
    """A copy of `node`, which is at the key `at`, with the setting's value at `keys` below it."""
    if not keys:
        return _leaf(node, at, setting, origins)
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        elements = list(node)
        for index in _indices(node, at, key, setting):
            elements[index] = _put(node[index], (*at, index), rest, setting, origins)
        return elements
    if not isinstance(node, dict):
        _note(node, at, setting.trail[len(setting.keys) - len(keys) - 1], origins)
        node = {}
    if setting.value is REMOVE and not rest:
        return _without(node, at, key, setting, origins)
    return {**node, key: _put(node.get(key), (*at, key), rest, setting, origins)}


def _leaf(node: Any, at: Path, setting: Setting, origins: dict[Path, Path]) -> Any:
    if setting.value == {} and isinstance(node, dict):
        return node
    _note(node, at, setting.origin, origins)
    return setting.value


def _without(node: Any, at: Path, key: str, setting: Setting, origins: dict[Path, Path]) -> Any:
    left = {k: value for k, value in node.items() if k != key}
    if node and not left:  # an empty mapping is the only mistake that a removal can cause
        _note(node, at, setting.origin, origins)
    return left


def _note(before: Any, at: Path, origin: Path, origins: dict[Path, Path]) -> None:
    """Records that the value at `at` was written at `origin`, and forgets the places inside `before`, its old value."""
    inside = [key for key in origins if key[: len(at)] == at] if isinstance(before, (dict, list)) else []
    for key in inside:
        del origins[key]
    origins.pop(at, None)
    origins[at] = origin


def _indices(elements: list[Any], at: Path, key: str, setting: Setting) -> range:
    if key == "*":
        return range(len(elements))
    if key.isdecimal() and int(key) < len(elements):
        return range(int(key), int(key) + 1)
    name = ".".join(map(str, at))
    raise OverrideError(
        Finding(
            key_path(setting.origin),
            f"{name} has {len(elements)} elements, reached by index or all by *",
            value=key,
            allowed=(*map(str, range(len(elements))), "*"),
            at="key",
        )
    )
