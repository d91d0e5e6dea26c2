import io
import pickle

import numpy as np
import pytest
import torch

from model.weights import readers


def flax_file(network: str, convolutions: int) -> tuple[bytes, dict]:
    generator = np.random.default_rng(0)
    layers = {
        f"Conv_{index}": {
            "kernel": generator.normal(size=(3, 3, 2, 4)).astype(np.float32),
            "bias": generator.normal(size=4).astype(np.float32),
        }
        for index in range(convolutions)
    }
    return pickle.dumps({network: layers}), layers


def test_flax_kernels_become_torch_kernels():
    data, layers = flax_file("VGG16_0", 13)
    tensors = readers.flax_vgg16(data)
    assert len(tensors) == 26
    kernel = layers["Conv_1"]["kernel"]  # height, width, in, out
    assert tensors["2.weight"].shape == (4, 2, 3, 3)
    assert tensors["2.weight"][3, 1, 0, 2].item() == kernel[0, 2, 1, 3]
    assert np.array_equal(tensors["2.bias"].numpy(), layers["Conv_1"]["bias"])


def test_arrays_pickled_by_numpy_1_are_read():
    data, _ = flax_file("AlexNet_0", 5)
    old = pickle.dumps(pickle.loads(data), protocol=3).replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    assert b"cnumpy.core.multiarray" in old
    assert len(readers.flax_alexnet(old)) == 10


class Malicious:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_a_pickle_that_asks_for_anything_but_arrays_is_refused(capsys):
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        readers.flax_vgg16(pickle.dumps({"VGG16_0": Malicious()}))
    assert capsys.readouterr().out == ""


def test_a_state_dict_with_code_in_it_is_refused(capsys):
    stream = io.BytesIO()
    torch.save({"weight": Malicious()}, stream)
    with pytest.raises(pickle.UnpicklingError):
        readers.plain_state_dict(stream.getvalue())
    assert capsys.readouterr().out == ""


def test_only_the_features_of_a_classifier_are_taken():
    stream = io.BytesIO()
    torch.save({"features.0.weight": torch.ones(2), "classifier.0.weight": torch.ones(3)}, stream)
    assert list(readers.torchvision_features(stream.getvalue())) == ["0.weight"]
