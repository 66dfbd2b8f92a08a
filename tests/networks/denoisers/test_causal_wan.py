"""Wan's transformer looking back only: by the same weights, with a cache of what was before."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from neurotrain.networks.denoisers import CausalWanTransformer, Past, WanTransformer, look_back
from neurotrain.noise import FlowSchedule

TEXT = {"text": torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(3))}
GIVEN: dict[str, Any] = {"schedule": FlowSchedule(shift=3.0), "prediction": "flow", "condition": {"text": (8, 16)}}


def transformer(folded: int = 1) -> Any:  # noqa: ANN401 - of diffusers
    """Two layers; tokens of ``folded`` frames of 2 by 2."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    return WanTransformer3DModel(
        patch_size=(folded, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def causal(chunk: int, folded: int = 1) -> CausalWanTransformer:
    return CausalWanTransformer(model=transformer(folded), frames=6, chunk=chunk, **GIVEN)


def noisy(chunk: int) -> tuple[Tensor, Tensor]:
    """Two videos of six latent frames, and a time for each chunk."""
    generator = torch.Generator().manual_seed(1)
    times = torch.rand(2, 1, 6 // chunk, 1, 1, generator=generator).repeat_interleave(chunk, 2)
    return torch.randn(2, 4, 6, 4, 6, generator=generator), times


@pytest.mark.parametrize(("chunk", "folded"), [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_with_the_cache_a_rollout_is_the_forward_pass(chunk: int, folded: int) -> None:
    made = causal(chunk, folded)
    x_t, t = noisy(chunk)
    past: Past | None = None
    found: list[Tensor] = []
    for first in range(0, 6, chunk):
        part, past = made.extend(x_t[:, :, first : first + chunk], t[:, 0, first, 0, 0], TEXT, past=past)
        found.append(part)
    torch.testing.assert_close(torch.cat(found, 2), made(x_t, t, TEXT), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="the video is over: 6 of 6 frames are there"):
        made.extend(x_t[:, :, :chunk], t[:, 0, 0, 0, 0], TEXT, past=past)


def test_attention_is_diffusers_own_where_a_chunk_is_everything() -> None:
    x_t, _ = noisy(1)
    plain = WanTransformer(model=transformer(), **GIVEN)
    half = torch.tensor([0.3, 0.7])
    torch.testing.assert_close(causal(6)(x_t, half, TEXT), plain(x_t, half, TEXT), rtol=0, atol=1e-6)
    # One time of all is that time of each; the first chunk of many is a video of its own.
    made = causal(2)
    torch.testing.assert_close(made(x_t, half, TEXT), made(x_t, half.view(2, 1, 1, 1, 1).expand(2, 1, 6, 1, 1), TEXT))
    alone = plain(x_t[:, :, :2], half, TEXT)
    torch.testing.assert_close(made(x_t, half, TEXT)[:, :, :2], alone, rtol=0, atol=1e-6)
    assert (made(x_t, half, TEXT) - plain(x_t, half, TEXT)).abs().max() > 1e-2


def test_a_chunk_sees_itself_and_what_was_before() -> None:
    made = causal(2)
    x_t, t = noisy(2)
    before = made(x_t, t, TEXT)
    x_t[:, :, 3] += 1.0  # the second frame of the second chunk
    after = (made(x_t, t, TEXT) - before).abs().amax((0, 1, 3, 4))
    assert after[:2].max() == 0
    assert after[2:].min() > 1e-4


def test_the_past_of_a_rollout_is_of_its_own_time_and_carries_gradients_where_wanted() -> None:
    made = causal(3)
    x_t, t = noisy(3)
    first, past = made.extend(x_t[:, :, :3], t[:, 0, 0, 0, 0], TEXT)
    kept = [part.keys.clone() for part in past]
    made.extend(x_t[:, :, 3:], t[:, 0, 3, 0, 0], TEXT, past=past)[0].square().sum().backward()
    assert all(torch.equal(one, part.keys) for one, part in zip(kept, past, strict=True))
    assert made.model.patch_embedding.weight.grad is not None
    assert first.requires_grad


def test_copies_do_not_look_at_each_other_s_past() -> None:
    made = causal(3)
    twin = copy.deepcopy(made)
    x_t, t = noisy(3)
    whole = made(x_t, t, TEXT)
    _, past = made.extend(x_t[:, :, :3], t[:, 0, 0, 0, 0], TEXT)
    part, _ = made.extend(x_t[:, :, 3:], t[:, 0, 3, 0, 0], TEXT, past=past)
    torch.testing.assert_close(part, whole[:, :, 3:], rtol=0, atol=1e-5)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(made(x_t, t, TEXT), whole)
    assert not torch.allclose(twin(x_t, t, TEXT), whole)
    assert made.state_dict().keys() == WanTransformer(model=transformer(), **GIVEN).state_dict().keys()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk=4: expected a divisor of the 6 latent frames, and a multiple of the 1"):
        causal(4)
    with pytest.raises(ValueError, match=r"chunk=3: expected .* a multiple of the 2 of a token"):
        causal(3, 2)
    made = causal(2)
    x_t, t = noisy(2)
    with pytest.raises(ValueError, match="the model looks back already: load it anew for another chunk"):
        look_back(made.model, chunk=1)
    with pytest.raises(ValueError, match=r"expected 2 frames, those of a chunk"):
        made.extend(x_t, t, TEXT)
    with pytest.raises(ValueError, match=r"times of shape \(2, 1, 3, 1, 1\)"):
        made(x_t, t[:, :, :3], TEXT)
    model: Any = made.model
    model.enable_gradient_checkpointing()
    with pytest.raises(ValueError, match="gradient checkpointing asks the attention again when its past is gone"):
        made(x_t, t, TEXT)
