"""ZeRO on two processes of a CPU: as DDP in every figure, and checkpoints that load anywhere."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from zero_ranks import run_zero
from zero_task import ADAMW, fit

from neurotrain.callbacks import RunCheckpoint
from neurotrain.callbacks.checkpoint_files import step_name
from neurotrain.strategies import ZeroStrategy, consolidate_zero

CHECKS = (
    "steps_of_sgd",
    "clipped_steps_of_sgd",
    "steps_of_adamw",
    "offloaded",
    "broken_off_and_resumed",
    "averaged",
    "tested_after_a_fit",
    "merged",
    "refused",
    "not_finite",
)
STAGES = ("zero1", "zero2", "zero3")

needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return run_zero("zero_two", CHECKS, folder)


def _of(ranks: list[dict[str, Any]], check: str, rank: int = 0) -> Any:  # noqa: ANN401
    found = ranks[rank][check]
    assert not isinstance(found, str), found
    return found


def _assert_near(ours: dict[str, Any], theirs: dict[str, Any], *, within: float = 1e-5) -> None:
    assert len(ours["losses"]) == len(theirs["losses"])
    torch.testing.assert_close(ours["losses"], theirs["losses"], rtol=0, atol=within)
    torch.testing.assert_close(ours["weights"], theirs["weights"], rtol=0, atol=within)
    torch.testing.assert_close(ours["metrics"], theirs["metrics"], rtol=0, atol=within)
    assert ours["steps"] == theirs["steps"]


@needs_deepspeed
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("check", ["steps_of_sgd", "clipped_steps_of_sgd", "steps_of_adamw"])
def test_steps_are_those_of_ddp(ranks: list[dict[str, Any]], check: str, stage: str, rank: int) -> None:
    found = _of(ranks, check, rank)
    assert len(found["ddp"]["losses"]) == (8 if check == "clipped_steps_of_sgd" else 20)
    _assert_near(found[stage], found["ddp"])


@needs_deepspeed
def test_clipping_and_accumulating_change_the_steps(ranks: list[dict[str, Any]]) -> None:
    plain, clipped = (_of(ranks, check)["ddp"]["losses"] for check in ("steps_of_sgd", "clipped_steps_of_sgd"))
    assert abs(plain[7] - clipped[7]) > 1e-3
    assert _of(ranks, "steps_of_adamw")["zero2"]["steps"] == 8


@needs_deepspeed
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_offloading_changes_no_figure(ranks: list[dict[str, Any]], stage: str) -> None:
    _assert_near(_of(ranks, "offloaded")[stage], _of(ranks, "steps_of_sgd")["ddp"])


@needs_deepspeed
@pytest.mark.parametrize("case", ["1-32-true", "2-32-true", "3-32-true", "3-bf16-mixed"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(ranks: list[dict[str, Any]], case: str) -> None:
    for rank in (0, 1):
        found = _of(ranks, "broken_off_and_resumed", rank)[case]
        assert found["parts"]["losses"] == found["whole"]["losses"][5:]
        for name, weight in found["whole"]["weights"].items():
            assert torch.equal(found["parts"]["weights"][name], weight), name


@needs_deepspeed
def test_a_moving_average_is_that_of_ddp(ranks: list[dict[str, Any]]) -> None:
    found = _of(ranks, "averaged")
    _assert_near(found["zero2"], found["ddp"])
    torch.testing.assert_close(found["zero2"]["average"], found["ddp"]["average"], rtol=0, atol=1e-5)


@needs_deepspeed
def test_the_task_is_whole_after_a_fit(ranks: list[dict[str, Any]]) -> None:
    for rank in (0, 1):
        found = _of(ranks, "tested_after_a_fit", rank)
        assert found["zero3"]["end"] == pytest.approx(found["ddp"]["end"], abs=1e-5)
        assert found["zero3"]["read"] == pytest.approx(found["zero3"]["end"], abs=1e-6)
        torch.testing.assert_close(found["zero3"]["losses"], found["ddp"]["losses"], rtol=0, atol=1e-5)


@needs_deepspeed
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_checkpoint_of_two_is_gone_on_with_by_one(
    ranks: list[dict[str, Any]], folder: Path, tmp_path: Path, stage: int
) -> None:
    two = [_of(ranks, "broken_off_and_resumed", rank)[f"{stage}-32-true"]["parts"] for rank in (0, 1)]
    half = folder / "broken_off_and_resumed" / f"{stage}-32-true" / "parts" / "checkpoints" / step_name(5)
    more = [RunCheckpoint()]
    _, one = fit(tmp_path, "auto", rank=0, size=1, optimizer=ADAMW, batches=5, epochs=2, resume=half, callbacks=more)
    mean = [(first + second) / 2 for first, second in zip(two[0]["losses"], two[1]["losses"], strict=True)]
    torch.testing.assert_close(one.losses, mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(dict(one.state_dict()), two[0]["weights"], rtol=0, atol=1e-5)


@needs_deepspeed
def test_what_zero_cannot_do_is_refused_by_name(ranks: list[dict[str, Any]]) -> None:
    for rank in (0, 1):
        found = _of(ranks, "refused", rank)
        assert {name: case["steps"] for name, case in found.items()} == dict.fromkeys(found, 0)
        assert "_TwoSchedules has 2 learning-rate schedules" in found["two schedules"]["message"]
        assert "_OwnSteps steps its optimizers itself" in found["own steps"]["message"]
        assert "WeightAveraging would average nothing" in found["average"]["message"]
        assert "gradient_clip_algorithm=value" in found["clipping"]["message"]


@needs_deepspeed
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_shards_of_deepspeed_are_merged_in_one_process(ranks: list[dict[str, Any]], stage: int) -> None:
    found = _of(ranks, "merged")[str(stage)]
    assert found["merged"].keys() == found["weights"].keys()
    torch.testing.assert_close(found["merged"], found["weights"], rtol=0, atol=0)


@needs_deepspeed
def test_shards_that_hold_an_object_are_refused(ranks: list[dict[str, Any]]) -> None:
    assert "holds more than tensors and plain values" in _of(ranks, "merged")["refused"]
    assert not Path("fired").exists()


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file 'latest'"):
        consolidate_zero(tmp_path)
    (tmp_path / "latest").write_text("../elsewhere")
    with pytest.raises(ValueError, match="no folder beside it"):
        consolidate_zero(tmp_path)


@needs_deepspeed
def test_weights_that_are_not_finite_are_not_saved(ranks: list[dict[str, Any]], folder: Path) -> None:
    for rank in (0, 1):
        assert "is not finite after step 2: not saved" in ranks[rank]["not_finite"]
    assert list((folder / "not_finite" / "checkpoints").iterdir()) == []


@needs_deepspeed
def test_settings_that_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="offload_parameters=true needs stage=3, not 2"):
        ZeroStrategy(stage=2, offload_parameters=True)
    with pytest.raises(ValueError, match="stage=4: expected 1, 2 or 3"):
        ZeroStrategy(stage=4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="bucket_size=0"):
        ZeroStrategy(bucket_size=0)
