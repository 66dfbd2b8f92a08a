"""Comparison of two runs: against SciPy, intervals that cover, and tables that do not fit."""

from __future__ import annotations

import csv
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from neurotrain.metrics.compare import TABLE, compare_figure, compare_runs


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / TABLE).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def runs(tmp_path: Path) -> tuple[Path, Path]:
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.8, 0.05, 20), generator.normal(0.82, 0.05, 20)
    tables = [
        [
            {"observer": "network", "id": f"{row:02}", "dice": value, "nsd": value / 2}
            for row, value in enumerate(values)
        ]
        for values in (first, second)
    ]
    tables[0].append({"observer": "second observer", "id": "00", "dice": 0.5})
    tables[1].reverse()  # samples are matched by their id
    tables[1][3]["nsd"] = ""
    return write(tmp_path / "a", tables[0]), write(tmp_path / "b", tables[1])


def test_equals_scipy(tmp_path: Path) -> None:
    dice, nsd = compare_runs(*runs(tmp_path))
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.8, 0.05, 20), generator.normal(0.82, 0.05, 20)
    assert (dice.figure, dice.samples, nsd.figure, nsd.samples) == ("dice", 20, "nsd", 19)
    assert dice.first.mean == pytest.approx(first.mean())
    assert dice.second.mean == pytest.approx(second.mean())
    assert dice.difference.mean == pytest.approx((second - first).mean())
    assert dice.wilcoxon_p == pytest.approx(stats.wilcoxon(second - first).pvalue)
    expected = stats.bootstrap((second - first,), np.mean, method="percentile", random_state=0).confidence_interval
    # both are random: a tenth of the interval's width is many standard errors of 10,000 resamples
    width = expected.high - expected.low
    assert dice.difference.low == pytest.approx(expected.low, abs=width / 10)
    assert dice.difference.high == pytest.approx(expected.high, abs=width / 10)
    # of the same size as the t-test's, which such normal differences satisfy
    assert dice.bootstrap_p == pytest.approx(stats.ttest_rel(second, first).pvalue, abs=0.03)


def test_the_same_run_does_not_differ(tmp_path: Path) -> None:
    first, _ = runs(tmp_path)
    (dice,) = compare_runs(first, first / TABLE, figures=["dice"])
    assert dice.difference.mean == dice.difference.low == dice.difference.high == 0
    assert dice.wilcoxon_p == dice.bootstrap_p == 1


def test_a_certain_difference_is_found_and_the_seed_repeats_it() -> None:
    values = [0.7 + 0.01 * (row % 7) for row in range(15)]
    better = [value + 0.1 + 0.001 * row for row, value in enumerate(values)]
    result = compare_figure("dice", values, better)
    assert result.difference.low > 0.1
    assert result.wilcoxon_p < 1e-3
    assert result.bootstrap_p == 1 / 10_001
    assert result == compare_figure("dice", values, better)
    assert result != compare_figure("dice", values, better, seed=1)
    narrow = compare_figure("dice", values, better, confidence=0.5)
    assert narrow.difference.high - narrow.difference.low < result.difference.high - result.difference.low


def test_without_any_sample_left_all_is_nan() -> None:
    result = compare_figure("auc", [float("nan"), 1.0, float("inf")], [0.5, float("nan"), 1.0])
    assert result.samples == 0
    assert all(isnan(value) for value in (result.first.mean, result.difference.low, result.wilcoxon_p))
    assert isnan(result.bootstrap_p)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    first, second = runs(tmp_path)
    with pytest.raises(FileNotFoundError, match="a run writes it when it is tested"):
        compare_runs(first, tmp_path)
    with pytest.raises(ValueError, match="did you mean 'dice'"):
        compare_runs(first, second, figures=["dise"])
    with pytest.raises(ValueError, match="no row of observer='third'"):
        compare_runs(first, second, observer="third")
    with pytest.raises(ValueError, match="confidence=95"):
        compare_runs(first, second, confidence=95)
    with pytest.raises(ValueError, match="resamples=5"):
        compare_runs(first, second, resamples=5)
    other = write(tmp_path / "c", [{"id": "99", "dice": 0.5}])
    with pytest.raises(ValueError, match=r"21 are in one only, such as 00, 01, 02"):
        compare_runs(first, other)
    twice = write(tmp_path / "d", [{"id": "1", "dice": 0.5}, {"id": "1", "dice": 0.6}])
    with pytest.raises(ValueError, match="a different value in each row"):
        compare_runs(twice, twice)
