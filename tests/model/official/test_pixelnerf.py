import re

import pytest
import torch

from model.methods.pixelnerf.options import PixelNerfOptions
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.official import load_pixelnerf, pixelnerf_state_dict, recognise
from tests.model.methods.pixelnerf.scenery import small_options

#: The published file's entries, written down from its description: 216 of the encoder, 2 constants, 30 a network.
BLOCK = ["conv1.weight", "bn1", "conv2.weight", "bn2"]
STATISTICS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def published_names() -> set[str]:
    layers = ["conv1.weight", "bn1"]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            layers += [f"layer{stage}.{block}.{layer}" for layer in BLOCK]
            if stage > 1 and block == 0:
                layers += [f"layer{stage}.0.downsample.0.weight", f"layer{stage}.0.downsample.1"]
    names = set()
    for layer in layers:
        whole = [layer] if layer.endswith("weight") else [f"{layer}.{name}" for name in STATISTICS]
        names |= {f"encoder.model.{name}" for name in whole}
    for network in ("mlp_coarse", "mlp_fine"):
        inside = ["lin_in", "lin_out", *(f"lin_z.{k}" for k in range(3))]
        inside += [f"blocks.{k}.fc_{j}" for k in range(5) for j in range(2)]
        names |= {f"{network}.{layer}.{kind}" for layer in inside for kind in ("weight", "bias")}
    return names | {"code._freqs", "code._phases"}


def test_the_published_size_has_the_published_names_and_shapes():
    state = pixelnerf_state_dict(PixelNerfReconstructor(PixelNerfOptions(pretrained=False)))
    assert len(state) == 278
    assert set(state) == published_names()
    shapes = {
        "code._freqs": (1, 12, 1),
        "code._phases": (1, 12, 1),
        "mlp_coarse.lin_in.weight": (512, 42),
        "mlp_fine.lin_out.weight": (4, 512),
        "mlp_fine.blocks.4.fc_1.weight": (512, 512),
        "mlp_coarse.lin_z.2.weight": (512, 512),
        "encoder.model.layer4.2.conv2.weight": (512, 512, 3, 3),
    }
    for name, shape in shapes.items():
        assert state[name].shape == shape
    parameters = [t for name, t in state.items() if not re.search(r"running|tracked|code\.", name)]
    assert sum(t.numel() for t in parameters) == 28_161_864
    torch.testing.assert_close(state["code._freqs"].flatten()[::2], 1.5 * 2.0 ** torch.arange(6))
    torch.testing.assert_close(state["code._phases"].flatten()[:2], torch.tensor([0, torch.pi / 2]))


def network(seed=0, **options):
    torch.manual_seed(seed)
    made = PixelNerfReconstructor(small_options(**options))
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor))
    return made


def test_a_file_determines_the_size_of_its_network_and_fills_it():
    ours = network(blocks=4, view_blocks=2)
    file = recognise({name: tensor.clone() for name, tensor in pixelnerf_state_dict(ours).items()})
    settings = file.settings("nmr")
    assert settings["data"] == {"name": "nmr", "resolution": 64}
    assert settings["model"]["first_pool"] is False
    assert file.settings("srn_cars")["model"]["first_pool"] is True
    options = PixelNerfOptions(**settings["model"])
    assert (options.encoder_width, options.hidden, options.blocks, options.view_blocks) == (8, 16, 4, 2)
    assert (options.pixel_point, options.bounds, options.feature_alignment) == ("corner", "distance", "corners")
    assert not options.pretrained
    loaded = file.load(PixelNerfReconstructor(options))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mlp_fine.lin_in.bias"), "1 missing: mlp_fine.lin_in.bias"),
        (lambda state: state.update({"mlp_fine.extra": torch.zeros(1)}), "1 left over: mlp_fine.extra"),
        (lambda state: state.update({"code._freqs": torch.ones(1, 12, 1)}), "code._freqs is .*known is"),
        (lambda state: state.update({"mlp_fine.lin_in.bias": torch.zeros(3)}), r"another shape: .*\(3,\) instead of"),
    ],
)
def test_files_that_do_not_fit_are_refused(change, message):
    state = dict(pixelnerf_state_dict(network()))
    change(state)
    with pytest.raises(ValueError, match=message):
        load_pixelnerf(network(1), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("encoder.model.conv1.weight"), "no PixelNeRF: encoder.model.conv1.weight missing"),
        (lambda state: state.update({"mlp_coarse.lin_in.weight": torch.zeros(16, 63)}), "have 63 features"),
    ],
)
def test_files_of_other_kinds_are_refused(change, message):
    state = dict(pixelnerf_state_dict(network()))
    change(state)
    with pytest.raises(ValueError, match=message):
        recognise(state)
