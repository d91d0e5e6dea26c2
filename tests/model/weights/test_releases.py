"""CLIP's and DPT's own releases, read as the hub's."""

import pickle
import re
import zipfile

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from model.semantic.clip import ClipVitB32
from model.weights import readers
from model.weights.sources import WeightsSourceError, read
from tests.tiny_checkpoints import write_tiny_checkpoint

PATCH, SIDE = 32, 64


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) / width**0.5)
        self.in_proj_bias = nn.Parameter(torch.randn(3 * width))
        self.out_proj = nn.Linear(width, width)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = Attention(width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})


class Transformer(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width) for _ in range(layers)])


class Visual(nn.Module):
    def __init__(self, width, layers, positions, embedding):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(positions, width))
        self.proj = nn.Parameter(torch.randn(width, embedding) / width**0.5)
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)


class Clip(nn.Module):
    """CLIP's tensors under OpenAI's names; `forward` exists only so that the archive contains code."""

    def __init__(self, layers=2, width=64):
        super().__init__()
        self.visual = Visual(width, layers, (SIDE // PATCH) ** 2 + 1, 24)
        self.token_embedding = nn.Embedding(5, 4)
        self.logit_scale = nn.Parameter(torch.ones([]))

    def forward(self, x):
        return x


@pytest.fixture
def archive(tmp_path):
    """A TorchScript archive with parameters in half precision, as OpenAI's are."""
    torch.manual_seed(0)
    clip = Clip().half()
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.script(clip).save(path)
    return path, clip.float()


def test_tensors_of_the_archive_get_the_hubs_names(archive):
    path, clip = archive
    published = read(readers.hub, path)
    assert published.release == "OpenAI's own archive of CLIP"
    tensors, visual = published.tensors, clip.visual
    block = visual.transformer.resblocks[1]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert not any("token_embedding" in name for name in tensors)
    torch.testing.assert_close(tensors["visual_projection.weight"], visual.proj.T)
    torch.testing.assert_close(tensors["vision_model.embeddings.patch_embedding.weight"], visual.conv1.weight)
    torch.testing.assert_close(
        tensors["vision_model.encoder.layers.1.self_attn.k_proj.weight"], block.attn.in_proj_weight[64:128]
    )
    torch.testing.assert_close(tensors["vision_model.encoder.layers.1.mlp.fc2.bias"], block.mlp["c_proj"].bias)


def openai_forward(visual, images, heads):
    """OpenAI's `VisionTransformer.forward`, computed from its tensors."""
    x = visual.conv1(images).flatten(2).mT
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks:
        y = block.ln_1(x)
        q, k, v = (y @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        x = x + block.attn.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = block.mlp["c_fc"](block.ln_2(x))
        x = x + block.mlp["c_proj"](y * torch.sigmoid(1.702 * y))
    return visual.ln_post(x[:, 0]) @ visual.proj


@torch.no_grad()
def test_the_archive_computes_openais_embeddings(archive):
    path, clip = archive
    config = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
        "projection_dim": 24,
        "hidden_act": "quick_gelu",
    }
    network = ClipVitB32.loaded(ClipVitB32, config, read(readers.hub, path).tensors).eval()
    images = torch.rand(2, 3, SIDE, SIDE)
    expected = openai_forward(clip.visual, images, heads=4)
    torch.testing.assert_close(network(images).image_embeds, expected, rtol=1e-3, atol=1e-3)


def test_an_archive_that_asks_for_more_than_tensors_is_refused(archive, tmp_path):
    """The pickle inside may name any object, but only tensors are constructed."""
    path, _ = archive
    bad = tmp_path / "bad.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl") and "constants" not in name:
                content = pickle.dumps(Evil())
            target.writestr(name, content)
    with pytest.raises(WeightsSourceError, match=r"requires .*system, which weights do not need"):
        read(readers.hub, bad)


def test_a_damaged_archive_is_named(archive, tmp_path):
    """Its directory, at the end, is intact."""
    content = bytearray(archive[0].read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "damaged.pt").write_bytes(content)
    with pytest.raises(WeightsSourceError, match=r"damaged\.pt cannot be read: BadZipFile: Bad CRC-32"):
        read(readers.hub, tmp_path / "damaged.pt")


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/never",)


def test_a_part_of_an_archive_is_named_as_what_it_is(tmp_path):
    torch.jit.script(nn.ModuleDict({"visual": nn.Linear(2, 2)})).save(tmp_path / "part.pt")
    with pytest.raises(WeightsSourceError, match="OpenAI's own CLIP archive, but without a whole vision transformer"):
        read(readers.hub, tmp_path / "part.pt")


# ---- DPT

#: From the hub's module names to those of MiDaS.
MIDAS = [
    (r"dpt\.embeddings\.cls_token", r"pretrained.model.cls_token"),
    (r"dpt\.embeddings\.position_embeddings", r"pretrained.model.pos_embed"),
    (r"dpt\.embeddings\.(?:patch_embeddings\.)?projection\.(\w+)", r"pretrained.model.patch_embed.proj.\1"),
    (
        r"dpt\.embeddings\.backbone\.bit\.embedder\.convolution\.(\w+)",
        r"pretrained.model.patch_embed.backbone.stem.conv.\1",
    ),
    (r"dpt\.embeddings\.backbone\.bit\.embedder\.norm\.(\w+)", r"pretrained.model.patch_embed.backbone.stem.norm.\1"),
    (
        r"dpt\.embeddings\.backbone\.bit\.encoder\.stages\.(\d)\.layers\.(\d)\.(.+)",
        r"pretrained.model.patch_embed.backbone.stages.\1.blocks.\2.\3",
    ),
    (r"dpt\.layernorm\.(\w+)", r"pretrained.model.norm.\1"),
    (r"dpt\.encoder\.layer\.(\d+)\.layernorm_before\.(\w+)", r"pretrained.model.blocks.\1.norm1.\2"),
    (r"dpt\.encoder\.layer\.(\d+)\.layernorm_after\.(\w+)", r"pretrained.model.blocks.\1.norm2.\2"),
    (r"dpt\.encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"pretrained.model.blocks.\1.attn.proj.\2"),
    (r"dpt\.encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)", r"pretrained.model.blocks.\1.mlp.fc1.\2"),
    (r"dpt\.encoder\.layer\.(\d+)\.output\.dense\.(\w+)", r"pretrained.model.blocks.\1.mlp.fc2.\2"),
    (r"head\.head\.(\d)\.(\w+)", r"scratch.output_conv.\1.\2"),
]
NUMBERED = {
    r"neck\.reassemble_stage\.readout_projects\.(\d)\.0\.(\w+)": lambda n, rest: (
        f"pretrained.act_postprocess{n + 1}.0.project.0.{rest}"
    ),
    r"neck\.reassemble_stage\.layers\.(\d)\.projection\.(\w+)": lambda n, rest: (
        f"pretrained.act_postprocess{n + 1}.3.{rest}"
    ),
    r"neck\.reassemble_stage\.layers\.(\d)\.resize\.(\w+)": lambda n, rest: (
        f"pretrained.act_postprocess{n + 1}.4.{rest}"
    ),
    r"neck\.convs\.(\d)\.(\w+)": lambda n, rest: f"scratch.layer{n + 1}_rn.{rest}",
    r"neck\.fusion_stage\.layers\.(\d)\.projection\.(\w+)": lambda n, rest: f"scratch.refinenet{4 - n}.out_conv.{rest}",
}


def midas_name(name):
    for pattern, replacement in MIDAS:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    for pattern, build in NUMBERED.items():
        if match := re.fullmatch(pattern, name):
            return build(int(match[1]), match[2])
    match = re.fullmatch(r"neck\.fusion_stage\.layers\.(\d)\.residual_layer(\d)\.convolution(\d)\.(\w+)", name)
    assert match, name
    return f"scratch.refinenet{4 - int(match[1])}.resConfUnit{match[2]}.conv{match[3]}.{match[4]}"


@pytest.mark.parametrize("name", ["dpt_large", "dpt_hybrid"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_dpt_of_midas_is_read_as_the_hubs(tmp_path, name, wrapped):
    write_tiny_checkpoint(name, tmp_path)
    expected = load_file(tmp_path / name / "model.safetensors")
    midas = {}
    for key, tensor in expected.items():
        match = re.fullmatch(r"dpt\.encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(\w+)", key)
        if match is None:
            midas[midas_name(key)] = tensor
        elif match[2] == "query":
            three = [expected[key.replace("query", part)] for part in ("query", "key", "value")]
            midas[f"pretrained.model.blocks.{match[1]}.attn.qkv.{match[3]}"] = torch.cat(three)
    midas["pretrained.model.head.weight"] = torch.ones(2, 2)  # ImageNet's, of no use here
    torch.save({"model": midas, "optimizer": {}} if wrapped else midas, tmp_path / f"{name}_384.pt")
    found = read(readers.hub, tmp_path / f"{name}_384.pt")
    assert found.release == "MiDaS' own release of DPT"
    assert found.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found.tensors[key], tensor), key


def test_other_transformers_of_midas_are_named(tmp_path):
    torch.save({"pretrained.model.layers.0.blocks.0.norm1.weight": torch.ones(2)}, tmp_path / "dpt_swin2_large_384.pt")
    with pytest.raises(WeightsSourceError, match="a model of MiDaS that is neither DPT-Large nor DPT-Hybrid"):
        read(readers.hub, tmp_path / "dpt_swin2_large_384.pt")
