"""Two processes give what one gives: repeated images, unequal shares, and a rank without images."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from metrics_cases import Case, binary_case
from torch import Tensor

from neurotrain.metrics import (
    AverageSurfaceDistance,
    DiceScore,
    HausdorffDistance,
    InstanceScores,
    IoUScore,
    NormalizedSurfaceDice,
    RunningConfusion,
    SegmentationReport,
    ThresholdSearch,
)

# rank 1 repeats image 0, as a distributed sampler does to fill its last batch
SHARES = {"repeated": [[0, 1, 2], [3, 4, 0]], "one rank idle": [[0, 1, 2, 3, 4], []]}
Figures = dict[str, Tensor | list[Tensor] | list[dict[str, str | float]]]


def evaluate(case: Case) -> Figures:
    """Every metric on this rank's images; all that follows is collective where a process group exists."""
    exact, binned = SegmentationReport(), SegmentationReport(surface=False, pooled_auc_bins=20)
    threshold = ThresholdSearch(bins=50)
    for row in range(len(case.ids)):
        part = case.part([row])
        exact.update(*part[:3], ids=part.ids, threshold=0.5)
        binned.update(*part[:3], ids=part.ids, threshold=0.5)
        threshold.update(*part[:3], ids=part.ids)
    return {
        "rows before compute": exact.rows(),
        **{f"exact {key}": value for key, value in exact.compute().items()},
        **{f"binned {key}": value for key, value in binned.compute().items()},
        "rows after compute": exact.rows(),
        "own ids": exact.ids if isinstance(exact.ids, Tensor) else torch.cat(exact.ids),
        "threshold": list(threshold.compute()),
    }


def accumulate(case: Case) -> Figures:
    """The metrics without ids, for which each image must be on one rank only."""
    preds = (case.probabilities[:, 0] > 0.5).long()
    figures: Figures = {}
    for average in ("sample", "pooled"):
        for metric in (DiceScore(average=average), IoUScore(average=average), NormalizedSurfaceDice(average=average)):
            for row in range(len(preds)):
                metric.update(preds[row : row + 1], case.target[row : row + 1], case.valid[row : row + 1])
            figures[f"{type(metric).__name__} {average}"] = metric.compute()
    for metric in (HausdorffDistance(percentile=95), AverageSurfaceDistance(boundary="voxels")):
        for row in range(len(preds)):
            metric.update(preds[row : row + 1], case.target[row : row + 1], case.valid[row : row + 1])
        figures[type(metric).__name__] = metric.compute()
    instances = InstanceScores()
    if len(preds):
        instances.update(preds, case.target, case.valid)
    figures |= {f"instances {key}": value for key, value in instances.compute().items()}
    confusion = RunningConfusion()
    if len(preds):
        confusion.update(case.probabilities - 0.5, case.target, case.valid)
    return figures | {f"running {key}": value for key, value in confusion.compute().items()}


def work(rank: int, folder: str) -> dict[str, Figures]:
    """What one rank gets."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    try:
        found = {name: evaluate(binary_case().part(share[rank])) for name, share in SHARES.items()}
        found["disjoint"] = accumulate(binary_case().part([[0, 1, 2], [3, 4]][rank]))
        found["disjoint idle"] = accumulate(binary_case().part([[0, 1, 2, 3, 4], []][rank]))
        return found
    finally:
        torch.distributed.destroy_process_group()


def work_beside(_: int, folder: str) -> None:
    """Rank 1, in a process of its own."""
    torch.set_num_threads(1)
    torch.save(work(1, folder), Path(folder) / "1.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Figures]]:
    folder = tmp_path_factory.mktemp("ranks")
    beside = torch.multiprocessing.spawn(work_beside, args=(str(folder),), nprocs=1, join=False)
    assert beside is not None
    own = work(0, str(folder))
    while not beside.join():
        pass
    return [own, torch.load(folder / "1.pt", weights_only=True)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("share", SHARES)
def test_report_and_threshold_equal_one_process(results: list[dict[str, Figures]], rank: int, share: str) -> None:
    expected, found = evaluate(binary_case()), results[rank][share]
    assert found.keys() == expected.keys()
    assert [row["id"] for row in found["rows after compute"]] == sorted(binary_case().ids)
    assert len(found["own ids"]) == len(SHARES[share][rank]), "the state is the rank's own again"
    for key in expected.keys() - {"own ids"}:
        assert str(found[key]) == str(expected[key]), key


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("share", ["disjoint", "disjoint idle"])
def test_scores_equal_one_process(results: list[dict[str, Figures]], rank: int, share: str) -> None:
    expected = accumulate(binary_case())
    assert results[rank][share].keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(results[rank][share][key], value, rtol=1e-14, atol=0.0)
