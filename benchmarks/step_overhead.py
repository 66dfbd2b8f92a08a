"""What a training step costs beyond its own work: ours against a hand-written loop.

Both train copies of one network with the same loss, batches in memory, optimizer, schedule, clipping, averaged weights
and confusion counts; before anything is timed, both must end with equal weights. Ours runs under Lightning's Trainer
with the callbacks and the logger that ``experiment=drive_unet`` composes: Rich progress (drawn as on a terminal), CSV
table, averaging, checkpoints, NaN guard, throughput. Time is read where either loop asks for its next batch, from the
end of the warm-up to the last batch, over blocks that hold at least one logging step.

Two steps are measured: drive_unet's own, as a ratio; and one of about 2 ms (three small convolutions), where the row
states the milliseconds that ours adds (``ours``), beside the hand-written step (``peer``).
"""

from __future__ import annotations

import copy
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from handwritten_loop import Loop
from harness import Options, Result, interleaved, main
from lightning import Trainer
from rich.console import Console
from torch import nn

import neurotrain
from neurotrain.app.registry import register
from neurotrain.app.strict import instantiate
from neurotrain.app.train import spare_checks, trainer_factory
from neurotrain.batch import SegmentationBatch
from neurotrain.tasks import SegmentationTask

WARM_UP = 3
RATIO_GOAL = 1.03
ADDED_GOAL_MS = 0.75


@dataclass
class TimedBatches:
    """The same batches again and again; notes when each is asked for.

    Attributes:
        batches: to repeat.
        steps: how many to give.
        asked: clock readings of the last pass.
    """

    batches: Sequence[SegmentationBatch]
    steps: int
    asked: list[float] = field(default_factory=list[float])

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __iter__(self) -> Iterator[SegmentationBatch]:
        """Start anew."""
        self.asked = []
        for step in range(self.steps):
            self.asked.append(time.perf_counter())
            yield self.batches[step % len(self.batches)]

    @property
    def seconds_per_step(self) -> float:
        """Mean from the end of the warm-up to the last batch."""
        timed = self.asked[WARM_UP:]
        return (timed[-1] - timed[0]) / (len(timed) - 1)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One step, for both loops.

    Attributes:
        values: composed configuration.
        network: what to train; both loops get copies.
        batches: in memory.
        folder: of the runs.
    """

    values: Mapping[str, Any]
    network: nn.Module
    batches: Sequence[SegmentationBatch]
    folder: Path

    def ours(self, steps: int) -> tuple[SegmentationTask, TimedBatches]:
        """Train with the task, the callbacks and the logger of the experiment."""
        data = TimedBatches(self.batches, steps)
        spare_checks()  # as every run does
        task = _make({**self.values["model"], "network": copy.deepcopy(self.network)})
        assert isinstance(task, SegmentationTask)
        with warnings.catch_warnings(), Path(os.devnull).open("w") as sink:
            warnings.simplefilter("ignore")
            self._trainer(steps, sink=Console(file=sink, force_terminal=True, width=120)).fit(task, data)
        return task, data

    def theirs(self, steps: int) -> tuple[Loop, TimedBatches]:
        """Train with the hand-written loop."""
        data = TimedBatches(self.batches, steps)
        model, trainer = self.values["model"], self.values["trainer"]
        loop = Loop(
            network=copy.deepcopy(self.network),
            loss=_make(model["loss"]),
            optimizer=_make(model["optimizer"]),
            factor=_make(model["schedule"]),
            steps=steps,
            bfloat16=trainer["precision"] == "bf16-mixed",
            clip=trainer["gradient_clip_val"],
            channels_last=model["channels_last"],
            aux_weight=model["aux_weight"],
            decay=self.values["callbacks"]["average"]["decay"],
        )
        with _as_without_us():
            loop.run(data)
        return loop, data

    def candidates(self, steps: int) -> dict[str, Callable[[], float]]:
        """Both loops as seconds per step."""
        return {
            "ours": lambda: self.ours(WARM_UP + steps)[1].seconds_per_step,
            "peer": lambda: self.theirs(WARM_UP + steps)[1].seconds_per_step,
        }

    def check_equal(self) -> float:
        """Refuse to time two loops that do not do the same work; return about the seconds of a step."""
        steps = WARM_UP + 3
        (task, _), (loop, data) = self.ours(steps), self.theirs(steps)
        ours, theirs = task.network.state_dict(), loop.network.state_dict()
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5, msg=partial("{}: {}".format, name))
        return data.seconds_per_step

    def _trainer(self, steps: int, *, sink: Console) -> Trainer:
        nodes = {name: node for name, node in self.values["callbacks"].items() if node is not None}
        progress = _make({**nodes.pop("progress"), "_partial_": True})
        return trainer_factory(self.values)(
            callbacks=[progress(console=sink), *map(_make, nodes.values())],
            logger=[_make(node) for node in self.values["logger"].values() if node is not None],
            default_root_dir=str(self.folder),
            max_epochs=1,
            limit_val_batches=0,
            log_every_n_steps=min(steps - WARM_UP, self.values["trainer"]["log_every_n_steps"]),
        )


def drive_setting(folder: Path) -> Setting:
    """The step of ``experiment=drive_unet`` on random batches of its shape."""
    values = _values(folder)
    size = values["data"]["train_transform"]["steps"]["patch"]["size"]
    network = _make(values["model"]["network"])
    return Setting(values=values, network=network, batches=_batches(values["data"]["batch_size"], size), folder=folder)


def tiny_setting(folder: Path) -> Setting:
    """A step of about 2 ms: everything but the network and the size of the batch is drive_unet's."""
    width = 8
    network = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 1, 1),
    )
    return Setting(values=_values(folder), network=network, batches=_batches(2, 48), folder=folder)


def benchmark(options: Options) -> Iterator[Result]:
    """Yield both rows."""
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    with TemporaryDirectory() as name:
        torch.set_num_threads(1)  # 2 ms are too little work to share
        small = _measure(tiny_setting(Path(name)), steps=400, rounds=15, options=options, share=0.5)
        yield Result(
            name="time added to a 2 ms step",
            ours=1000 * (small["ours"] - small["peer"]),
            peer=1000 * small["peer"],
            peer_name="hand-written PyTorch loop, its whole step",
            unit="ms",
            goal=ADDED_GOAL_MS,
            limits="ours",
        )
        torch.set_num_threads(threads)
        large = _measure(drive_setting(Path(name)), steps=50, rounds=11, options=options, share=1.0)
        yield Result(
            name="drive_unet step",
            ours=1000 * large["ours"],
            peer=1000 * large["peer"],
            peer_name="hand-written PyTorch loop",
            unit="ms",
            goal=RATIO_GOAL,
        )


def _measure(setting: Setting, *, steps: int, rounds: int, options: Options, share: float) -> dict[str, float]:
    """Seconds per step of both loops, in blocks of ``steps``; of about a second each where it must be quick."""
    seconds = setting.check_equal()
    if options.quick:
        steps = min(steps, max(5, int(1.0 / seconds)))
    return interleaved(setting.candidates(steps), rounds=rounds, options=options, share=share)


@contextmanager
def _as_without_us() -> Iterator[None]:
    """Take back what Lightning and the experiment set for the whole process: nobody sets it by hand.

    Deterministic kernels cost time, and so does the variable by which Lightning lets each step of Adam on a CPU look
    for the driver of a GPU anew.
    """
    variable = "PYTORCH_NVML_BASED_CUDA_CHECK"
    deterministic, value = torch.are_deterministic_algorithms_enabled(), os.environ.pop(variable, None)
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        if value is not None:
            os.environ[variable] = value


def _values(folder: Path) -> dict[str, Any]:
    overrides = ["data=synthetic_drive", "callbacks.table=null", "callbacks.figures=null"]
    return neurotrain.compose("drive_unet", overrides).bound_to(folder)


def _batches(batch: int, size: int, count: int = 8) -> list[SegmentationBatch]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(batch, 3, size, size, generator=generator),
            "mask": (torch.rand(batch, size, size, generator=generator) < 0.1).long(),
            "valid": torch.rand(batch, size, size, generator=generator) < 0.9,
            "id": [str(index) for index in range(batch)],
            "source": ["memory"] * batch,
        }
        for _ in range(count)
    ]


def _make(node: object) -> Any:  # noqa: ANN401 - what the node makes
    return instantiate(node, allow=register())


if __name__ == "__main__":
    main(benchmark, description="Time of a training step: ours over a hand-written loop")
