"""What each caption and each image of a test found, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from neurotrain.batch import ImageTextBatch
from neurotrain.callbacks.tables import write_table
from neurotrain.metrics.functional import retrieval_ranks
from neurotrain.tasks import ClipTask


class Searched(NamedTuple):
    """Images and captions of a batch, on the CPU.

    Attributes:
        ids: of the images.
        captions: texts.
        images: unit vectors ``(B, E)``.
        texts: unit vectors ``(M, E)``.
        owners: int64 ``(M,)``, the image of the batch that each text is about.
    """

    ids: list[str]
    captions: list[str]
    images: Tensor
    texts: Tensor
    owners: Tensor


class ClipSampleTable(Callback):
    """Writes ``test_samples.csv``: a row a caption, by what it found and what found it.

    ``id`` of its image, ``caption``, ``image_rank`` (place of its image among all, from 1), ``nearest_image``,
    ``caption_rank`` (place of the best of its image's captions among all), ``nearest_caption`` (of its image).

    It reads what :class:`neurotrain.tasks.ClipTask` returns from its steps; images without captions have no row.

    Args:
        filename: of the table in the run directory.
    """

    def __init__(self, *, filename: str = "test_samples.csv") -> None:
        self.filename = filename
        self._found: list[Searched] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        assert isinstance(pl_module, ClipTask), "ClipSampleTable reads what a ClipTask predicts"
        self._found = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the features of the batch."""
        assert isinstance(outputs, dict)
        parts = (outputs[name].cpu() for name in ("image_features", "text_features", "text_image"))
        self._found.append(Searched(outputs["id"], outputs["captions"], *parts))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table, on rank 0."""
        found = self._found
        if trainer.world_size > 1:
            everywhere: list[list[Searched]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(everywhere, found)
            found = [part for share in everywhere for part in share]
        self._found = []
        if trainer.is_global_zero and any(part.captions for part in found):
            write_table(Path(trainer.default_root_dir) / self.filename, caption_rows(found))


def caption_rows(found: list[Searched]) -> list[dict[str, str | float]]:
    """A row for each caption.

    Args:
        found: all batches of a data set.
    """
    images, texts = torch.cat([part.images for part in found]), torch.cat([part.texts for part in found])
    ids = [name for part in found for name in part.ids]
    captions = [text for part in found for text in part.captions]
    sizes = torch.tensor([len(part.ids) for part in found])
    counts = torch.tensor([len(part.captions) for part in found])
    owners = torch.cat([part.owners for part in found]) + (sizes.cumsum(0) - sizes).repeat_interleave(counts)
    of_images, of_texts = retrieval_ranks(images, texts, text_image=owners)
    nearest_image = [int((images @ text).argmax()) for text in texts]
    nearest_text = {image: int((texts @ images[image]).argmax()) for image in set(owners.tolist())}
    return [
        {
            "id": ids[image],
            "caption": captions[row],
            "image_rank": int(of_texts[row]),
            "nearest_image": ids[nearest_image[row]],
            "caption_rank": int(of_images[image]),
            "nearest_caption": captions[nearest_text[image]],
        }
        for row, image in enumerate(owners.tolist())
    ]
