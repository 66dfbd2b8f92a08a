from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neurotrain.networks.blocks import Attention, KeysValues, KeyValueCache, Rotary, TransformerLayer, WindowAttention


def _with_weights_of(reference: nn.MultiheadAttention, **changes: int) -> Attention:
    layer = Attention(width=reference.embed_dim, heads=reference.num_heads, **changes)
    weights = reference.in_proj_weight.chunk(3) if reference.in_proj_weight is not None else None
    if weights is None:
        weights = (reference.q_proj_weight, reference.k_proj_weight, reference.v_proj_weight)
    with torch.no_grad():
        for part, weight, bias in zip(
            (layer.query, layer.key, layer.value), weights, reference.in_proj_bias.chunk(3), strict=True
        ):
            part.weight.copy_(weight)
            part.bias.copy_(bias)
        layer.out.load_state_dict(reference.out_proj.state_dict())
    return layer.double()


def _reference(**changes: int) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, batch_first=True, **changes).double()
    nn.init.normal_(layer.in_proj_bias)
    return layer


def test_attention_to_itself_is_torchs_with_any_mask() -> None:
    reference = _reference()
    layer, x = _with_weights_of(reference), torch.randn(2, 5, 12, dtype=torch.float64)
    past = torch.ones(5, 5, dtype=torch.bool).tril()
    present = torch.tensor([[True] * 5, [True, True, True, False, False]])
    torch.testing.assert_close(layer(x), reference(x, x, x)[0])
    torch.testing.assert_close(layer(x, causal=True), reference(x, x, x, attn_mask=~past)[0])
    found = layer(x, mask=present[:, None, None], causal=True)
    torch.testing.assert_close(found, reference(x, x, x, attn_mask=~past, key_padding_mask=~present)[0])
    added = torch.randn(5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x, mask=added), reference(x, x, x, attn_mask=added)[0])
    both = layer(x, mask=added, causal=True)
    torch.testing.assert_close(both, reference(x, x, x, attn_mask=added.masked_fill(~past, float("-inf")))[0])


def test_attention_to_something_of_another_width_is_torchs() -> None:
    reference = _reference(kdim=7, vdim=7)
    layer = _with_weights_of(reference, context_width=7)
    x, context = torch.randn(2, 3, 12, dtype=torch.float64), torch.randn(2, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x, context), reference(x, context, context)[0])


def test_shared_heads_and_rotary_places_are_llamas() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=2, attention_bias=False, max_position_embeddings=32
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    reference = LlamaAttention(config, layer_idx=0)
    layer = Attention(width=16, heads=4, kv_heads=2, bias=False, rotary=Rotary(width=4))
    pairs = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    for ours, theirs in pairs.items():
        getattr(layer, ours).load_state_dict(getattr(reference, theirs).state_dict())
    x = torch.randn(2, 6, 16)
    turns = LlamaRotaryEmbedding(config)(x, torch.arange(6)[None])
    hidden = torch.full((6, 6), float("-inf")).triu(1)[None, None]
    expected = reference(x, position_embeddings=turns, attention_mask=hidden)[0]
    torch.testing.assert_close(layer(x, causal=True), expected, rtol=1e-5, atol=1e-6)


def test_places_one_after_another_give_what_all_at_once_gives() -> None:
    torch.manual_seed(0)
    layer = Attention(width=8, heads=4, kv_heads=2, rotary=Rotary(width=2))
    x = torch.randn(3, 6, 8)
    with torch.no_grad():
        whole = layer(x, causal=True)
        cache = KeyValueCache(capacity=6)
        pieces = [layer(part, causal=True, cache=cache) for part in x.split([2, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="capacity=6"), torch.no_grad():
        layer(x[:, :1], causal=True, cache=cache)


def test_a_cache_is_reordered_row_by_row() -> None:
    cache = KeyValueCache(capacity=2)
    rows = torch.arange(3.0)[:, None, None, None].expand(3, 1, 1, 2)
    cache.extend(KeysValues(rows, -rows))
    cache.reorder(torch.tensor([2, 2, 0]))
    found = cache.extend(KeysValues(rows, -rows))
    assert found.keys[:, 0, :, 0].tolist() == [[2, 0], [2, 1], [0, 2]]
    assert torch.equal(found.values, -found.keys)


@pytest.mark.parametrize(("size", "shift"), [((8, 8), 0), ((8, 12), 2), ((7, 10), 0), ((7, 10), 2)])
def test_window_attention_is_torchvisions(size: tuple[int, int], shift: int) -> None:
    from torchvision.models.swin_transformer import shifted_window_attention

    torch.manual_seed(0)
    layer = WindowAttention(width=8, heads=2, window=4, shift=shift).eval()
    nn.init.normal_(layer.offsets)
    x, own = torch.randn(2, *size, 8), layer.attention
    with torch.no_grad():
        found = layer(x)
        places = torch.tensor([[row, column] for row in range(4) for column in range(4)])
        between = places[:, None] - places[None] + 3
        bias = layer.offsets[between[..., 0] * 7 + between[..., 1]].permute(2, 0, 1)[None]
        expected: Tensor = shifted_window_attention(
            x,
            torch.cat([part.weight for part in (own.query, own.key, own.value)]),
            own.out.weight,
            bias,
            [4, 4],
            2,
            [shift, shift],
            qkv_bias=torch.cat([part.bias for part in (own.query, own.key, own.value)]),
            proj_bias=own.out.bias,
        )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_layer_without_context_is_torchs_with_norms_first() -> None:
    torch.manual_seed(0)
    reference = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
    layer = TransformerLayer(width=8, heads=2)
    layer.self_attention = _with_weights_of(reference.self_attn).float()
    for ours, theirs in (
        (layer.norm1, "norm1"),
        (layer.norm2, "norm2"),
        (layer.feed_forward.enter, "linear1"),
        (layer.feed_forward.leave, "linear2"),
    ):
        ours.load_state_dict(getattr(reference, theirs).state_dict())
    x = torch.randn(2, 5, 8)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(layer(x, causal=True), reference(x, src_mask=hidden), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Attention(width=10, heads=4), "width=10, heads=4"),
        (lambda: Attention(width=12, heads=4, kv_heads=3), "kv_heads=3"),
        (lambda: Attention(width=8, heads=2, dropout=1.0), "dropout=1.0"),
        (lambda: Attention(width=8, heads=2, rotary=Rotary(width=8)), "a head is 4 wide"),
        (lambda: WindowAttention(width=8, heads=2, window=4, shift=4), "shift=4"),
        (lambda: KeyValueCache(capacity=0), "capacity=0"),
        (lambda: Rotary(width=3), "width=3"),
    ],
)
def test_impossible_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # pyright: ignore[reportCallIssue]
