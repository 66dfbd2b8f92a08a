"""Grids of sampled pictures: a row a number of steps, teacher beside student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.callbacks.checkpoint_files import hidden_name, publish
from neurotrain.diffusion import ValidationRequest
from neurotrain.noise import Solver
from neurotrain.tasks import DistillationTask

FOLDER = "figures"
"""Where they lie in the run directory."""


class PictureSamples(Callback):
    """Draws ``figures/samples_<iteration>.png`` at every validation and test.

    All rows begin with the same noise and conditions, so a column is one picture as each of them makes it. The first
    row is the teacher's, where there is one. Nothing of the training changes by it.

    Args:
        steps: of the student, a row each.
        teacher_steps: of the teacher.
        teacher_sampler: its solver.
        columns: pictures a row; of clips, how many, each with its frames side by side.
        seed: of noise and conditions.
        guidance: scale of classifier-free guidance.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        *,
        steps: tuple[int, ...] = (1, 2, 4),
        teacher_steps: int = 50,
        teacher_sampler: Solver = "euler",
        columns: int = 16,
        seed: int = 0,
        guidance: float = 1.0,
    ) -> None:
        if not steps or min(*steps, teacher_steps, columns) < 1:
            raise ValueError(
                f"steps={tuple(steps)}, teacher_steps={teacher_steps}, columns={columns}: expected numbers above 0"
            )
        student = ValidationRequest(seeds=(seed,), count=columns, guidance=guidance)
        self._student = [replace(student, steps=count) for count in steps]
        self._teacher = replace(student, role="teacher", steps=teacher_steps, sampler=teacher_sampler)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        if not trainer.sanity_checking:
            self._draw(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self._draw(trainer, pl_module)

    def rows(self, task: LightningModule, *, name: str = "student") -> dict[str, Tensor]:
        """Pictures ``(columns, C, H, W)`` or clips ``(columns, C, T, H, W)`` in [0, 1] of each row, by its title.

        Args:
            task: whose roles sample.
            name: of the student in titles.

        Raises:
            ValueError: if the task is another one, or makes no pictures.
        """
        if not isinstance(task, DistillationTask):
            raise ValueError(f"PictureSamples samples from a DistillationTask, not from {type(task).__name__}")
        found: dict[str, Tensor] = {}
        if "teacher" in task.roles:
            found[f"teacher, {self._teacher.steps} steps"] = task.sample(self._teacher)
        for request in self._student:
            plural = "" if request.steps == 1 else "s"
            found[f"{name}, {request.steps} step{plural}"] = task.sample(request)
        for samples in found.values():
            if samples.ndim not in (4, 5):
                raise ValueError(
                    f"PictureSamples draws pictures and clips, not samples of shape {tuple(samples.shape[1:])}"
                )
        return found

    def _draw(self, trainer: Trainer, task: LightningModule) -> None:
        rows = self.rows(task)  # on every rank, each the same
        if trainer.is_global_zero:
            assert isinstance(task, DistillationTask)
            path = Path(trainer.default_root_dir) / FOLDER / f"samples_{task.iteration:08d}.png"
            save_grid(rows, path)


def save_grid(rows: Mapping[str, Tensor], path: Path) -> None:
    """Write rows of pictures with their titles as one PNG; it is complete or not there.

    Args:
        rows: ``(N, C, H, W)`` in [0, 1], one channel or three, by title; clips ``(N, C, T, H, W)`` below each other.
        path: of the file; its folder is made.
    """
    from matplotlib.figure import Figure

    joined = {title: _strip(samples) for title, samples in rows.items()}
    height, width = next(iter(joined.values())).shape[:2]
    inches = 0.02 * width
    figure = Figure(figsize=(inches + 1.6, len(rows) * inches * height / width + 0.1), layout="constrained")
    for axes, (title, strip) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], joined.items(), strict=True):
        axes.imshow(strip.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(hidden_name(path.name))
    figure.savefig(temporary, dpi=150, format="png")
    publish(temporary, path)


def _strip(samples: Tensor) -> Tensor:
    """Pictures, or the frames of a clip, side by side, ``(H, N (W + 1))`` or ``(H, N (W + 1), 3)``."""
    if samples.ndim == 5:
        return torch.cat([_strip(F.pad(clip.movedim(1, 0), (0, 0, 0, 1), value=1.0)) for clip in samples])
    framed = F.pad(samples, (0, 1), value=1.0)
    strip = torch.cat(list(framed), dim=2)
    return strip[0] if len(strip) == 1 else strip.movedim(0, -1)
