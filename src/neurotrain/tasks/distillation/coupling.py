"""Which noise meets which data: drawn apart from one another, or paired so that the ways between them are short."""

from __future__ import annotations

import torch
from torch import Tensor

from neurotrain.diffusion import PreparedBatch
from neurotrain.tasks.distillation.base import Moment, noise_like


def paired_noise(x0: Tensor, noise: Tensor, *, size: int) -> Tensor:
    """The same noise in another order: within groups, the sum of all pairs' squared distances is the least.

    Each draw of noise is still used once and each point of data meets one, so both keep their distributions, and the
    flow from one to the other still ends in the data. Its trajectories cross less, so fewer steps follow them, and
    what a velocity is learnt from varies less.

    Args:
        x0: data ``(B, ...)``.
        noise: of the same shape.
        size: samples of a group; the last one may be smaller. The exact assignment costs its cube.

    Returns:
        Of the shape of ``noise``.

    Reference:
        Pooladian et al., 2023 (arXiv:2304.14772), section 3.2; Tong et al., 2023 (arXiv:2302.00482), section 4.2.

    Example:
        >>> paired_noise(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [-3.0]]), size=2)
        tensor([[-3.],
                [ 3.]])
    """
    from scipy.optimize import linear_sum_assignment

    made: list[Tensor] = []
    for data, drawn in zip(x0.split(size), noise.split(size), strict=True):
        distance = torch.cdist(data.flatten(1).float(), drawn.flatten(1).float()).square()
        _, chosen = linear_sum_assignment(distance.cpu().numpy())
        made.append(drawn[torch.from_numpy(chosen).to(drawn.device)])
    return torch.cat(made)


def coupled_noise(batch: PreparedBatch, moment: Moment, *, size: int) -> Tensor:
    """Noise for a batch's data, from the moment's generator.

    Args:
        batch: of training.
        moment: of the run.
        size: see :func:`paired_noise`; 1: drawn apart from the data.

    Raises:
        ValueError: if noise would be paired although something steers the samples.
    """
    noise = noise_like(batch.x0, moment)
    if size == 1:
        return noise
    if batch.condition:
        # Sampling draws the noise whatever the condition is; training on pairs would have made it depend on that.
        named = ", ".join(map(repr, batch.condition))
        raise ValueError(f"coupling={size} pairs noise with data that {named} steers: use coupling=1")
    return paired_noise(batch.x0, noise, size=size)
