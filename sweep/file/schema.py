"""The schema of sweep.yaml: frozen types that reject unknown keys.

Configurations stay as written here: `base`, `trials` and `axes` hold nested or dotted keys of a trial's configuration.
`sweep.file.overrides` and `sweep.plan.grid` combine and interpret them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    WithJsonSchema,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.methods import controls
from model.options import Section, as_tuple, one_of
from model.registry import resolve
from results.address import check_address, expanded_address
from results.records import tags
from results.records.ledger import PREFIX
from results.tables import SUFFIXES, TABLES
from sweep.run.executors import EXECUTORS
from sweep.run.executors.base import ExecutorOptions
from sweep.search import PRUNERS, SAMPLERS, SCORES, Direction

#: Rows without training.  Every plan has them, so no trial may have their names.
CONTROLS = controls()

_MAX_NAME = 100
_MAX_TAG = 250


def _check_file_name(name: str) -> str:
    safe = name.replace("-", "").replace("_", "").replace(".", "")
    if not (safe.isascii() and safe.isalnum() and name[0].isalnum() and len(name) <= _MAX_NAME):
        raise PydanticCustomError(
            "file_name",
            f"must be at most {_MAX_NAME} letters, digits, '.', '-' and '_', beginning with a letter or digit",
        )
    return name


def _check_trial_name(name: str) -> str:
    if not (name.isprintable() and name.strip() == name and 0 < len(name) <= _MAX_NAME):
        raise PydanticCustomError("trial_name", f"a trial's name must be 1 to {_MAX_NAME} printable characters")
    if name in CONTROLS:
        raise PydanticCustomError("trial_name", "this name is reserved for a row that every plan includes")
    if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal():
        raise PydanticCustomError("trial_name", "names of this form are reserved for trials that a search proposes")
    return name


def _check_tag(name: str) -> str:
    is_safe = len(name) <= _MAX_TAG and re.fullmatch(r"[\w./: -]+", name) is not None
    if not is_safe:
        raise PydanticCustomError("tag", "must be 1 to 250 letters, digits, blanks and any of . / : - _")
    # MLflow takes names for paths, and one name must not have two spellings.
    if posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        raise PydanticCustomError("tag", "MLflow refuses a slash at either end, //, and parts that are . or ..")
    if name.startswith(("mlflow.", tags.PREFIX)):
        raise PydanticCustomError("tag", "names of this form are reserved for MLflow and splatsweep")
    return name


def _tag_text(value: Any) -> Any:
    """A number or a boolean as it is written in YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value}" if isinstance(value, int | float) else value


def is_table_file(name: str) -> bool:
    """Whether a table is the user's own, in a YAML file."""
    return name.endswith(SUFFIXES)


def _check_table(name: str) -> str:
    if name not in TABLES and not is_table_file(name):
        reason = "unknown table, and not a YAML file either"
        raise PydanticCustomError("unknown_choice", reason, {"allowed": sorted(TABLES)})
    return name


def _check_store(uri: str) -> str:
    uri = expanded_address(uri)
    check_address(uri)
    return uri


Item = TypeVar("Item")
#: Lists of YAML become tuples, so that a sweep cannot change after its validation.
Many = Annotated[tuple[Item, ...], as_tuple]
#: Values of an axis; a single one may be written without a list.
OneOrMany = Annotated[
    tuple[Any, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else (value,)),
    Field(min_length=1),
    WithJsonSchema({}),
]
#: Keys of a trial's configuration, nested or dotted; `name:` without a value is an empty mapping.
Overrides = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]
FileName = Annotated[
    str, AfterValidator(_check_file_name), Field(json_schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"})
]
TrialName = Annotated[str, AfterValidator(_check_trial_name)]
TableName = Annotated[
    str,
    AfterValidator(_check_table),
    Field(json_schema_extra={"anyOf": [{"enum": sorted(TABLES)}, {"pattern": r"\.ya?ml$"}]}),
]
TagName = Annotated[str, AfterValidator(_check_tag)]
TagValue = Annotated[str, BeforeValidator(_tag_text)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class SeedRule(Section):
    """Seeds that are added to a row until its difference to the baseline is decided: 0, 1, 2, ..."""

    at_least: Annotated[int, Field(ge=2)] = 3
    at_most: Annotated[int, Field(ge=3, le=1000)]
    until: Literal["decided"] = "decided"
    #: the score that decides, a metric of the trained network on the split `eval.split`
    metric: Annotated[str, one_of("metric", SCORES)] = "novel_psnr"
    #: family-wise error: the highest probability that any row without a difference to the baseline is declared better
    #: or worse, for differences that are about symmetric (`results.sequential`)
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05

    @model_validator(mode="after")
    def _has_a_range(self) -> SeedRule:
        if self.at_least >= self.at_most:
            reason = f"at_least ({self.at_least}) must be below at_most ({self.at_most}); a list gives fixed seeds"
            raise PydanticCustomError("seed_range", "{reason}", {"reason": reason})
        return self


_ListedSeeds = Annotated[Many[Seed], Field(min_length=1)]
_LISTED_SEEDS: TypeAdapter[tuple[int, ...]] = TypeAdapter(_ListedSeeds, config=Section.model_config)


def _seeds_of(value: Any, _: Any) -> tuple[int, ...] | SeedRule:
    """Seeds by the form of their value, so that mistakes in it are those of one form."""
    if isinstance(value, dict | SeedRule):
        return SeedRule.model_validate(value)
    return _LISTED_SEEDS.validate_python(value)


#: Listed seeds, or a rule that adds them.
Seeds = Annotated[_ListedSeeds | SeedRule, WrapValidator(_seeds_of)]


#: axis -> {other axis: the values for which the first applies}
When = dict[str, Annotated[dict[str, OneOrMany], Field(min_length=1)]]


class GridBlock(Section):
    """A grid: the Cartesian product of its axes."""

    #: dotted key -> its values
    axes: Annotated[dict[str, Annotated[Many[Any], Field(min_length=1)]], Field(min_length=1)]
    #: excluded points: those that have all the values of one entry
    exclude: Many[dict[str, Any]] = ()
    #: groups of axes that move together, value by value
    zip: Many[Many[str]] = ()
    #: axis -> {other axis: the values for which the first applies}; for other values a point does not set the first
    when: When = Field(default_factory=dict)


def _most_derived(classes: Iterable[type]) -> tuple[type, ...]:
    """The distinct classes, without those that others inherit from."""
    found = tuple(dict.fromkeys(classes))
    return tuple(cls for cls in found if not any(issubclass(other, cls) and other is not cls for other in found))


if TYPE_CHECKING:

    class RunOptions(ExecutorOptions):
        """The execution of trials: the options of all executors, and which one it is."""

        executor: str = "ray"

else:
    RunOptions = create_model(
        "RunOptions",
        __base__=_most_derived(resolve(EXECUTORS, name, "executor").Options for name in EXECUTORS),
        __doc__="The execution of trials: the options of all executors, and which one it is.",
        executor=(Annotated[str, one_of("executor", EXECUTORS)], "ray"),
    )


class Tracking(Section):
    """The store of results.  Null means the one in the home, and an experiment named after the sweep."""

    #: a database or a tracking server; pass passwords in PGPASSWORD, MLFLOW_TRACKING_PASSWORD or similar variables
    uri: Annotated[str, AfterValidator(_check_store)] | None = None
    experiment: str | None = None
    #: whether the networks of finished trials become artifacts of their runs; auto: each that is no larger than 1 GB
    #: divided by the number of the sweep's trials
    models: Literal["auto", "always", "never"] = "auto"


def comparable(value: Any) -> str:
    """A text that is equal for values that give equal configurations."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value))
    if isinstance(value, dict):
        return repr(sorted((key, comparable(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return repr([comparable(item) for item in value])
    return repr(value)


def _listed_choices(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list) else value


class SearchAxis(Section):
    """The values that a search may give a key: a list of choices, or all numbers between two bounds."""

    choices: Annotated[Many[Any], Field(min_length=1)] | None = None
    low: Number | None = None
    high: Number | None = None
    #: whether the scale is logarithmic
    log: bool = False
    #: only low, low + step, low + 2 step, ...
    step: Annotated[Number, Field(gt=0)] | None = None
    #: only whole numbers
    int: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> SearchAxis:
        problem = self._problem()
        if problem is not None:
            raise PydanticCustomError("search_axis", problem)
        return self

    def _problem(self) -> str | None:
        if self.choices is not None:
            others = self.model_fields_set - {"choices"}
            return "choices have no bounds, steps or scale" if others else None
        if self.low is None or self.high is None:
            return "must be a list of choices, or a mapping with low and high"
        if self.low >= self.high:
            return "low must be below high"
        if self.log and self.low <= 0:
            return "low must be above 0 on a logarithmic scale"
        if self.log and self.step is not None:
            return "a logarithmic scale has no step"
        numbers = [number for number in (self.low, self.high, self.step) if number is not None]
        if self.int and any(number != round(number) for number in numbers):
            return "bounds and step must be whole numbers where int is true"
        return None


def distinct_choices(axis: SearchAxis) -> tuple[int, ...]:
    """Indices of the distinct choices: `1e-4` and `0.0001` are one, `1` and `true` are two."""
    texts = [comparable(choice) for choice in axis.choices or ()]
    return tuple(index for index, text in enumerate(texts) if text not in texts[:index])


class SearchSpace(Section):
    """The axes of a search by their dotted keys, beside the conditions under which some of them apply."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[SearchAxis, BeforeValidator(_listed_choices)]]

    #: as in a grid block: for other values a configuration does not set the axis
    when: When = Field(default_factory=dict)

    @property
    def axes(self) -> dict[str, SearchAxis]:
        """Dotted key -> its allowed values."""
        return self.__pydantic_extra__

    @model_validator(mode="after")
    def _has_an_axis(self) -> SearchSpace:
        if not self.axes:
            raise PydanticCustomError("too_short", "must have 1 or more entries", {"min_length": 1})
        return self


class Search(Section):
    """Configurations that Optuna proposes, one after another, on top of `base`."""

    space: SearchSpace
    #: the number of configurations to propose
    trials: Annotated[int, Field(ge=1)]
    #: a metric of the trained network, on the split `eval.split`
    metric: Annotated[str, one_of("metric", SCORES)] = "novel_psnr"
    #: null: the direction in which the metric is better
    direction: Direction | None = None
    sampler: Annotated[str, one_of("sampler", SAMPLERS)] = "tpe"
    pruner: Annotated[str, one_of("pruner", PRUNERS)] = "none"
    #: the sampler's seed
    seed: Seed = 0

    @property
    def aim(self) -> Direction:
        """The direction of the search: maximize or minimize."""
        return self.direction or SCORES[self.metric]


@dataclass(frozen=True)
class Origin:
    """The place where a sweep was read from."""

    #: the path as the user gave it
    file: Path
    #: texts of `--set`
    settings: tuple[str, ...] = ()


class Sweep(Section):
    """The content of a sweep file."""

    _origin: Origin | None = PrivateAttr(default=None)

    #: the name of the sweep's folders and of its MLflow experiment
    name: FileName
    #: a description, for the report and MLflow
    notes: str | None = None
    #: labels of the runs in MLflow, also shown in the report
    tags: dict[TagName, TagValue] = Field(default_factory=dict)
    #: the sweep file that this one extends; `sweep.file.inheritance` has already merged them
    extends: str | None = None
    base: Overrides = Field(default_factory=dict)
    trials: dict[TrialName, Overrides] = Field(default_factory=dict)
    grid: Many[GridBlock] = ()
    #: components of `base` to switch off one at a time
    leave_one_out: Many[str] = ()
    #: the row that tables compare with: its name, or the setting of each axis that identifies it
    baseline: str | Annotated[dict[str, Any], Field(min_length=1)] | None = None
    #: the score that decides, named before there are results: tables correct its tests apart from all others
    primary: Annotated[str, one_of("metric", SCORES)] | None = None
    seeds: Seeds = (0,)
    search: Search | None = None
    #: names of built-in tables, or YAML files; their paths are relative in the sweep file and absolute once loaded
    tables: Many[TableName] = ("auto",)
    run: RunOptions = RunOptions()
    tracking: Tracking = Tracking()

    @property
    def first_seeds(self) -> tuple[int, ...]:
        """The seeds that every row has: the listed ones, or the fewest of a rule."""
        return tuple(range(self.seeds.at_least)) if isinstance(self.seeds, SeedRule) else self.seeds

    @property
    def seed_rule(self) -> SeedRule | None:
        """The rule that adds seeds; None where they are listed."""
        return self.seeds if isinstance(self.seeds, SeedRule) else None

    @property
    def most_seeds(self) -> int:
        """The largest number of seeds that a row may have."""
        return self.seeds.at_most if isinstance(self.seeds, SeedRule) else len(self.seeds)

    @property
    def experiment(self) -> str:
        """The name of the experiment in MLflow."""
        return self.tracking.experiment or self.name

    @property
    def origin(self) -> Origin | None:
        """The file and settings that the sweep was read from; None for a sweep constructed in Python."""
        return self._origin

    def read_from(self, origin: Origin) -> Sweep:
        """A copy of the sweep with this origin."""
        sweep = self.model_copy()
        sweep._origin = origin
        return sweep

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_sections(cls, value: Any) -> Any:
        """Gives a section without a value, for instance with all lines commented out, its defaults."""
        if not isinstance(value, dict):
            return value
        return {key: v for key, v in value.items() if v is not None or key not in cls.model_fields}
