"""Contract of every registered source of context, and of a new one added by a registry line alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.config import TrialConfig
from jobs.contexts import frozen_class, frozen_options
from model.context import SOURCES, find_source
from model.frozen import FrozenModel
from model.fusion import FUSION
from model.fusion.base import context_type_for
from model.registry import resolve
from sweep.plan.grid import SWITCHES


@pytest.mark.parametrize("name", SOURCES)
def test_is_a_section_that_is_off_by_default(name):
    source, section = find_source(name), TrialConfig().sources[name]
    assert section.choice == getattr(section, source.switch) == "none"
    assert frozen_class(section) is None
    assert section.fusion == source.fusion
    assert TrialConfig().identity().get(name, {source.switch: "none"}) == {source.switch: "none"}
    assert TrialConfig().settings()[f"{name}.{source.switch}"] == "none"
    assert SWITCHES[f"{name}.{source.switch}"] == source.models


@pytest.mark.parametrize("name", SOURCES)
def test_its_default_fusion_accepts_the_output_of_its_models(name):
    source = find_source(name)
    context_type = context_type_for(resolve(FUSION, source.fusion, "fusion"), name)
    assert context_type in source.context_types
    for choice in source.models:
        cls = resolve(source.models, choice, source.noun)
        assert issubclass(cls, FrozenModel)
        assert set(cls.output_types) <= set(source.context_types)
    options = {"timm": {"name": "a"}, "transformers": {"name": "a/b"}}
    chosen = TrialConfig.model_validate({name: {source.switch: choice, "options": options.get(choice, {})}})
    assert chosen.identity()[name]["fusion"] == source.fusion
    assert frozen_options(chosen.sources[name]) is not None


THIRD = """
import sys, types
from dataclasses import dataclass
import torch
from model.context import SOURCES, ContextSource
from model.frozen import FrozenModel

class Normals(FrozenModel):
    output_types = ("map",)
    width = 3
    def forward(self, views):
        return views.images * 2 - 1

module = sys.modules["third"] = types.ModuleType("third")
module.Normals = Normals
module.SOURCE = ContextSource("model", "normal model", {"flat": "third:Normals"}, ("map",), "input", "Normals.")
SOURCES["normals"] = "third:SOURCE"

import json
from jobs.config import TrialConfig
from jobs.features import ContextReader
from jobs.keys import keys_of
from jobs.reconstructor import build_reconstructor
from model.types import Context
from model.weights import WeightStore
from sweep.file.json_schema import sweep_schema
from sweep.file.load import load_sweep
from sweep.plan.grid import expand
from pathlib import Path

path = Path(sys.argv[1]) / "sweep.yaml"
path.write_text("name: a\\nbase: {normals.model: flat}\\nleave_one_out: [normals.model]\\n")
trials = dict(expand(load_sweep(path)))
assert trials["without normals"].sources["normals"].choice == "none"
config = trials["full"]
assert config.identity()["normals"]["fusion"] == "input"
assert "normals" not in trials["without normals"].identity(), "keys are those from before there was this source"
assert trials["without normals"].settings()["normals.model"] == "none"
keys = {keys_of(trial, "data", {"vgg16": "a"}).trial for trial in trials.values()}
assert len(keys) == 2
assert "normals.model" in sweep_schema()["$defs"]["Overrides"]["properties"]

network = build_reconstructor(config, {"normals": 3}, WeightStore(Path(sys.argv[1])))
assert network.backbone.stem.in_channels == 6
images = torch.rand(2, 3, 32, 32)
with torch.no_grad():
    contexts = [Context(normals=torch.full((2, 1, 3, 32, 32), value)) for value in (0.0, 1.0)]
    one, other = (network.backbone.eval()(images, context) for context in contexts)
assert (one - other).abs().max() > 1e-3
try:
    TrialConfig.model_validate({"normals": {"model": "flat", "fusion": "concat"}})
except ValueError as error:
    assert "normals.fusion concat does not accept the output of this model (map)" in str(error), error
else:
    raise AssertionError("a misfit passed")
"""


def test_a_third_source_needs_its_package_and_one_line(tmp_path):
    """Runs in a separate process, because the import of configurations reads the registry."""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", THIRD, str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
