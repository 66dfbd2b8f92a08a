"""The text encoder: padding is not seen, the vocabulary is part of the state, torch's own transformer agrees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from neurotrain.networks.text import TextTransformer, WordTokenizer


def build(**options: Any) -> TextTransformer:  # noqa: ANN401 - of the constructor
    torch.manual_seed(0)
    tokenizer = WordTokenizer(size=300)
    tokenizer.learn(["a cat and a dog"])
    return TextTransformer(tokenizer=tokenizer, width=8, layers=2, heads=2, length=12, **options)


@pytest.mark.parametrize("options", [{}, {"causal": False}, {"pooling": "mean"}, {"causal": False, "pooling": "mean"}])
def test_a_text_does_not_see_its_padding(options: dict[str, Any]) -> None:
    encoder = build(**options).eval()
    tokens = encoder.tokenize(["a cat", "a cat and a dog and a cat"])
    alone = encoder.tokenize(["a cat"])
    assert alone.shape[1] < tokens.shape[1]
    with torch.no_grad():
        together, single = encoder(tokens), encoder(alone)
    torch.testing.assert_close(together.pooled[:1], single.pooled)
    torch.testing.assert_close(together.sequence[:1, : alone.shape[1]], single.sequence)
    assert together.valid.sum(1).tolist() == [alone.shape[1], tokens.shape[1]]


def test_every_parameter_learns_but_those_of_unseen_tokens_and_places() -> None:
    encoder = build(dropout=0.1)
    encoder(encoder.tokenize(["a cat"])).pooled.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_it_is_torchs_own_encoder_of_the_same_weights() -> None:
    ours = build().eval()
    layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False).eval()
    renamed: dict[str, torch.Tensor] = {}
    parts = {
        "qkv.weight": "self_attn.in_proj_weight",
        "qkv.bias": "self_attn.in_proj_bias",
        "out": "self_attn.out_proj",
        "rise": "linear1",
        "fall": "linear2",
    }
    state = {name: value for name, value in ours.state_dict().items() if isinstance(value, torch.Tensor)}
    for name, value in state.items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            for mine, other in parts.items():
                rest = rest.replace(mine, other, 1) if rest.startswith(mine) else rest
            renamed[f"layers.{number}.{rest}"] = value
        elif name.startswith("norm."):
            renamed[name] = value
    theirs.load_state_dict(renamed)
    tokens = ours.tokenize(["a cat and a dog"])
    with torch.no_grad():
        x = ours.tokens(tokens) + ours.positions[: tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        torch.testing.assert_close(ours(tokens).sequence, theirs(x, mask=mask, is_causal=True), rtol=1e-5, atol=1e-6)


def test_whoever_loads_the_weights_has_the_vocabulary() -> None:
    first = build().eval()
    second = TextTransformer(tokenizer=WordTokenizer(size=300), width=8, layers=2, heads=2, length=12).eval()
    second.load_state_dict(first.state_dict())
    tokens = second.tokenize(["a dog"])
    assert torch.equal(tokens, first.tokenize(["a dog"]))
    with torch.no_grad():
        assert torch.equal(second(tokens).pooled, first(tokens).pooled)


@pytest.mark.parametrize(
    ("options", "told"), [({"dropout": 1.0}, "dropout=1.0"), ({"pooling": "max"}, "pooling='max'")]
)
def test_what_cannot_be_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build(**options)
    with pytest.raises(ValueError, match="at most 12"):
        build()(torch.zeros(1, 13, dtype=torch.int64))
