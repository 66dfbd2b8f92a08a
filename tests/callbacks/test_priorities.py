from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from neurotrain.callbacks import LossPriorities
from neurotrain.data import ByLoss, LocalDataModule, Membership, MixtureDataModule
from neurotrain.data.decoders import ImageDecoder
from neurotrain.data.mixture import Uniform
from neurotrain.data.sources import FolderSource
from neurotrain.storage import LocalStorage
from neurotrain.tasks import TellsSampleLosses, TrainingOutput

IMAGES = 8


class Told(LightningModule):
    """Finds every third image of ``a`` hard, and remembers what came."""

    tells_sample_losses = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.came: list[str] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | TrainingOutput:
        self.came += [name for name, source in zip(batch["id"], batch["source"], strict=True) if source == "a"]
        if not self.tells_sample_losses:
            return self.weight * 1.0
        hard = torch.tensor([20.0 if name.startswith(("0", "3", "6")) else 0.0 for name in batch["id"]])
        return {"loss": self.weight * 1.0, "sample_loss": hard}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _mixture(folder: Path, *, order: ByLoss | None) -> MixtureDataModule:
    members: dict[str, LocalDataModule] = {}
    for name in "ab":
        (folder / name).mkdir(exist_ok=True)
        for number in range(IMAGES):
            Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / name / f"{number}.png")
        source = FolderSource(name=name, storage=LocalStorage(root=folder / name))
        members[name] = LocalDataModule(train=source, decoder=ImageDecoder())
    ways = {"a": Membership(order=order)}
    return MixtureDataModule(sources=members, members=ways, weights=Uniform(), batch_size=4, samples_per_epoch=320)


def _trained(folder: Path, task: LightningModule, *, order: ByLoss | None, epochs: int = 1) -> MixtureDataModule:
    module = _mixture(folder, order=order)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[LossPriorities()],
    )
    trainer.fit(task, module.train_dataloader())
    return module


def test_hard_samples_come_more_often(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = Told()
    assert isinstance(task, TellsSampleLosses)
    with caplog.at_level("INFO", logger="neurotrain"):
        _trained(tmp_path, task, order=ByLoss(exponent=1.0, initial_loss=1.0))
    late = Counter(name[0] for name in task.came[40:])
    assert sum(late[name] for name in "036") / late.total() > 0.9
    assert set(task.came) == {str(number) for number in range(IMAGES)}
    assert "exempt" in caplog.text
    assert ": a" in caplog.text


def test_nothing_is_asked_where_no_source_learns(tmp_path: Path) -> None:
    task = Told()
    _trained(tmp_path, task, order=None)
    assert not task.tells_sample_losses
    assert set(Counter(task.came).values()) == {160 // IMAGES}


def test_a_task_that_tells_no_losses_is_refused(tmp_path: Path) -> None:
    class Silent(LightningModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.1)

        def training_step(self, batch: dict[str, Any], batch_idx: int) -> None: ...

    with pytest.raises(TypeError, match=r"'a'.*Silent"):
        _trained(tmp_path, Silent(), order=ByLoss())


def test_priorities_are_part_of_the_loaders_state(tmp_path: Path) -> None:
    loader = _mixture(tmp_path, order=ByLoss(exponent=1.0)).train_dataloader().loader
    names = next(iter(loader))["id"]
    loader.learn(sources=["a", "b"], ids=["3", names[0]], losses=[500.0, 0.0])
    state = loader.state_dict()
    resumed = _mixture(tmp_path, order=ByLoss(exponent=1.0)).train_dataloader().loader
    resumed.load_state_dict(state)
    assert torch.equal(resumed.state_dict()["learned"]["a"]["priorities"], state["learned"]["a"]["priorities"])
    assert state["learned"]["a"]["priorities"][3] > 400
    assert "learned" not in _mixture(tmp_path, order=None).train_dataloader().loader.state_dict()


def test_an_epoch_without_a_word_of_losses_is_an_error(tmp_path: Path) -> None:
    loader = _mixture(tmp_path, order=ByLoss()).train_dataloader().loader
    assert len(list(loader)) == 80
    loader.set_epoch(1)
    with pytest.raises(ValueError, match="LossPriorities"):
        next(iter(loader))
