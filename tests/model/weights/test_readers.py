import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.methods.splatter_image.backbones.unet import UNet
from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
from model.official import PUBLISHED, OfficialPredictor, official_state_dict
from model.weights import readers


def flax_file(path, network: str, convolutions: int) -> dict:
    generator = np.random.default_rng(0)
    layers = {
        f"Conv_{index}": {
            "kernel": generator.normal(size=(3, 3, 2, 4)).astype(np.float32),
            "bias": generator.normal(size=4).astype(np.float32),
        }
        for index in range(convolutions)
    }
    path.write_bytes(pickle.dumps({network: layers}, protocol=4))  # arrays have another form in later ones
    return layers


def test_flax_kernels_become_torch_kernels(tmp_path):
    path = tmp_path / "vgg16.ckpt"
    layers = flax_file(path, "VGG16_0", 13)
    tensors = readers.flax_vgg16(path).tensors
    assert len(tensors) == 26
    kernel = layers["Conv_1"]["kernel"]  # height, width, in, out
    assert tensors["2.weight"].shape == (4, 2, 3, 3)
    assert tensors["2.weight"][3, 1, 0, 2].item() == kernel[0, 2, 1, 3]
    assert np.array_equal(tensors["2.bias"].numpy(), layers["Conv_1"]["bias"])


def test_arrays_pickled_by_numpy_1_are_read(tmp_path):
    path = tmp_path / "alexnet.ckpt"
    flax_file(path, "AlexNet_0", 5)
    content = pickle.dumps(pickle.loads(path.read_bytes()), protocol=3)
    old = content.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    assert b"cnumpy.core.multiarray" in old
    path.write_bytes(old)
    assert len(readers.flax_alexnet(path).tensors) == 10


class Malicious:
    def __reduce__(self):
        return (eval, ("print('this must never be printed')",))


def test_a_pickle_that_asks_for_anything_but_arrays_is_refused(tmp_path, capsys):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(pickle.dumps({"VGG16_0": Malicious()}))
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.eval"):
        readers.flax_vgg16(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["weights.pth", "folder/pytorch_model.bin"])
def test_a_state_dict_with_code_in_it_is_refused(name, tmp_path, capsys):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    torch.save({"weight": Malicious()}, path)
    (path.parent / "config.json").write_text("{}")
    with pytest.raises(pickle.UnpicklingError):
        readers.hub(path if path.parent == tmp_path else path.parent)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOFError: the file is empty or cut short"),
        (b"<!DOCTYPE html>", "no file that torch.save wrote, or damaged (Unsupported operand 60)"),
        (None, "the file requires eval, which weights do not need"),
    ],
)
def test_why_a_file_cannot_be_read_is_one_line_without_advice_to_read_it_unsafely(tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    torch.save({"weight": Malicious()}, path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((pickle.UnpicklingError, EOFError)) as caught:
        readers.state_dict(path)
    assert readers.reason_of(caught.value) == reason


@pytest.mark.parametrize("content", [{"optimizer": {"weight": torch.ones(1)}}, {"model": {"step": 3}}, [1.0], 7])
def test_something_other_than_a_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match="other than a state dict"):
        readers.state_dict(path)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_state_dict_may_lie_among_other_things(tmp_path, key):
    torch.save({key: {"weight": torch.ones(1)}, "epoch": 3}, tmp_path / "weights.pth")
    assert set(readers.state_dict(tmp_path / "weights.pth").tensors) == {"weight"}


def test_both_of_torchs_formats_and_safetensors_are_read(tmp_path):
    tensors = {"b": torch.arange(4.0), "a": torch.ones(2)}
    torch.save(tensors, tmp_path / "new.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "safe.safetensors")
    for name in ("new.pth", "old.pth", "safe.safetensors"):
        found = readers.state_dict(tmp_path / name).tensors
        assert set(found) == {"a", "b"}
        assert torch.equal(found["b"], tensors["b"])


def test_only_the_features_of_a_classifier_are_taken(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"features.0.weight": torch.ones(2).half(), "classifier.0.weight": torch.ones(3)}, path)
    (name,), (tensor,) = zip(*readers.torchvision_features(path).tensors.items(), strict=True)
    assert (name, tensor.dtype) == ("0.weight", torch.float32)


class TestHubFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 7}))
        return tmp_path

    def test_tensors_and_their_metadata(self, folder):
        save_file({"a": torch.ones(1)}, folder / "model.safetensors")
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5]}))
        published = readers.hub(folder)
        assert list(published.tensors) == ["a"]
        assert published.config == {"hidden_size": 7}
        assert published.preprocessor == {"image_mean": [0.5, 0.5, 0.5]}

    def test_safetensors_are_preferred_to_pickles(self, folder):
        save_file({"safe": torch.ones(1)}, folder / "model.safetensors")
        torch.save({"pickled": torch.ones(1)}, folder / "pytorch_model.bin")
        assert list(readers.hub(folder).tensors) == ["safe"]

    def test_tensors_in_parts(self, folder):
        save_file({"a": torch.ones(1)}, folder / "model-00001-of-00002.safetensors")
        save_file({"b": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")
        save_file({"c": torch.ones(1)}, folder / "model.fp16.safetensors")
        assert list(readers.hub(folder).tensors) == ["a", "b"]

    @pytest.mark.parametrize("ending", ["safetensors", "bin"])
    def test_a_folder_without_all_parts_is_refused(self, folder, ending):
        stem = "model" if ending == "safetensors" else "pytorch_model"
        for part in (1, 3):
            (folder / f"{stem}-0000{part}-of-00003.{ending}").touch()
        with pytest.raises(ValueError, match="or all parts of one"):
            readers.hub(folder)

    @pytest.mark.parametrize("content", ["[]", "null", '"vit"'])
    @pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
    def test_settings_that_are_no_object_are_refused(self, folder, name, content):
        save_file({"a": torch.ones(1)}, folder / "model.safetensors")
        (folder / name).write_text(content)
        with pytest.raises(ValueError, match=f"^{name} is not an object"):
            readers.hub(folder)

    def test_a_folder_without_tensors_is_refused(self, folder):
        with pytest.raises(ValueError, match=r"config\.json and model\.safetensors"):
            readers.hub(folder)


class TestNetwork:
    def test_a_published_file_has_the_networks_tensors_in_float32_without_frozen_models(self, tmp_path):
        with torch.device("meta"):
            unet = UNet(resolution=8, base_dim=8, num_blocks=1, channel_mult=(1,), attention_resolutions=())
            head = GaussianHead(gaussian_groups(PUBLISHED["cars"].head.model_dump(), 1))
        predictor = OfficialPredictor(unet, head, PUBLISHED["cars"])
        state = {name: torch.zeros(t.shape, dtype=torch.float16) for name, t in official_state_dict(predictor).items()}
        frozen = {"network_with_offset.spatial_context_provider.weight": torch.ones(1)}
        content = {"iteration": 7, "best_PSNR": np.float64(20.0), "model_state_dict": state | frozen}
        torch.save(content, tmp_path / "model.pth")
        found = readers.network(tmp_path / "model.pth")
        assert found.tensors.keys() == state.keys()
        assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float32}
        assert found.config == {}

    def test_an_exported_file_has_its_configuration(self, tmp_path):
        facts = {"format": readers.OWN_FORMAT, "config": json.dumps({"seed": 3})}
        save_file({"a": torch.ones(2)}, tmp_path / "own.safetensors", facts)
        assert readers.network(tmp_path / "own.safetensors").config == {"seed": 3}

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("weights.safetensors", {"a": torch.ones(2)}, "`splatsweep export` writes such files"),
            ("weights.pth", {"a": torch.ones(2)}, "no Splatter Image network"),
            ("weights.pth", {"model_state_dict": {"a": 1}}, "is not a named tensor"),
            ("weights.pth", [1], "it holds a list, not a dictionary with model_state_dict"),
        ],
    )
    def test_other_files_are_refused(self, name, content, reason, tmp_path):
        path = tmp_path / name
        save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
        with pytest.raises(ValueError, match=reason):
            readers.network(path)
