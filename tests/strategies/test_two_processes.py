"""Two processes train as one does, whatever they divide; what they save goes on anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rank_checks
import torch
from rank_checks import fit_saving
from transformer_task import STEPS, Tokens, fit
from two_processes import Check, result, run_together

from neurotrain.app.weights_command import export_weights, read_weights
from neurotrain.callbacks import find_last
from neurotrain.networks.text import WordTokenizer

CHECKS = (
    rank_checks.run_directory,
    rank_checks.replicated,
    rank_checks.sharded,
    rank_checks.tensor_parallel,
    rank_checks.saved,
    rank_checks.resumed,
    rank_checks.cut_and_saved,
    rank_checks.replicated_and_saved,
    rank_checks.reductions,
    rank_checks.recomputed,
    rank_checks.refused,
)
SAVED = "step-00000004.ckpt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one process's run of two epochs under ``alone``, which ranks resume from its middle."""
    folder = tmp_path_factory.mktemp("ranks")
    fit_saving(folder / "alone", "auto", devices=1)
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return run_together(CHECKS, folder)


@pytest.fixture(scope="module")
def alone(folder: Path) -> tuple[list[float], dict[str, float]]:
    """Losses and figures of one process."""
    trainer, task = fit(folder / "plain", "auto", devices=1)
    return task.losses, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(
    ("check", "tolerance"),
    [(rank_checks.replicated, 1e-6), (rank_checks.sharded, 1e-5), (rank_checks.tensor_parallel, 1e-5)],
)
def test_two_processes_train_and_score_as_one(
    check: Check,
    tolerance: float,
    ranks: list[dict[str, Any]],
    alone: tuple[list[float], dict[str, float]],
) -> None:
    told = [result(found, check) for found in ranks]
    losses = [sum(pair) / 2 for pair in zip(*(one["losses"] for one in told), strict=True)]
    assert len(losses) == STEPS
    assert losses == pytest.approx(alone[0], abs=tolerance)
    for one in told:  # five samples on two ranks
        assert one["metrics"] == pytest.approx(alone[1], abs=1e-5)
        assert one["counted"] == STEPS  # what a task counts is each process's own


def test_each_process_holds_half_of_what_is_sharded(ranks: list[dict[str, Any]]) -> None:
    told = [result(found, rank_checks.sharded) for found in ranks]
    network = Tokens(WordTokenizer(size=300))
    assert sum(one["local"] for one in told) == sum(parameter.numel() for parameter in network.parameters())
    assert max(one["local"] for one in told) < 0.6 * sum(one["local"] for one in told)
    assert told[0]["parts"] == ["", "task.network.encoder.blocks.0", "task.network.layers.0"]


def test_each_process_holds_half_of_the_heads(ranks: list[dict[str, Any]]) -> None:
    assert [result(found, rank_checks.tensor_parallel)["rows"] for found in ranks] == [24, 24]


@pytest.mark.parametrize(
    "check", [rank_checks.saved, rank_checks.resumed, rank_checks.cut_and_saved, rank_checks.replicated_and_saved]
)
def test_checkpoints_are_those_of_one_process_wherever_the_first_half_was_trained(
    check: Check,
    folder: Path,
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        result(found, check)
    ours, theirs = (
        torch.load(folder / name / "checkpoints" / SAVED, weights_only=True) for name in (check.__name__, "alone")
    )
    _assert_close(ours["state_dict"], theirs["state_dict"])
    _assert_close(ours["optimizer_states"], theirs["optimizer_states"])
    key = next(name for name in theirs["callbacks"] if "WeightAveraging" in name)
    _assert_close(ours["callbacks"][key], theirs["callbacks"][key])
    assert find_last(folder / check.__name__ / "checkpoints") is not None


def test_a_sharded_run_goes_on_alone(folder: Path, ranks: list[dict[str, Any]]) -> None:
    result(ranks[0], rank_checks.saved)
    checkpoint = folder / "saved" / "checkpoints" / "step-00000002.ckpt"
    fit_saving(folder / "on", "auto", devices=1, resume=checkpoint)
    ours, theirs = (torch.load(folder / name / "checkpoints" / SAVED, weights_only=True) for name in ("on", "alone"))
    _assert_close(ours["optimizer_states"], theirs["optimizer_states"])
    _assert_close(ours["state_dict"], theirs["state_dict"])


@pytest.mark.parametrize("check", [rank_checks.saved, rank_checks.cut_and_saved, rank_checks.replicated_and_saved])
@pytest.mark.parametrize("averaged", [False, True])
def test_exported_weights_load_into_the_plain_network(
    check: Check,
    averaged: bool,
    folder: Path,
    ranks: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    result(ranks[0], check)
    checkpoint = folder / check.__name__ / "checkpoints" / SAVED
    export_weights(checkpoint, tmp_path / "network.safetensors", averaged=averaged)
    network = Tokens(WordTokenizer(size=300))
    network.load_state_dict(read_weights(tmp_path / "network.safetensors"))
    found = torch.load(checkpoint, weights_only=True)
    key = next(name for name in found["callbacks"] if "WeightAveraging" in name)
    expected = found["callbacks"][key]["average"] if averaged else found["state_dict"]
    for name, value in network.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, expected[f"network.{name}"]), name


def test_accumulated_gradients_travel_once(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        told = result(found, rank_checks.reductions)
        assert told["sharded"][1] == told["sharded"][2] > 0
        assert told["replicated"] == [True, False, True, False]


def test_what_is_recomputed_is_the_same(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        told = result(found, rank_checks.recomputed)
        assert told["recomputed"] == told["kept"]


def test_what_is_not_done_is_refused(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        plan, manual, batches = result(found, rank_checks.refused)
        assert "network=Linear" in plan
        assert "Plain goes backward within its step" in manual
        assert "need the same batches" in batches


def test_one_run_directory_under_any_launcher(ranks: list[dict[str, Any]]) -> None:
    told = [result(found, rank_checks.run_directory) for found in ranks]
    for one in told:
        assert one["paths"] == [("run-of-0", "step.ckpt"), ("run-of-0", "step.ckpt"), ("slurm-0", None)]
    assert [one["error"] for one in told] == [False, True]
    assert [one["first"] for one in told] == [True, False]


def _assert_close(ours: Any, theirs: Any, where: str = "") -> None:  # noqa: ANN401
    if isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=lambda text: f"{where}: {text}")
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            _assert_close(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for place, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            _assert_close(left, right, f"{where}/{place}")
    else:
        assert ours == theirs, where
