"""Rows of detection: COCO's average precision of boxes and of masks, updates included.

Peers get COCO's thresholds as lists, since their default ones are rounded to single precision; the figures of both
sides must then be equal within 1e-6, which is their result's own precision.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from harness import Options, Result, interleaved, is_installed, left_out

from neurotrain.metrics import MeanAveragePrecision

Images = list[dict[str, torch.Tensor]]

ROUNDS = 3
FIGURES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")
PEERS = {"faster_coco_eval": "faster-coco-eval", "pycocotools": "pycocotools"}


def boxes(images: int, per: int = 100, classes: int = 20) -> tuple[Images, Images]:
    """Random boxes and jittered ones, a tenth of them with another label."""
    rng = np.random.default_rng(0)
    preds, target = [], []
    for _ in range(images):
        wanted = np.concatenate([rng.uniform(0, 400, (per, 2)), rng.uniform(5, 150, (per, 2))], axis=1)
        found = wanted + rng.normal(0, 3, wanted.shape)
        found[:, 2:] = np.maximum(found[:, 2:], 1)
        labels = rng.integers(0, classes, per)
        guesses = np.where(rng.random(per) < 0.1, rng.integers(0, classes, per), labels)
        scores = torch.from_numpy(rng.random(per)).float()
        preds.append({"boxes": torch.from_numpy(found).float(), "scores": scores, "labels": torch.from_numpy(guesses)})
        target.append({"boxes": torch.from_numpy(wanted).float(), "labels": torch.from_numpy(labels)})
    return preds, target


def masks(images: int, per: int = 10, size: int = 256, classes: int = 5) -> tuple[Images, Images]:
    """Random ellipses and the same moved by up to four pixels."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size]
    preds, target = [], []
    for _ in range(images):
        y, x, tall, wide = (rng.uniform(*span, (per, 1, 1)) for span in ((0, size), (0, size), (5, 64), (5, 64)))
        wanted = torch.from_numpy(((row - y) / tall) ** 2 + ((column - x) / wide) ** 2 < 1)
        labels = torch.from_numpy(rng.integers(0, classes, per))
        found = wanted.roll(tuple(rng.integers(-4, 5, 2).tolist()), (1, 2))
        preds.append({"masks": found, "scores": torch.from_numpy(rng.random(per)).float(), "labels": labels})
        target.append({"masks": wanted, "labels": labels})
    return preds, target


def rows(options: Options) -> Iterator[Result]:
    """Every row of the family."""
    logging.disable(logging.WARNING)  # peers' advice about more than 100 detections
    number = 100 if options.quick else 500
    data = boxes(number)
    name = f"box mAP, {number} images x 100 boxes x 20 classes"
    yield _row(name, data, {"box_format": "xywh"}, "faster_coco_eval", speedup=4, options=options)
    if not options.quick:
        yield _row(name, data, {"box_format": "xywh"}, "pycocotools", speedup=4, options=options)
    number = 20 if options.quick else 100
    data = masks(number)
    name = f"mask mAP, {number} images x 10 masks of 256 x 256"
    for backend in PEERS:
        yield _row(name, data, {"iou_type": "segm"}, backend, speedup=1.8, options=options)


def _row(
    name: str, data: tuple[Images, Images], settings: dict[str, Any], backend: str, *, speedup: float, options: Options
) -> Result:
    peer_name = f"torchmetrics + {PEERS[backend]}"

    def ours() -> dict[str, torch.Tensor]:
        return _accumulated(MeanAveragePrecision(undefined=-1.0, **settings), data)

    def peer() -> dict[str, torch.Tensor]:
        from torchmetrics.detection import MeanAveragePrecision as PeerPrecision

        metric = PeerPrecision(
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            backend=backend,
            **settings,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            return _accumulated(metric, data)

    if not is_installed(backend):
        alone = interleaved({"ours": lambda: _milliseconds(ours)}, rounds=ROUNDS, options=options)
        return left_out(name=name, ours=alone["ours"], peer_name=peer_name, unit="ms", goal=1 / speedup)
    found, expected = ours(), peer()
    for figure in FIGURES:
        assert abs(float(found[figure]) - float(expected[figure])) < 1e-6, figure
    sides = {"ours": lambda: _milliseconds(ours), "peer": lambda: _milliseconds(peer)}
    measured = interleaved(sides, rounds=ROUNDS, options=options, share=0.5)
    return Result(
        name=name,
        ours=measured["ours"],
        peer=measured["peer"],
        peer_name=peer_name,
        unit="ms",
        goal=1 / speedup,
    )


def _accumulated(metric: Any, data: tuple[Images, Images], batch: int = 8) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Figures of a metric, ours or a peer's, fed batch by batch."""
    preds, target = data
    for begin in range(0, len(preds), batch):
        metric.update(preds[begin : begin + batch], target[begin : begin + batch])
    return metric.compute()


def _milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)
