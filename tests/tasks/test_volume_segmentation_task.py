"""The task of volumes: it learns, decides over the voxels of files, and refuses what contradicts itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurotrain.batch import VolumeBatch
from neurotrain.inference import MaskCleaning, SlidingWindow
from neurotrain.losses import CrossEntropyLoss, DeepSupervisionLoss, DiceLoss
from neurotrain.networks import SegmentationOutput
from neurotrain.tasks import Constant, VolumeSegmentationTask


class Told(nn.Module):
    """Predicts the class that the intensity says, sure of itself; with a further head in training if asked for."""

    def __init__(self, classes: int, *, heads: int = 0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(50.0))
        self.classes, self.heads = classes, heads

    def forward(self, image: Tensor) -> Tensor | SegmentationOutput:
        logits = torch.cat([-((image - index) ** 2) for index in range(self.classes)], dim=1) * self.scale
        aux = tuple(logits[..., ::2, ::2, ::2] for _ in range(self.heads))
        return SegmentationOutput(logits, aux) if self.training and self.heads else logits


def task(**changes: Any) -> VolumeSegmentationTask:  # noqa: ANN401
    given: dict[str, Any] = {
        "network": Told(3),
        "loss": CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "schedule": Constant(),
        "inferer": SlidingWindow(window=(4, 4, 4)),
        "num_classes": 3,
    }
    return VolumeSegmentationTask(**given | changes)


def batch() -> VolumeBatch:
    labels = torch.zeros(1, 10, 8, 6, dtype=torch.uint8)
    labels[:, 2:6, 2:6, 1:5] = 1
    labels[:, 6:8, 2:6, 1:5] = 2
    return {
        "image": labels[:, 1:9, 1:8].float()[:, None],
        "reference": labels,
        "box": torch.tensor([[[1, 1, 0], [9, 8, 6]]]),
        "size": torch.tensor([[10, 8, 6]]),
        "spacing": torch.tensor([[1.0, 1.0, 3.0]], dtype=torch.float64),
        "id": ["a"],
        "source": ["toy"],
    }


def test_labels_lie_over_the_voxels_of_the_file() -> None:
    case = batch()
    ours = task().eval()
    with torch.no_grad():
        assert torch.equal(ours.predict_step(case, 0)["labels"], case["reference"])  # type: ignore[typeddict-item]
        # Prepared at half the resolution: blocks of two voxels come back as blocks, but for their borders.
        coarse: VolumeBatch = {**case, "image": case["image"][..., ::2, :, ::2].contiguous()}
        found = ours.labels(coarse)
    assert found.shape == case["reference"].shape  # type: ignore[typeddict-item]
    assert not found[:, 0].any()


def test_cleaning_is_applied_to_classes_and_to_regions() -> None:
    case = batch()
    case["image"][0, 0, 0, 0, 0] = 1.0  # a speck apart from the organ
    with torch.no_grad():
        assert int(task().eval().labels(case)[0, 1, 1, 0]) == 1
        cleaned = task(cleaning=MaskCleaning(largest=True)).eval().labels(case)
        assert torch.equal(cleaned, case["reference"])  # type: ignore[typeddict-item]
        regions = task(
            mode="multilabel", loss=DiceLoss(mode="multilabel"), cleaning=MaskCleaning(largest=True), threshold=0.4
        )
        assert regions.eval().labels(case).shape == (1, 3, 10, 8, 6)


def test_a_loss_of_one_head_refuses_a_network_of_several() -> None:
    patch = {
        "image": torch.rand(1, 1, 4, 4, 4),
        "mask": torch.zeros(1, 4, 4, 4, dtype=torch.int64),
        "valid": torch.ones(1, 4, 4, 4, dtype=torch.bool),
    }
    plain = task(network=Told(3, heads=1)).train()
    with pytest.raises(ValueError, match="has 1 further heads, which CrossEntropyLoss does not read"):
        plain._loss(plain.network(patch["image"]), patch["mask"], patch["valid"])
    deep = task(network=Told(3, heads=1), loss=DeepSupervisionLoss(loss=CrossEntropyLoss())).train()
    logits, loss = deep._loss(deep.network(patch["image"]), patch["mask"], patch["valid"])
    assert logits.shape == (1, 3, 4, 4, 4)
    loss.backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "multilabel"}, "loss.mode='multiclass'"),
        ({"threshold": 0.5}, "no effect for multiclass"),
        ({"mode": "multilabel", "loss": DiceLoss(mode="multilabel"), "threshold": 1.5}, "in \\(0, 1\\)"),
        ({"class_names": ("a",)}, "must name all"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changes)
