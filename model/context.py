"""Sources of context: frozen models applied to the source views.  One package each, one line here.

A source is a section of the configuration under its name.  Its `ContextSource` defines the rest: the keys of
that section, the available models, the fusions that fit, and the components that a sweep can leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model.fusion import ContextType
from model.registry import resolve

#: Name of the section -> its `ContextSource`, in the order in which sources enter a network.
SOURCES: dict[str, str] = {
    "semantic": "model.semantic:SOURCE",
    "depth": "model.depth:SOURCE",
}


@dataclass(frozen=True)
class ContextSource:
    """One source of context, without the models themselves."""

    #: the key of its section that chooses a model; "none" is off
    switch: str
    #: noun for such a model in messages
    noun: str
    #: the classes of `model.frozen.FrozenModel` by name
    models: Mapping[str, str]
    #: forms in which it can enter a network, the preferred one first
    context_types: tuple[ContextType, ...]
    #: the fusion where the configuration names none
    fusion: str
    #: description of the section, in one sentence
    description: str
    #: whether keys name it also where it is off; only those do that are older than the first keys
    always_in_keys: bool = False


def find_source(name: str) -> ContextSource:
    """The source of that name.  Raises `UnknownChoiceError`."""
    source: ContextSource = resolve(SOURCES, name, "source of context")
    return source
