"""The largest batch that fits is found by few tries, and nothing is left of them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from neurotrain.app import batch_size
from neurotrain.app.batch_size import Attempt, search
from neurotrain.app.cli import main


@pytest.mark.parametrize("largest", [1, 2, 3, 31, 32, 33, 100])
@pytest.mark.parametrize("start", [1, 8])
def test_the_largest_that_fits(largest: int, start: int) -> None:
    tried: list[int] = []

    def attempt(size: int) -> Attempt:
        tried.append(size)
        return Attempt(size, fits=size <= largest)

    assert search(attempt, start=start, tolerance=0) == (largest if largest >= start else None)
    assert len(tried) == len(set(tried)) <= 16


def test_large_ones_are_found_to_a_share_of_their_size() -> None:
    tried: list[Attempt] = []

    def attempt(size: int) -> Attempt:
        tried.append(Attempt(size, fits=size <= 1_234_567))
        return tried[-1]

    best = search(attempt, maximum=1 << 24, tolerance=0.01)
    too_large = min(one.batch_size for one in tried if not one.fits)
    assert best is not None
    assert best <= 1_234_567 < too_large <= 1.01 * best
    assert len(tried) <= 30
    with pytest.raises(ValueError, match="tolerance=1"):
        search(attempt, tolerance=1)


def test_nothing_beyond_the_maximum_is_tried() -> None:
    tried: list[int] = []

    def attempt(size: int) -> Attempt:
        tried.append(size)
        return Attempt(size, fits=True)

    assert search(attempt, maximum=20) == 20
    assert max(tried) == 20
    with pytest.raises(ValueError, match="start=21"):
        search(attempt, start=21, maximum=20)


def test_a_processor_needs_to_be_told_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["find-batch-size", "experiment=gaussian_mixture_fine_tune"])
    assert ended.value.code == 2
    assert "--memory" in capsys.readouterr().err


@pytest.mark.all_kills
def test_real_steps_within_a_limit_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    overrides = [
        "model.roles.student.network.width=256",
        "model.pipeline.reference=50",
        "data.batches=4",
    ]
    arguments = ["find-batch-size", "experiment=gaussian_mixture_fine_tune", *overrides]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--memory", "3", "--start", "32768", "--maximum", "4194304", "--tolerance", "0.1"])
    told = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0, told
    best = int(told[-1].removeprefix("data.batch_size="))
    sizes = {int(line.split()[0]): "fits" in line for line in told[:-1]}
    assert 32768 <= best < 4194304
    assert sizes[best]
    assert best < min(size for size, fits in sizes.items() if not fits) <= best * 1.1
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_not_taken_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        def __init__(self) -> None:
            self.said: list[object] = []

        def send(self, said: object) -> None:
            self.said.append(said)

    from neurotrain.app import batch_trial

    def fails(error: Exception) -> object:
        answer = Answer()
        monkeypatch.setattr(batch_trial, "_steps", _raising(error))
        batch_trial.run_trial(answer, "any", [], 1, None)  # type: ignore[arg-type]
        (said,) = answer.said
        return said

    assert fails(torch.OutOfMemoryError("CUDA out of memory.\nmore")) == "CUDA out of memory."
    assert isinstance(fails(ValueError("shape")), ValueError)
    assert batch_size.Attempt(1, fits=True).reason == ""
    assert "signal 9" in str(batch_size._ended(-9))
    assert isinstance(batch_size._ended(1), ValueError)


def _raising(error: Exception) -> object:
    def steps(*_: object) -> None:
        raise error

    return steps
