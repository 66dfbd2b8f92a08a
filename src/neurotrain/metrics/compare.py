"""Comparison of two runs by what they reach on the same samples: confidence intervals and paired tests.

Two means say little; the same images scored by both say whether the difference is more than chance. For every figure
that both tables have there is a bootstrap confidence interval of each mean and of the difference, and two tests of "no
difference": Wilcoxon's signed ranks, and the bootstrap of the paired differences.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

TABLE = "test_samples.csv"
"""Name of the per-sample table in a run directory."""

_AT_ONCE = 1 << 22  # random numbers


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its bootstrap percentile interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One figure of two runs, over the samples where both have it.

    Attributes:
        figure: column of the tables.
        samples: how many samples both runs have a finite number for.
        first: mean of the first run.
        second: mean of the second run.
        difference: mean of second minus first, sample by sample.
        wilcoxon_p: two-sided p-value of Wilcoxon's signed-rank test; 1 where no sample differs.
        bootstrap_p: two-sided p-value of the paired bootstrap.
    """

    figure: str
    samples: int
    first: Interval
    second: Interval
    difference: Interval
    wilcoxon_p: float
    bootstrap_p: float


def compare_runs(
    first: Path,
    second: Path,
    *,
    figures: Sequence[str] | None = None,
    observer: str = "network",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare the per-sample tables of two runs.

    Args:
        first: run directory, or its ``test_samples.csv``.
        second: the same of the other run.
        figures: columns to compare; all that both tables have when not given.
        observer: rows to take, by their column ``observer``; tables without that column are taken whole.
        confidence: of the intervals, in (0, 1).
        resamples: of the bootstrap, at least 100.
        seed: of the bootstrap.

    Returns:
        One comparison a figure, in the order of the first table. A sample where either run has no finite number is left
        out of that figure, and ``samples`` says how many are left; without any, all is NaN.

    Raises:
        FileNotFoundError: if a table is missing.
        ValueError: if the runs were tested on different samples, a figure is unknown, or a setting is out of range.
    """
    rows_first, rows_second = (_read(path, observer) for path in (first, second))
    if rows_first.keys() != rows_second.keys():
        raise ValueError(_different_samples(first, second, rows_first.keys() ^ rows_second.keys()))
    chosen = _chosen_figures(list(_columns(rows_first)), list(_columns(rows_second)), figures)
    return [
        compare_figure(
            figure,
            [rows_first[name][figure] for name in rows_first],
            [rows_second[name][figure] for name in rows_first],
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
        for figure in chosen
    ]


def compare_figure(
    figure: str,
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare one figure of the same samples in two runs; arguments as :func:`compare_runs`.

    Example:
        >>> result = compare_figure("dice", [0.70, 0.72, 0.81, 0.66, 0.75], [0.74, 0.73, 0.85, 0.70, 0.76])
        >>> round(result.difference.mean, 4), round(result.wilcoxon_p, 4)
        (0.028, 0.0625)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1")
    if resamples < 100:
        raise ValueError(f"resamples={resamples} must be at least 100")
    pairs = torch.tensor([first, second], dtype=torch.float64)
    pairs = pairs[:, pairs.isfinite().all(dim=0)]
    values = torch.cat([pairs, pairs[1:] - pairs[:1]])
    means = _bootstrap_means(values, resamples=resamples, seed=seed)
    intervals = [_interval(row, drawn, confidence) for row, drawn in zip(values, means, strict=True)]
    return Comparison(
        figure=figure,
        samples=values.shape[1],
        first=intervals[0],
        second=intervals[1],
        difference=intervals[2],
        wilcoxon_p=_wilcoxon(values[2]),
        bootstrap_p=_bootstrap_p(values[2], means[2]),
    )


def _bootstrap_means(values: Tensor, *, resamples: int, seed: int) -> Tensor:
    """``(rows, resamples)``: means over samples drawn with replacement, the same ones for each row."""
    samples = values.shape[1]
    if not samples:
        return torch.full((len(values), resamples), float("nan"), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    pieces: list[Tensor] = []
    step = max(1, _AT_ONCE // samples)
    for begin in range(0, resamples, step):
        drawn = torch.randint(samples, (min(step, resamples - begin), samples), generator=generator)
        pieces.append(torch.stack([row[drawn].mean(dim=1) for row in values]))
    return torch.cat(pieces, dim=1)


def _interval(values: Tensor, means: Tensor, confidence: float) -> Interval:
    if not len(values):
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"))
    tail = (1 - confidence) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(mean=values.mean().item(), low=low, high=high)


def _wilcoxon(differences: Tensor) -> float:
    """SciPy's test: exact for up to 50 samples without ties and zeros, else with a normal approximation."""
    from scipy.stats import wilcoxon

    if not len(differences):
        return float("nan")
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences.numpy()).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def _bootstrap_p(differences: Tensor, means: Tensor) -> float:
    """Share of resampled means, moved to a true difference of 0, at least as far from it as the one observed."""
    if not len(differences):
        return float("nan")
    observed = differences.mean()
    # equal sums of floats may differ in their last bits
    far = (means - observed).abs() >= observed.abs() * (1 - 1e-12)
    return (int(far.sum()) + 1) / (len(means) + 1)


def _read(path: Path, observer: str) -> dict[str, dict[str, float]]:
    """Figures of every sample, by its id."""
    table = path / TABLE if path.is_dir() else path
    if not table.is_file():
        raise FileNotFoundError(f"{table} is missing: a run writes it when it is tested")
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("observer", observer) == observer]
    if not rows:
        raise ValueError(f"{table} has no row of observer={observer!r}")
    samples: dict[str, dict[str, float]] = {}
    for row in rows:
        if "id" not in row or row["id"] in samples:
            raise ValueError(f"{table} needs a column id with a different value in each row of {observer!r}")
        samples[row["id"]] = {
            key: float(value) if value else float("nan") for key, value in row.items() if key not in ("id", "observer")
        }
    return samples


def _columns(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    return next(iter(rows.values()))


def _chosen_figures(first: list[str], second: list[str], figures: Sequence[str] | None) -> list[str]:
    shared = [figure for figure in first if figure in second]
    if figures is None:
        return shared
    for figure in figures:
        if figure not in shared:
            nearest = get_close_matches(figure, shared, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"figures: {figure!r} is not in both tables, which share {', '.join(shared)}{hint}")
    return list(figures)


def _different_samples(first: Path, second: Path, single: set[str]) -> str:
    shown = ", ".join(sorted(single)[:3])
    return f"{first} and {second} were tested on different samples: {len(single)} are in one only, such as {shown}"
