"""Distances of generated samples: closed forms, torchmetrics, SciPy, published formulas, states, refusals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import energy_distance as scipy_energy
from scipy.stats import wasserstein_distance
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from neurotrain.metrics import FrechetDistance, KernelDistance, ManifoldScores
from neurotrain.metrics.functional import (
    energy_distance,
    feature_moments,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    sliced_wasserstein_distance,
)


def samples(number: int, *, shift: float = 0.0, size: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(number, size, generator=generator, dtype=torch.float64) @ mix + shift


REAL, FAKE = samples(200), samples(150, shift=0.7, seed=1)


def test_frechet_distance_of_independent_features_in_closed_form() -> None:
    real = torch.tensor([[0.0, 5.0], [2.0, 5.0], [0.0, 7.0], [2.0, 7.0]])
    fake = (real - real.mean(0)) * torch.tensor([3.0, 0.5]) + 1
    deviation = real.double().std(0)
    expected = ((real.mean(0) - 1) ** 2).sum() + ((deviation - deviation * torch.tensor([3.0, 0.5])) ** 2).sum()
    found = frechet_distance(feature_moments(real), feature_moments(fake))
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_frechet_distance_equals_torchmetrics_and_scipy() -> None:
    found = frechet_distance(feature_moments(REAL), feature_moments(FAKE)).item()
    covariances = REAL.T.cov(), FAKE.T.cov()
    peer = _compute_fid(REAL.mean(0), covariances[0], FAKE.mean(0), covariances[1]).item()
    assert found == pytest.approx(peer, rel=1e-9)
    root = sqrtm(covariances[0].numpy() @ covariances[1].numpy()).real.trace()
    gap = ((REAL.mean(0) - FAKE.mean(0)) ** 2).sum() + covariances[0].trace() + covariances[1].trace()
    assert found == pytest.approx(gap.item() - 2 * root, rel=1e-9)


def test_frechet_distance_of_fewer_samples_than_features() -> None:
    few = samples(4, size=12)
    assert frechet_distance(feature_moments(few), feature_moments(few)).item() == pytest.approx(0, abs=1e-6)
    found = frechet_distance(feature_moments(few), feature_moments(few + 1)).item()
    assert found == pytest.approx(12, abs=1e-5)


def test_moments_far_from_zero_keep_their_digits() -> None:
    metric = FrechetDistance(features=5)
    for part in (REAL + 1e6).split(13):
        metric.update(part, real=True)
    for part in (FAKE + 1e6).split(7):
        metric.update(part, real=False)
    expected = frechet_distance(feature_moments(REAL), feature_moments(FAKE)).item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-8)


def test_kernel_distance_equals_torchmetrics() -> None:
    found, deviation = kernel_distance(REAL[:150], FAKE, subset_size=None)
    assert found.item() == pytest.approx(poly_mmd(REAL[:150], FAKE).item(), rel=1e-12)
    assert deviation.item() == 0
    generator = torch.Generator().manual_seed(3)
    mean, deviation = kernel_distance(REAL, FAKE, subsets=5, subset_size=40, generator=generator)
    generator.manual_seed(3)
    draws = [[torch.randperm(len(part), generator=generator)[:40] for part in (REAL, FAKE)] for _ in range(5)]
    values = torch.stack([poly_mmd(REAL[a], FAKE[b]) for a, b in draws])
    assert mean.item() == pytest.approx(values.mean().item(), rel=1e-12)
    assert deviation.item() == pytest.approx(values.std(correction=0).item(), rel=1e-12)


def test_kernel_distance_of_sets_of_different_size_by_definition() -> None:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (0.5 * (a * b).sum() + 2) ** 2

    x, y = REAL[:4], FAKE[:3]
    within = [
        sum(kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    between = sum(kernel(a, b) for a in x for b in y) / 12
    found = kernel_distance(x, y, subset_size=None, degree=2, gamma=0.5, offset=2.0)[0]
    assert found.item() == pytest.approx((within[0] + within[1] - 2 * between).item(), rel=1e-12)


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_manifold_scores_follow_their_formulas(size: int, neighbours: int) -> None:
    real, fake = samples(60, size=size), samples(45, size=size, seed=1, shift=0.5)
    x, y = real.numpy(), fake.numpy()

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    radius_x, radius_y = (np.sort(between(s, s), axis=1)[:, neighbours] for s in (x, y))
    gaps = between(x, y)
    expected = {
        "precision": (gaps <= radius_x[:, None]).any(0).mean(),
        "recall": (gaps <= radius_y[None]).any(1).mean(),
        "density": (gaps <= radius_x[:, None]).sum(0).mean() / neighbours,
        "coverage": (gaps.min(1) <= radius_x).mean(),
    }
    for chunk_size in (7, 2048):
        found = manifold_scores(real, fake, neighbours=neighbours, chunk_size=chunk_size)
        assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, abs=1e-12)
    assert 0 < expected["precision"] < 1 or size == 40


def test_equal_sets_are_covered_also_with_copies() -> None:
    copies = REAL[:10].repeat(3, 1)
    found = manifold_scores(copies, copies, neighbours=2)
    assert [found[name].item() for name in ("precision", "recall", "coverage")] == [1, 1, 1]


def test_energy_distance_equals_scipy_and_is_zero_for_equal_sets() -> None:
    line, other = REAL[:, :1], FAKE[:, :1]
    expected = scipy_energy(line[:, 0].numpy(), other[:, 0].numpy())
    assert energy_distance(line, other).item() == pytest.approx(expected, abs=1e-9)
    assert energy_distance(line, other, chunk_size=13).item() == pytest.approx(expected, abs=1e-9)
    assert energy_distance(REAL, REAL).item() == pytest.approx(0, abs=1e-6)


def test_sliced_wasserstein_distance() -> None:
    line, other = REAL[:, :1], FAKE[:, :1]
    expected = wasserstein_distance(line[:, 0].numpy(), other[:, 0].numpy())
    found = sliced_wasserstein_distance(line, other, order=1.0, projections=3)
    assert found.item() == pytest.approx(expected, abs=1e-9)
    # moved by v, the distance along a direction is |v . direction|, whose mean square is |v|^2 / D
    moved = sliced_wasserstein_distance(REAL, REAL + 2, projections=4000, generator=torch.Generator().manual_seed(0))
    assert moved.item() == pytest.approx(2, rel=0.05)
    again = [
        sliced_wasserstein_distance(REAL, FAKE, projections=4, generator=torch.Generator().manual_seed(5)).item()
        for _ in range(2)
    ]
    assert again[0] == again[1] > 0


def test_half_precision_is_computed_in_double() -> None:
    found = energy_distance(REAL.half(), FAKE.bfloat16())
    assert found.dtype == torch.float64
    assert found.item() == energy_distance(REAL.half().double(), FAKE.bfloat16().double()).item()


class Doubled(torch.nn.Module):
    """An extractor with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.factor * images.flatten(1)


def test_classes_accumulate() -> None:
    real, fake = REAL.float(), FAKE.float()
    cases = [
        (
            FrechetDistance(features=5, extractor=Doubled()),
            frechet_distance(feature_moments(2 * real), feature_moments(2 * fake)),
        ),
        (
            KernelDistance(features=5, extractor=Doubled(), subsets=3, subset_size=20, seed=4),
            dict(
                zip(
                    ("kernel_distance", "kernel_distance_std"),
                    kernel_distance(
                        2 * real, 2 * fake, subsets=3, subset_size=20, generator=torch.Generator().manual_seed(4)
                    ),
                    strict=True,
                )
            ),
        ),
        (ManifoldScores(features=5, extractor=Doubled()), manifold_scores(2 * real, 2 * fake)),
    ]
    for metric, expected in cases:
        metric.update(real[:33].reshape(33, 5, 1), real=True)
        metric.update(fake[:50].reshape(50, 1, 5), real=False)
        clone = pickle.loads(pickle.dumps(copy.deepcopy(metric.clone())))
        for each in (metric, clone):
            each.update(fake[50:], real=False)
            each.update(real[33:], real=True)
            torch.testing.assert_close(each.compute(), expected, rtol=1e-9, atol=1e-9)
        metric.reset()
        metric.update(real, real=True)
        metric.update(fake, real=False)
        torch.testing.assert_close(metric.compute(), expected, rtol=1e-9, atol=1e-9)


def test_a_cast_of_the_module_changes_no_moment() -> None:
    metric = FrechetDistance(features=5)
    metric.update(REAL, real=True)
    metric.update(FAKE, real=False)
    before = metric.compute().item()
    torch.nn.ModuleList([metric]).to(torch.bfloat16)
    metric.update(FAKE[:0], real=False)
    assert metric.compute().item() == before


REFUSED = [
    (lambda: frechet_distance(feature_moments(REAL[:1]), feature_moments(FAKE)), "real has 1 samples"),
    (lambda: feature_moments(torch.tensor([[torch.nan]])), "finite"),
    (lambda: feature_moments(torch.zeros(3)), "must be floats"),
    (lambda: kernel_distance(REAL, FAKE, subset_size=151), "exceeds"),
    (lambda: kernel_distance(REAL, FAKE, subsets=0, subset_size=10), "subsets=0"),
    (lambda: kernel_distance(REAL[:1], FAKE, subset_size=None), "at least 2"),
    (lambda: kernel_distance(REAL, FAKE[:, :3]), "must be equal"),
    (lambda: manifold_scores(REAL[:5], FAKE, neighbours=5), "neighbours=5"),
    (lambda: energy_distance(REAL[:0], FAKE), "neither set may be empty"),
    (lambda: sliced_wasserstein_distance(REAL, FAKE, order=0.5), "at least 1"),
    (lambda: FrechetDistance(features=4).update(REAL, real=True), "features=4"),
    (lambda: KernelDistance(subset_size=1), "subset_size=1"),
    (lambda: ManifoldScores(neighbours=0), "neighbours=0"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_wrong_input_is_named(call, message: str) -> None:  # noqa: ANN001 - a function
    with pytest.raises(ValueError, match=message):
        call()
