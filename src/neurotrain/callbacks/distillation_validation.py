"""Samples of a distilled student, scored and drawn, while it trains and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from neurotrain.diffusion import ValidationRequest
from neurotrain.tasks import DistillationTask


class DistillationValidation(Callback):
    """Samples at the end of every validation and test, and logs figures; nothing of the training changes by it.

    A figure is called ``val/<figure>_<steps>`` for the student, with the role before the steps for others. In tests
    the teacher is scored too, at ``teacher_steps``.

    Args:
        steps: of the student, a set of samples each.
        count: samples a seed.
        test_count: in tests.
        seeds: one batch of samples each.
        guidance: scale of classifier-free guidance.
        teacher_steps: of the teacher in tests; 0: it is not scored.
        teacher_sampler: its solver.
        figures: whether samples of a plane are drawn under ``figures/``.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        *,
        steps: tuple[int, ...] = (1, 2, 4),
        count: int = 5000,
        test_count: int = 20000,
        seeds: tuple[int, ...] = (0,),
        guidance: float = 1.0,
        teacher_steps: int = 100,
        teacher_sampler: Literal["ddim", "euler", "heun", "dpm_solver_2m"] = "ddim",
        figures: bool = True,
    ) -> None:
        if not steps or teacher_steps < 0:
            raise ValueError(f"steps={steps}, teacher_steps={teacher_steps}: expected one or more, and 0 or more")
        self._steps, self._count, self._test_count = steps, count, test_count
        self._figures = figures
        self._request = ValidationRequest(guidance=guidance, seeds=seeds, count=count)
        self._teacher = replace(
            self._request, role="teacher", steps=max(teacher_steps, 1), sampler=teacher_sampler, count=test_count
        )
        self._teacher_steps = teacher_steps

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample and score the student."""
        self._run(trainer, pl_module, "val", [replace(self._request, steps=steps) for steps in self._steps])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample and score student and teacher."""
        requests = [replace(self._request, steps=steps, count=self._test_count) for steps in self._steps]
        assert isinstance(pl_module, DistillationTask)
        if self._teacher_steps and "teacher" in pl_module.roles:
            requests.append(self._teacher)
        pl_module.log_dict({f"test/{name}": value for name, value in pl_module.validator.reference().items()})
        self._run(trainer, pl_module, "test", requests)

    def _run(self, trainer: Trainer, task: LightningModule, stage: str, requests: list[ValidationRequest]) -> None:
        if not isinstance(task, DistillationTask):
            raise ValueError(f"DistillationValidation samples from a DistillationTask, not from {type(task).__name__}")
        made: dict[str, Tensor] = {}
        for request in requests:
            name = str(request.steps) if request.role == "student" else f"{request.role}_{request.steps}"
            samples = task.sample(request)
            figures = task.validator.score(samples)
            # Every rank makes and scores the same samples: their seeds are the request's.
            task.log_dict({f"{stage}/{figure}_{name}": value for figure, value in figures.items()}, batch_size=1)
            made[name] = samples
        if self._figures and trainer.is_global_zero and all(samples.shape[1:] == (2,) for samples in made.values()):
            _draw(made, Path(trainer.default_root_dir) / "figures" / f"samples_{stage}.png")


def _draw(made: dict[str, Tensor], path: Path) -> None:
    """One panel a set of samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(made), 3.2), layout="constrained")
    for axes, (name, samples) in zip(figure.subplots(1, len(made), squeeze=False)[0], made.items(), strict=True):
        axes.scatter(samples[:, 0], samples[:, 1], s=0.5, alpha=0.3, linewidths=0)
        axes.set(title=f"steps: {name}", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
