"""Contract of every backbone of Splatter Image: map sizes, gradients, views, context, and rejected settings."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from jobs.config import TrialConfig
from jobs.reconstructor import build_reconstructor
from model.fusion import FUSION
from model.fusion.base import make_fusion
from model.methods.splatter_image.backbones import BACKBONES, find_backbone
from model.methods.splatter_image.camera_embedding import POSE_CHANNELS
from model.native.accelerate import accelerate
from model.registry import resolve
from model.types import Context

SIZE, OUT = 16, 24
SMALL = {"unet": {"base_dim": 8, "channel_mult": (1, 2)}, "transformer": {"width": 16, "layers": 2, "heads": 2}}

#: Sizes of which some do not divide into the groups of a norm.
WIDTHS = {
    "unet": [
        {"base_dim": base, "channel_mult": factors, "num_blocks": blocks, "attention_resolutions": (8,)}
        for base in (4, 12, 16, 20, 32, 48, 64, 132)
        for factors, blocks in (((1, 2), 1), ((1, 4, 5), 2), ((3, 1), 3), ((1, 2, 2, 2), 1))
    ],
    "transformer": [{"width": width, "layers": 1} for width in (4, 36, 96, 124, 128, 132, 144, 160, 256)],
}

#: Backbones without context, and with each way in that they have a place for.
WAYS = [
    (name, way)
    for name in BACKBONES
    for way in (None, *FUSION)
    if way is None or resolve(FUSION, way, "fusion").place in find_backbone(name).places
]


@pytest.fixture(params=BACKBONES)
def name(request) -> str:
    return request.param


def options(name, **more):
    return find_backbone(name).Options(**SMALL.get(name, {}), **more)


def build(name, fusions=(), **more):
    torch.manual_seed(0)
    return find_backbone(name).build(options(name, **more), SIZE, OUT, fusions)


def shaken(network):
    """The network in double precision, with weights large enough that no part is hidden by a tiny initial gain."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.double().eval()


def test_its_options_name_it_and_are_the_methods_keys(name):
    assert find_backbone(name).Options().backbone == name
    chosen = TrialConfig.model_validate({"model": {"backbone": name}})
    assert type(chosen.model) is find_backbone(name).Options
    assert TrialConfig.model_validate(chosen.identity()) == chosen


def test_maps_have_the_size_of_the_pictures_and_gradients_reach_all(name):
    network = build(name)
    images = torch.rand(4, 3, SIZE, SIZE, requires_grad=True)
    maps = network(images, Context(), 2, None)
    assert maps.shape == (4, OUT, SIZE, SIZE)
    maps.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with pytest.raises(ValueError, match="pose_embedding"):
        network(images, Context(), 2, torch.zeros(4, POSE_CHANNELS))


def test_views_of_an_object_attend_to_each_other_and_objects_do_not(name):
    network, images = shaken(build(name)), torch.rand(4, 3, SIZE, SIZE).double()
    changed = images.clone()
    changed[1] = changed[1].flip(-1)
    with torch.no_grad():
        difference = (network(images, Context(), 2, None) - network(changed, Context(), 2, None)).flatten(1).abs()
    assert difference[0].max() > 1e-9
    assert difference[2:].max() < 1e-12


def test_takes_where_its_cameras_are(name):
    network, images = shaken(build(name, camera_embedding=True)), torch.rand(2, 3, SIZE, SIZE).double()
    with torch.no_grad():
        here, there = (network(images, Context(), 2, torch.randn(2, POSE_CHANNELS).double()) for _ in range(2))
    assert (here - there).abs().max() > 1e-9
    with pytest.raises(ValueError, match="pose_embedding"):
        network(images, Context(), 2, None)


def test_has_the_places_that_it_names(name):
    """Features that enter at one of them are used; other places are rejected with a list of the fusions that fit."""
    values = {"vector": torch.rand(2, 1, 6), "tokens": torch.rand(2, 1, 9, 6), "map": torch.rand(2, 1, 1, SIZE, SIZE)}
    for way in FUSION:
        place = resolve(FUSION, way, "fusion").place
        source = "depth" if "map" in resolve(FUSION, way, "fusion").accepts else "semantic"
        section = {"depth": {"model": "oracle"}, "semantic": {"encoder": "dinov2_small"}}[source] | {"fusion": way}
        sections = {"model": {"backbone": name}, source: section}
        if place not in find_backbone(name).places:
            with pytest.raises(ValidationError, match=rf"{source}.fusion {way} enters at the {place}.*allowed: .*film"):
                TrialConfig.model_validate(sections)
            continue
        assert TrialConfig.model_validate(sections)
        fusion = make_fusion(way, source, 1 if source == "depth" else 6)
        network, images = shaken(build(name, [fusion])), torch.rand(2, 3, SIZE, SIZE).double()
        value = values[fusion.context_type].double()
        with torch.no_grad():
            one, other = (network(images, Context(**{source: v}), 1, None) for v in (value, value.flip(-1) ** 2))
        assert (one - other).abs().max() > 1e-9, way


def succeeds(call, reason) -> bool:
    """Whether a call raises nothing; a ValueError that does not name `reason` fails the test."""
    try:
        call()
    except ValueError as error:
        if reason not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_the_check_refuses_exactly_the_widths_of_which_no_network_can_be_built(name, way):
    cls, backbone = None if way is None else resolve(FUSION, way, "fusion"), find_backbone(name)
    fusions = () if cls is None else (make_fusion(way, "depth" if "map" in cls.accepts else "semantic", 1),)
    outcomes = set()
    for sizes in WIDTHS[name]:
        chosen = backbone.Options(**sizes)
        with torch.device("meta"):
            built = succeeds(lambda: backbone.build(chosen, SIZE, OUT, fusions), "num_channels")  # noqa: B023
        accepted = succeeds(lambda: backbone.check(chosen, SIZE), "model.base_dim")  # noqa: B023
        if cls is not None:
            accepted &= succeeds(lambda: backbone.check_place(chosen, SIZE, cls, way), "model.width")  # noqa: B023
        assert accepted == built, sizes
        outcomes.add(built)
    assert outcomes == ({True, False} if name == "unet" or (way or "").startswith("xattn") else {True})


def test_a_width_that_does_not_fit_is_refused_with_the_nearest_that_do():
    widths = {"data": {"resolution": SIZE}, "model": {"base_dim": 16, "channel_mult": [1, 4, 5]}}
    with pytest.raises(ValidationError, match=r"of 144 channels, .*; the nearest that fit are 12 and 32"):
        TrialConfig.model_validate(widths)
    model = {"backbone": "transformer", "width": 144}
    assert TrialConfig.model_validate({"model": model}).model.width == 144
    with pytest.raises(ValidationError, match=r"model.width 144 .*; the nearest that fit are 128 and 160"):
        TrialConfig.model_validate({"model": model, "depth": {"model": "oracle", "fusion": "xattn"}})


def test_compiled_layers_change_only_rounding(name):
    plain, fast = build(name).eval(), accelerate(build(name).eval())
    images = torch.rand(2, 3, SIZE, SIZE)
    torch.testing.assert_close(
        fast(images, Context(), 1, None), plain(images, Context(), 1, None), rtol=1e-4, atol=1e-5
    )


def test_two_gaussians_a_pixel_work_with_it(name):
    model = {"backbone": name, "gaussians_per_pixel": 2} | SMALL.get(name, {})
    config = TrialConfig.model_validate({"data": {"resolution": SIZE}, "model": model})
    network = build_reconstructor(config, {}, None)
    raw = network.head(network.backbone(torch.rand(1, 3, SIZE, SIZE), Context(), 1, None))
    assert raw["second_step"].shape == (1, 1, SIZE, SIZE)
    assert config.identity()["model"]["gaussians_per_pixel"] == 2


def test_an_unknown_backbone_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match=r"unknown backbone 'unte'; allowed: transformer, unet; did you mean"):
        TrialConfig.model_validate({"model": {"backbone": "unte"}})
