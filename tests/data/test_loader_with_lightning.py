"""Under a Trainer: interrupted anywhere, resumed, a run sees what the uninterrupted one saw."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.data import EpochPlan, PlannedLoader, SampleKey

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

BY_EPOCHS = {"max_epochs": 3}
BY_STEPS = {"max_steps": 12, "max_epochs": -1}
HALF_EPOCH_VALIDATION = {"max_epochs": 3, "val_check_interval": 2}
SHORT_EPOCHS = {"max_epochs": 4, "limit_train_batches": 3}


class Positions:
    def __init__(self, plan: EpochPlan) -> None:
        self.plan = plan

    def load(self, key: SampleKey) -> Tensor:
        """The key and a random number of the sample's own."""
        return torch.tensor([*key, int(torch.randint(1000, (), generator=self.plan.generator(key)))])


class Seen(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[list[list[int]]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.batches.append(batch.tolist())
        return self.weight * 1

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Interruption(Callback):
    """Saves and stops at one hook of one step."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.hook, self.step, self.path = hook, step, path

    def _at(self, hook: str, trainer: Trainer) -> None:
        if hook == self.hook and trainer.global_step == self.step and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise InterruptedError

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._at("batch", trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self._at("validation", trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self._at("epoch", trainer)


def loader(plan: EpochPlan, workers: int, *, train: bool) -> PlannedLoader:
    return PlannedLoader(
        dataset=Positions(plan),
        plan=plan,
        batch_size=2,
        collate=torch.stack,
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=train,
    )


def fit(settings: dict[str, Any], workers: int, callback: Callback | None = None, resume: Path | None = None) -> Seen:
    model = Seen()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if callback else [],
        **settings,
    )
    train = loader(EpochPlan(count=5, samples_per_epoch=9, seed=3), workers, train=True)
    validation = loader(EpochPlan(count=3, shuffle=False), 0, train=False)
    try:
        trainer.fit(model, train, validation, ckpt_path=resume, weights_only=True if resume else None)
    except InterruptedError:
        train.close()
    return model


@pytest.mark.parametrize(
    ("settings", "hook", "step", "workers"),
    [
        (BY_EPOCHS, "batch", 1, (0, 0)),
        (BY_EPOCHS, "batch", 3, (0, 2)),
        (BY_EPOCHS, "batch", 4, (0, 0)),  # the last batch of an epoch
        (BY_EPOCHS, "batch", 6, (2, 0)),
        (BY_EPOCHS, "validation", 4, (0, 0)),
        (BY_EPOCHS, "validation", 8, (2, 2)),
        (BY_EPOCHS, "epoch", 4, (0, 2)),
        (BY_EPOCHS, "epoch", 8, (0, 0)),
        (BY_STEPS, "batch", 4, (0, 0)),
        (BY_STEPS, "batch", 7, (0, 0)),
        (BY_STEPS, "validation", 8, (0, 0)),
        (BY_STEPS, "epoch", 4, (0, 2)),
        (BY_STEPS, "epoch", 8, (0, 0)),
        (HALF_EPOCH_VALIDATION, "validation", 6, (0, 0)),
        (HALF_EPOCH_VALIDATION, "batch", 5, (0, 0)),
        (SHORT_EPOCHS, "batch", 5, (0, 2)),
        (SHORT_EPOCHS, "epoch", 6, (0, 0)),
    ],
)
def test_resumed_run_sees_what_the_uninterrupted_one_saw(
    settings: dict[str, Any], hook: str, step: int, workers: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "interrupted.ckpt"
    before = fit(settings, workers[0], Interruption(hook, step, path)).batches
    assert len(before) == step
    assert path.exists()
    after = fit(settings, workers[1], resume=path).batches
    whole = fit(settings, 0).batches
    assert len(whole) == 12
    assert before + after == whole


def test_each_epoch_has_an_order_of_its_own() -> None:
    batches = fit(BY_EPOCHS, 0).batches
    epochs = [[sample[1] for batch in batches[start : start + 4] for sample in batch] for start in (0, 4, 8)]
    assert epochs == [[0] * 8, [1] * 8, [2] * 8]


def test_refuses_a_checkpoint_of_another_batch_size(tmp_path: Path) -> None:
    path = tmp_path / "interrupted.ckpt"
    fit(BY_EPOCHS, 0, Interruption("batch", 1, path))
    state = torch.load(path, weights_only=True)
    state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["global_batch"] = 16
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"global_batch=16.*global_batch=2"):
        fit(BY_EPOCHS, 0, resume=path)
