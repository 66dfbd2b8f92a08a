"""A test set evaluated by 1, 2 and 3 processes has the same figures, to the last sample."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from evaluating import SAMPLES, Dealt, evaluate_over_processes

FEW: list[tuple[str, Dealt]] = [("classification", "padded"), ("segmentation", "planned")]
ALL: list[tuple[str, Dealt]] = [(kind, dealt) for kind in SAMPLES for dealt in ("planned", "padded")]


def _check(found: dict[int, dict[str, dict[str, float]]]) -> None:
    alone = found[1]
    for world_size, figures in found.items():
        assert figures.keys() == alone.keys()
        for job, values in figures.items():
            assert values.keys() == alone[job].keys()
            for name, value in values.items():
                expected = alone[job][name]
                equal = (math.isnan(value) and math.isnan(expected)) or abs(value - expected) <= 1e-9
                assert equal, f"{job}: {name} is {value!r} with {world_size} processes, {expected!r} with one"


def test_figures_are_those_of_one_process(tmp_path: Path) -> None:
    # 3 does not divide 100: a sampler that pads evaluates two images twice. 2 is tried with --all-kills.
    found = {n: evaluate_over_processes(n, tmp_path, FEW, count=100, batch_size=8, deadline=240) for n in (1, 3)}
    _check(found)
    assert 0 < found[1]["classification padded"]["auroc"] < 1
    assert 0 < found[1]["segmentation planned"]["nsd"] < 1


@pytest.mark.all_kills
def test_figures_of_ten_thousand_samples(tmp_path: Path) -> None:
    found = {
        n: evaluate_over_processes(n, tmp_path, ALL, count=10_000, batch_size=20, deadline=3000) for n in (1, 2, 3)
    }
    _check(found)
    for job, figures in found[1].items():
        told = {name: f"{value:.10f}" for name, value in figures.items() if not name.startswith("logged")}
        print(job, told)
