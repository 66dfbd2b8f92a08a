from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from neurotrain.losses.tokens import token_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_mean_over_the_tokens_that_count(smoothing: float) -> None:
    logits = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    target, valid = torch.randint(7, (3, 5)), torch.rand(3, 5) > 0.3
    found = token_cross_entropy(logits, target, valid, label_smoothing=smoothing)
    log_p = logits.detach().log_softmax(2)
    own = log_p.gather(2, target[..., None])[..., 0]
    by_hand = -((1 - smoothing) * own + smoothing * log_p.mean(2))[valid].mean()
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(found, F.cross_entropy(logits[valid], target[valid], label_smoothing=smoothing))
    (gradient,) = torch.autograd.grad(found, logits)
    assert (gradient[~valid] == 0).all()
    assert (gradient[valid].abs().sum(1) > 0).all()
    assert torch.autograd.gradcheck(lambda x: token_cross_entropy(x, target, valid, label_smoothing=smoothing), logits)


def test_half_precision_is_computed_in_float32_and_nothing_to_count_is_zero() -> None:
    logits = torch.randn(1, 2, 3, dtype=torch.bfloat16, requires_grad=True)
    loss = token_cross_entropy(logits, torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.item() == 0.0
    loss.backward()
    assert logits.grad is not None
    with pytest.raises(ValueError, match="expected"):
        token_cross_entropy(logits, torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.bool))
