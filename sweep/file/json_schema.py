"""A JSON Schema of sweep.yaml for editors: completion, and most mistakes while they are typed.

It checks every key and every choice, but not whether settings fit together.  It accepts every file that
`splatsweep validate` accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jobs.config import TrialConfig
from sweep.file.schema import Sweep
from sweep.plan.grid import LOSS_PREFIX, SWITCHES

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_INDEX = r"(\*|[0-9]+)"


def sweep_schema() -> Schema:
    """The schema of a whole sweep file."""
    sweep, trial = _with_list_lengths(Sweep.model_json_schema()), _with_list_lengths(TrialConfig.model_json_schema())
    keys = list(_configuration_keys(trial))
    trial["$defs"] = {name: _with_dotted_keys(schema) for name, schema in trial["$defs"].items()}
    # A plain number is a loss's weight; a mapping may override a loss that already has a weight.
    term = {key: value for key, value in trial["$defs"]["LossTerm"].items() if key != "required"}
    trial["$defs"]["LossTerm"] = {"anyOf": [{"type": "number"}, term]}
    overrides = {"$ref": "#/$defs/Overrides"}
    sweep["properties"] |= {
        "base": overrides,
        "trials": {"type": "object", "additionalProperties": _or_null(overrides)},
        "leave_one_out": {"type": "array", "items": _component()},
    }
    sweep["properties"]["tags"]["additionalProperties"] = {"type": ["string", "number", "boolean"]}
    block = sweep["$defs"]["GridBlock"]["properties"]
    block["axes"] = {"minProperties": 1, **_mapping(keys, _list_of)}
    axis, space = sweep["$defs"].pop("SearchAxis"), sweep["$defs"]["SearchSpace"]
    axes = _mapping(keys, lambda value: {"anyOf": [_list_of(value), _with_choices(axis, value)]})
    sweep["$defs"]["SearchSpace"] = {"minProperties": 1, **axes, "properties": axes["properties"] | space["properties"]}
    block["exclude"]["items"] = {"minProperties": 1, **_mapping(keys, lambda value: value)}
    sweep["$defs"] |= trial["$defs"] | {"Overrides": _mapping(keys, lambda value: value)}
    # A section without a value has its defaults.
    sweep["properties"] = {
        key: value if key in sweep["required"] else _or_null(value) for key, value in sweep["properties"].items()
    }
    return {"$schema": DIALECT, **sweep}


@dataclass(frozen=True)
class _Key:
    """A dotted key of a configuration: as text, or only as a pattern where it has variable parts."""

    written: str | None
    pattern: str
    value: Schema

    def inside(self, name: str | None, pattern: str, value: Schema) -> _Key:
        written = None if self.written is None or name is None else f"{self.written}.{name}"
        return _Key(written, rf"{self.pattern}\.{pattern}", value)


def _configuration_keys(trial: Schema) -> Iterator[_Key]:
    for name, value in trial["properties"].items():
        if name != "seed":  # `seeds` sets it
            yield from _keys_from(_Key(name, re.escape(name), value), trial["$defs"])


def _keys_from(key: _Key, definitions: Schema) -> Iterator[_Key]:
    """The key, and the keys of all values inside its value."""
    yield key
    for schema in _alternatives(key.value, definitions):
        for name, value in schema.get("properties", {}).items():
            yield from _keys_from(key.inside(name, re.escape(name), value), definitions)
        if schema.get("type") == "array":
            yield from _keys_from(key.inside(None, _INDEX, schema["items"]), definitions)
        free = schema.get("additionalProperties")
        if free is True:
            yield key.inside(None, ".+", {})
        elif free:
            names = map(re.escape, schema["propertyNames"]["enum"])
            yield from _keys_from(key.inside(None, f"({'|'.join(names)})", free), definitions)


def _alternatives(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    if "$ref" in schema:
        yield from _alternatives(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in schema:
        for alternative in schema["anyOf"]:
            yield from _alternatives(alternative, definitions)
    else:
        yield schema


def _mapping(keys: list[_Key], wrap: Callable[[Schema], Schema]) -> Schema:
    """The schema of a closed mapping of dotted keys; `wrap` converts the schemas of their values."""
    return {
        "type": "object",
        "properties": {key.written: wrap(key.value) for key in keys if key.written is not None},
        "patternProperties": {f"^{key.pattern}$": wrap(key.value) for key in keys if key.written is None},
        "additionalProperties": False,
    }


def _with_dotted_keys(schema: Schema) -> Schema:
    """Allows dotted keys inside a section; only `splatsweep validate` checks their values."""
    if schema.get("additionalProperties") is not False:
        return schema
    return schema | {"patternProperties": {r"\.": {}}}


def _component() -> Schema:
    """A component that `leave_one_out` can name: a switch, or a loss."""
    loss = r"\.".join((*LOSS_PREFIX, _INDEX, "losses", "[a-z0-9_]+"))
    return {"anyOf": [{"enum": list(SWITCHES)}, {"type": "string", "pattern": f"^{loss}$"}]}


def _with_choices(axis: Schema, value: Schema) -> Schema:
    """The axis of a search, whose choices match the schema `value`."""
    return axis | {"properties": axis["properties"] | {"choices": _or_null(_list_of(value))}}


def _list_of(value: Schema) -> Schema:
    return {"type": "array", "items": value, "minItems": 1}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _with_list_lengths(node: Any) -> Any:
    """Pydantic's schema with list lengths under their proper name, which pydantic loses behind validators."""
    if isinstance(node, list):
        return [_with_list_lengths(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _with_list_lengths(value) for key, value in node.items()}
    if node.get("type") == "array" and "minLength" in node:
        node["minItems"] = node.pop("minLength")
    return node
