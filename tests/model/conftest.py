"""The published network in numpy, as a reference for ours."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def functional() -> ModuleType:
    """`functional_reference`, which lies beside this file."""
    name = "functional_reference"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def other_defaults() -> Callable[[], AbstractContextManager[None]]:
    """A context in which torch creates tensors in float64 and on another device, unless told otherwise."""

    @contextmanager
    def changed() -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                yield
        finally:
            torch.set_default_dtype(before)

    return changed
