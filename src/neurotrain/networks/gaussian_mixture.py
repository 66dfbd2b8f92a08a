"""A Gaussian mixture whose noisy versions are known in closed form: density, score, and the data's mean given a sample.

With ``x_t = alpha x_0 + sigma eps`` each component stays Gaussian, with mean ``alpha m`` and covariance
``alpha^2 C + sigma^2 I``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from neurotrain.networks.denoisers import Denoiser, PointMLP
from neurotrain.noise import NoiseSchedule, convert

__all__ = ["CorrectedMixture", "GaussianMixture"]

_MEANS = ((-1.5, -0.9), (1.5, -0.9), (0.0, 1.5), (-0.3, -0.2), (1.6, 1.2))
_STDS = ((0.45, 0.25), (0.3, 0.3), (0.5, 0.2), (0.2, 0.35), (0.25, 0.25))
_ANGLES = (35.0, 0.0, 10.0, -30.0, 0.0)
_WEIGHTS = (0.25, 0.2, 0.25, 0.15, 0.15)


class GaussianMixture(nn.Module):
    """K Gaussian components in the plane.

    Args:
        means: of the components.
        stds: standard deviations along each component's own two axes.
        angles: by which those axes are turned, in degrees.
        weights: of the components, above 0; they are divided by their sum.

    Raises:
        ValueError: if the lists differ in length, or a deviation or weight is not positive.

    Example:
        >>> single = GaussianMixture(means=((1.0, 0.0),), stds=((1.0, 1.0),), angles=(0.0,), weights=(1.0,))
        >>> half = torch.tensor([0.5**0.5])
        >>> single.mean_of_data(torch.zeros(1, 2), half, half)  # between the sample's and the prior's mean
        tensor([[0.5000, 0.0000]])
    """

    means: Tensor
    stds: Tensor
    axes: Tensor
    log_weights: Tensor

    def __init__(
        self,
        *,
        means: tuple[tuple[float, float], ...] = _MEANS,
        stds: tuple[tuple[float, float], ...] = _STDS,
        angles: tuple[float, ...] = _ANGLES,
        weights: tuple[float, ...] = _WEIGHTS,
    ) -> None:
        super().__init__()
        lengths = {
            name: len(given)
            for name, given in zip(("means", "stds", "angles", "weights"), (means, stds, angles, weights), strict=True)
        }
        if len(set(lengths.values())) != 1:
            raise ValueError(f"one entry a component is needed in each list; their lengths are {lengths}")
        if min(min(pair) for pair in stds) <= 0 or min(weights) <= 0:
            raise ValueError(f"stds={stds} and weights={weights}: all must be above 0")
        turns = torch.tensor(angles, dtype=torch.float64) * (math.pi / 180)
        cos, sin = turns.cos(), turns.sin()
        self.register_buffer("means", torch.tensor(means, dtype=torch.float64))
        self.register_buffer("stds", torch.tensor(stds, dtype=torch.float64))
        self.register_buffer("axes", torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2))
        share = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("log_weights", (share / share.sum()).log())

    @property
    def components(self) -> int:
        """Number K."""
        return len(self.means)

    def sample(self, count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw points.

        Args:
            count: number B.
            generator: on the CPU.

        Returns:
            float32 points ``(B, 2)`` and their components ``(B,)``.
        """
        weights = self.log_weights.exp().cpu()
        label = torch.multinomial(weights, count, replacement=True, generator=generator)
        spread = torch.randn(count, 2, generator=generator, dtype=torch.float64) * self.stds.cpu()[label]
        turned = torch.einsum("bij,bj->bi", self.axes.cpu()[label], spread)
        return (self.means.cpu()[label] + turned).float(), label

    def posterior(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Which component a noisy point comes from, and where its data would be then.

        Args:
            x_t: points ``(B, 2)``.
            alpha: weight of the data, ``(B,)``.
            sigma: weight of the noise, ``(B,)``; may be 0.

        Returns:
            Log joint density of sample and component ``(B, K)``, and the data's mean for each ``(B, K, 2)``.
        """
        means, stds, axes = (value.to(x_t.dtype) for value in (self.means, self.stds, self.axes))
        alpha, sigma = alpha.to(x_t.dtype)[:, None, None], sigma.to(x_t.dtype)[:, None, None]
        along_BK2 = torch.einsum("kij,bki->bkj", axes, x_t[:, None] - alpha * means)
        variance_BK2 = alpha.square() * stds.square() + sigma.square()
        exponent = (along_BK2.square() / variance_BK2 + variance_BK2.log()).sum(-1)
        log_joint = self.log_weights.to(x_t.dtype) - 0.5 * exponent - math.log(2 * math.pi)
        moved = torch.einsum("kij,bkj->bki", axes, alpha * stds.square() / variance_BK2 * along_BK2)
        return log_joint, means + moved

    def mean_of_data(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, *, label: Tensor | None = None) -> Tensor:
        """``E[x_0 | x_t]``, the best prediction of the data.

        Args:
            x_t: points ``(B, 2)``.
            alpha: weight of the data, ``(B,)``.
            sigma: weight of the noise, ``(B,)``.
            label: component that each point is known to come from, ``(B,)``.

        Returns:
            ``(B, 2)``.
        """
        log_joint, data = self.posterior(x_t, alpha, sigma)
        if label is not None:
            return data[torch.arange(len(data), device=data.device), label]
        return (log_joint.softmax(-1)[..., None] * data).sum(1)

    def score(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Gradient of the log density of noisy points, ``(alpha E[x_0 | x_t] - x_t) / sigma^2``; ``sigma`` above 0."""
        data = self.mean_of_data(x_t, alpha, sigma)
        return (alpha[:, None] * data - x_t) / sigma[:, None].square()

    def log_density(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Log density of noisy points, ``(B,)``."""
        return self.posterior(x_t, alpha, sigma)[0].logsumexp(-1)


@final
class CorrectedMixture(Denoiser):
    """The mixture's exact denoiser and a trained correction of its velocity, which is zero at first.

    What starting from a pretrained teacher's weights is where the teacher has none: a critic that begins as the
    teacher, and that can be it exactly in the end.

    Args:
        mixture: whose closed form it starts as.
        schedule: of the noise; the pipeline's.
        width: of the correction's layers, even.
        depth: number of its layers.
        embedding: size of what the time becomes in it, even; None: as ``width``.
        scalars: names of further numbers that steer the correction.

    Example:
        >>> from neurotrain.noise import FlowSchedule
        >>> mixture, schedule = GaussianMixture(), FlowSchedule()
        >>> network = CorrectedMixture(mixture=mixture, schedule=schedule, width=8, depth=1)
        >>> x_t, t = torch.randn(5, 2), torch.full((5,), 0.5)
        >>> exact = mixture.mean_of_data(x_t, schedule.alpha(t), schedule.sigma(t))
        >>> torch.allclose(x_t - 0.5 * network(x_t, t), exact, atol=1e-6)
        True
    """

    def __init__(
        self,
        *,
        mixture: GaussianMixture,
        schedule: NoiseSchedule,
        width: int = 64,
        depth: int = 3,
        embedding: int | None = None,
        scalars: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.mixture, self.schedule = mixture, schedule
        self.correction = PointMLP(width=width, depth=depth, embedding=embedding, scalars=scalars)
        nn.init.zeros_(self.correction.head.weight)
        nn.init.zeros_(self.correction.head.bias)
        self.prediction, self.channels, self.condition = "flow", 2, self.correction.condition

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """The velocity; see :meth:`Denoiser.forward`."""
        correction = self.correction(x_t, t, condition)
        exact = self.mixture.mean_of_data(x_t, self.schedule.alpha(t), self.schedule.sigma(t))
        return convert(exact, x_t, t, schedule=self.schedule, source="x0", target="flow") + correction

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Output of each layer of the correction, ``(B, width)``."""
        return self.correction.features(x_t, t, condition)
