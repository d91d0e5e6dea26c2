"""Sections of a configuration on frozen models: one for each of `model.context.SOURCES`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from model.context import find_source
from model.fusion import FUSION
from model.fusion.base import Fusion, context_type_for
from model.options import Count, MisfitError, NoOptions, OptionsError, Section, one_of, parse_options
from model.registry import resolve

Preprocess = Literal["published", "correct"]


class ContextConfig(Section):
    """Options shared by the sections on frozen models; each section adds its switch before these."""

    #: name of the section's source in `model.context.SOURCES`
    source: ClassVar[str]

    fusion: Annotated[str, one_of("fusion", FUSION)]
    preprocess: Preprocess = "correct"
    #: side in pixels that images are resized to for the model; null: the model's own
    resolution: Count | None = None
    #: options of the model; see `splatsweep choices`
    options: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _fits_the_model(self) -> ContextConfig:
        try:
            _check_context(self)
        except MisfitError as error:
            raise PydanticCustomError("misfit", "{reason}", {"path": error.key, "reason": str(error)}) from None
        return self

    @property
    def choice(self) -> str:
        """The model's name, or "none"."""
        name: str = getattr(self, find_source(self.source).switch)
        return name


def context_section(name: str) -> type[ContextConfig]:
    """The type of the section on one source of context."""
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
        __module__="jobs.config",
        fusion=(fusion, source.fusion),
    )
    section.source = name
    return cast("type[ContextConfig]", section)


def _check_context(section: ContextConfig) -> None:
    """Raise `MisfitError` where fusion, preprocessing or options do not fit the chosen frozen model."""
    model, source = frozen_class(section), section.source
    if model is None:
        return
    fitting = sorted(
        name for name, way in fusion_classes().items() if context_type_for(way, source) in model.output_types
    )
    if section.fusion not in fitting:
        types = ", ".join(model.output_types)
        reason = f"{source}.fusion {section.fusion} does not accept the output of this model ({types})"
        raise MisfitError(f"{source}.fusion", reason, fitting)
    if section.preprocess not in model.preprocessings:
        reason = f"{source}.preprocess {section.preprocess} is no preprocessing of this model"
        raise MisfitError(f"{source}.preprocess", reason, model.preprocessings)
    try:
        options = frozen_options(section)
    except OptionsError as error:
        raise MisfitError(f"{source}.options", str(error)) from None
    try:
        model.check_resolution(section.resolution, options)
    except ValueError as error:
        raise MisfitError(f"{source}.resolution", f"{source}.{error}") from None


def fusion_classes() -> dict[str, type[Fusion]]:
    """All fusion classes by name."""
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
