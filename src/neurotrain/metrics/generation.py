"""Running distances of generated samples to real ones; the maths are in :mod:`neurotrain.metrics.functional`.

Features come from any callable. Given a module, the metric moves and saves it as its own; it is called without
gradients in the mode that it is in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from neurotrain.metrics.functional.generation import (
    FeatureMoments,
    check_subsets,
    checked_features,
    feature_moments,
    frechet_distance,
    kernel_distance,
    merge_moments,
)
from neurotrain.metrics.functional.generation_manifold import manifold_scores
from neurotrain.metrics.records import Plotted, SampleRecords, bits_float, float_bits

FeatureExtractor = Callable[[Tensor], Tensor]
"""From samples to floats ``(N, D)``."""


def _extract(samples: Tensor, extractor: FeatureExtractor | None, features: int) -> Tensor:
    with torch.no_grad():
        found = samples if extractor is None else extractor(samples)
    values = checked_features("features", found)
    if values.shape[1] != features:
        raise ValueError(f"the features are {values.shape[1]} numbers, but features={features}")
    return values


class FrechetDistance(Plotted):
    """Fréchet distance between all real and all generated samples.

    See :func:`neurotrain.metrics.functional.frechet_distance`. Mean and covariance are accumulated in float64, so that
    the memory needed does not grow with the number of samples.

    Example:
        >>> metric = FrechetDistance(features=1)
        >>> metric.update(torch.tensor([[0.0], [2.0]]), real=True)
        >>> metric.update(torch.tensor([[3.0], [5.0]]), real=False)
        >>> metric.compute().item()
        9.0
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    def __init__(self, *, features: int = 2048, extractor: FeatureExtractor | None = None) -> None:
        """Set the features.

        Args:
            features: D.
            extractor: from samples to floats ``(N, D)``; None where the samples are features.

        Raises:
            ValueError: if there is no feature.
        """
        super().__init__()
        if features < 1:
            raise ValueError(f"features={features} must be at least 1")
        self.features = features
        self.extractor = extractor
        for name in ("real", "generated"):
            # bits of float64, which no cast of the module touches; ranks are merged in compute
            for part, shape in (("number", ()), ("mean", (features,)), ("scatter", (features, features))):
                self.add_state(f"{name}_{part}", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx=None)

    def update(self, samples: Tensor, *, real: bool) -> None:
        """Add samples.

        Args:
            samples: what the extractor takes.
            real: whether they are real.

        Raises:
            ValueError: if the features have another shape or are not finite.
        """
        name = "real" if real else "generated"
        found = feature_moments(_extract(samples, self.extractor, self.features))
        merged = merge_moments(self._moments(name), FeatureMoments(*(part.to(self.device) for part in found)))
        self._set(name, merged)

    def _set(self, name: str, moments: FeatureMoments) -> None:
        setattr(self, f"{name}_number", moments.number)
        setattr(self, f"{name}_mean", float_bits(moments.mean))
        setattr(self, f"{name}_scatter", float_bits(moments.scatter))

    def _moments(self, name: str) -> FeatureMoments:
        """Of this rank, or within a sync of all ranks."""
        state = self.metric_state
        number, mean, scatter = (torch.as_tensor(state[f"{name}_{part}"]) for part in ("number", "mean", "scatter"))
        ranks = [
            FeatureMoments(*parts)
            for parts in zip(
                number.reshape(-1),
                bits_float(mean).reshape(-1, self.features),
                bits_float(scatter).reshape(-1, self.features, self.features),
                strict=True,
            )
        ]
        merged = ranks[0]
        for moments in ranks[1:]:
            merged = merge_moments(merged, moments)
        return merged

    def compute(self) -> Tensor:
        """Distance of all samples of all ranks, float64.

        Raises:
            ValueError: if there are fewer than two real or generated samples.
        """
        return frechet_distance(self._moments("real"), self._moments("generated"))


class _FeatureRecords(SampleRecords):
    """Features of all samples, in float32."""

    is_differentiable = False

    def __init__(self, *, features: int, extractor: FeatureExtractor | None) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features={features} must be at least 1")
        self.features = features
        self.extractor = extractor
        self._add_rows("real", shape=(features,), dtype=torch.int32)
        self._add_rows("generated", shape=(features,), dtype=torch.int32)

    def update(self, samples: Tensor, *, real: bool) -> None:
        """Add samples.

        Args:
            samples: what the extractor takes.
            real: whether they are real.

        Raises:
            ValueError: if the features have another shape or are not finite.
        """
        found = _extract(samples, self.extractor, self.features)
        self._append("real" if real else "generated", found.float().contiguous().view(torch.int32))

    def _features(self) -> tuple[Tensor, Tensor]:
        real, generated = (self._rows(name).contiguous().view(torch.float32) for name in ("real", "generated"))
        return real, generated

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Figures of all samples of all ranks."""


class KernelDistance(_FeatureRecords):
    """Kernel distance between all real and all generated samples.

    See :func:`neurotrain.metrics.functional.kernel_distance`. The subsets are drawn from the seed, so that every call
    and every rank gives the same figure.

    Example:
        >>> metric = KernelDistance(features=1, subset_size=None)
        >>> metric.update(torch.tensor([[0.0], [1.0]]), real=True)
        >>> metric.update(torch.tensor([[0.0], [1.0]]), real=False)
        >>> metric.compute()["kernel_distance"].item()
        -3.5
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        features: int = 2048,
        extractor: FeatureExtractor | None = None,
        subsets: int = 100,
        subset_size: int | None = 1000,
        degree: int = 3,
        gamma: float | None = None,
        offset: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Set features and kernel; arguments as of :func:`neurotrain.metrics.functional.kernel_distance`, and below.

        Args:
            features: D.
            extractor: from samples to floats ``(N, D)``; None where the samples are features.
            subsets: random subsets that the estimate is averaged over.
            subset_size: samples of each; None takes all samples once.
            degree: of the polynomial.
            gamma: factor of the product; ``1 / D`` when not given.
            offset: added to it.
            seed: of the subsets.

        Raises:
            ValueError: if a number has no meaning.
        """
        super().__init__(features=features, extractor=extractor)
        if subset_size is not None:
            check_subsets(subsets, subset_size)
        self.subsets = subsets
        self.subset_size = subset_size
        self.degree = degree
        self.gamma = gamma
        self.offset = offset
        self.seed = seed

    def compute(self) -> dict[str, Tensor]:
        """``kernel_distance`` and ``kernel_distance_std``, over subsets, float64.

        Raises:
            ValueError: if there are fewer samples than a subset has.
        """
        mean, deviation = kernel_distance(
            *self._features(),
            subsets=self.subsets,
            subset_size=self.subset_size,
            degree=self.degree,
            gamma=self.gamma,
            offset=self.offset,
            generator=torch.Generator().manual_seed(self.seed),
        )
        return {"kernel_distance": mean, "kernel_distance_std": deviation}


class ManifoldScores(_FeatureRecords):
    """Precision, recall, density and coverage; see :func:`neurotrain.metrics.functional.manifold_scores`.

    Example:
        >>> metric = ManifoldScores(features=1, neighbours=1)
        >>> metric.update(torch.arange(8.0)[:, None], real=True)
        >>> metric.update(torch.arange(4.0)[:, None], real=False)
        >>> metric.compute()["recall"].item()
        0.625
    """

    higher_is_better = True

    def __init__(
        self,
        *,
        features: int = 2048,
        extractor: FeatureExtractor | None = None,
        neighbours: int = 5,
        chunk_size: int = 2048,
    ) -> None:
        """Set features and neighbourhood.

        Args:
            features: D.
            extractor: from samples to floats ``(N, D)``; None where the samples are features.
            neighbours: k.
            chunk_size: rows of distances that are held at once.

        Raises:
            ValueError: if a number is less than 1.
        """
        super().__init__(features=features, extractor=extractor)
        if neighbours < 1 or chunk_size < 1:
            raise ValueError(f"neighbours={neighbours} and chunk_size={chunk_size} must be at least 1")
        self.neighbours = neighbours
        self.chunk_size = chunk_size

    def compute(self) -> dict[str, Tensor]:
        """``precision``, ``recall``, ``density`` and ``coverage`` of all samples of all ranks, float64.

        Raises:
            ValueError: if there are not more than k samples of each.
        """
        return manifold_scores(*self._features(), neighbours=self.neighbours, chunk_size=self.chunk_size)
