from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neurotrain.networks.blocks import (
    AttentionGate,
    ChannelNorm,
    FeedForward,
    LearnedPositions,
    NumberEmbedding,
    PatchEmbedding,
    PrefixTokens,
    RelativeBias,
    SqueezeExcite,
    grid_positions,
    number_features,
    sequence_norm,
    sinusoidal_positions,
)


def test_sinusoids_are_timms_on_a_grid_and_shift_with_their_start() -> None:
    from timm.layers import build_sincos2d_pos_embed

    # Theirs: sines of both axes, then cosines of both; ours alternate, axis by axis.
    theirs = build_sincos2d_pos_embed([3, 5], 16).reshape(15, 2, 2, 4).permute(0, 2, 3, 1).reshape(3, 5, 16)
    torch.testing.assert_close(grid_positions(3, 5, 16), theirs)
    torch.testing.assert_close(sinusoidal_positions(9, 6)[4:], sinusoidal_positions(5, 6, start=4))
    with pytest.raises(ValueError, match="width=5"):
        sinusoidal_positions(2, 5)
    with pytest.raises(ValueError, match="channels=6"):
        grid_positions(2, 2, 6)


@pytest.mark.parametrize("both_sides", [True, False])
def test_relative_biases_are_those_of_t5(both_sides: bool) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(
        num_heads=2, d_model=8, d_kv=4, relative_attention_num_buckets=8, relative_attention_max_distance=20
    )
    config.is_decoder = not both_sides
    reference = T5Attention(config, has_relative_attention_bias=True)
    ours = RelativeBias(heads=2, classes=8, farthest=20, both_sides=both_sides)
    ours.table.load_state_dict(reference.relative_attention_bias.state_dict())
    torch.testing.assert_close(ours(30, 40), reference.compute_bias(30, 40))
    torch.testing.assert_close(ours(3, 40, start=7), ours(30, 40)[:, :, 7:10])
    with pytest.raises(ValueError, match="farthest=2"):
        RelativeBias(heads=1, classes=8, farthest=2)


def test_learned_positions_go_on_and_end() -> None:
    layer, x = LearnedPositions(length=5, width=4), torch.randn(2, 5, 4)
    torch.testing.assert_close(layer(x), x + layer.table)
    torch.testing.assert_close(layer(x[:, 3:], start=3), layer(x)[:, 3:])
    with pytest.raises(ValueError, match="6 places"):
        layer(x, start=1)


def test_norms_are_those_of_other_libraries() -> None:
    from timm.layers import LayerNorm2d
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    x = torch.randn(2, 6, 8)
    ours, theirs = sequence_norm("rms", 8, eps=1e-6), LlamaRMSNorm(8, eps=1e-6)
    weight = torch.randn(8)
    for layer in (ours, theirs):
        layer.weight.data.copy_(weight)  # pyright: ignore
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(sequence_norm("layer", 8)(x), F.layer_norm(x, (8,)))
    maps, channels, reference = torch.randn(2, 6, 3, 4), ChannelNorm(channels=6), LayerNorm2d(6)
    nn.init.normal_(reference.weight)
    channels.norm.load_state_dict(reference.state_dict())
    torch.testing.assert_close(channels(maps), reference(maps))
    with pytest.raises(ValueError, match="did you mean 'layer'"):
        sequence_norm("layr", 8)  # pyright: ignore[reportArgumentType]


def test_gates_of_sequences_are_llamas_and_timms() -> None:
    from timm.layers import GluMlp
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    x = torch.randn(2, 3, 8)
    ours, llama = (
        FeedForward(width=8, hidden=12, activation="swiglu", bias=False),
        LlamaMLP(LlamaConfig(hidden_size=8, intermediate_size=12, num_attention_heads=2)),
    )
    for name, theirs in (("gate", "gate_proj"), ("enter", "up_proj"), ("leave", "down_proj")):
        getattr(ours, name).load_state_dict(getattr(llama, theirs).state_dict())
    torch.testing.assert_close(ours(x), llama(x))
    for activation, layer in (("geglu", nn.GELU), ("reglu", nn.ReLU), ("glu", nn.Sigmoid)):
        timm, own = (
            GluMlp(8, 24, act_layer=layer, gate_last=False),
            FeedForward(width=8, hidden=12, activation=activation),
        )  # pyright: ignore
        with torch.no_grad():
            for part, weight, bias in zip(
                (own.gate, own.enter), timm.fc1.weight.chunk(2), timm.fc1.bias.chunk(2), strict=True
            ):
                assert part is not None
                part.weight.copy_(weight)
                part.bias.copy_(bias)
            own.leave.load_state_dict(timm.fc2.state_dict())
        torch.testing.assert_close(own(x), timm(x))
    plain = FeedForward(width=8, hidden=12, activation="silu")
    torch.testing.assert_close(plain(x), plain.leave(F.silu(plain.enter(x))))


def test_squeeze_and_excite_is_timms_in_two_and_three_dimensions() -> None:
    from timm.layers import SEModule

    reference, ours = SEModule(16, rd_channels=4), SqueezeExcite(channels=16, reduction=4)
    ours.reduce.load_state_dict(reference.fc1.state_dict())
    ours.expand.load_state_dict(reference.fc2.state_dict())
    x = torch.randn(2, 16, 5, 6)
    torch.testing.assert_close(ours(x), reference(x))
    volume = SqueezeExcite(channels=16, reduction=4, dims=3)
    for name in ("reduce", "expand"):
        getattr(volume, name).weight.data.copy_(getattr(ours, name).weight[..., None])
        getattr(volume, name).bias.data.copy_(getattr(ours, name).bias)
    torch.testing.assert_close(volume(x[..., None].expand(-1, -1, -1, -1, 3))[..., 0], reference(x))


@pytest.mark.parametrize("dims", [2, 3])
def test_an_attention_gate_is_monais(dims: int) -> None:
    from monai.networks.nets.attentionunet import AttentionBlock

    torch.manual_seed(0)
    reference = AttentionBlock(spatial_dims=dims, f_int=2, f_g=6, f_l=4)
    gate = AttentionGate(skip_channels=4, gate_channels=6, dims=dims)  # pyright: ignore[reportArgumentType]
    pairs = (
        (gate.gate, gate.gate_norm, reference.W_g),
        (gate.skip, gate.skip_norm, reference.W_x),
        (gate.weight, gate.weight_norm, reference.psi),
    )
    for convolution, norm, theirs in pairs:
        convolution.load_state_dict(theirs[0].conv.state_dict())  # pyright: ignore
        norm.load_state_dict(theirs[1].state_dict())
    size = (7, 6, 5)[:dims]
    skip, raised = torch.randn(2, 4, *size), torch.randn(2, 6, *size)
    torch.testing.assert_close(gate(skip, raised), reference(raised, skip))
    torch.testing.assert_close(gate.eval()(skip, raised), reference.eval()(raised, skip))


def test_embeddings_are_those_of_timm_and_diffusers() -> None:
    from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
    from timm.layers import PatchEmbed

    reference, ours = (
        PatchEmbed(img_size=8, patch_size=4, in_chans=2, embed_dim=6),
        PatchEmbedding(in_channels=2, width=6, patch=4),
    )
    ours.project.load_state_dict(reference.proj.state_dict())
    image = torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(ours(image), reference(image))
    with pytest.raises(ValueError, match="multiple of 4"):
        ours(torch.zeros(1, 2, 8, 9))
    steps = torch.tensor([0.0, 1.0, 500.0, 999.0])
    theirs = get_timestep_embedding(steps, 16, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(number_features(steps, 16), theirs, rtol=1e-4, atol=1e-4)
    layers, number = TimestepEmbedding(16, 8), NumberEmbedding(width=8, features=16)
    number.enter.load_state_dict(layers.linear_1.state_dict())
    number.leave.load_state_dict(layers.linear_2.state_dict())
    torch.testing.assert_close(number(steps), layers(theirs), rtol=1e-4, atol=1e-4)
    assert torch.equal(PrefixTokens(count=2, width=6)(ours(image))[:, 2:], ours(image))
