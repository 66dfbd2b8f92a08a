"""The running confusion of training: against the counting function, by hand, resumed, in low precision."""

from __future__ import annotations

import pickle

import pytest
import torch

from neurotrain.metrics import RunningConfusion
from neurotrain.metrics.functional import accuracy_from_counts, confusion_counts, dice_from_counts


def batch(mode: str, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 5, 7, generator=generator)
    shape = (3, classes, 5, 7) if mode == "multilabel" else (3, 5, 7)
    target = torch.randint(classes if mode == "multiclass" else 2, shape, generator=generator)
    return logits, target, torch.rand(3, 5, 7, generator=generator) < 0.8


@pytest.mark.parametrize(("mode", "classes"), [("binary", 1), ("multiclass", 4), ("multilabel", 3)])
@pytest.mark.parametrize("masked", [True, False])
def test_counts_equal_the_function(mode: str, classes: int, masked: bool) -> None:
    metric = RunningConfusion(mode=mode, num_classes=classes)
    expected = torch.zeros(classes, 4, dtype=torch.int64)
    for seed in range(2):
        logits, target, valid = batch(mode, classes, seed)
        keep = valid if masked else None
        metric.update(logits.requires_grad_(), target, keep)
        labels = {"binary": (logits > 0)[:, 0], "multilabel": logits > 0, "multiclass": logits.argmax(1)}[mode]
        expected += confusion_counts(labels, target, mode=mode, num_classes=classes, valid=keep).sum(0)
    assert torch.equal(metric.counts, expected)
    figures = metric.compute()
    scored = slice(1, None) if mode == "multiclass" else slice(None)
    assert torch.equal(figures["dice"], dice_from_counts(expected)[scored].nanmean())
    if mode == "multiclass":
        assert figures["accuracy"] == expected[:, 0].sum().double() / expected[0].sum()
    else:
        assert torch.equal(figures["accuracy"], accuracy_from_counts(expected).mean())


def test_case_worked_by_hand() -> None:
    metric = RunningConfusion()
    # logit 0 is negative; the last voxel is not valid and its label is none
    logits = torch.tensor([[[2.0, 1.0, 0.0, -1.0, -1.0, 5.0]]], dtype=torch.bfloat16)
    target = torch.tensor([[1, 0, 1, 0, 0, 255]])
    metric.update(logits, target, torch.tensor([[True, True, True, True, True, False]]))
    assert metric.counts.tolist() == [[1, 1, 1, 2]]
    figures = metric.compute()
    assert (figures["dice"].item(), figures["accuracy"].item()) == (0.5, 0.6)


def test_resumed_epoch_goes_on() -> None:
    whole, first = RunningConfusion(), RunningConfusion()
    logits, target, valid = batch("binary", 1)
    whole.update(logits, target, valid)
    first.update(logits[:1], target[:1], valid[:1])
    module = torch.nn.ModuleDict({"confusion": RunningConfusion()})
    module.load_state_dict(torch.nn.ModuleDict({"confusion": first}).state_dict())
    resumed = module["confusion"]
    resumed.update(logits[1:], target[1:], valid[1:])
    assert torch.equal(resumed.counts, whole.counts)


def test_pickle_clone_and_reset() -> None:
    logits, target, valid = batch("binary", 1)
    metric = RunningConfusion()
    metric.update(logits, target, valid)
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert torch.equal(copy.counts, metric.counts)
    metric.reset()
    assert not metric.counts.any()
    metric.update(logits, target, torch.zeros_like(valid))
    assert all(value.isnan() for value in metric.compute().values())


def test_absent_classes_are_skipped() -> None:
    metric = RunningConfusion(mode="multiclass", num_classes=4)
    target = torch.tensor([[0, 1, 1, 2]])
    logits = torch.nn.functional.one_hot(target, 4).movedim(-1, 1).float()
    metric.update(logits, target)
    assert metric.compute()["dice"] == 1


def test_wrong_input_is_named() -> None:
    logits, target, _ = batch("binary", 1)
    with pytest.raises(ValueError, match="do not fit mode 'binary' with num_classes=1"):
        RunningConfusion().update(logits, target.unsqueeze(1))
    with pytest.raises(ValueError, match="do not fit mode 'multilabel'"):
        RunningConfusion(mode="multilabel", num_classes=2).update(logits, target)
    with pytest.raises(ValueError, match="needs at least 2"):
        RunningConfusion(mode="multiclass")
