"""Two processes give what one gives, also where one of them has seen nothing: every metric but segmentation's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torchmetrics import Metric

from neurotrain.metrics import (
    BLEUScore,
    CalibrationError,
    CaptionReport,
    CIDErScore,
    DetectionConfusion,
    DetectionF1,
    FigureAtThreshold,
    FrechetDistance,
    ImageTextRetrieval,
    KernelDistance,
    ManifoldScores,
    MeanAveragePrecision,
    MultilabelMAP,
    ROUGELScore,
    ThresholdAt,
    TopKScores,
)

SHARES = {"both": [[0, 1, 2], [3, 4]], "one idle": [[0, 1, 2, 3, 4], []]}
TEXTS = ["a red bus", "two dogs play", "", "a cat sleeps here", "größe"]


def detection(part: int, *, masks: bool) -> tuple[list[dict], list[dict], list[str]]:
    """An image; part 4 repeats image 0."""
    generator = torch.Generator().manual_seed(part % 4)
    corner = torch.rand(4, 2, generator=generator) * 30
    labels = torch.randint(0, 2, (4,), generator=generator)
    found = {"scores": torch.rand(4, generator=generator), "labels": labels}
    wanted = {"labels": labels[:3]}
    if masks:
        row, column = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
        far = [(row - y).abs().maximum((column - x).abs()) for x, y in corner.tolist()]
        found["masks"], wanted["masks"] = torch.stack(far) < 7, torch.stack(far)[:3] < 6
    else:
        found["boxes"] = torch.cat([corner, corner + 11], 1)
        wanted["boxes"] = torch.cat([corner, corner + 10], 1)[:3]
    return [found], [wanted], [f"image {part % 4}"]


def detects(metric: Metric, part: int) -> None:
    preds, target, names = detection(part, masks=metric.iou_type == "segm")
    metric.update(preds, target, ids=names)


def features(part: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(10 * part + seed))


def reads(metric: Metric, part: int) -> None:
    metric.update(TEXTS[part : part + 1], [[TEXTS[(part + 1) % 5], f"a {TEXTS[part]}"]])


def captions(metric: Metric, part: int) -> None:
    """Part 4 repeats image 0."""
    part %= 4
    metric.update(TEXTS[part : part + 1], [[TEXTS[part + 1], f"a {TEXTS[part]}"]], ids=[f"image {part}"])


def ranks(metric: Metric, part: int) -> None:
    scores = features(part).sigmoid()
    metric.update(scores[:, 0], (scores[:, 1] > 0.5).long())


def classifies(metric: Metric, part: int) -> None:
    metric.update(features(part).softmax(1), torch.arange(6) % 3)


def labels_several(metric: Metric, part: int) -> None:
    metric.update(features(part), (features(part, seed=1) > 0).long())


def retrieves(metric: Metric, part: int) -> None:
    metric.update(features(part)[: 2 + part % 2], features(part, seed=1)[:5], torch.arange(5) % 2)


def generates(metric: Metric, part: int) -> None:
    metric.update(features(part), real=True)
    metric.update(features(part, seed=1)[: 4 + part % 2] + 0.3, real=False)


CASES: dict[str, tuple[Callable[[], Metric], Callable[[Metric, int], None]]] = {
    "boxes": (lambda: MeanAveragePrecision(per_class=True), detects),
    "masks": (lambda: MeanAveragePrecision(iou_type="segm"), detects),
    "f1": (DetectionF1, detects),
    "confusion": (lambda: DetectionConfusion(num_classes=2), detects),
    "bleu": (BLEUScore, reads),
    "rouge": (ROUGELScore, reads),
    "cider": (CIDErScore, reads),
    "captions": (CaptionReport, captions),
    "top k": (lambda: TopKScores(num_classes=3, k=2), classifies),
    "calibration": (CalibrationError, classifies),
    "at threshold": (lambda: FigureAtThreshold(figure="mcc"), ranks),
    "threshold at": (lambda: ThresholdAt(figure="recall", value=0.8), ranks),
    "multilabel": (lambda: MultilabelMAP(num_labels=3), labels_several),
    "retrieval": (lambda: ImageTextRetrieval(features=3), retrieves),
    "frechet": (lambda: FrechetDistance(features=3), generates),
    "kernel": (lambda: KernelDistance(features=3, subsets=3, subset_size=10), generates),
    "manifold": (lambda: ManifoldScores(features=3), generates),
}


def evaluate(parts: list[int]) -> dict[str, object]:
    """Every metric on these parts; collective where a process group exists."""
    found: dict[str, object] = {}
    for name, (build, update) in CASES.items():
        metric = build()
        for part in parts:
            update(metric, part)
        metric._update_count = 1  # an idle rank computes too
        found[name] = metric.compute()
    return found


def work(rank: int, folder: str) -> dict[str, dict[str, object]]:
    """What one rank gets."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    try:
        return {name: evaluate(parts[rank]) for name, parts in SHARES.items()}
    finally:
        torch.distributed.destroy_process_group()


def work_beside(_: int, folder: str) -> None:
    """Rank 1, in a process of its own."""
    torch.set_num_threads(1)
    torch.save(work(1, folder), Path(folder) / "1.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, object]]]:
    folder = tmp_path_factory.mktemp("ranks")
    beside = torch.multiprocessing.spawn(work_beside, args=(str(folder),), nprocs=1, join=False)
    assert beside is not None
    own = work(0, str(folder))
    while not beside.join():
        pass
    return [own, torch.load(folder / "1.pt", weights_only=True)]


@pytest.fixture(scope="module")
def alone() -> dict[str, object]:
    return evaluate([0, 1, 2, 3, 4])


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", CASES)
def test_equals_one_process(
    results: list[dict[str, dict[str, object]]], alone: dict[str, object], rank: int, share: str, name: str
) -> None:
    torch.testing.assert_close(results[rank][share][name], alone[name], rtol=1e-12, atol=1e-12, equal_nan=True)
