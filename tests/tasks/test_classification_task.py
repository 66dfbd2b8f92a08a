from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from neurotrain.batch import ClassificationBatch
from neurotrain.losses.classification import ClassificationCrossEntropy, MultilabelCrossEntropy
from neurotrain.networks.classification import ResNetSmall
from neurotrain.tasks import ClassificationTask, Constant, MixupCutmix, SoftTargets

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def _network(seed: int = 0) -> ResNetSmall:
    torch.manual_seed(seed)
    return ResNetSmall(in_channels=1, num_classes=3, widths=(4, 8), blocks=(1, 1))


def _task(**changes: Any) -> ClassificationTask:  # noqa: ANN401
    given: dict[str, Any] = {
        "network": _network(),
        "loss": ClassificationCrossEntropy(),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "schedule": Constant(),
        "num_classes": 3,
    }
    return ClassificationTask(**given | changes)


def _batch(index: int) -> ClassificationBatch:
    label = torch.arange(6) % 3
    image = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(index)) * 0.3
    image[torch.arange(6), 0, :, 3 * label - label] += 3.0
    return {"image": image, "label": label, "id": [f"{index}-{row}" for row in range(6)], "source": ["toy"] * 6}


def _loader(count: int = 4) -> Any:  # noqa: ANN401
    return DataLoader([_batch(index) for index in range(count)], batch_size=None)  # pyright: ignore


def _trainer(**changes: Any) -> Trainer:  # noqa: ANN401
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    given = {"accelerator": "cpu", "max_epochs": 1, "enable_model_summary": False, "log_every_n_steps": 1}
    return Trainer(**given | quiet | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, "network.num_classes=3"),
        ({"class_names": ("a",)}, "names 1 classes"),
        ({"layer_decay": 0.0}, "layer_decay=0.0"),
        ({"views": "both"}, "views='both'"),
        ({"network": nn.Linear(2, 3), "layer_decay": 0.5}, "does not tell its layers"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _task(**changes)


def test_views_are_averaged_where_an_image_is_evaluated_and_nowhere_else() -> None:
    plain, seen = _task().eval(), _task(views="mirror").eval()
    batch = _batch(0)
    mean = (plain(batch["image"]) + plain(batch["image"].flip(-1))) / 2
    predicted = seen.predict_step(batch, 0)["probabilities"]
    torch.testing.assert_close(predicted, mean.softmax(1))
    assert not torch.allclose(predicted, plain.predict_step(batch, 0)["probabilities"])
    assert torch.equal(seen(batch["image"]), plain(batch["image"]))


def test_it_learns_and_every_stage_tells_the_same_of_one_image() -> None:
    task, trainer = _task(optimizer=partial(torch.optim.AdamW, lr=0.02)), _trainer(max_epochs=15)
    trainer.fit(task, _loader(), _loader())
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val/accuracy"] == 1.0
    assert logged["train/accuracy"] > 0.8
    (tested,) = trainer.test(task, _loader(), verbose=False)
    assert tested["test/accuracy"] == logged["val/accuracy"]
    assert tested["test/loss"] == pytest.approx(logged["val/loss"])
    predicted = trainer.predict(task, _loader(1))
    assert predicted is not None
    torch.testing.assert_close(predicted[0]["probabilities"], task.eval()(_batch(0)["image"]).softmax(1).detach())  # pyright: ignore


def test_multilabel_trains_and_scores() -> None:
    batches = [{**_batch(index), "label": nn.functional.one_hot(_batch(index)["label"], 3)} for index in range(3)]
    loader: Any = DataLoader(batches, batch_size=None)  # pyright: ignore
    trainer = _trainer(max_epochs=15)
    task = _task(loss=MultilabelCrossEntropy(), optimizer=partial(torch.optim.AdamW, lr=0.02))
    trainer.fit(task, loader, loader)
    assert float(trainer.callback_metrics["val/map"]) > 0.9


def test_layers_towards_the_image_learn_slower() -> None:
    task = _task(layer_decay=0.5)
    trainer = _trainer()
    trainer.fit(task, _loader(1))
    rates = {id(p): group["lr"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in task.network.named_parameters()}
    assert found["head.weight"] == pytest.approx(0.1)
    assert found["stages.1.conv1.weight"] == pytest.approx(0.05)
    assert found["stem.weight"] == pytest.approx(0.1 * 0.5**3)
    assert {group.get("weight_decay") for group in trainer.optimizers[0].param_groups} == {0}


def test_distillation_trains_the_student_only_and_keeps_the_teacher_out_of_the_checkpoint() -> None:
    teacher = _network(seed=1)
    before = copy.deepcopy(teacher.state_dict())
    task = _task(distillation=SoftTargets(teacher=teacher, share=1.0, temperature=2.0))
    plain = task.state_dict().keys()
    _trainer(max_epochs=20).fit(task, _loader())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any("teacher" in name for name in plain)
    with torch.no_grad():
        image = _batch(0)["image"]
        wanted = (teacher(image) / 2).softmax(1)
        near, far = ((net.eval()(image) / 2).softmax(1) - wanted for net in (task.network, _network()))
    assert near.abs().mean() < far.abs().mean()  # labels had no share


def test_a_teachers_weights_come_from_a_run_or_from_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = _network(seed=5)
    save_file(source.state_dict(), tmp_path / "teacher.safetensors")
    torch.save({"state_dict": _task(network=source).state_dict()}, tmp_path / "last.ckpt")
    image = _batch(0)["image"]
    for name in ("teacher.safetensors", "last.ckpt"):
        teacher = _network()
        SoftTargets(teacher=teacher, weights=tmp_path / name)
        assert torch.equal(teacher(image), source.eval()(image))
    with pytest.raises(FileNotFoundError):
        SoftTargets(teacher=_network(), weights=tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="not those of Linear"):
        SoftTargets(teacher=nn.Linear(1, 1), weights=tmp_path / "last.ckpt")


def test_mixing_is_torchvisions_and_follows_from_its_numbers_alone() -> None:
    batch, mixing = _batch(0), MixupCutmix(mixup_alpha=1.0, cutmix_alpha=1.0, seed=3)
    state = torch.get_rng_state()
    found = [mixing(batch["image"], batch["label"], num_classes=3, draw=(0, draw)) for draw in range(20)]
    again = [mixing(batch["image"], batch["label"], num_classes=3, draw=(0, draw)) for draw in range(20)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(found, again, strict=True))
    kinds = set()
    for image, target in found:
        torch.testing.assert_close(target.sum(1), torch.ones(6))
        weight = float(target[0, 0])
        blended = weight * batch["image"] + (1 - weight) * batch["image"].roll(1, 0)
        pasted = ((image == batch["image"]) | (image == batch["image"].roll(1, 0))).all()
        kinds.add("cutmix" if pasted else "mixup")
        if not pasted:
            torch.testing.assert_close(image, blended)
    assert kinds == {"cutmix", "mixup"}
    none = MixupCutmix(probability=0.0)(batch["image"], batch["label"], num_classes=3, draw=(0, 0))
    assert none[1] is batch["label"]
    with pytest.raises(ValueError, match="mixing=null"):
        MixupCutmix(mixup_alpha=0.0, cutmix_alpha=0.0)


def test_a_run_that_mixes_and_is_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    def run(epochs: int, ckpt: Path | None = None) -> tuple[ClassificationTask, Trainer]:
        seed_everything(0, verbose=False)
        task = _task(mixing=MixupCutmix(), optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9))
        trainer = _trainer(max_epochs=epochs)
        trainer.fit(task, _loader(), ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
        return task, trainer

    whole, _ = run(3)
    _, first = run(1)
    first.save_checkpoint(tmp_path / "one.ckpt")
    resumed, _ = run(3, tmp_path / "one.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
