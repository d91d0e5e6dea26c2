import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from model.semantic.clip import ClipVitB32
from model.weights import MissingWeightsError, WeightStore
from tests.tiny_checkpoints import write_tiny_checkpoint


@pytest.fixture(scope="module")
def library(tiny_checkpoints):
    """The whole CLIP, loaded from the same folder by the transformers library itself."""
    write_tiny_checkpoint("clip_vit_b32", tiny_checkpoints.folder)
    return transformers.CLIPModel.from_pretrained(
        tiny_checkpoints.folder / "clip_vit_b32", local_files_only=True
    ).eval()


def test_the_vector_is_the_image_embedding_of_a_whole_clip(encoder, views, library):
    model = encoder("clip_vit_b32")
    pooled = library.vision_model(model.prepared(views.images.flatten(0, 1))).pooler_output
    torch.testing.assert_close(model(views).flatten(0, 1), library.visual_projection(pooled))
    assert model.width == 24


@pytest.mark.parametrize("side", [32, 64])
def test_tokens_are_the_last_states_of_the_patches(side, encoder, views, library):
    model = encoder("clip_vit_b32", output_type="tokens", resolution=side)
    shown = model.prepared(views.images.flatten(0, 1))
    states = library.vision_model(shown, interpolate_pos_encoding=side != 32).last_hidden_state
    torch.testing.assert_close(model(views).flatten(0, 1), states[:, 1:])
    assert model(views).shape[2:] == ((side // 8) ** 2, model.width)


def test_a_folder_of_the_image_encoder_alone_serves_as_well(encoder, views, tmp_path):
    whole = encoder("clip_vit_b32")
    whole.network.save_pretrained(tmp_path / "clip_vit_b32")
    assert torch.equal(ClipVitB32(WeightStore(tmp_path))(views), whole(views))


def test_missing_tensors_are_refused(tmp_path):
    write_tiny_checkpoint("clip_vit_b32", tmp_path)
    path = tmp_path / "clip_vit_b32" / "model.safetensors"
    tensors = load_file(path)
    del tensors["visual_projection.weight"]
    save_file(tensors, path)
    with pytest.raises(MissingWeightsError, match=r"clip_vit_b32: missing .*visual_projection\.weight"):
        ClipVitB32(WeightStore(tmp_path))
