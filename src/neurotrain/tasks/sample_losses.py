"""The loss of each sample of a training batch alone, for whoever draws samples by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor


class TrainingOutput(TypedDict):
    """What a training step returns where the losses of samples were asked for.

    Attributes:
        loss: scalar, of the batch.
        sample_loss: float32 ``(B,)``, without gradient.
    """

    loss: Tensor
    sample_loss: Tensor


@runtime_checkable
class TellsSampleLosses(Protocol):
    """A task whose training step returns a :class:`TrainingOutput` once this is set.

    Attributes:
        tells_sample_losses: False, as it costs a second evaluation of the loss, sample by sample.
    """

    tells_sample_losses: bool


def sample_losses(loss: Callable[..., Tensor], *batched: Tensor) -> Tensor:
    """Evaluate a loss for each sample of a batch alone.

    Args:
        loss: of a batch; returns a scalar.
        batched: its arguments, ``(B, ...)`` each.

    Returns:
        float32 ``(B,)``, without gradient.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> sample_losses(cross_entropy, torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1])).round(decimals=3)
        tensor([0.6930, 0.0000])
    """
    with torch.no_grad():
        rows = zip(*(argument.detach().split(1) for argument in batched), strict=True)
        return torch.stack([loss(*row).float() for row in rows])
