"""Distances between two sets of features: how much generated samples are like real ones.

Features come from any extractor; everything here is float64. Shape legend: ``N`` real and ``M`` generated samples,
``D`` features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_FEW_FEATURES = 16


class FeatureMoments(NamedTuple):
    """What the Fréchet distance needs of a set, which can be added up.

    Attributes:
        number: int64 scalar.
        mean: float64 ``(D,)``.
        scatter: float64 ``(D, D)``, sum of the products of the deviations from the mean.
    """

    number: Tensor
    mean: Tensor
    scatter: Tensor


def feature_moments(features: Tensor) -> FeatureMoments:
    """Moments of a set of features.

    Args:
        features: floats ``(N, D)``.

    Raises:
        ValueError: if the shape or the type is wrong, or a feature is not finite.

    Example:
        >>> feature_moments(torch.tensor([[1.0], [3.0]])).scatter.item()
        2.0
    """
    values = checked_features("features", features)
    number = torch.tensor(len(values), device=values.device)
    mean = values.mean(dim=0) if len(values) else values.new_zeros(values.shape[1])
    centred = values - mean
    return FeatureMoments(number, mean, centred.T @ centred)


def merge_moments(left: FeatureMoments, right: FeatureMoments) -> FeatureMoments:
    """Moments of the union of two sets, without the loss of digits that sums of squares have.

    Args:
        left: of one set.
        right: of the other.

    Reference:
        Chan, Golub and LeVeque, 1982, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    number = left.number + right.number
    share = right.number.double() / number.clamp(min=1)
    gap = right.mean - left.mean
    scatter = left.scatter + right.scatter + torch.outer(gap, gap) * (left.number * share)
    return FeatureMoments(number, left.mean + gap * share, scatter)


def frechet_distance(real: FeatureMoments, generated: FeatureMoments) -> Tensor:
    """Squared Fréchet distance of two normal distributions, ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``.

    Args:
        real: of at least two samples; covariances are divided by ``N - 1``.
        generated: of at least two samples.

    Returns:
        float64 scalar, at least 0: FID where the features are InceptionV3's.

    Raises:
        ValueError: if a set has fewer than two samples.

    Reference:
        Dowson and Landau, 1982; Heusel et al., 2017 (arXiv:1706.08500), equation 6.

    Example:
        >>> one, other = feature_moments(torch.tensor([[0.0], [2.0]])), feature_moments(torch.tensor([[3.0], [5.0]]))
        >>> frechet_distance(one, other).item()
        9.0
    """
    for name, moments in (("real", real), ("generated", generated)):
        if int(moments.number) < 2:
            raise ValueError(f"{name} has {int(moments.number)} samples; a covariance needs at least 2")
    first, second = (moments.scatter / (moments.number - 1) for moments in (real, generated))
    # C1 C2 has the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2), which rounding leaves real
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ second @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    gap = (real.mean - generated.mean).square().sum()
    return (gap + first.trace() + second.trace() - 2 * cross).clamp(min=0)


def kernel_distance(
    real: Tensor,
    generated: Tensor,
    *,
    subsets: int = 100,
    subset_size: int | None = 1000,
    degree: int = 3,
    gamma: float | None = None,
    offset: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Unbiased squared maximum mean discrepancy with the kernel ``(gamma x.y + offset)^degree``.

    Args:
        real: floats ``(N, D)``.
        generated: floats ``(M, D)``.
        subsets: random subsets, drawn without replacement, that the estimate is averaged over.
        subset_size: samples of each subset; None takes all samples once and draws nothing.
        degree: of the polynomial.
        gamma: factor of the product; ``1 / D`` when not given.
        offset: added to the product.
        generator: draws the subsets; the global one when not given.

    Returns:
        float64 mean and standard deviation (divided by the number) over subsets: KID where the features are
        InceptionV3's. The mean may be below 0, being unbiased.

    Raises:
        ValueError: if shapes or numbers do not fit.

    Reference:
        Binkowski et al., 2018 (arXiv:1801.01401), section 4.

    Example:
        >>> real, generated = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
        >>> kernel_distance(real, generated, subset_size=None)[0].item()
        -3.5
    """
    x, y = _checked_sets(real, generated)
    factor = 1 / x.shape[1] if gamma is None else gamma
    if subset_size is None:
        return _discrepancy(x, y, degree, factor, offset), x.new_zeros(())
    check_subsets(subsets, subset_size)
    if subset_size > min(len(x), len(y)):
        raise ValueError(f"subset_size={subset_size} exceeds the {len(x)} real or {len(y)} generated samples")
    found = x.new_zeros(subsets)
    for turn in range(subsets):
        rows, columns = (torch.randperm(len(s), generator=generator)[:subset_size].to(x.device) for s in (x, y))
        found[turn] = _discrepancy(x[rows], y[columns], degree, factor, offset)
    return found.mean(), found.std(correction=0)


def check_subsets(subsets: int, subset_size: int) -> None:
    """Refuse numbers that give no estimate.

    Raises:
        ValueError: if there is no subset, or one has fewer than two samples.
    """
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"subsets={subsets} must be at least 1 and subset_size={subset_size} at least 2")


def _discrepancy(x: Tensor, y: Tensor, degree: int, gamma: float, offset: float) -> Tensor:
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} real and {len(y)} generated samples: the estimate needs at least 2 of each")
    within = x.new_zeros(())
    for one in (x, y):
        kernel = (gamma * (one @ one.T) + offset) ** degree
        within = within + (kernel.sum() - kernel.diagonal().sum()) / (len(one) * (len(one) - 1))
    return within - 2 * ((gamma * (x @ y.T) + offset) ** degree).mean()


def energy_distance(real: Tensor, generated: Tensor, *, chunk_size: int = 4096) -> Tensor:
    """Energy distance, ``sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|)`` with Euclidean norms.

    Args:
        real: floats ``(N, D)``.
        generated: floats ``(M, D)``.
        chunk_size: rows of distances that are held at once.

    Returns:
        float64 scalar, at least 0, and 0 for equal sets; in one dimension that of ``scipy.stats.energy_distance``.

    Raises:
        ValueError: if shapes do not fit or a set is empty.

    Reference:
        Szekely and Rizzo, 2013, "Energy statistics: a class of statistics based on distances".

    Example:
        >>> round(energy_distance(torch.tensor([[0.0]]), torch.tensor([[2.0]])).item(), 6)
        2.0
    """
    x, y = _checked_sets(real, generated)

    def mean_distance(one: Tensor, other: Tensor) -> Tensor:
        total = torch.stack([distances(rows, other).sum() for rows in one.split(chunk_size)]).sum()
        return total / (len(one) * len(other))

    return (2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)).clamp(min=0).sqrt()


def sliced_wasserstein_distance(
    real: Tensor,
    generated: Tensor,
    *,
    projections: int = 128,
    order: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Wasserstein distance along random directions, ``(mean over directions of W_p^p)^(1/p)``.

    Args:
        real: floats ``(N, D)``.
        generated: floats ``(M, D)``; the sets may differ in size.
        projections: number of directions, uniform on the sphere.
        order: p, at least 1.
        generator: draws the directions, on the CPU; the global one when not given.

    Returns:
        float64 scalar, at least 0.

    Raises:
        ValueError: if shapes or numbers do not fit, or a set is empty.

    Reference:
        Bonneel et al., 2015, "Sliced and Radon Wasserstein barycenters of measures".

    Example:
        >>> real = torch.tensor([[0.0], [1.0]])
        >>> round(sliced_wasserstein_distance(real, real + 2, projections=4).item(), 6)
        2.0
    """
    x, y = _checked_sets(real, generated)
    if projections < 1 or order < 1:
        raise ValueError(f"projections={projections} and order={order} must be at least 1")
    directions = torch.randn(x.shape[1], projections, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=0).to(x.device)
    ordered_x, ordered_y = ((s @ directions).sort(dim=0).values for s in (x, y))
    # both quantile functions are constant between these shares, in integers of 1 / (N M)
    number_x, number_y = len(x), len(y)
    steps_x, steps_y = (torch.arange(1, n + 1, device=x.device) for n in (number_x, number_y))
    ends = torch.cat([steps_x * number_y, steps_y * number_x]).unique()
    widths = ends.diff(prepend=ends.new_zeros(1)).double() / (number_x * number_y)
    gap = ordered_x[(ends - 1) // number_y] - ordered_y[(ends - 1) // number_x]
    return (widths @ gap.abs() ** order).mean() ** (1 / order)


def distances(left: Tensor, right: Tensor) -> Tensor:
    """Euclidean distances ``(N, M)`` of float64 features.

    Of more than 16 features they are expanded squares, many times faster, after the mean is taken away; copies of a
    sample are then at a distance of about 1e-8 of the samples' spread, not 0.
    """
    if left.shape[1] <= _FEW_FEATURES:
        return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
    centre = right.mean(dim=0)
    return torch.cdist(left - centre, right - centre, compute_mode="use_mm_for_euclid_dist")


def checked_features(name: str, features: Tensor) -> Tensor:
    """Features as float64.

    Args:
        name: of the argument, for the message.
        features: floats ``(N, D)``.

    Raises:
        ValueError: if the shape or the type is wrong, or a feature is not finite.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(f"{name} must be floats (N, D), not {features.dtype} {tuple(features.shape)}")
    values = features.detach().double()
    if not values.isfinite().all():
        raise ValueError(f"{name} must be finite")
    return values


def _checked_sets(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    x, y = checked_features("real", real), checked_features("generated", generated)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"real has {x.shape[1]} features, generated {y.shape[1]}: they must be equal")
    if not (len(x) and len(y)):
        raise ValueError(f"{len(x)} real and {len(y)} generated samples: neither set may be empty")
    return x, y
