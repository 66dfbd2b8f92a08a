"""How long one waits: ``train.py --help``, and ``train.py`` until its first training step is done.

Whole processes, turn by turn. ``--help`` is compared with a bare import of torch and Lightning; the first step with
``handwritten_drive.py``, which imports torch, numpy and PIL only. Both read the same folder of rendered images and
train the same network on a batch of 8 patches; both note the wall clock right after the optimizer's step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import Options, Result, interleaved, main

from neurotrain.app.precision import fastest_precision

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "train.py"
GOAL = 1.3


def seconds(command: list[str], *, folder: Path) -> float:
    """Wall time of a whole process."""
    started = time.perf_counter()
    _run(command, folder=folder)
    return time.perf_counter() - started


@dataclass(frozen=True)
class FirstStep:
    """A process that notes in a file when its first step was done.

    Attributes:
        command: makes the command line.
        stamp: the file.
        folder: working directory.
        parameters: of the trained networks, as the runs have told.
    """

    command: Callable[[], list[str]]
    stamp: Path
    folder: Path
    parameters: list[int] = field(default_factory=list[int])

    def seconds(self) -> float:
        """Wall time from the start of a process to the end of its first step."""
        self.stamp.unlink(missing_ok=True)
        started = time.time()
        _run(self.command(), folder=self.folder)
        written = json.loads(self.stamp.read_text(encoding="utf-8"))
        self.parameters.append(written["parameters"])
        return written["finished"] - started


def ours(data: Path, stamp: Path, *, images: int) -> list[str]:
    """Our command on a few rendered images; the callback that notes the time is allowed by its environment variable."""
    return [
        sys.executable,
        str(TRAIN),
        "experiment=drive_unet",
        "data=synthetic_drive",
        f"data.dataset.train={images}",
        "data.dataset.test=1",
        f"paths.data_dir={data}",
        f"paths.runs_dir={data / 'runs'}",
        "trainer.max_steps=1",
        "test=false",
        "callbacks.first_step._target_=first_step.FirstStep",
        f"callbacks.first_step.path={stamp}",
    ]


def theirs(data: Path, stamp: Path) -> list[str]:
    """The hand-written script on the images that ours has rendered, in a folder named by its settings."""
    (images,) = (data / "synthetic").iterdir()
    command = [sys.executable, str(HERE / "handwritten_drive.py"), str(images), "--stamp", str(stamp)]
    return [*command, "--bfloat16"] if fastest_precision() == "bf16-mixed" else command


def benchmark(options: Options) -> Iterator[Result]:
    """Yield both rows."""
    with TemporaryDirectory() as name:
        folder, stamp = Path(name), Path(name) / "stamp.json"
        own = FirstStep(lambda: ours(folder, stamp, images=4 if options.quick else 12), stamp, folder)
        other = FirstStep(lambda: theirs(folder, stamp), stamp, folder)
        own.seconds()  # renders the images and brings every file into the page cache
        medians = interleaved(
            {
                "help": lambda: seconds([sys.executable, str(TRAIN), "--help"], folder=folder),
                "import": lambda: seconds([sys.executable, "-c", "import torch, lightning"], folder=folder),
                "ours": own.seconds,
                "peer": other.seconds,
            },
            rounds=9,
            options=options,
        )
    sizes = {*own.parameters, *other.parameters}
    if len(sizes) > 1:
        raise RuntimeError(f"networks of {sorted(sizes)} parameters: let handwritten_drive.py follow drive_unet's")
    yield Result(
        name="train.py --help",
        ours=medians["help"],
        peer=medians["import"],
        peer_name="python -c 'import torch, lightning'",
        unit="s",
        goal=GOAL,
    )
    yield Result(
        name="start to first step",
        ours=medians["ours"],
        peer=medians["peer"],
        peer_name="hand-written script (torch, numpy, PIL)",
        unit="s",
        goal=GOAL,
    )


def _run(command: list[str], *, folder: Path) -> None:
    paths = os.pathsep.join([str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "NEUROTRAIN_ALLOW": "first_step"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)  # noqa: S603 - ours
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(benchmark, description="Start-up: ours over a bare import, and over a hand-written script")
