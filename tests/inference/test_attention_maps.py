"""Attention seen from outside: against timm's own unfused computation, by hand, and what has none."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.inference import attention_evidence, attention_rollout, recorded_attention
from neurotrain.networks.blocks import Attention, WindowAttention
from neurotrain.networks.classification import ResNetSmall, Timm, VisionTransformer
from neurotrain.networks.classification.base import Classifier, TokenLayout


def test_rollout_is_the_papers_recursion_by_hand() -> None:
    torch.manual_seed(0)
    layers = [torch.randn(2, 4, 4, dtype=torch.float64).softmax(2) for _ in range(3)]
    # Appendix A.1, token by token: v(l)_i = sum_j a_ij v(l-1)_j with a = (W + I) / 2.
    for image in range(2):
        before = [[float(i == j) for j in range(4)] for i in range(4)]
        for layer in layers:
            own = layer[image].tolist()
            before = [
                [sum((own[i][k] + (i == k)) / 2 * before[k][j] for k in range(4)) for j in range(4)] for i in range(4)
            ]
        torch.testing.assert_close(attention_rollout(layers)[image], torch.tensor(before, dtype=torch.float64))
    torch.testing.assert_close(attention_rollout(layers).sum(2), torch.ones(2, 4, dtype=torch.float64))
    for wrong in ([], [torch.zeros(1, 2, 3)]):
        with pytest.raises(ValueError, match="at least one"):
            attention_rollout(wrong)


def _unfused(network: nn.Module, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Timm's own way: fused attention off, and what stands before the dropout of the weights."""
    maps: list[Tensor] = []
    handles = []
    for module in network.modules():
        if "fused_attn" in vars(module) and "attn_drop" in dict(module.named_children()):
            module.fused_attn = False  # pyright: ignore
            kept = module.attn_drop.register_forward_pre_hook(lambda _, given: maps.append(given[0].mean(1)))  # pyright: ignore
            handles.append(kept)
    with torch.no_grad():
        logits = network(image)
    for module in network.modules():
        if "fused_attn" in vars(module) and "attn_drop" in dict(module.named_children()):
            module.fused_attn = True  # pyright: ignore
    for handle in handles:
        handle.remove()
    return logits, maps


@pytest.mark.parametrize("name", ["test_vit", "test_vit3", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"])
def test_what_is_seen_of_timm_is_its_own_attention_and_logits_stay_equal(name: str) -> None:
    import timm

    torch.manual_seed(0)
    small = {} if name.startswith("test") else {"img_size": 56 if "eva" in name else 64, "depth": 2, "num_heads": 3}
    small |= {"embed_dim": 48} if small else {}
    network = Timm(name="test_vit", num_classes=3).eval()
    network.network = timm.create_model(name, num_classes=3, **small).eval()
    edge = network.network.patch_embed.img_size[0]  # pyright: ignore
    image = torch.randn(2, 3, edge, edge)
    with torch.no_grad():
        plain = network(image)
        found, maps = recorded_attention(lambda: network(image))
    assert torch.equal(found, plain)
    theirs, wanted = _unfused(network.network, image)
    layout = network.token_layout()
    pools = layout.read is None
    torch.testing.assert_close(theirs, plain, rtol=1e-4, atol=1e-5)
    assert len(maps) == layout.layers + pools
    for own, other in zip(maps, wanted, strict=False):  # timm's pooling has no dropout to look at
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)
    patches = (edge // layout.patch[0]) ** 2
    assert maps[0].shape == (2, layout.prefix + patches, layout.prefix + patches)
    for kind in ("attention_rollout", "last_attention"):
        seen = attention_evidence(network, image, kind=kind)
        assert seen.shape == (2, edge, edge)
        assert seen.min() >= 0
        assert seen.amax((1, 2)) == pytest.approx([1.0, 1.0], abs=0.35)


@pytest.mark.parametrize("pool", ["class_token", "mean"])
def test_evidence_of_an_own_transformer_is_its_maps_laid_over_the_image(pool: str) -> None:
    torch.manual_seed(0)
    network = VisionTransformer(width=8, layers=2, heads=2, kv_heads=1, pool=pool, registers=1).eval()  # pyright: ignore
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
        image = torch.randn(2, 3, 8, 12)
        plain = network(image)
        found, maps = recorded_attention(lambda: network(image))
    assert torch.equal(found, plain)
    assert [tuple(each.shape) for each in maps] == [(2, 8 - (pool == "mean"), 8 - (pool == "mean"))] * 2
    first = 1 + (pool == "class_token")
    asking = maps[1][:, :1] if pool == "class_token" else maps[1][:, first:].mean(1, keepdim=True)
    last = asking[:, 0, first:].view(2, 2, 3)
    rolled = attention_rollout(maps)
    rolled = (rolled[:, 0] if pool == "class_token" else rolled[:, first:].mean(1))[:, first:].view(2, 2, 3)
    for kind, grid in (("last_attention", last), ("attention_rollout", rolled)):
        wanted = F.interpolate(grid[:, None] / grid.amax((1, 2), keepdim=True)[:, None], (8, 12), mode="bilinear")
        torch.testing.assert_close(attention_evidence(network, image, kind=kind), wanted[:, 0])  # pyright: ignore


def test_weights_with_masks_shared_heads_and_causality_are_those_that_mix_the_values() -> None:
    torch.manual_seed(0)
    places = torch.eye(5).view(1, 1, 5, 5)
    query, key = torch.randn(2, 4, 5, 5), torch.randn(2, 2, 5, 5)
    value = places.expand(2, 2, 5, 5)  # the mixture of unit vectors is the weights
    allowed = torch.rand(2, 1, 5, 5) > 0.3
    allowed |= torch.eye(5, dtype=torch.bool)
    for options in (
        {"is_causal": True},
        {"attn_mask": allowed},
        {"attn_mask": torch.randn(5, 5)},
        {"scale": 0.3},
    ):
        mixed, maps = recorded_attention(
            lambda options=options: F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **options)
        )
        torch.testing.assert_close(maps[0], mixed.mean(1), rtol=1e-5, atol=1e-6)


def test_every_block_that_attends_is_seen() -> None:
    x = torch.randn(1, 6, 8)
    assert recorded_attention(lambda: Attention(width=8, heads=2)(x))[1][0].shape == (1, 6, 6)
    window = WindowAttention(width=8, heads=2, window=2, shift=1)
    assert recorded_attention(lambda: window(torch.randn(1, 4, 6, 8)))[1][0].shape == (6, 4, 4)
    assert recorded_attention(lambda: x)[1] == []


class _Elsewhere(Classifier):
    """Attends, but not by torch's function."""

    num_classes = 1
    in_channels = 3

    def logits(self, x_BCHW: Tensor) -> Tensor:
        tokens = x_BCHW.flatten(2)
        return ((tokens @ tokens.mT) / math.sqrt(2)).softmax(2).mean(2)

    def depths(self) -> dict[str, int]:
        return {}

    def evidence_layer(self) -> nn.Module:
        raise ValueError("none")

    def token_layout(self) -> TokenLayout:
        return TokenLayout(layers=1, patch=(1, 1), prefix=0, read=slice(0, None))


def test_a_network_without_attention_is_refused_by_name() -> None:
    image = torch.randn(1, 3, 64, 64)
    for network, message in (
        (ResNetSmall(), "ResNetSmall has no attention"),
        (Timm(name="test_resnet"), "ResNet of timm has no attention"),
        (_Elsewhere(), "0 calls of scaled_dot_product_attention were seen of _Elsewhere's 1"),
    ):
        with pytest.raises(ValueError, match=message):
            attention_evidence(network, image, kind="attention_rollout")
