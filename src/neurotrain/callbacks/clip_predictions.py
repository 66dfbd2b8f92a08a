"""Embeddings, nearest captions and zero-shot labels in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.batch import ImageTextBatch
from neurotrain.callbacks.checkpoint_files import hidden_name, publish
from neurotrain.callbacks.predictions import FOLDER
from neurotrain.callbacks.tables import write_table
from neurotrain.tasks import ClipPrediction, ClipTask

Row = dict[str, str | float]


class ClipPredictions(Callback):
    """Writes what ``stage=predict`` finds, under ``predictions/``.

    ``embeddings.safetensors``: ``image`` ``(N, E)`` and, where there are captions, ``text`` ``(M, E)`` and
    ``text_image`` ``(M,)``, the row of each caption's image; ids and captions are JSON in its header (``ids``,
    ``captions``). ``captions.csv``: for each image the nearest of all captions (``id``, ``rank``, ``caption``,
    ``cosine``, ``own``). ``labels.csv``, where classes are named: ``id``, ``label``, ``probability``, then the
    probability of each class if asked for.

    Of several processes each writes its own images, the first one into these files, the others into
    ``<name>-rank<n>``. A file is complete or not there. It reads what :class:`neurotrain.tasks.ClipTask` returns.
    """

    def __init__(
        self,
        *,
        nearest: int = 5,
        candidates: Path | None = None,
        embeddings: bool = True,
        probabilities: bool = False,
    ) -> None:
        """Set what to write.

        Args:
            nearest: captions for each image; 0 writes no ``captions.csv``.
            candidates: a file with a caption a line, to choose the nearest from; None: the captions of the data.
            embeddings: whether to write ``embeddings.safetensors``.
            probabilities: whether to write the probability of every class, in a column of its name.

        Raises:
            ValueError: if ``nearest`` is negative, or 0 with candidates.
        """
        if nearest < 0:
            raise ValueError(f"nearest={nearest}: expected 0 or more")
        if not nearest and candidates is not None:
            raise ValueError(f"candidates={str(candidates)!r} has no effect with nearest=0")
        self.nearest, self.embeddings, self.probabilities = nearest, embeddings, probabilities
        self.candidates = None if candidates is None else Path(candidates)
        self._found: list[ClipPrediction] = []
        self._captions: tuple[list[str], Tensor] | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew; encodes the candidates, with the weights that predict.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it has no line.
        """
        assert isinstance(pl_module, ClipTask), "ClipPredictions writes what a ClipTask predicts"
        self._found, self._captions = [], None
        if self.candidates is not None:
            captions = _lines(self.candidates)
            self._captions = captions, pl_module.encode_texts(captions).cpu()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the batch's embeddings."""
        moved = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in outputs.items()}
        self._found.append(moved)  # pyright: ignore[reportArgumentType] - a ClipPrediction

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the files."""
        if not self._found:
            return
        assert isinstance(pl_module, ClipTask)
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        suffix = "" if trainer.is_global_zero else f"-rank{trainer.global_rank}"
        whole = _joined(self._found)
        if self.embeddings:
            _write_embeddings(folder / f"embeddings{suffix}.safetensors", whole)
        texts = self._captions or (whole["captions"], whole["text_features"])
        if self.nearest and texts[0]:
            _write_rows(folder / f"captions{suffix}.csv", nearest_captions(whole, *texts, count=self.nearest))
        if pl_module.class_names is not None:
            rows = label_rows(whole, pl_module.class_names, probabilities=self.probabilities)
            _write_rows(folder / f"labels{suffix}.csv", rows)
        self._found = []


def nearest_captions(found: ClipPrediction, captions: list[str], texts: Tensor, *, count: int) -> list[Row]:
    """The captions nearest to each image, equal texts once.

    Args:
        found: of a whole data set.
        captions: M texts to choose from.
        texts: unit vectors ``(M, E)`` of them.
        count: rows for each image, at most.
    """
    places: dict[str, int] = {}
    for place, caption in enumerate(captions):
        places.setdefault(caption, place)
    captions, texts = list(places), texts[list(places.values())]
    pairs = zip(found["text_image"].tolist(), found["captions"], strict=True)
    own: dict[int, set[str]] = {}
    for image, caption in pairs:
        own.setdefault(image, set()).add(caption)
    rows: list[Row] = []
    for image, name in enumerate(found["id"]):
        best = (texts @ found["image_features"][image]).topk(min(count, len(captions)))
        for rank, (place, value) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), 1):
            caption = captions[place]
            right = int(caption in own.get(image, ()))
            rows.append({"id": name, "rank": rank, "caption": caption, "cosine": value, "own": right})
    return rows


def label_rows(found: ClipPrediction, names: tuple[str, ...], *, probabilities: bool) -> list[Row]:
    """The most probable class of each image.

    Args:
        found: of a whole data set.
        names: of the classes.
        probabilities: whether to add each class's.
    """
    table = found["probabilities"]
    assert table is not None, "classes were named"
    rows: list[Row] = []
    for name, values in zip(found["id"], table.tolist(), strict=True):
        best = max(range(len(names)), key=values.__getitem__)
        rows.append({"id": name, "label": names[best], "probability": values[best]})
        if probabilities:
            rows[-1] |= {f"p({label})": value for label, value in zip(names, values, strict=True)}
    return rows


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"candidates={str(path)!r}: no such file")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"candidates={str(path)!r}: has no caption")
    return lines


def _joined(found: list[ClipPrediction]) -> ClipPrediction:
    """Batches as one, in the order of their images."""
    first, owners = 0, []
    for part in found:
        owners.append(part["text_image"] + first)
        first += len(part["id"])
    tables = [part["probabilities"] for part in found if part["probabilities"] is not None]
    return {
        "image_features": torch.cat([part["image_features"] for part in found]),
        "text_features": torch.cat([part["text_features"] for part in found]),
        "text_image": torch.cat(owners),
        "captions": [caption for part in found for caption in part["captions"]],
        "probabilities": torch.cat(tables) if tables else None,
        "id": [name for part in found for name in part["id"]],
    }


def _write_embeddings(path: Path, found: ClipPrediction) -> None:
    from safetensors.torch import save_file

    tensors = {"image": found["image_features"].contiguous()}
    header = {"ids": json.dumps(found["id"], ensure_ascii=False)}
    if found["captions"]:
        tensors |= {"text": found["text_features"].contiguous(), "text_image": found["text_image"]}
        header["captions"] = json.dumps(found["captions"], ensure_ascii=False)
    temporary = path.with_name(hidden_name(path.name))
    save_file(tensors, temporary, metadata=header)
    publish(temporary, path)


def _write_rows(path: Path, rows: list[Row]) -> None:
    temporary = path.with_name(hidden_name(path.name))
    write_table(temporary, rows)
    publish(temporary, path)
