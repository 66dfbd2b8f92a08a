from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neurotrain.batch import SegmentationBatch
from neurotrain.inference import FullImage, TestTimeAugmentation
from neurotrain.losses import BinaryCrossEntropyLoss, CrossEntropyLoss, SegmentationLoss
from neurotrain.networks import SegmentationOutput, UNet, WNet
from neurotrain.tasks import Constant, SegmentationTask

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def _task(**changes: Any) -> SegmentationTask:  # noqa: ANN401
    given: dict[str, Any] = {
        "network": UNet(in_channels=1, widths=(4, 8)),
        "loss": BinaryCrossEntropyLoss(mode="binary"),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "schedule": Constant(),
        "inferer": FullImage(divisor=2),
    }
    return SegmentationTask(**given | changes)


def _batch(index: int, mask: Tensor | None = None) -> SegmentationBatch:
    generator = torch.Generator().manual_seed(index)
    image = torch.rand(2, 1, 16, 16, generator=generator)
    labels = (image[:, 0] > 0.6).long() if mask is None else mask
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    return {"image": image, "mask": labels, "valid": valid, "id": [f"{index}a", f"{index}b"], "source": ["toy"] * 2}


def _loader(count: int = 3) -> Any:  # noqa: ANN401
    batches = [_batch(index) for index in range(count)]
    return DataLoader(batches, batch_size=None)  # pyright: ignore[reportArgumentType]


def _trainer(**changes: Any) -> Trainer:  # noqa: ANN401
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    given = {"accelerator": "cpu", "max_epochs": 1, "enable_model_summary": False, "log_every_n_steps": 1}
    return Trainer(**given | quiet | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "binary", "num_classes": 2}, "num_classes=2"),
        ({"mode": "multiclass", "num_classes": 1}, "num_classes=1"),
        ({"class_names": ("a", "b")}, "class_names"),
        ({"mode": "multiclass", "num_classes": 3, "threshold": 0.4}, "no effect"),
        ({"threshold": 1.5}, "probability"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _task(**changes)


def test_a_run_that_could_not_choose_its_threshold_is_refused_before_it_starts() -> None:
    with pytest.raises(ValueError, match="validation"):
        _trainer().fit(_task(), _loader())
    with pytest.raises(ValueError, match="multiple"):
        _trainer(max_epochs=3, check_val_every_n_epoch=2).fit(_task(), _loader(), _loader())


def test_testing_without_a_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="no threshold yet"):
        _trainer().test(_task(), _loader(), verbose=False)


def test_the_threshold_is_chosen_on_validation_and_kept_in_the_weights() -> None:
    seed_everything(0, verbose=False)
    task = _task()
    _trainer(max_epochs=2).fit(task, _loader(), _loader())
    chosen = float(task.threshold)
    assert 0.0 <= chosen < 1.0
    fresh = _task()
    fresh.load_state_dict(task.state_dict())
    assert float(fresh.threshold) == chosen


def test_a_typed_threshold_wins_over_a_saved_one() -> None:
    saved = {"state_dict": _task().state_dict() | {"threshold": torch.tensor(0.2)}}
    typed = _task(threshold=0.7)
    typed.on_load_checkpoint(saved)
    typed.load_state_dict(saved["state_dict"])
    assert float(typed.threshold) == pytest.approx(0.7)


def test_the_threshold_in_use_is_the_one_that_maximises_the_mean_dice() -> None:
    task = _task()
    _trainer().fit(task, _loader(), _loader())
    with torch.no_grad():
        found = [(task.probabilities(_batch(i)["image"])[:, 0], _batch(i)["mask"]) for i in range(3)]

    def mean_dice(threshold: float) -> float:
        scores = [
            2 * ((p > threshold) & (m == 1)).sum((1, 2)) / ((p > threshold).sum((1, 2)) + (m == 1).sum((1, 2)))
            for p, m in found
        ]
        return float(torch.cat(scores).mean())

    best = max(mean_dice(step / 200) for step in range(1, 200))
    assert mean_dice(float(task.threshold)) >= best - 0.01


class _Spy(SegmentationLoss):
    def __init__(self) -> None:
        super().__init__(mode="binary")
        self.seen: list[Tensor] = []

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        self.seen.append(logits)
        return logits.mean()

    def compute(self, inputs: Any) -> Tensor:  # noqa: ANN401
        raise AssertionError


class _TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor | SegmentationOutput:
        logits = x * self.weight
        return SegmentationOutput(logits, (logits + 1, logits + 3)) if self.training else logits


def test_auxiliary_heads_share_the_loss_by_their_weight() -> None:
    task = _task(network=_TwoHeads(), loss=_Spy(), aux_weight=0.5, threshold=0.5)
    task.trainer = _trainer()
    task.trainer.strategy._lightning_module = task  # pyright: ignore[reportPrivateUsage]
    task.trainer.optimizers = [torch.optim.SGD(task.parameters(), lr=0.1)]
    task.trainer.log_every_n_steps = 10**9  # pyright: ignore[reportAttributeAccessIssue]
    batch = _batch(0)
    loss = task.training_step(batch, 0)
    mean = batch["image"].mean()
    assert float(loss.detach()) == pytest.approx(float(mean + 0.5 * (mean + 2)), rel=1e-5)


@pytest.mark.parametrize("network", [UNet(in_channels=1, widths=(4, 8)), WNet(in_channels=1, widths=(4, 8))])
def test_channels_last_gives_the_same_probabilities(network: nn.Module) -> None:
    image = _batch(0)["image"]
    plain = _task(network=network).eval()
    with torch.no_grad():
        expected = plain.probabilities(image)
        given = _task(network=network, channels_last=True).eval().probabilities(image)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_evaluation_is_float32_under_mixed_precision() -> None:
    task = _task(threshold=0.5).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = task.probabilities(_batch(0)["image"])
    with torch.no_grad():
        assert torch.equal(mixed, task.probabilities(_batch(0)["image"]))
    assert mixed.dtype == torch.float32


def test_multiclass_trains_and_takes_the_most_probable_class() -> None:
    task = _task(
        network=UNet(in_channels=1, out_channels=3, widths=(4, 8)),
        loss=CrossEntropyLoss(),
        mode="multiclass",
        num_classes=3,
    )
    labels = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    batch = _batch(0, labels)
    loader: Any = DataLoader([batch], batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer = _trainer()
    trainer.fit(task, loader, loader)
    figures = trainer.test(task, loader, verbose=False)[0]
    assert {"test/dice", "test/pooled_dice", "test/iou"} <= figures.keys()
    task.eval()
    with torch.no_grad():
        prediction = task.test_step(batch, 0)
    assert torch.equal(prediction["labels"], prediction["probabilities"].argmax(1))


def test_multilabel_trains_and_scores_each_label() -> None:
    task = _task(
        network=UNet(in_channels=1, out_channels=2, widths=(4, 8)),
        loss=BinaryCrossEntropyLoss(mode="multilabel"),
        mode="multilabel",
        num_classes=2,
        class_names=("bright", "dark"),
        threshold=0.5,
    )
    bright = (_batch(0)["image"][:, 0] > 0.6).long()
    batch = _batch(0, torch.stack([bright, 1 - bright], 1))
    loader: Any = DataLoader([batch], batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer = _trainer()
    trainer.fit(task, loader)
    figures = trainer.test(task, loader, verbose=False)[0]
    assert {"test/dice/bright", "test/dice/dark"} <= figures.keys()


def test_augmented_inference_reaches_the_task() -> None:
    inferer = TestTimeAugmentation(inferer=FullImage(divisor=2), group="d4")
    task = _task(inferer=inferer).eval()
    image = _batch(0)["image"]
    with torch.no_grad():
        turned = task.probabilities(torch.rot90(image, 1, (-2, -1)))
        torch.testing.assert_close(turned, torch.rot90(task.probabilities(image), 1, (-2, -1)), atol=1e-5, rtol=1e-5)
