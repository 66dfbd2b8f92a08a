"""What a network of images and texts learned, to look at: similarities, what finds what, and the run's curves."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from neurotrain.batch import ImageTextBatch
from neurotrain.callbacks.clip_drawing import Gallery, retrieval_figure, similarity_figure, thumbnail
from neurotrain.callbacks.drawing import stretched
from neurotrain.callbacks.run_curves import write_run_curves
from neurotrain.tasks import ClipPrediction, ClipTask


class ClipFigures(Callback):
    """Draws ``similarity.png`` and ``retrieval.png`` of a test, and the curves of a fit, under ``figures/`` of the run.

    ``similarity.png``: cosines of the first images with one caption each. ``retrieval.png``: what the first captions
    and images find among the first ``gallery`` images with captions (of the first process). ``curves.png`` at the end
    of a fit.

    It reads what :class:`neurotrain.tasks.ClipTask` returns from its steps.
    """

    def __init__(self, *, count: int = 12, answers: int = 5, gallery: int = 500) -> None:
        """Set how much to draw.

        Args:
            count: images of the matrix and questions of the sheet; 0 draws neither.
            answers: shown for each question.
            gallery: images that are searched, at most; a thumbnail of each is kept in memory.

        Raises:
            ValueError: if a number is out of range.
        """
        if count < 0 or answers < 1 or gallery < max(count, 1):
            raise ValueError(
                f"count={count}, answers={answers}, gallery={gallery}: need at least 0, 1, and as many as count"
            )
        self.count, self.answers, self.gallery = count, answers, gallery
        self._kept: list[Gallery] = []
        self._images = 0
        self._sources: set[str] = set()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        assert isinstance(pl_module, ClipTask), "ClipFigures draws what a ClipTask predicts"
        self._kept, self._images, self._sources = [], 0, set()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps thumbnails and features of the first images."""
        assert isinstance(outputs, dict)
        room = self.gallery - self._images
        if self.count and trainer.is_global_zero and room > 0:
            self._sources.update(batch["source"])
            self._keep(batch, outputs, room)  # pyright: ignore[reportArgumentType] - a ClipPrediction

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        if not self._images or not trainer.is_global_zero:
            return
        shown = _joined(self._kept)
        folder = Path(trainer.default_root_dir) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        synthetic = any(source.startswith("synthetic") for source in self._sources)
        told = f"{', '.join(sorted(self._sources))}: {len(shown.pictures)} test images, {len(shown.captions)} captions"
        matrix = similarity_figure(shown.first(self.count), title=f"{told}, the first of them", synthetic=synthetic)
        matrix.savefig(folder / "similarity.png")
        sheet = retrieval_figure(
            shown, questions=self.count, answers=self.answers, title=f"{told} searched", synthetic=synthetic
        )
        sheet.savefig(folder / "retrieval.png")
        self._kept = []

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the run, from its ``metrics.csv``."""
        write_run_curves(trainer)

    def _keep(self, batch: ImageTextBatch, outputs: ClipPrediction, room: int) -> None:
        """Images with captions only, and of those as many as there is room for."""
        owners = outputs["text_image"].cpu()
        for place in sorted(set(owners.tolist()))[:room]:
            image = batch["image"][place].float().cpu()
            everywhere = torch.ones(image.shape[-2:], dtype=torch.bool)
            own = (owners == place).nonzero().flatten()
            self._kept.append(
                Gallery(
                    [thumbnail(stretched(image, everywhere))],
                    outputs["image_features"][place : place + 1].float().cpu(),
                    outputs["text_features"].float().cpu()[own],
                    [outputs["captions"][text] for text in own.tolist()],
                    torch.full((len(own),), self._images),
                )
            )
            self._images += 1


def _joined(kept: list[Gallery]) -> Gallery:
    return Gallery(
        [picture for part in kept for picture in part.pictures],
        torch.cat([part.images for part in kept]),
        torch.cat([part.texts for part in kept]),
        [caption for part in kept for caption in part.captions],
        torch.cat([part.owners for part in kept]),
    )
