"""The configuration of one trial, as frozen types that refuse what they do not know.

`TrialConfig.identity()` is what `jobs.keys` hashes.  A key that is added to a section later is marked `ADDED_LATER`
and has as its default the value that behaves as before: the identities of what exists stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_plain_validator_function

from jobs.data import DATASETS
from model.context import SOURCES, find_source
from model.fusion import FUSION, Source
from model.fusion.base import Fusion, entering_kind
from model.losses import LOSSES
from model.methods import METHODS, find_method
from model.methods.base import NEEDS, Method, MethodOptions, Need
from model.options import (
    Count,
    Finite,
    MisfitError,
    NoOptions,
    OptionsError,
    Positive,
    Section,
    as_tuple,
    known_values,
    one_of,
    parse_options,
)
from model.rasterizers import BACKENDS
from model.registry import UnknownChoiceError, resolve

#: The method of a configuration that names none.
DEFAULT_METHOD = "splatter_image"

#: The smallest pictures, in pixels, of which the poolings of each LPIPS trunk leave anything.
SMALLEST_LPIPS = {"vgg": 16, "alex": 32}

Preprocess = Literal["published", "correct"]


class DataConfig(Section):
    """Which pictures a trial learns from."""

    name: Annotated[str, one_of("dataset", DATASETS)] = "chairs"
    resolution: Annotated[int, Field(gt=0, multiple_of=8)] = 32
    #: options of the dataset's importer; see `splatsweep data list`
    options: dict[str, Any] = Field(default={})


class ContextConfig(Section):
    """What the sections about frozen models have in common; each has its switch in front of these."""

    #: which of `model.context.SOURCES` the section is about
    source: ClassVar[str]

    fusion: Annotated[str, one_of("fusion", FUSION)]
    preprocess: Preprocess = "correct"
    #: side in pixels that images are resized to for the model; null is its own
    resolution: Count | None = None
    #: options of the model; see `splatsweep choices`
    options: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _fits_the_model(self) -> ContextConfig:
        _check_context(self)
        return self

    @property
    def choice(self) -> str:
        """The model's name, or "none"."""
        name: str = getattr(self, find_source(self.source).switch)
        return name


def _context_section(name: str) -> type[ContextConfig]:
    """The type of the section about one source of context."""
    source = find_source(name)
    choice = Annotated[str, one_of(source.noun, ("none", *source.models))]
    fusion = Annotated[str, one_of("fusion", FUSION)]
    title = f"{name.title()}Config"
    fields: dict[str, Any] = {source.switch: (choice, "none")}
    switch = create_model(f"_{title}", __base__=Section, **fields)
    section: Any = create_model(
        title,
        __base__=(ContextConfig, switch),
        __doc__=source.description,
        __module__=__name__,
        fusion=(fusion, source.fusion),
    )
    section.source = name
    globals()[title] = section  # where pickle looks for it
    return cast("type[ContextConfig]", section)


class LossTerm(Section):
    """How much a loss counts, and when.  A plain number in a sweep file stands for a weight without more."""

    weight: Finite
    #: iterations of the stage before it counts at all
    start: Annotated[int, Field(ge=0)] = 0
    #: iterations from there on over which the weight grows linearly to its full value
    ramp: Annotated[int, Field(ge=0)] = 0
    #: rendered views of each object that it looks at, drawn anew each step, which leaves its expectation; null: all
    views: Count | None = None

    def weight_at(self, iteration: int) -> float:
        """The weight in the stage's `iteration`, counted from 0."""
        if iteration < self.start:
            return 0.0
        return self.weight * min(1.0, (iteration - self.start + 1) / (self.ramp + 1))

    @model_serializer(mode="wrap")
    def _as_written(self, plain: SerializerFunctionWrapHandler) -> Any:
        return self.weight if self == LossTerm(weight=self.weight) else plain(self)


def _as_term(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"weight": value}
    if not isinstance(value, (dict, LossTerm)):
        raise PydanticCustomError("not_a_term", "must be a weight, or a mapping with weight, start, ramp and views")
    return value


def _without_zeros(losses: dict[str, LossTerm]) -> dict[str, LossTerm]:
    """Terms that count: a weight of 0 is the same as none, and makes the same trial.  All where none counts."""
    return {name: term for name, term in losses.items() if term.weight != 0} or losses


LossName = Annotated[str, one_of("loss", LOSSES)]


class Stage(Section):
    """A stretch of training with one learning rate and one weighted sum of losses; Adam starts afresh in each."""

    iterations: Count
    lr: Positive
    losses: Annotated[
        dict[Annotated[str, one_of("loss", LOSSES)], Annotated[LossTerm, BeforeValidator(_as_term)]],
        Field(min_length=1),
        AfterValidator(_without_zeros),
    ]

    @model_validator(mode="after")
    def _starts_with_a_loss(self) -> Stage:
        if all(term.start > 0 for term in self.losses.values()):
            raise PydanticCustomError("no_loss", "one of the losses must start at 0, or there is nothing to learn from")
        return self


class EmaConfig(Section):
    """A moving average of the weights, which is what is judged (network facts, section 4; Karras' warm-up)."""

    #: iterations between updates
    every: Count = 10
    #: iterations of a stage before averaging starts; until then the average is the network
    start: Annotated[int, Field(ge=0)] = 100
    max_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999


class TrainConfig(Section):
    """How the network is trained."""

    batch_size: Count = 8
    #: frames drawn per object; the first is the source, all of them are targets
    views_per_object: Annotated[int, Field(ge=1)] = 4
    stages: Annotated[tuple[Stage, ...], as_tuple, Field(min_length=1)] = (
        Stage(iterations=25_000, lr=5e-5, losses={"l2": LossTerm(weight=1.0)}),
        Stage(iterations=5_000, lr=5e-6, losses={"l2": LossTerm(weight=0.99), "lpips": LossTerm(weight=0.01)}),
    )
    #: null: the network itself is judged
    ema: EmaConfig | None = None
    #: of products on a GPU: TF32 as published, or bfloat16 activations; a CPU always computes in float32
    precision: Literal["float32", "tf32", "bf16"] = "tf32"
    #: a loss or gradient that is not finite stops the trial, skips that step, or is ignored, as published
    nonfinite: Literal["stop", "skip", "ignore"] = "stop"

    @property
    def iterations(self) -> int:
        """Steps over all stages."""
        return sum(stage.iterations for stage in self.stages)


class EvalConfig(Section):
    """What a trained network is judged on."""

    split: Literal["val", "test"] = "test"
    #: the first so many objects of the split; null means all
    objects: Count | None = None
    lpips: Literal["vgg", "alex"] = "vgg"
    #: iterations between evaluations on the validation split while training; null means none
    every: Count | None = None
    #: objects of the validation split that those use
    val_objects: Count = 8


class RenderConfig(Section):
    """How Gaussians become pixels."""

    backend: Annotated[str, one_of("rasterizer backend", ("auto", *BACKENDS))] = "auto"
    antialiasing: bool = False


def _check_context(section: ContextConfig) -> None:
    """Refuse what does not fit the chosen frozen model: fusion, preprocessing, options."""
    model, source = frozen_class(section), section.source
    if model is None:
        return
    fitting = sorted(name for name, way in _fusions().items() if entering_kind(way, source) in model.kinds)
    if section.fusion not in fitting:
        reason = "{source}.fusion {value} cannot take what this model says ({kinds}); allowed: {ways}"
        context = {"path": f"{source}.fusion", "source": source, "value": section.fusion}
        raise PydanticCustomError(
            "misfit", reason, context | {"kinds": ", ".join(model.kinds), "ways": ", ".join(fitting)}
        )
    if section.preprocess not in model.preprocessings:
        reason = "{source}.preprocess {value} is not known to this model; allowed: {ways}"
        context = {"path": f"{source}.preprocess", "source": source, "value": section.preprocess}
        raise PydanticCustomError("misfit", reason, context | {"ways": ", ".join(model.preprocessings)})
    try:
        options = frozen_options(section)
    except OptionsError as error:
        raise PydanticCustomError("misfit", "{reason}", {"path": f"{source}.options", "reason": str(error)}) from None
    try:
        model.check_resolution(section.resolution, options)
    except ValueError as error:
        context = {"path": f"{source}.resolution", "reason": f"{source}.{error}"}
        raise PydanticCustomError("misfit", "{reason}", context) from None


def _fusions() -> dict[str, type[Fusion]]:
    return {name: resolve(FUSION, name, "fusion") for name in FUSION}


def frozen_class(section: ContextConfig) -> Any | None:
    """The chosen class of `model.frozen.FrozenModel`; None where this source of context is off."""
    source = find_source(section.source)
    return None if section.choice == "none" else resolve(source.models, section.choice, source.noun)


def frozen_options(section: ContextConfig) -> Any:
    """The options of the chosen frozen model with every default filled in.  Raises `OptionsError`."""
    cls = frozen_class(section)
    options = NoOptions if cls is None else cls.Options
    return parse_options(options, section.options, choice=section.choice, where=f"{section.source}.options")


def _options_of_the_method(value: Any) -> MethodOptions:
    """The section `model` as the options of the method that its `name` chooses."""
    if isinstance(value, MethodOptions):
        return value
    name = value.get("name", DEFAULT_METHOD) if isinstance(value, Mapping) else DEFAULT_METHOD
    if name not in METHODS:
        unknown = UnknownChoiceError("method", name, METHODS)
        problem = PydanticCustomError(
            "unknown_choice", "{reason}", {"reason": str(unknown), "allowed": unknown.allowed}
        )
        raise ValidationError.from_exception_data("model", [{"type": problem, "loc": ("name",), "input": name}])
    try:
        options = find_method(name).options_for(value)
    except MisfitError as error:
        problem = PydanticCustomError("unknown_choice", "{reason}", {"reason": str(error)})
        loc = tuple(error.key.split(".")[1:])
        raise ValidationError.from_exception_data("model", [{"type": problem, "loc": loc, "input": None}]) from None
    return options.model_validate(value)


def _schema_of_all_methods(_: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
    """One JSON Schema with the keys of every method: which method a setting will meet, one section does not say."""
    keys: dict[str, list[Any]] = {}
    for options in (options for name in METHODS for options in find_method(name).all_options()):
        schema = handler.resolve_ref_schema(handler(options.__pydantic_core_schema__))
        for key, value in schema["properties"].items():
            if value not in keys.setdefault(key, []):
                keys[key].append(value)
    properties = {key: values[0] if len(values) == 1 else {"anyOf": values} for key, values in keys.items()}
    properties["name"] = {"type": "string", "enum": sorted(METHODS), "default": DEFAULT_METHOD}
    return {"type": "object", "properties": properties, "additionalProperties": False}


#: The section `model`: a method by name, and that method's own keys.
ModelConfig = Annotated[
    SerializeAsAny[MethodOptions],
    GetPydanticSchema(
        lambda source, handler: no_info_plain_validator_function(
            _options_of_the_method, serialization=handler(source)["serialization"]
        ),
        _schema_of_all_methods,
    ),
]


#: What a loss needs, and what methods without it have instead.
_LACKS: dict[Need, dict[str, str]] = {
    "views": {"needs": "whole views", "has": "is trained on single pixels"},
    "gaussians": {"needs": "a scene of Gaussians", "has": "makes none"},
}


class _DataAndMethod(Section):
    data: DataConfig = DataConfig()
    model: ModelConfig = find_method(DEFAULT_METHOD).Options()  # type: ignore[call-arg]


if TYPE_CHECKING:
    _WithContexts = _DataAndMethod
else:
    _sections = {name: _context_section(name) for name in SOURCES}
    _WithContexts = create_model(
        "_WithContexts", __base__=_DataAndMethod, **{name: (section, section()) for name, section in _sections.items()}
    )


class TrialConfig(_WithContexts):
    """Everything that decides the numbers of one trial; every source of context is a section under its name."""

    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    render: RenderConfig = RenderConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> TrialConfig:
        try:
            self.method.check(self.model, self.data.resolution)
        except MisfitError as error:
            raise PydanticCustomError("misfit", "{reason}", {"path": error.key, "reason": str(error)}) from None
        if self.data.resolution < SMALLEST_LPIPS[self.eval.lpips]:
            raise PydanticCustomError(
                "misfit",
                "eval.lpips {variant} needs data.resolution {smallest} or more, got {resolution}",
                {
                    "path": "eval.lpips",
                    "variant": self.eval.lpips,
                    "smallest": SMALLEST_LPIPS[self.eval.lpips],
                    "resolution": self.data.resolution,
                },
            )
        if self.is_trained:
            self._check_fusions()
            self._check_losses()
        return self

    def _check_losses(self) -> None:
        """Refuse losses, and numbers of views, that the method cannot have in a training step."""
        offered, drawn = self.method.offers(self.model), self.train.views_per_object
        if "views" in offered and self.model.input_views > drawn:
            reason = "model.input_views {views} is more than train.views_per_object {drawn}, which they are among"
            context = {"path": "model.input_views", "views": self.model.input_views, "drawn": drawn}
            raise PydanticCustomError("misfit", reason, context)
        for index, stage in enumerate(self.train.stages):
            for name, term in stage.losses.items():
                path = f"train.stages.{index}.losses.{name}"
                if term.views is not None and "views" not in offered:
                    reason = "{path} {views} needs {needs}, and {method} {has}; allowed: null"
                    context = {"path": f"{path}.views", "views": term.views, "method": self.model.name}
                    raise PydanticCustomError("misfit", reason, context | _LACKS["views"])
                if term.views is not None and term.views > drawn:
                    reason = "{path} {views} is more than train.views_per_object {drawn}"
                    context = {"path": f"{path}.views", "views": term.views, "drawn": drawn}
                    raise PydanticCustomError("misfit", reason, context)
                self._check_loss(name, path, offered)

    def _check_fusions(self) -> None:
        places = self.method.places(self.model)
        for source, section in self.sources.items():
            if section.choice == "none":
                continue
            switch, method = f"{source}.{find_source(source).switch}", self.model.name
            if not places:
                reason = "{path} {value} is context, which {method} does not take; allowed: none"
                context = {"path": switch, "value": section.choice, "method": method}
                raise PydanticCustomError("misfit", reason, context)
            if _fusions()[section.fusion].place not in places:
                kinds = frozen_class(section).kinds  # type: ignore[union-attr]
                fitting = [n for n, w in _fusions().items() if w.place in places and entering_kind(w, source) in kinds]
                reason = "{path} {value} enters at the {place}, which {method} does not have; allowed: {ways}"
                context = {"path": f"{source}.fusion", "value": section.fusion, "method": method}
                context |= {"place": _fusions()[section.fusion].place, "ways": ", ".join(sorted(fitting)) or "none"}
                raise PydanticCustomError("misfit", reason, context)

    def _check_loss(self, name: str, path: str, offered: frozenset[Need]) -> None:
        if offered == NEEDS:  # the classes of losses bring torch along
            return
        needs: dict[str, frozenset[Need]] = {loss: resolve(LOSSES, loss, "loss").needs for loss in LOSSES}
        if lacking := sorted(needs[name] - offered):
            fitting = ", ".join(sorted(loss for loss, wanted in needs.items() if wanted <= offered))
            context = {"path": path, "loss": name, "method": self.model.name, "fitting": fitting}
            reason = "the loss {loss} needs {needs}, and {method} {has}; allowed: {fitting}"
            raise PydanticCustomError("misfit", reason, context | _LACKS[lacking[0]])

    @property
    def sources(self) -> dict[Source, ContextConfig]:
        """The sections about frozen models, by the source of context that they are about."""
        return {name: getattr(self, name) for name in SOURCES}

    @property
    def method(self) -> type[Method]:
        """The reconstruction method that `model` is about."""
        return find_method(self.model.name)

    @property
    def is_trained(self) -> bool:
        """Whether there is a network to train; controls have none."""
        return self.method.trained

    def identity(self) -> dict[str, Any]:
        """The configuration as plain JSON values, without the keys of inactive axes and those that came later."""
        values = known_values(self, self.model_dump(mode="json"))
        if not self.is_trained:
            return {key: values[key] for key in ("data", "model", "eval")}
        for source, section in self.sources.items():
            if frozen_class(section) is None:
                values[source] = {find_source(source).switch: "none"}
                continue
            options = frozen_options(section)
            values[source]["options"] = known_values(options, dataclasses.asdict(options))
            if not values[source]["options"]:
                del values[source]["options"]
        return values
