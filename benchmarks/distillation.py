"""What a step of DMD2 costs beyond its own passes, and what a student's sample costs against its teacher's.

The unavoidable work of an iteration, averaged over the student's turn: the critic's forward and backward pass, the
student's forward pass that makes its samples, and, once in ``update_ratio`` iterations, the student's forward and
backward pass with a forward pass of teacher and critic each; with clipping and the optimizers' steps, as any loop has
them. The peer does exactly that, by hand, on networks of the same sizes; ours runs the task under Lightning's Trainer.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Iterator
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Options, Result, interleaved, main
from lightning import Trainer
from torch import Tensor, nn

from neurotrain.app.train import NoProfiler, spare_checks
from neurotrain.diffusion import Role, ValidationRequest
from neurotrain.diffusion.families import PixelFamily
from neurotrain.networks.denoisers import PixelUNet
from neurotrain.noise import FlowSchedule
from neurotrain.tasks.distillation import DistillationTask, Dmd2

RATIO = 5
BATCH = 8
STEP_GOAL = 1.10
TEACHER_STEPS = 50
SAMPLES_GOAL = 0.03
"""A one-step student against 50 steps of a network of its size: 0.02, and what one call costs alone."""

Batch = dict[str, Any]


class Batches:
    """One batch of pictures again and again; notes when each is asked for.

    Args:
        count: how many to give.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[float] = []
        self._batch: Batch = {
            "image": torch.randn(BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(0)),
            "id": [str(index) for index in range(BATCH)],
        }

    def __len__(self) -> int:
        """Number of batches."""
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        """Start anew."""
        self.asked = []
        for _ in range(self.count):
            self.asked.append(time.perf_counter())
            yield self._batch

    def seconds_per_step(self) -> float:
        """Mean over whole rounds of ``RATIO`` iterations, the first round left out."""
        rounds = (len(self.asked) - 1) // RATIO
        return (self.asked[rounds * RATIO] - self.asked[RATIO]) / ((rounds - 1) * RATIO)


def network() -> PixelUNet:
    """Of student, teacher and critic alike."""
    torch.manual_seed(0)
    return PixelUNet(widths=(32, 64), blocks=1, embedding=64, attention_heads=0)


def task() -> DistillationTask:
    """DMD2 on pictures of digits' size."""
    optimizer = partial(torch.optim.AdamW, lr=1e-4)
    roles = {name: Role(network=network(), optimizer=optimizer) for name in ("student", "critic")}
    family = PixelFamily(schedule=FlowSchedule(), shape=(1, 28, 28), timestep_range=(0.01, 1.0))
    return DistillationTask(
        roles={**roles, "teacher": Role(network=network())}, pipeline=family, method=Dmd2(update_ratio=RATIO)
    )


def ours(steps: int) -> float:
    """Seconds of an iteration of the task."""
    data = Batches(steps)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            profiler=NoProfiler(),
            limit_val_batches=0,
        )
        trainer.fit(task(), data)
    return data.seconds_per_step()


class ByHand:
    """The same passes without roles, views, conversions and checks."""

    def __init__(self) -> None:
        self.student, self.critic, self.teacher = network(), network(), network().requires_grad_(False)
        self.optimizers = {part: torch.optim.AdamW(part.parameters(), lr=1e-4) for part in (self.student, self.critic)}
        self.generator = torch.Generator().manual_seed(0)

    def run(self, data: Batches) -> None:
        """All iterations."""
        for iteration, batch in enumerate(data):
            image: Tensor = batch["image"]
            if iteration % RATIO == 0:
                self._student(image)
            self._critic(image)

    def _student(self, image: Tensor) -> None:
        x0 = self._samples(image)
        t, noise = self._times(image), self._noise(image)
        x_t = (1 - t) * x0.detach() + t * noise
        with torch.no_grad():
            real = x_t - t * self.teacher(x_t, t.flatten())
            fake = x_t - t * self.critic(x_t, t.flatten())
        gradient = (fake - real) / (x0.detach() - real).abs().mean((1, 2, 3), keepdim=True)
        self._step(self.student, (gradient * x0).mean())

    def _critic(self, image: Tensor) -> None:
        with torch.no_grad():
            x0 = self._samples(image)
        t, noise = self._times(image), self._noise(image)
        found = self.critic((1 - t) * x0 + t * noise, t.flatten())
        self._step(self.critic, (found - (noise - x0)).square().mean())

    def _samples(self, image: Tensor) -> Tensor:
        noise = self._noise(image)
        return noise - self.student(noise, torch.ones(len(image)))

    def _step(self, part: nn.Module, loss: Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        self.optimizers[part].step()
        self.optimizers[part].zero_grad()

    def _noise(self, image: Tensor) -> Tensor:
        return torch.randn(image.shape, generator=self.generator)

    def _times(self, image: Tensor) -> Tensor:
        return torch.rand(len(image), 1, 1, 1, generator=self.generator) * 0.96 + 0.02


def by_hand(steps: int) -> float:
    """Seconds of an iteration by hand."""
    data = Batches(steps)
    ByHand().run(data)
    return data.seconds_per_step()


def seconds_a_sample(made: DistillationTask, *, role: str, steps: int, count: int) -> float:
    """Seconds for a sample of a role."""
    request = ValidationRequest(
        role=role, steps=steps, sampler="student" if role == "student" else "ddim", count=count, averaged=False
    )
    started = time.perf_counter()
    made.sample(request)
    return (time.perf_counter() - started) / count


def benchmark(options: Options) -> Iterator[Result]:
    """Yield both rows."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    spare_checks()
    steps = RATIO * (2 if options.quick else 7) + 1
    candidates = {"ours": lambda: ours(steps), "peer": lambda: by_hand(steps)}
    found = interleaved(candidates, rounds=3 if options.quick else 9, options=options, share=0.6)
    yield Result(
        name="DMD2 iteration",
        ours=1000 * found["ours"],
        peer=1000 * found["peer"],
        peer_name="its forward and backward passes by hand",
        unit="ms",
        goal=STEP_GOAL,
    )
    made = copy.copy(task())
    sampling = {
        "student": lambda: seconds_a_sample(made, role="student", steps=1, count=256),
        "teacher": lambda: seconds_a_sample(made, role="teacher", steps=TEACHER_STEPS, count=16),
    }
    found = interleaved(sampling, rounds=3 if options.quick else 5, options=options)
    yield Result(
        name=f"a sample in 1 step ({1 / found['student']:.0f} a second)",
        ours=1000 * found["student"],
        peer=1000 * found["teacher"],
        peer_name=f"the teacher's in {TEACHER_STEPS} ({1 / found['teacher']:.1f} a second)",
        unit="ms",
        goal=SAMPLES_GOAL,
    )


if __name__ == "__main__":
    main(
        benchmark, description="Time of a DMD2 iteration over its own passes; of a student's sample over its teacher's"
    )
