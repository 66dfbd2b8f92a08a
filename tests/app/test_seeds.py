"""One number seeds every generator of a run, and says so to the workers."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import neurotrain
from neurotrain.app import train


class _Seeded(Exception):  # noqa: N818
    """The run has begun: far enough."""


def _first_draws(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    drawn: dict[str, object] = {}

    def look(values: object, trainer: object, model: torch.nn.Module, *_: object, **__: object) -> None:
        drawn["weights"] = float(
            next(parameter.detach().sum() for parameter in model.parameters() if parameter.dim() > 1)
        )
        drawn["python"], drawn["numpy"] = random.random(), float(np.random.rand())
        drawn["torch"], drawn["environment"] = float(torch.rand(())), os.environ["PL_GLOBAL_SEED"]
        drawn["deterministic"] = torch.are_deterministic_algorithms_enabled()
        raise _Seeded

    monkeypatch.setattr(train, "_run_stage", look)
    overrides = [f"seed={seed}", f"paths.run_dir={folder}", "model.network.widths=[4,8]"]
    with pytest.raises(_Seeded):
        neurotrain.train(neurotrain.compose("drive_unet_synthetic", overrides))
    return drawn


def test_one_number_seeds_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _first_draws(3, tmp_path / "1", monkeypatch)
    assert first["environment"] == "3"
    assert first["deterministic"] is True
    assert _first_draws(3, tmp_path / "2", monkeypatch) == first
    other = _first_draws(4, tmp_path / "3", monkeypatch)
    assert all(other[name] != first[name] for name in ("weights", "python", "numpy", "torch", "environment"))
