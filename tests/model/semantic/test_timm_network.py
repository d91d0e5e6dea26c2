import pytest
import timm
import torch

from model.options import OptionsError, parse_options
from model.semantic.timm_network import EfficientNetLite0, TimmEncoder, TimmOptions
from model.weights import MissingWeightsError, WeightStore
from tests.tiny_checkpoints import timm_folder

NAMES = {
    "vit_tiny_patch16_224.augreg_in21k": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224.ms_in1k": {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "convnext_atto.d2_in1k": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 24)},
}


@pytest.fixture(scope="module", params=NAMES)
def stored(request, tmp_path_factory):
    """A name, a store with its folder in the hub's format, and timm's own model of that folder without classifier."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    architecture, path = request.param.split(".")[0], folder / f"timm--{request.param}"
    timm_folder(path, architecture, **NAMES[request.param])
    judge = timm.create_model(f"local-dir:{path}", pretrained=True, num_classes=0).eval()
    return request.param, WeightStore(folder), judge


def test_the_vector_is_what_the_classifier_would_see(stored, views):
    name, store, judge = stored
    model = TimmEncoder(store, options=TimmOptions(name))
    torch.testing.assert_close(model(views).flatten(0, 1), judge(model.prepared(views.images.flatten(0, 1))))
    assert model(views).shape[-1] == model.width


def test_tokens_are_the_patches_row_by_row(stored, views):
    name, store, judge = stored
    model = TimmEncoder(store, output_type="tokens", options=TimmOptions(name))
    features = judge.forward_features(model.prepared(views.images.flatten(0, 1)))
    rows = range(14 if name.startswith("vit") else 7)
    pick = {
        "vit": lambda i, j: features[:, 1 + 14 * i + j],
        "swin": lambda i, j: features[:, i, j],
        "convnext": lambda i, j: features[:, :, i, j],
    }[name.split("_")[0]]
    torch.testing.assert_close(model(views).flatten(0, 1), torch.stack([pick(i, j) for i in rows for j in rows], dim=1))
    assert model(views).shape[-1] == model.width


def test_another_side(stored, views):
    name, store, _ = stored
    model = TimmEncoder(store, output_type="tokens", resolution=448, options=TimmOptions(name))
    shown = model.prepared(views.images.flatten(0, 1))
    assert shown.shape[-1] == 448
    own = TimmEncoder(store, output_type="tokens", options=TimmOptions(name))
    assert model(views).shape[2] == 4 * own(views).shape[2]
    assert not any(parameter.requires_grad for parameter in model.parameters())


def of_random_weights(name: str, **settings) -> TimmEncoder:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    return TimmEncoder(None, network=network, options=TimmOptions(name), **settings)


def test_patches_may_have_one_side_or_two():
    assert of_random_weights("xcit_nano_12_p8_224.fb_in1k").stride == 8
    assert of_random_weights("deit_tiny_patch16_224.fb_in1k").stride == 16


def test_the_networks_own_side_need_not_be_divided_by_its_patches():
    model = of_random_weights("vit_so400m_patch14_siglip_384.webli", output_type="tokens")
    assert model.tokens(torch.zeros(1, 3, 384, 384, device="meta")).shape[1] == 27**2


@pytest.mark.parametrize(
    ("name", "side"),
    [("volo_d1_224.sail_in1k", 14), ("coat_lite_tiny.in1k", 7), ("mixer_b16_224.goog_in21k", 14)],
)
def test_tokens_come_without_class_token(name, side):
    model = of_random_weights(name, output_type="tokens")
    images = torch.zeros(1, 3, 224, 224, device="meta")
    assert model.tokens(images).shape[1] == side**2


@pytest.mark.parametrize("name", ["mixer_b16_224.goog_in21k", "levit_128s.fb_dist_in1k"])
def test_a_side_that_the_network_does_not_take_is_refused(name):
    with pytest.raises(ValueError, match=r"resolution 64: .*, whose own is 224, does not take it"):
        of_random_weights(name, resolution=64)
    assert of_random_weights(name).resolution == 224


def test_several_maps_of_features_have_no_tokens():
    images = torch.zeros(1, 3, 240, 240, device="meta")
    model = of_random_weights("crossvit_tiny_240.in1k", output_type="tokens")
    with pytest.raises(ValueError, match="CrossVit has several maps of features, so no tokens"):
        model.tokens(images)
    assert model.vector(images).shape == (1, 288)


def test_missing_tensors_are_refused(tmp_path):
    name = next(iter(NAMES))
    network = timm.create_model("vit_tiny_patch16_224", **NAMES[name])
    tensors = network.state_dict()
    del tensors["norm.weight"]
    store = WeightStore(tmp_path)
    timm_folder(tmp_path / "folder", "vit_tiny_patch16_224", **NAMES[name])
    (tmp_path / "folder" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "folder" / "pytorch_model.bin")
    store.adopt(f"timm:{name}", tmp_path / "folder")
    with pytest.raises(ValueError, match=r"(?s)not the weights of vit_tiny.*norm\.weight"):
        TimmEncoder(store, options=TimmOptions(name))


def test_the_name_determines_the_architecture_of_a_single_file(tmp_path, views):
    network = timm.create_model("test_vit", num_classes=1000).eval()
    torch.save(network.state_dict(), tmp_path / "timm--test_vit.r160_in1k.pth")
    model = TimmEncoder(WeightStore(tmp_path), options=TimmOptions("test_vit.r160_in1k"))
    network.reset_classifier(0)
    torch.testing.assert_close(model(views).flatten(0, 1), network(model.prepared(views.images.flatten(0, 1))))


def test_the_name_determines_the_architecture_of_a_folder_too(tmp_path, views):
    """CLIPs with QuickGELU have the tensors of those with GELU, and timm keeps both in one folder."""
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    timm_folder(tmp_path / "folder", "vit_base_patch32_clip_224", **sizes)
    vectors = []
    for architecture in ("vit_base_patch32_clip_224", "vit_base_patch32_clip_quickgelu_224"):
        store, options = WeightStore(tmp_path), TimmOptions(f"{architecture}.openai")
        store.adopt(f"timm:{options.name}", tmp_path / "folder")
        model = TimmEncoder(store, options=options)
        judge = timm.create_model(architecture, **sizes, num_classes=0).eval()
        judge.load_state_dict(model.network.state_dict())
        vectors.append(model(views).flatten(0, 1))
        torch.testing.assert_close(vectors[-1], judge(model.prepared(views.images.flatten(0, 1))))
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


def test_a_folder_of_another_library_is_named(tmp_path):
    name = "test_vit.r160_in1k"
    timm_folder(tmp_path / "folder", "test_vit")
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "vit"}')
    store = WeightStore(tmp_path)
    store.adopt(f"timm:{name}", tmp_path / "folder")
    with pytest.raises(ValueError, match=r"config.json of test_vit.* is not one of timm's: it names no architecture"):
        TimmEncoder(store, options=TimmOptions(name))


@pytest.mark.parametrize(("name", "reason"), [("resnet18", "names no weights"), ("../x.y", "not a name of timm's")])
def test_names_that_timm_has_no_weights_for_are_refused(name, reason):
    with pytest.raises(OptionsError, match=reason):
        parse_options(TimmOptions, {"name": name}, choice="timm", where="semantic.options")


def test_the_weights_have_a_name_in_the_table():
    assert TimmEncoder.weights(TimmOptions("resnet18.a1_in1k")) == ("timm:resnet18.a1_in1k",)


def test_efficientnet_lite0_embeds_as_its_published_weights_do(weights, views):
    model = EfficientNetLite0(weights)
    judge = timm.create_model("tf_efficientnet_lite0").eval()
    names = list(judge.state_dict())
    judge.load_state_dict(dict(zip(names, weights.load("efficientnet_lite0").values(), strict=True)))
    shown = model.prepared(views.images.flatten(0, 1))
    torch.testing.assert_close(judge.classifier(model(views).flatten(0, 1)), judge(shown))
    tokens = EfficientNetLite0(weights, output_type="tokens")(views)
    assert tokens.shape == (2, 2, 49, 1280)
    torch.testing.assert_close(tokens.mean(dim=2), model(views), rtol=1e-4, atol=1e-5)


def test_efficientnet_lite0_refuses_other_tensors(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "efficientnet_lite0.pth")
    with pytest.raises(MissingWeightsError, match="not the weights of efficientnet_lite0"):
        EfficientNetLite0(WeightStore(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_tiny_patch16_224", "names no weights"),
        ("vit_tiny_patch16_224.augreg_in22k", "did you mean 'vit_tiny_patch16_224.augreg_in21k'"),
        ("vit_tinny_patch16_224.augreg_in21k", "did you mean 'vit_tiny_patch16_224.augreg_in21k'"),
        ("resnet*.a1_in1k", "is not a name of timm's"),
        ("../secret.x", "is not a name of timm's"),
    ],
)
def test_names_that_timm_does_not_have_are_refused_without_network(name: str, words: str) -> None:
    from model.options import OptionsError, parse_options

    with pytest.raises(OptionsError) as caught:
        parse_options(TimmOptions, {"name": name}, choice="timm", where="semantic.options")
    assert words in str(caught.value)
