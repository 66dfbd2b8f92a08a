"""What a captioning run did, to look at: pictures with their captions, and a row for each image."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from neurotrain.batch import ImageTextBatch
from neurotrain.callbacks.caption_drawing import Told, captions_figure
from neurotrain.callbacks.drawing import stretched
from neurotrain.callbacks.run_curves import write_run_curves
from neurotrain.callbacks.tables import write_table
from neurotrain.metrics.functional import rouge_l_score
from neurotrain.tasks import CaptioningTask


class CaptionFigures(Callback):
    """Writes a table and pictures of the test set, pictures of validations, and the run's curves.

    In the run directory: ``test_samples.csv`` (a row an image: id, caption, references, its own figures), and under
    ``figures/`` ``captions.png`` (the first test images: what was written above the first true caption, green, ochre or
    vermilion by ROUGE-L from 0.9, from 0.5, below), ``validation/epoch-0005.png`` likewise, and ``curves.png``.

    It reads what :class:`neurotrain.tasks.CaptioningTask` returns from its steps.
    """

    def __init__(self, *, count: int = 12, every_n_epochs: int | None = None) -> None:
        """Set how much to draw.

        Args:
            count: images of a picture; 0 draws none.
            every_n_epochs: epochs between drawn validations; None draws none. A validation on its own is drawn.

        Raises:
            ValueError: if ``count`` is negative or ``every_n_epochs`` below 1.
        """
        if count < 0 or (every_n_epochs is not None and every_n_epochs < 1):
            raise ValueError(
                f"count={count}, every_n_epochs={every_n_epochs}: expected 0 or more, and 1 or more or None"
            )
        self.count = count
        self.every_n_epochs = every_n_epochs
        self._told: list[Told] = []
        self._sources: set[str] = set()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._told, self._sources = [], set()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the first images, in the epochs in which that is due."""
        if not trainer.sanity_checking and self._is_due(trainer):
            self._keep(trainer, outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws them."""
        alone = trainer.state.fn != TrainerFn.FITTING
        name = "validation.png" if alone else f"validation/epoch-{trainer.current_epoch + 1:04d}.png"
        self._draw(Path(trainer.default_root_dir) / "figures" / name, title="validation")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._told, self._sources = [], set()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: ImageTextBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the first images."""
        self._keep(trainer, outputs, batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table and draws the images."""
        assert isinstance(pl_module, CaptioningTask), "CaptionFigures draws a CaptioningTask"
        report = pl_module.report
        with report.sync_context(dist_sync_fn=report.dist_sync_fn):
            rows = report.rows()
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        write_table(run / "test_samples.csv", rows)
        self._draw(run / "figures" / "captions.png", title=f"{len(rows):,} test images")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the run, from its ``metrics.csv``."""
        write_run_curves(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _keep(self, trainer: Trainer, outputs: STEP_OUTPUT, batch: ImageTextBatch) -> None:
        assert isinstance(outputs, dict)
        self._sources.update(batch["source"])
        missing = self.count - len(self._told)
        if not trainer.is_global_zero or missing <= 0:
            return
        rows = zip(batch["image"][:missing].cpu(), batch["id"], outputs["caption"], batch["caption"], strict=False)
        for image, name, caption, true in rows:
            references = true.split("\n")
            agreement = float(rouge_l_score([caption], [references], definition="coco"))
            self._told.append(Told(_visible(image), name, caption, references, agreement))

    def _draw(self, path: Path, *, title: str) -> None:
        if not self._told:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic = any(source.startswith("synthetic") for source in self._sources)
        title = f"{', '.join(sorted(self._sources))}: {title}"
        captions_figure(self._told, title=title, synthetic=synthetic).savefig(path)


def _visible(image: Tensor) -> Tensor:
    """An image in whatever units, as colours; see :func:`neurotrain.callbacks.drawing.stretched`."""
    return stretched(image, torch.ones(image.shape[-2:], dtype=torch.bool))
