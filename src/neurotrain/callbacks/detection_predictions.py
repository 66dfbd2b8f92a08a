"""Detections in the format of COCO's results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.batch import Category, DetectionBatch
from neurotrain.callbacks.checkpoint_files import hidden_name, publish
from neurotrain.callbacks.predictions import FOLDER
from neurotrain.data.datasets.coco_masks import compressed_masks
from neurotrain.networks.detection import Detection
from neurotrain.tasks import DetectionTask

ResultKind = Literal["bbox", "segm"]
"""Boxes or masks, by COCO's names."""


class DetectionPredictions(Callback):
    """Writes ``predictions/predictions.json`` for ``stage=predict``: COCO's results, in pixels of the stored images.

    A list of ``image_id``, ``category_id`` (the data set's own), ``bbox`` (left, top, width, height) and ``score``.
    ``image_id`` is a number where the image's id is one, as COCO's are, and its file's name otherwise. ``pycocotools``
    loads it by ``loadRes``. Masks are in ``predictions-masks.json``, with ``segmentation`` in the place of ``bbox``: of
    results that have both, pycocotools takes the boxes' areas for the masks'. Of several processes each writes its own
    images, the first one into these files, the others into ``predictions-rank<n>.json`` and so on. A file is complete
    or not there.

    It reads what :class:`neurotrain.tasks.DetectionTask` returns from its prediction step.
    """

    def __init__(self, *, score_threshold: float = 0.0) -> None:
        """Set what to write.

        Args:
            score_threshold: detections with a lower score are left out.

        Raises:
            ValueError: if it is outside [0, 1].
        """
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold={score_threshold}: must be in [0, 1]")
        self.score_threshold = score_threshold
        self._results: dict[ResultKind, dict[str, list[dict[str, Any]]]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew.

        Raises:
            ValueError: if neither the data nor the checkpoint say what the labels stand for.
        """
        assert isinstance(pl_module, DetectionTask), "DetectionPredictions writes what a DetectionTask predicts"
        if pl_module.categories is None:
            raise ValueError(
                "neither the data nor the checkpoint say which categories the labels stand for: predict with a "
                "checkpoint that was trained on annotated data"
            )
        self._results = {"bbox": {}}
        if pl_module.network.predicts_masks:
            self._results["segm"] = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: DetectionBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the batch's detections."""
        assert isinstance(pl_module, DetectionTask)
        assert pl_module.categories is not None
        for name, found in zip(outputs["id"], outputs["detections"], strict=True):
            for kind, kept in self._results.items():
                results = coco_results(
                    name, found, pl_module.categories, kind=kind, score_threshold=self.score_threshold
                )
                kept.setdefault(name, results)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the files."""
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        for kind, kept in self._results.items():
            path = folder / f"predictions{'-masks' if kind == 'segm' else ''}{rank}.json"
            temporary = path.with_name(hidden_name(path.name))
            written = [result for results in kept.values() for result in results]
            temporary.write_text(json.dumps(written), encoding="utf-8")
            publish(temporary, path)


def coco_results(
    name: str,
    found: Detection,
    categories: tuple[Category, ...],
    *,
    kind: ResultKind = "bbox",
    score_threshold: float = 0.0,
) -> list[dict[str, Any]]:
    """Detections of one image in the format of COCO's results.

    Args:
        name: of the image.
        found: in its pixels.
        categories: by label.
        kind: whether boxes or masks are told.
        score_threshold: detections with a lower score are left out.

    Returns:
        One mapping a detection, numbers exactly as they were computed.

    Raises:
        ValueError: if masks are to be told and there are none.
    """
    chosen = found["scores"] >= score_threshold
    if kind == "segm":
        if "masks" not in found:
            raise ValueError(f"{name!r}: there are no masks to write")
        shapes: list[Any] = compressed_masks(found["masks"][chosen].cpu())
    else:
        boxes = found["boxes"][chosen].double().cpu()
        shapes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    key = "segmentation" if kind == "segm" else "bbox"
    image = int(name) if name.isdecimal() else name
    rows = zip(found["labels"][chosen].tolist(), shapes, found["scores"][chosen].tolist(), strict=True)
    return [
        {"image_id": image, "category_id": categories[label].id, key: shape, "score": score}
        for label, shape, score in rows
    ]
