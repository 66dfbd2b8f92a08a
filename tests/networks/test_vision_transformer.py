"""The transformer of our own blocks: against timm's, its places and tokens, and what it refuses."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from neurotrain.networks.blocks import grid_positions
from neurotrain.networks.classification import VisionTransformer

SMALL = {"width": 16, "layers": 2, "heads": 2}


@pytest.mark.parametrize("pool", ["class_token", "mean"])
def test_it_is_timms_of_the_same_shape(pool: str) -> None:
    from timm.models.vision_transformer import VisionTransformer as Theirs

    torch.manual_seed(0)
    theirs = Theirs(
        img_size=(8, 12),
        patch_size=4,
        num_classes=5,
        embed_dim=16,
        depth=2,
        num_heads=2,
        class_token=pool == "class_token",
        global_pool="token" if pool == "class_token" else "avg",
        fc_norm=False,
        reg_tokens=2,
        no_embed_class=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    ).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = VisionTransformer(num_classes=5, image_size=(8, 12), pool=pool, registers=2, **SMALL).eval()  # pyright: ignore
    renamed: dict[str, torch.Tensor] = {}
    for name, value in theirs.state_dict().items():
        name = name.replace("patch_embed.proj", "patches.project").replace("blocks", "layers")
        name = name.replace("attn.proj", "self_attention.out").replace("mlp.fc1", "feed_forward.enter")
        name = name.replace("mlp.fc2", "feed_forward.leave")
        if "attn.qkv" in name:
            for part, each in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"self_attention.{part}")] = each
        elif name not in ("cls_token", "reg_token", "pos_embed"):
            renamed[name] = value
    tokens = [theirs.reg_token] if theirs.cls_token is None else [theirs.cls_token, theirs.reg_token]
    renamed["prefix.tokens"] = torch.cat(tokens, 1)[0]
    renamed["positions.table"] = theirs.pos_embed[0]
    ours.load_state_dict(renamed)
    image = torch.randn(2, 3, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


def test_sines_tell_the_places_of_images_of_any_size() -> None:
    torch.manual_seed(0)
    network = VisionTransformer(pool="mean", **SMALL).eval()
    image = torch.randn(1, 3, 8, 12)
    seen: list[torch.Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(image)
        torch.testing.assert_close(seen[0] - network.patches(image), grid_positions(2, 3, 16).flatten(0, 1)[None])
        assert network(torch.randn(1, 3, 16, 4)).shape == (1, 10)


def test_every_parameter_learns_and_has_a_depth() -> None:
    network = VisionTransformer(kv_heads=1, norm="rms", activation="swiglu", registers=1, image_size=(8, 8), **SMALL)
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    depths = network.depths()
    assert set(depths) == {name for name, _ in network.named_parameters()}
    assert set(depths.values()) == {0, 1, 2, 3}
    assert depths["prefix.tokens"] == depths["patches.project.weight"] == 0
    assert depths["layers.1.norm1.weight"] == 2
    assert depths["head.bias"] == depths["norm.weight"] == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VisionTransformer(width=18, heads=2), "width=18"),
        (lambda: VisionTransformer(image_size=(30, 32)), r"image_size=\(30, 32\)"),
        (lambda: VisionTransformer(width=16, heads=3), "heads=3"),
        (lambda: VisionTransformer(registers=-1), "registers=-1"),
        (lambda: VisionTransformer(pool="max"), "pool='max'"),  # pyright: ignore
        (lambda: VisionTransformer(image_size=(8, 8), **SMALL)(torch.zeros(1, 3, 8, 12)), "places are learnt"),
        (lambda: VisionTransformer(**SMALL)(torch.zeros(1, 1, 8, 8)), "expected"),
        (lambda: VisionTransformer(**SMALL)(torch.zeros(1, 3, 9, 8)), "multiple of 4"),
        (lambda: VisionTransformer(**SMALL).evidence_layer(), "no map of features"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # pyright: ignore
