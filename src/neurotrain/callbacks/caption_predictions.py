"""Predicted captions, as a table and as COCO takes results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.batch import ImageTextBatch
from neurotrain.callbacks.checkpoint_files import hidden_name, publish
from neurotrain.callbacks.predictions import FOLDER
from neurotrain.callbacks.tables import write_table
from neurotrain.tasks import CaptioningTask


class CaptionPredictions(Callback):
    """Writes ``predictions/captions.csv`` (``id``, ``caption``) and ``captions.json`` for ``stage=predict``, by id.

    The JSON is COCO's format of results, ``[{"image_id": 42, "caption": "..."}]``; an id of digits alone is a number
    there, as COCO's are (``000000000042`` is 42), any other one stays a text. Of several processes each writes its own
    images, the first one into these files, the others into ``captions-rank<n>``. A file is complete or not there.

    It reads what :class:`neurotrain.tasks.CaptioningTask` returns from its prediction step.

    Reference:
        https://cocodataset.org/#format-results, section 5 (image captioning).
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._captions: dict[str, str] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        assert isinstance(pl_module, CaptioningTask), "CaptionPredictions writes what a CaptioningTask predicts"
        self._captions = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the batch's captions."""
        for name, caption in zip(outputs["id"], outputs["caption"], strict=True):
            self._captions.setdefault(name, caption)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes both files."""
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        listed = sorted(self._captions.items())
        path = folder / f"captions{rank}.csv"
        temporary = path.with_name(hidden_name(path.name))
        write_table(temporary, [{"id": name, "caption": caption} for name, caption in listed])
        publish(temporary, path)
        path = path.with_suffix(".json")
        temporary = path.with_name(hidden_name(path.name))
        temporary.write_text(json.dumps(coco_results(listed), ensure_ascii=False, indent=0), encoding="utf-8")
        publish(temporary, path)


def coco_results(captions: list[tuple[str, str]]) -> list[dict[str, str | int]]:
    """COCO's list of results.

    Args:
        captions: ids with their captions.

    Example:
        >>> coco_results([("000000000042", "a dog"), ("mine", "a cat")])
        [{'image_id': 42, 'caption': 'a dog'}, {'image_id': 'mine', 'caption': 'a cat'}]
    """
    return [
        {"image_id": int(name) if name.isascii() and name.isdigit() else name, "caption": caption}
        for name, caption in captions
    ]
