"""What a run on volumes did, to look at: its cases in three planes, a table of all of them, its curves."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.nn import functional

from neurotrain.batch import VolumeBatch
from neurotrain.callbacks.run_curves import write_run_curves
from neurotrain.callbacks.tables import write_table
from neurotrain.callbacks.volume_drawing import Case, painted, slices_figure
from neurotrain.data import VolumeDataModule
from neurotrain.metrics.functional import dice_score
from neurotrain.tasks import VolumeSegmentationTask


class VolumeFigures(Callback):
    """Draws cases with their reference and prediction over three orthogonal slices, and writes a table of all.

    In the run directory: ``test_cases.csv`` (a row a case: Dice, HD95 and NSD of each class in millimetres),
    ``figures/test/<source>-<id>.png``, ``figures/validation/epoch-0005/...``, and ``figures/curves.png``.

    It reads what :class:`neurotrain.tasks.VolumeSegmentationTask` returns from its steps.
    """

    def __init__(self, *, count: int | None = 6, every_n_epochs: int | None = None, channel: int = 0) -> None:
        """Set how much to draw.

        Args:
            count: cases of each test and each validation, on each process; None draws all.
            every_n_epochs: epochs between drawn validations; None draws none. A validation on its own is drawn.
            channel: of the image that is shown.

        Raises:
            ValueError: if a number is out of range.
        """
        if (count is not None and count < 0) or (every_n_epochs is not None and every_n_epochs < 1) or channel < 0:
            raise ValueError(
                f"count={count}, every_n_epochs={every_n_epochs}, channel={channel}: need at least 0, 1 and 0"
            )
        self.count, self.every_n_epochs, self.channel = count, every_n_epochs, channel
        self._drawn = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting."""
        self._drawn = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: VolumeBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first cases, in the epochs in which that is due."""
        if trainer.sanity_checking:
            return
        folder = Path("validation")
        if trainer.state.fn == TrainerFn.FITTING:
            if self.every_n_epochs is None or (trainer.current_epoch + 1) % self.every_n_epochs:
                return
            folder /= f"epoch-{trainer.current_epoch + 1:04d}"
        self._draw(trainer, pl_module, outputs, batch, folder)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting."""
        self._drawn = 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: VolumeBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first cases."""
        self._draw(trainer, pl_module, outputs, batch, Path("test"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        assert isinstance(pl_module, VolumeSegmentationTask), "VolumeFigures draws a VolumeSegmentationTask"
        rows = pl_module.report.rows()
        if trainer.is_global_zero:
            write_table(Path(trainer.default_root_dir) / "test_cases.csv", rows)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves of the run, from its ``metrics.csv``."""
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        write_run_curves(trainer, synthetic=isinstance(data, VolumeDataModule) and data.dataset.synthetic)

    def _draw(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: VolumeBatch, folder: Path
    ) -> None:
        assert isinstance(outputs, dict)
        assert isinstance(pl_module, VolumeSegmentationTask), "VolumeFigures draws a VolumeSegmentationTask"
        for index, (name, source) in enumerate(zip(batch["id"], batch["source"], strict=True)):
            if self.count is not None and self._drawn >= self.count:
                return
            self._drawn += 1
            case, title = self._case(pl_module, outputs["labels"], batch, index)
            figure = slices_figure(case, title=f"{name}    {title}", synthetic=source.startswith("synthetic"))
            file = re.sub(r"[^\w.-]+", "_", f"{source}-{name}")
            path = Path(trainer.default_root_dir) / "figures" / folder / f"{file}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)

    def _case(self, task: VolumeSegmentationTask, labels: Tensor, batch: VolumeBatch, index: int) -> tuple[Case, str]:
        assert "reference" in batch, "cases that are scored have labels"
        channels = batch["image"].shape[1]
        if self.channel >= channels:
            raise ValueError(f"channel={self.channel}: the image has the channels 0 to {channels - 1}")
        regions = task.mode == "multilabel"
        predicted, reference = labels[index].cpu(), batch["reference"][index].cpu()
        report = task.report
        scores = dice_score(predicted[None], reference[None], mode=task.mode, num_classes=report.num_classes)[0]
        mean = float(scores[0 if regions else 1 :].nanmean())
        case = Case(
            image=_laid_back(batch["image"][index, self.channel].float().cpu(), batch, index),
            reference=painted(reference, regions=regions),
            prediction=painted(predicted, regions=regions),
            spacing=tuple(batch["spacing"][index].tolist()),
            names=report.class_names if regions else report.class_names[1:],
        )
        return case, "" if math.isnan(mean) else f"mean Dice {mean:.4f}"


def _laid_back(image: Tensor, batch: VolumeBatch, index: int) -> Tensor:
    """One channel of a prepared volume over the voxels of its file; what was cropped away is as its corner."""
    first, last = batch["box"][index].tolist()
    lengths = [stop - start for start, stop in zip(first, last, strict=True)]
    inside = tuple(slice(start, stop) for start, stop in zip(first, last, strict=True))
    whole = torch.full(batch["size"][index].tolist(), float(image[0, 0, 0]))
    whole[inside] = functional.interpolate(image[None, None], size=lengths, mode="trilinear", align_corners=False)[0, 0]
    return whole
