import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from model.options import OptionsError, parse_options
from model.semantic.transformers_network import TransformersEncoder, TransformersOptions
from model.weights import WeightStore
from tests.tiny_checkpoints import CLIP_VISION, clip, scrambled

NAME = "some/model"
SMALL = {**CLIP_VISION, "image_size": 32, "patch_size": 8}
CONFIGS = {
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL)),
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SMALL)),
    "dinov2": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
        )
    ),
    "convnext": lambda: transformers.ConvNextModel(
        transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 24], image_size=32)
    ),
    "mobilenet": lambda: transformers.MobileNetV2Model(
        transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.1)
    ),
    "dinov3": lambda: transformers.DINOv3ConvNextModel(
        transformers.DINOv3ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 24])
    ),
    "vit without pooler": lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False),
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "hub--some--model"


@pytest.fixture(params=CONFIGS)
def library(request, folder):
    """A model of the transformers library, saved in the store."""
    torch.manual_seed(0)
    model = scrambled(CONFIGS[request.param]()).eval()
    model.save_pretrained(folder)
    preprocess(folder, size={"height": 32, "width": 32})
    return model


def preprocess(folder, **settings):
    described = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]} | settings
    (folder / "preprocessor_config.json").write_text(json.dumps(described))


def encoder(folder, **settings) -> TransformersEncoder:
    return TransformersEncoder(WeightStore(folder.parent), options=TransformersOptions(NAME), **settings)


def test_vector_and_tokens_are_the_librarys(library, folder, views):
    vector, tokens = encoder(folder), encoder(folder, output_type="tokens")
    output = library(vector.prepared(views.images.flatten(0, 1)))
    states = output.last_hidden_state
    pooled = output.get("pooler_output")
    grid = 1 if library.config.model_type == "dinov3_convnext" else 16  # a pyramid with a class token
    patches = states.flatten(2).transpose(1, 2) if states.dim() == 4 else states[:, -grid:]
    torch.testing.assert_close(vector(views).flatten(0, 1), states[:, 0] if pooled is None else pooled)
    torch.testing.assert_close(tokens(views).flatten(0, 1), patches)
    assert vector.width == vector(views).shape[-1]
    assert tokens.width == tokens(views).shape[-1]


def test_the_repository_determines_how_its_input_is_scaled(folder, views):
    CONFIGS["vit"]().save_pretrained(folder)
    preprocess(folder, size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    model = encoder(folder)
    white = model.prepared(torch.ones(1, 3, 48, 48))
    assert white.shape[-2:] == (32, 32)
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([0.6 / 0.2, 0.5 / 0.3, 0.4 / 0.4]))
    assert encoder(folder, resolution=64, output_type="tokens")(views).shape[2] == 64


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_normalize": False}, [1.0, 1.0, 1.0]),
        ({"do_normalize": None, "do_rescale": None, "rescale_factor": None}, [3.0, 5 / 3, 1.0]),
        ({"do_rescale": False, "image_mean": [100, 200, 0], "image_std": [10, 50, 255]}, [15.5, 1.1, 1.0]),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 0.5]}, [1.0, 1.0, 2.0]),
    ],
)
def test_its_preprocessor_may_scale_in_other_ways(folder, settings, expected):
    CONFIGS["vit"]().save_pretrained(folder)
    preprocess(folder, size=32, **settings)
    white = encoder(folder).prepared(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor(expected))


def test_without_normalisation_no_mean_is_required(folder):
    CONFIGS["vit"]().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "size": 32}')
    assert encoder(folder).prepared(torch.ones(1, 3, 32, 32)).max() == 1


@pytest.mark.parametrize(
    "described", [{}, {"size": {"longest_edge": 64}}, {"size": 32, "crop_size": 24, "do_center_crop": False}]
)
def test_sizes_that_its_preprocessor_does_not_use_are_not_the_side(folder, views, described):
    CONFIGS["vit"]().save_pretrained(folder)
    preprocess(folder, **described)
    assert encoder(folder).prepared(views.images.flatten(0, 1)).shape[-2:] == (32, 32)


def test_a_repository_that_states_no_side_needs_one(folder, views):
    small = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])
    transformers.ResNetModel(small).save_pretrained(folder)
    preprocess(folder)
    with pytest.raises(ValueError, match=r"does not state the side of its input; set semantic\.resolution"):
        encoder(folder)
    assert encoder(folder, resolution=32)(views).shape[-1] == 16


def test_a_side_that_the_patches_do_not_divide_is_named(folder):
    CONFIGS["vit"]().save_pretrained(folder)
    preprocess(folder, size=30)
    with pytest.raises(ValueError, match="resolution 30 of TransformersEncoder; allowed: multiples of 8"):
        encoder(folder)


def test_the_networks_own_side_need_not_be_divided_by_its_patches(folder, views):
    """As those of google/siglip-so400m-patch14-384."""
    library = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SMALL | {"image_size": 30})).eval()
    library.save_pretrained(folder)
    preprocess(folder, size=30)
    model = encoder(folder, output_type="tokens")
    expected = library(model.prepared(views.images.flatten(0, 1))).last_hidden_state
    assert expected.shape[1] == 9
    torch.testing.assert_close(model(views).flatten(0, 1), expected)


def test_a_map_may_have_its_channels_last(folder, views):
    """As those of SAM 2."""
    stages = {"blocks_per_stage": [1] * 4, "embed_dim_per_stage": [8, 16, 24, 40], "window_size_per_stage": [4] * 4}
    heads = {"num_attention_heads": 1, "num_attention_heads_per_stage": [1] * 4, "global_attention_blocks": []}
    config = transformers.Sam2HieraDetConfig(hidden_size=8, image_size=[96, 96], **stages, **heads)
    library = transformers.Sam2HieraDetModel(config).eval()
    library.save_pretrained(folder)
    preprocess(folder, size=96)
    states = library(encoder(folder).prepared(views.images.flatten(0, 1))).last_hidden_state
    assert states.shape[1:] == (3, 3, 40)
    tokens = encoder(folder, output_type="tokens")(views).flatten(0, 1)
    torch.testing.assert_close(tokens, states.flatten(1, 2))
    torch.testing.assert_close(encoder(folder)(views).flatten(0, 1), tokens.mean(dim=1))


def test_of_a_model_for_pictures_and_text_the_part_for_pictures_is_taken(folder, views):
    clip(folder)
    preprocess(folder, size=32)
    whole = transformers.CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    model = encoder(folder)
    expected = whole.vision_model(model.prepared(views.images.flatten(0, 1))).pooler_output
    torch.testing.assert_close(model(views).flatten(0, 1), expected)


def test_without_a_preprocessor_it_is_refused(folder):
    CONFIGS["vit"]().save_pretrained(folder)
    with pytest.raises(ValueError, match=r"some/model has no preprocessor_config\.json"):
        encoder(folder)


@pytest.mark.parametrize("setting", ["rescale_offset", "include_top"])
def test_a_preprocessor_that_scales_in_another_way_is_refused(folder, setting):
    CONFIGS["vit"]().save_pretrained(folder)
    preprocess(folder, size=32, do_rescale=None, **{setting: True})
    with pytest.raises(ValueError, match=rf"some/model scales its input otherwise .*\({setting}\)"):
        encoder(folder)


def test_missing_tensors_are_refused(folder):
    CONFIGS["vit"]().save_pretrained(folder)
    preprocess(folder, size=32)
    tensors = load_file(folder / "model.safetensors")
    del tensors["layernorm.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"not the weights of some/model: missing .*layernorm\.bias"):
        encoder(folder)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("crystal_ball", "no single encoder of model_type 'crystal_ball'"),
        ("metaclip_2_vision_model", "no single encoder of model_type 'metaclip_2_vision_model'"),
        ("vit_mae", "hides most of a picture at random"),
        ("bert", "BertModel does not serve: its input is input_ids, not a picture alone"),
        ("siglip2_vision_model", "its input is pixel_values, pixel_attention_mask, spatial_shapes, not a picture"),
        ("hgnet_v2", "HGNetV2Backbone does not serve: it has several maps of features"),
    ],
)
def test_architectures_that_do_not_serve_are_refused(folder, model_type, reason):
    CONFIGS["vit"]().save_pretrained(folder)
    preprocess(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=reason):
        encoder(folder)


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", ""])
def test_names_that_are_no_repositorys_are_refused(name):
    with pytest.raises(OptionsError, match="is not a repository's name"):
        parse_options(TransformersOptions, {"name": name}, choice="transformers", where="semantic.options")
