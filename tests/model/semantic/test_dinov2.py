import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from model.semantic.dinov2 import Dinov2Small, Dinov2SmallRegisters
from model.weights import MissingWeightsError, WeightStore
from tests.tiny_checkpoints import facebook_dinov2, write_tiny_checkpoint

LIBRARY = {"dinov2_small": "Dinov2Model", "dinov2_small_reg": "Dinov2WithRegistersModel"}


@pytest.fixture(scope="module", params=LIBRARY)
def both(request, tiny_checkpoints):
    """A name, and the model that the library itself loads from its folder."""
    write_tiny_checkpoint(request.param, tiny_checkpoints.folder)
    cls = getattr(transformers, LIBRARY[request.param])
    return request.param, cls.from_pretrained(tiny_checkpoints.folder / request.param, local_files_only=True).eval()


@pytest.mark.parametrize("resolution", [56, 112])
def test_the_vector_is_the_class_token(both, resolution, encoder, views):
    name, library = both
    model = encoder(name, resolution=resolution)
    expected = library(model.prepared(views.images.flatten(0, 1)))
    torch.testing.assert_close(model(views).flatten(0, 1), expected.last_hidden_state[:, 0])


def test_tokens_are_the_patches_without_registers(both, encoder, views):
    name, library = both
    model = encoder(name, output_type="tokens", resolution=56)
    states = library(model.prepared(views.images.flatten(0, 1))).last_hidden_state
    assert states.shape[1] == 16 + (5 if name.endswith("_reg") else 1)
    torch.testing.assert_close(model(views).flatten(0, 1), states[:, -16:])


@pytest.mark.parametrize("cls", [Dinov2Small, Dinov2SmallRegisters])
def test_the_authors_own_file_serves_as_well(cls, views, tmp_path):
    """The expected values come from timm, which has its own code for the authors' names."""
    import timm

    registers = 4 if cls is Dinov2SmallRegisters else 0
    torch.manual_seed(0)
    tensors = facebook_dinov2(registers=registers)
    torch.save(tensors, tmp_path / f"{cls.name}.pth")
    model = cls(WeightStore(tmp_path), resolution=56)
    judge = timm.create_model(
        f"vit_small_patch14_{'reg4_' if registers else ''}dinov2",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": tensors},
        embed_dim=64,
        depth=4,
        num_heads=1,
        img_size=56,
    ).eval()
    expected = judge.forward_features(model.prepared(views.images.flatten(0, 1)))
    torch.testing.assert_close(model(views).flatten(0, 1), expected[:, 0], rtol=1e-4, atol=1e-5)


def test_missing_tensors_are_refused(tmp_path):
    write_tiny_checkpoint("dinov2_small", tmp_path)
    path = tmp_path / "dinov2_small" / "model.safetensors"
    tensors = load_file(path)
    del tensors["layernorm.bias"]
    save_file(tensors, path)
    with pytest.raises(MissingWeightsError, match=r"not the weights of dinov2_small: missing .*layernorm\.bias"):
        Dinov2Small(WeightStore(tmp_path))


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "dinov2_small.pth")
    with pytest.raises(MissingWeightsError, match="not the tensors of dinov2_small"):
        Dinov2Small(WeightStore(tmp_path))
