"""Means over samples, each counted once; order and batches of them do not matter, to the last bit."""

from __future__ import annotations

import math

import pytest
import torch

from neurotrain.metrics import ImageTextRetrieval, MeanAveragePrecision, SampleMean
from neurotrain.metrics.functional import image_text_retrieval


def test_order_and_repetition_do_not_matter() -> None:
    values = torch.rand(101, generator=torch.Generator().manual_seed(0)) * 1e3
    weights = torch.rand(101, generator=torch.Generator().manual_seed(1))
    ids = [f"s{place}" for place in range(101)]
    figures: set[float] = set()
    for size, turn in ((101, 1), (7, 1), (7, -1), (1, -1)):
        mean = SampleMean()
        places = [*list(range(101))[::turn], 5, 6]
        for first in range(0, len(places), size):
            own = places[first : first + size]
            mean.update(values[own], ids=[ids[place] for place in own], weights=weights[own])
        figures.add(mean.compute().item())
    assert len(figures) == 1
    exact = math.fsum((values.double() * weights.double()).tolist()) / math.fsum(weights.double().tolist())
    assert figures.pop() == pytest.approx(exact, rel=1e-14)


def test_nothing_is_nan_and_shapes_are_checked() -> None:
    empty = SampleMean()
    empty.update(torch.zeros(0), ids=[])
    assert empty.compute().isnan()
    with pytest.raises(ValueError, match="both be"):
        SampleMean().update(torch.zeros(2), ids=["a", "b"], weights=torch.zeros(3))
    mean = SampleMean()
    mean.update(torch.zeros(1), ids=["a"], weights=torch.ones(1))
    mean.update(torch.zeros(1), ids=["a"], weights=torch.zeros(1))
    with pytest.raises(ValueError, match="two different"):
        mean.compute()


def test_equal_scores_of_detections_are_ordered_by_id() -> None:
    def image(offset: float) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        found = {"boxes": box + offset, "scores": torch.tensor([0.5]), "labels": torch.tensor([1])}
        return found, {"boxes": box, "labels": torch.tensor([1])}

    images = {"a": image(0.0), "b": image(50.0), "c": image(0.0)}
    figures: set[float] = set()
    for order in ("abc", "bca", "cbaab"):
        metric = MeanAveragePrecision()
        for name in order:
            found, shown = images[name]
            metric.update([found], [shown], ids=[name])
        figures.add(metric.compute()["map_50"].item())
    # hit, miss, hit: precision 1 up to a recall of 1/3 (34 of COCO's 101 places), then 2/3 up to 2/3 (33 places)
    assert len(figures) == 1
    assert figures.pop() == pytest.approx((34 + 33 * 2 / 3) / 101)


def test_retrieval_counts_an_image_once_and_orders_by_id() -> None:
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    owner = torch.tensor([0, 0, 1, 2])
    expected = image_text_retrieval(images, texts, text_image=owner, ks=(1,))
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0, 1, 1]):
        metric = ImageTextRetrieval(features=3, ks=(1,))
        for place in order:
            own = texts[owner == place]
            metric.update(images[[place]], own, torch.zeros(len(own), dtype=torch.int64), ids=["abc"[place]])
        assert metric.compute() == expected
    with pytest.raises(ValueError, match="2 ids were given for 1 images"):
        metric.update(images[:1], texts[:1], ids=["a", "b"])
