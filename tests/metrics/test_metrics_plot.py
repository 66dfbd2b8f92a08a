"""Every metric draws its value with torchmetrics' means."""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch
from matplotlib import pyplot

from neurotrain.metrics import (
    BLEUScore,
    DiceScore,
    FrechetDistance,
    HausdorffDistance,
    ROUGELScore,
    SegmentationReport,
    TopKScores,
)
from neurotrain.metrics.records import Plotted

mpl.use("Agg")


def _masks() -> tuple[torch.Tensor, torch.Tensor]:
    masks = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5
    return masks[0], masks[1]


def _updated(name: str) -> Plotted:
    metric: Plotted
    if name in ("dice", "hausdorff"):
        metric = DiceScore() if name == "dice" else HausdorffDistance()
        metric.update(*_masks())
    elif name in ("bleu", "rouge"):
        metric = BLEUScore() if name == "bleu" else ROUGELScore()
        metric.update(["the cat sat on the mat"], [["the cat sat on a mat"]])
    elif name == "top_k":
        metric = TopKScores(num_classes=4, k=2)
        metric.update(torch.rand(8, 4), torch.randint(4, (8,)))
    elif name == "report":
        metric = SegmentationReport()
        preds, target = _masks()
        metric.update(preds[:, None].float(), target.long(), torch.ones_like(target), ids=["a", "b"], threshold=0.5)
    else:
        metric = FrechetDistance(features=3)
        for real in (True, False):
            metric.update(torch.rand(20, 3), real=real)
    return metric


@pytest.mark.parametrize("name", ["dice", "hausdorff", "bleu", "rouge", "top_k", "report", "frechet"])
def test_a_metric_draws_itself(name: str) -> None:
    metric = _updated(name)
    figure, axes = metric.plot()
    assert axes.lines or axes.collections
    again, _ = metric.plot([metric.compute(), metric.compute()])
    for one in (figure, again):
        pyplot.close(one)
