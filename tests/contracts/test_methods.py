"""Contract of every method: its options, reconstructions, gradients, seeds and rejected settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.reconstructor import build_reconstructor
from jobs.trial import Runtime, run_trial
from model.losses import LOSSES
from model.methods import METHODS, controls, find_method
from model.methods.base import NEEDS, MethodOptions
from model.registry import resolve
from model.types import Context, Pixels
from model.weights import WEIGHTS

#: Options for a small instance of a method.
SMALL = {
    "splatter_image": {"base_dim": 8, "channel_mult": [1, 2], "attention_resolutions": [8]},
    "pixelnerf": {
        "pretrained": False,
        "encoder_width": 8,
        "first_pool": False,
        "hidden": 16,
        "coarse_samples": 8,
        "importance_samples": 4,
        "depth_samples": 2,
        "rays_per_object": 16,
    },
}
LOSS = {"iterations": 4, "lr": 1e-3, "losses": {"l2": 1.0}}


@pytest.fixture(params=METHODS)
def name(request) -> str:
    return request.param


@pytest.fixture
def configure(name, tiny):
    """A function: the method's options -> a small trial with it; other keyword arguments replace whole sections."""

    def make(model=None, **sections) -> TrialConfig:
        train = tiny()["train"] | {"stages": [LOSS]}
        model = {"name": name} | SMALL.get(name, {}) | (model or {})
        return TrialConfig.model_validate(tiny(model=model, train=train) | sections)

    return make


@pytest.fixture
def views(home, tiny):
    store = open_dataset("chairs", tiny()["data"]["options"], home)
    return store.views(store.split("train")["first_frame"].to_numpy()[:2, None] + range(3), 16)


def test_options_name_the_method_and_have_defaults(name):
    for options in find_method(name).all_options():
        assert issubclass(options, MethodOptions)
        assert options().name == name
        chosen = TrialConfig.model_validate({"model": options().model_dump(mode="json"), "train": {"stages": [LOSS]}})
        assert type(chosen.model) is options
        assert TrialConfig.model_validate(chosen.identity()).model == chosen.model


def test_unknown_options_are_refused(configure):
    with pytest.raises(ValidationError, match=r"model\.bse_dim"):
        configure({"bse_dim": 3})


def test_facts_need_no_torch(name):
    code = (
        "import sys; from model.methods import find_method; "
        f"m = find_method({name!r}); o = m.Options(); m.targets(o), m.weights(o), m.offers(o), m.places(o); "
        "m.check(o, 32); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent.parent)


def test_names_weights_that_the_table_knows(name):
    assert set(find_method(name).weights(find_method(name).Options())) <= set(WEIGHTS)


def test_renders_finite_pictures_and_the_same_pixels(configure, views, weights):
    config = configure()
    scene = build_reconstructor(config, {}, weights).eval()(views.select(0, 1), Context())
    assert scene.kind == config.method.scene
    pixels = Pixels(*(torch.randint(high, (2, 9)) for high in (3, 16, 16)))
    with torch.no_grad():
        torch.manual_seed(0)
        rendering = scene.render(views.cameras, views.background)
        chosen = scene.render(views.cameras, views.background, pixels)
    assert rendering.images.shape == views.images.shape
    assert chosen.images.shape == (2, 9, 3)
    for seen, shape in ((rendering, (2, 3, 1, 16, 16)), (chosen, (2, 9, 1))):
        assert seen.images.isfinite().all()
        for values in (seen.inverse_depth, seen.opacity):
            assert values is None or (values.shape == shape and values.isfinite().all())
    assert isinstance(scene.extent(), str)


def test_two_seeds_differ_and_one_seed_repeats(configure, weights):
    def parameters(seed):
        return torch.cat([p.flatten() for p in build_reconstructor(configure(seed=seed), {}, weights).parameters()])

    if find_method(configure().model.name).trained:
        assert torch.equal(parameters(1), parameters(1))
        assert not torch.equal(parameters(1), parameters(2))
    else:
        assert not list(build_reconstructor(configure(), {}, weights).parameters())


def test_gradients_reach_what_is_trained(configure, views, weights):
    config = configure()
    if not config.is_trained:
        return
    network = build_reconstructor(config, {}, weights).train()
    for parameter in network.parameters():  # what starts at zero hides what lies before it
        parameter.data += 0.02 * torch.randn_like(parameter)
    targets = config.method.targets(config.model)
    pixels = None
    if targets.pixels is not None:
        pixels = Pixels(*(torch.randint(high, (2, targets.pixels)) for high in (3, 16, 16)))
    rendering = network(views.select(0, 1), Context()).render(views.cameras, views.background, pixels)
    sum(seen.images.square().sum() for seen in (rendering, *rendering.auxiliary)).backward()
    reached = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    unreached = {n for n, p in network.named_parameters() if p.requires_grad} - set(reached)
    # Published checkpoints of PixelNeRF carry a last stage of the encoder that nothing reads.
    assert {n for n in unreached if "layer4" not in n} == set()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_losses_that_do_not_fit_are_refused_and_others_are_trained_on(configure, name):
    method = find_method(name)
    if not method.trained:
        return
    offered = method.offers(configure().model)
    assert offered <= NEEDS
    for loss in LOSSES:
        stages = [LOSS | {"losses": {"l2": 1.0, loss: 1.0}}]
        train = configure().train.model_dump(mode="json") | {"stages": stages}
        if resolve(LOSSES, loss, "loss").needs <= offered:
            assert configure(train=train)
        else:
            with pytest.raises(ValidationError, match=rf"losses\.{loss} needs .*{name}.*; allowed: .*\bl1, l2\b"):
                configure(train=train)


def test_context_where_it_has_no_place_is_refused(configure, name):
    method = find_method(name)
    if not method.trained or method.places(configure().model):
        return
    with pytest.raises(ValidationError, match=f"depth.model oracle is context, which model.name {name} does not take"):
        configure(depth={"model": "oracle"})


def test_a_trial_runs_from_configuration_to_metrics(configure, home):
    """The loop, evaluation, checkpoints and turntables work for it, and the same configuration gives the same bits."""
    config = configure()
    first = run_trial(config, home, Runtime())
    assert first.metrics["novel/psnr"] > 3
    assert first.step == (4 if config.is_trained else 0)
    assert (first.folder / "turntable.gif").exists() == config.is_trained


def test_the_controls_are_the_methods_that_are_not_trained():
    assert set(controls()) >= {"blank", "copy_input"}
