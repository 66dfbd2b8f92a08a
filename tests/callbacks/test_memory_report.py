"""An out-of-memory error says what lay on the device and what to lower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from callback_toys import ToyLoader, ToyTask, make_trainer
from torch import Tensor

from neurotrain.callbacks import MemoryReport
from neurotrain.callbacks.memory import is_out_of_memory, memory_by_kind


class Greedy(ToyTask):
    """Fails at the third step."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        if batch_idx == 2:
            raise self.error
        return super().training_step(batch, batch_idx)


def _note(folder: Path, error: BaseException, **settings: Any) -> str:  # noqa: ANN401
    trainer = make_trainer(folder, [MemoryReport()], max_epochs=1, enable_checkpointing=False, **settings)
    with pytest.raises(type(error)) as caught:
        trainer.fit(Greedy(error), ToyLoader())
    return "\n".join(getattr(caught.value, "__notes__", []))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_the_error_says_what_was_there_and_what_to_lower(tmp_path: Path) -> None:
    said = _note(tmp_path, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    network = ToyTask().network
    weights = sum(parameter.numel() for parameter in network.parameters()) * 4
    assert "out of memory on cpu at step 2 (batch: image (2, 3))" in said
    assert f"parameters: {weights} bytes" in said
    assert f"optimizer state: {2 * weights + 4 * 6} bytes" in said  # two moments, and a count for each of 6 parameters
    assert "batch: 24 bytes" in said
    for setting in ("data.batch_size", "trainer.accumulate_grad_batches", "trainer.precision=bf16-mixed"):
        assert setting in said


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_what_is_chosen_already_is_no_advice(tmp_path: Path) -> None:
    said = _note(tmp_path, MemoryError(), accumulate_grad_batches=2)
    assert "accumulate_grad_batches" not in said


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    assert _note(tmp_path, ValueError("shape")) == ""


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_shared_weights_count_once() -> None:
    layer = torch.nn.Linear(4, 4, bias=False)
    assert memory_by_kind(torch.nn.Sequential(layer, layer), [])["parameters"] == 64
