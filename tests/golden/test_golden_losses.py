"""The first losses of the experiments are what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden_losses import FILE, NEEDS, RARE, SMALL, STEPS, losses

GOLDEN: dict[str, dict[str, list[float]]] = json.loads(FILE.read_text(encoding="utf-8"))

# Another processor adds sums up in another order; whatever changes a method moves them by far more.
TOLERANCE, SMALLEST = 1e-4, 1e-6


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=pytest.mark.all_kills) if name in RARE else name for name in sorted(SMALL)]
)
def test_first_losses(experiment: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    data = tmp_path
    if experiment in NEEDS:
        data = request.getfixturevalue("shared_data")
        if not (data / NEEDS[experiment]).is_dir():
            pytest.skip(f"no {NEEDS[experiment]} here")
    found = losses(experiment, data=data, run_dir=tmp_path / "run")
    assert found.keys() == GOLDEN[experiment].keys()
    for name, values in GOLDEN[experiment].items():
        assert found[name] == pytest.approx(values, rel=TOLERANCE, abs=SMALLEST), name
    assert max(map(len, found.values())) == STEPS


def test_every_golden_loss_has_its_experiment() -> None:
    assert GOLDEN.keys() == SMALL.keys()
