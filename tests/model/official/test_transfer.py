import json
import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from model.fusion.film import Film
from model.methods.splatter_image.backbones.unet import UNet
from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
from model.official import (
    PUBLISHED,
    NetworkShape,
    OfficialPredictor,
    OfficialUNet,
    official_state_dict,
    predictor_from_official,
    read_weights,
    unet_from_official,
)
from model.types import Context

SIZE = 16
PREFIX = "network_with_offset."


@pytest.fixture
def published(functional):
    """A function: sizes of the U-Net -> the state dict of a whole predictor in the published format, float64."""

    def make(**settings):
        sizes = functional.Sizes(**{"resolution": SIZE, "attention": (8,)} | settings)
        found = {f"{PREFIX}encoder.{name}": shape for name, shape in functional.shapes(sizes).items()}
        outputs = sizes.channels_out
        found |= {f"{PREFIX}out.weight": (outputs, outputs, 1, 1), f"{PREFIX}out.bias": (outputs,)}
        state = {name: torch.from_numpy(value) for name, value in functional.random_state(found).items()}
        return sizes, state

    return make


def load(state, sizes, dataset="cars", **options):
    return predictor_from_official(
        state,
        dataset=dataset,
        resolution=sizes.resolution,
        base_dim=sizes.base,
        num_blocks=sizes.blocks,
        attention_resolutions=sizes.attention,
        **options,
    )


def sources(batch, views, seed=0):
    """Images, published view-to-world matrices, quaternions."""
    generator = np.random.default_rng(seed)
    rotations = Rotation.random(batch * views, random_state=seed)
    matrices = np.tile(np.eye(4), (batch * views, 1, 1))
    matrices[:, :3, :3] = rotations.as_matrix().transpose(0, 2, 1)
    matrices[:, 3, :3] = generator.standard_normal((batch * views, 3))
    quaternions = np.roll(rotations.as_quat(), 1, axis=1)
    images = generator.random((batch, views, 3, SIZE, SIZE))
    return images, matrices.reshape(batch, views, 4, 4), quaternions.reshape(batch, views, 4)


def reference(
    functional, state, sizes, images, matrices, quaternions, dataset, focal=None, origin=None, depth=None, **u
):
    """The Gaussians of the numpy predictor."""
    arrays = {name: value.numpy() for name, value in state.items()}
    inside = {name.removeprefix(f"{PREFIX}encoder."): value for name, value in arrays.items()}
    batch, views = images.shape[:2]
    x = images.reshape(-1, *images.shape[2:])
    if depth is not None:
        x = np.concatenate([x, depth], axis=1)
    features = functional.unet(inside, sizes, x, views=views, **u)
    weight, bias = arrays[f"{PREFIX}out.weight"][:, :, 0, 0], arrays[f"{PREFIX}out.bias"]
    raw = np.einsum("oc,nchw->nohw", weight, features) + bias[:, None, None]
    facts = PUBLISHED[dataset]
    if focal is None:
        focal = np.full((batch, views, 2), SIZE / 2 / np.tan(np.radians(facts.fov / 2)))
    raw = raw.reshape(batch, views, *raw.shape[1:])
    return functional.gaussians(raw, matrices, quaternions, focal, facts.near, facts.far, origin)


def assert_equal(found, expected, tolerance=1e-11):
    for name, values in expected.items():
        error = (getattr(found, name) - torch.from_numpy(values)).abs().max()
        assert error < tolerance * np.abs(values).max(), name


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("dataset", ["cars", "chairs", "nmr", "objaverse"])
def test_one_view(dataset, functional, published):
    sizes, state = published()
    given = sources(2, 1)
    found = load(state, sizes, dataset)(*tensors(*given))
    assert_equal(found, reference(functional, state, sizes, *given, dataset))


def test_two_views_with_camera_vector(functional, published):
    sizes, state = published(camera=60)
    given = sources(2, 2)
    predictor = load(state, sizes, camera_embedding=True)
    embedding = functional.camera_embedding(given[1]).reshape(-1, 60)
    found = predictor(*tensors(*given))
    assert found.means.shape == (2, 2 * SIZE * SIZE, 3)
    # The published frequencies are rounded to single precision, the reference's are not.
    assert_equal(found, reference(functional, state, sizes, *given, "cars", camera_embedding=embedding), 1e-5)


def test_two_views_without_camera_vector(functional, published):
    sizes, state = published()
    given = sources(2, 2)
    assert_equal(load(state, sizes)(*tensors(*given)), reference(functional, state, sizes, *given, "cars"))


@pytest.mark.parametrize("views", [1, 2])
def test_every_view_has_its_own_focal_length_and_distance(views, functional, published):
    sizes, state = published()
    given = sources(2, views)
    generator = np.random.default_rng(5)
    focal, distance = 10 + generator.random((2, views, 2)), 3 + generator.random((2, views))
    maps = torch.from_numpy(distance)[:, :, None, None, None].expand(-1, -1, 1, SIZE, SIZE)
    found = load(state, sizes, "hydrants")(*tensors(*given), torch.from_numpy(focal), maps)
    expected = reference(functional, state, sizes, *given, "hydrants", focal=focal, origin=distance)
    assert_equal(found, expected)


def test_depth_as_fourth_channel(functional, published):
    sizes, state = published(channels_in=4)
    given, depth = sources(2, 1), np.random.default_rng(6).random((2, 1, SIZE, SIZE))
    found = load(state, sizes, depth_input=True)(*tensors(*given), depth=torch.from_numpy(depth))
    assert_equal(found, reference(functional, state, sizes, *given, "cars", depth=depth))


def test_degree_zero(functional, published):
    sizes, state = published(channels_out=15)
    given = sources(1, 1)
    found = load(state, sizes)(*tensors(*given))
    assert found.sh.shape == (1, SIZE * SIZE, 1, 3)
    assert_equal(found, reference(functional, state, sizes, *given, "cars"))


CONTEXTS = {
    "attention to a vector": {"global_dim": 10, "global_at": (8,)},
    "attention to a map": {"spatial_channels": 1, "spatial_at": (8,)},
    "both": {"global_dim": 10, "global_at": (8,), "spatial_channels": 1, "spatial_at": (8,)},
    "concatenation": {"concat": 10},
    "concatenation and attention to a map": {"concat": 10, "spatial_channels": 1, "spatial_at": (8,)},
}


@pytest.mark.parametrize("settings", CONTEXTS.values(), ids=CONTEXTS)
def test_contexts_are_recognised_by_their_tensors(settings, functional, published):
    sizes, state = published(**settings)
    given, generator = sources(2, 1), np.random.default_rng(7)
    vector = generator.standard_normal((2, 10)) if "concat" in settings or "global_dim" in settings else None
    maps = generator.random((2, 1, SIZE, SIZE)) if "spatial_at" in settings else None
    wanted = {"semantic": vector, "depth": maps}
    contexts = {name: torch.from_numpy(value) for name, value in wanted.items() if value is not None}
    predictor = load(state, sizes)
    expected = reference(functional, state, sizes, *given, "cars", vector=vector, maps=maps)
    assert_equal(predictor(*tensors(*given), **contexts), expected)
    assert official_state_dict(predictor).keys() > state.keys()


def test_networks_follow_to_double_precision_and_their_inputs_with_them(published):
    sizes, state = published()
    predictor = load({name: tensor.float() for name, tensor in state.items()}, sizes)
    given = [tensor.float() for tensor in tensors(*sources(1, 1))]
    single, double = predictor(*given), predictor.double()(*given)
    assert (single.means.dtype, double.means.dtype) == (torch.float32, torch.float64)
    assert (single.means - double.means).abs().max() < 5e-5


def test_what_is_read_is_written_bit_by_bit(published):
    sizes, state = published(camera=60, global_dim=5, global_at=(8,))
    state |= {"ray_dirs": torch.rand(1, 3, SIZE, SIZE), "sh_to_v_transform": torch.rand(1, 3, 3)}
    with pytest.warns(UserWarning, match="ray_dirs, sh_to_v_transform$"):
        predictor = load(state, sizes, camera_embedding=True)
    written = official_state_dict(predictor)
    assert written.keys() == state.keys() | {"v_to_sh_transform"}
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())


def test_changes_to_the_network_do_not_reach_what_it_was_made_from(published):
    sizes, state = published()
    before = {name: tensor.clone() for name, tensor in state.items()}
    predictor = load(state, sizes)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())


def test_files_of_the_paper_carry_frozen_models_which_are_left_out(published):
    sizes, state = published(concat=4)
    carried = {
        "depth_predictor.model.weight": torch.rand(3),
        f"{PREFIX}spatial_context_provider.net.bias": torch.rand(3),
        f"{PREFIX}global_context_provider.net.bias": torch.rand(3),
    }
    file = {"model_state_dict": state | carried, "optimizer_state_dict": {"state": {}}, "iteration": 3, "loss": 0.1}
    written = official_state_dict(load(file, sizes))
    assert not carried.keys() & written.keys()
    assert written.keys() >= state.keys()


def test_the_projector_keeps_the_name_of_its_encoder(published):
    sizes, state = published(concat=4)
    renamed = {name.replace("dino_projector", "clip_projector"): tensor for name, tensor in state.items()}
    assert official_state_dict(load(renamed, sizes)).keys() >= renamed.keys()


def test_mistakes_are_named(published):
    sizes, state = published()
    missing = {name: t for name, t in state.items() if not name.endswith("in1.conv0.bias")}
    with pytest.raises(ValueError, match=r"1 missing: .*dec\.2x2_in1\.conv0\.bias"):
        load(missing, sizes)
    with pytest.raises(ValueError, match="1 left over: surprise"):
        load(state | {"surprise": torch.rand(1)}, sizes)
    wrong = state | {f"{PREFIX}encoder.enc.16x16_conv.bias": torch.rand(9)}
    with pytest.raises(ValueError, match=r"1 of another shape: .*enc\.16x16_conv\.bias \(9,\) instead of \(8,\)"):
        load(wrong, sizes)
    with pytest.raises(ValueError, match="did you mean 'cars'"):
        load(state, sizes, "car")
    with pytest.raises(ValueError, match="its head"):
        load({name: t for name, t in state.items() if "out." not in name}, sizes)
    with pytest.raises(ValueError, match="not a state dict: loss is not a named tensor"):
        load(state | {"loss": 0.5}, sizes)
    with pytest.raises(ValueError, match="not a state dict: 0, 1 are not named tensors"):
        load({0: torch.rand(1), 1: torch.rand(1)}, sizes)
    given = tensors(*sources(1, 1))
    predictor = load(state, sizes, "teddybears")
    with pytest.raises(ValueError, match="give `focal`"):
        predictor(*given, origin_distance=torch.ones(1, 1, 1, SIZE, SIZE))
    with pytest.raises(ValueError, match="give `origin_distance`"):
        predictor(*given, torch.full((1, 1, 2), 9.0))


def test_our_own_networks_can_be_published():
    unet = UNet(resolution=SIZE, base_dim=8, num_blocks=1, attention_resolutions=(8,))
    facts = PUBLISHED["nmr"]
    ours = OfficialPredictor(unet, GaussianHead(gaussian_groups(facts.head.model_dump(), 1)), facts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = predictor_from_official(
            official_state_dict(ours.eval()),
            dataset="nmr",
            resolution=SIZE,
            base_dim=8,
            num_blocks=1,
            attention_resolutions=(8,),
        )
    given = [tensor.float() for tensor in tensors(*sources(1, 1))]
    assert torch.equal(ours(*given).means, again(*given).means)


def test_what_was_never_published_has_no_published_names():
    unet = UNet(resolution=8, base_dim=8, num_blocks=1, channel_mult=(1,), fusions=[Film("semantic", "vector", 4)])
    with pytest.raises(ValueError, match="no place for Film"):
        official_state_dict(OfficialUNet(unet))


@pytest.mark.parametrize(
    "settings",
    [{}, {"blocks": 3, "mult": (1, 3), "attention": (16, 8)}, {"camera": 60, "channels_in": 4}, *CONTEXTS.values()],
    ids=str,
)
def test_sizes_are_read_from_the_tensors(settings, published):
    sizes, state = published(**settings)
    assert NetworkShape.of(read_weights(state)) == NetworkShape(
        resolution=sizes.resolution,
        base_dim=sizes.base,
        num_blocks=sizes.blocks,
        channel_mult=sizes.mult,
        attention_resolutions=sizes.attention,
        in_channels=sizes.channels_in,
        out_channels=sizes.channels_out,
        camera_channels=sizes.camera,
        global_context_dim=sizes.global_dim,
        global_cross_attention_resolutions=sizes.global_at,
        spatial_context_channels=sizes.spatial_channels,
        spatial_cross_attention_resolutions=sizes.spatial_at,
        concat_dim=sizes.concat,
    )
    with pytest.raises(ValueError, match="no Splatter Image network"):
        NetworkShape.of({"weight": torch.rand(1)})


@pytest.mark.parametrize("part", ["dec.", "enc.8x8_block0.conv1."])
def test_a_part_of_a_network_is_named_as_one(published, part):
    weights = {name: value for name, value in published()[1].items() if not name.startswith(f"{PREFIX}encoder.{part}")}
    with pytest.raises(ValueError, match=rf"no whole Splatter Image network: {part}.* missing"):
        NetworkShape.of(weights)


FULL = {"resolution": 128, "base": 128, "blocks": 4, "attention": (16,)}
FULL_VARIANTS = {
    "hydrants_1view": ({}, {}, 56_378_736),
    "cars_2view_pose_film": ({"camera": 60}, {"camera_embedding": True}, 61_794_416),
    "hydrants_depth_input": ({"channels_in": 4}, {"depth_input": True}, 56_379_888),
    "hydrants_semantic_xattn_1000": ({"global_dim": 1000, "global_at": (16,)}, {}, 66_916_800),
    "hydrants_depth_xattn_1ch": ({"spatial_channels": 1, "spatial_at": (16,)}, {}, 62_295_426),
}


def full_shapes(functional, settings):
    sizes = functional.Sizes(**FULL | settings)
    found = {f"{PREFIX}encoder.{name}": shape for name, shape in functional.shapes(sizes).items()}
    found |= {f"{PREFIX}out.weight": (24, 24, 1, 1), f"{PREFIX}out.bias": (24,)}
    found |= {"ray_dirs": (1, 3, 128, 128), "sh_to_v_transform": (1, 3, 3), "v_to_sh_transform": (1, 3, 3)}
    return sizes, found


def test_a_full_size_file_loads_strictly_and_is_written_unchanged(functional):
    sizes, shapes = full_shapes(functional, {})
    assert len(shapes) == 465
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    with pytest.warns(UserWarning, match="ray_dirs"):
        predictor = load(state, sizes, "hydrants")
    assert sum(parameter.numel() for parameter in predictor.parameters()) == 56_378_736
    written = official_state_dict(predictor)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(("settings", "options", "parameters"), FULL_VARIANTS.values(), ids=FULL_VARIANTS)
def test_full_size_variants_have_the_published_numbers_of_parameters(settings, options, parameters, functional):
    sizes, shapes = full_shapes(functional, settings)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    weights = {name: tensor for name, tensor in state.items() if "encoder." in name or "out." in name}
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("resample_filter")}
    predictor = load(weights, sizes, **options)
    assert sum(parameter.numel() for parameter in predictor.parameters()) == parameters
    assert official_state_dict(predictor).keys() == state.keys()


def test_full_size_names_are_the_references(functional, fixtures):
    reference = json.loads((fixtures / "state_dict_keys_full.json").read_text())
    for name, (settings, _, _) in FULL_VARIANTS.items():
        expected = reference["hydrants_1view"] | reference.get(f"{name}__delta", {})
        _, shapes = full_shapes(functional, settings)
        assert {key: list(shape) for key, shape in shapes.items()} == expected


def test_gaussians_are_the_references(fixtures):
    content = torch.load(fixtures / "predictor_cars_1view.pt", weights_only=True)
    given = content["x"], content["view_to_world"], content["source_cv2wT_quat"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = predictor_from_official(
            content["state_dict"],
            dataset="cars",
            resolution=32,
            base_dim=16,
            num_blocks=1,
            attention_resolutions=(16,),
        )
    written = official_state_dict(predictor)
    assert written.keys() == content["state_dict"].keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in content["state_dict"].items())
    for network, expected, tolerance in ((predictor, "out_f32", 5e-5), (predictor.double(), "out_f64", 1e-10)):
        found, theirs = network(*given), content[expected]
        # The reference keeps its ray directions in single precision.
        pairs = {
            "means": (found.means, theirs["xyz"], max(tolerance, 1e-6)),
            "rotations": (found.rotations, theirs["rotation"], tolerance),
            "opacities": (found.opacities, theirs["opacity"], tolerance),
            "scales": (found.scales, theirs["scaling"], tolerance),
            "sh": (found.sh, torch.cat([theirs["features_dc"], theirs["features_rest"]], dim=2), tolerance),
        }
        for name, (ours, reference, allowed) in pairs.items():
            assert (ours - reference).abs().max() < allowed * reference.abs().max(), name


def test_the_constants_of_a_file_are_those_of_its_dataset(fixtures):
    content = torch.load(fixtures / "predictor_cars_1view.pt", weights_only=True)
    sizes = {"resolution": 32, "base_dim": 16, "num_blocks": 1, "attention_resolutions": (16,)}
    with pytest.warns(UserWarning, match="ray_dirs$"):
        predictor_from_official(content["state_dict"], dataset="objaverse", **sizes)


def test_a_unet_by_itself_may_stand_in_the_file_of_a_predictor(published):
    sizes, state = published()
    options = {"channel_mult": sizes.mult, "in_channels": 3, "out_channels": 24, "attention_resolutions": (8,)}
    inside = {name: tensor for name, tensor in state.items() if "encoder." in name}
    unet = unet_from_official(inside, resolution=SIZE, base_dim=sizes.base, num_blocks=1, **options)
    x = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64)
    assert torch.equal(unet(x), load(state, sizes).backbone(x, Context()))
