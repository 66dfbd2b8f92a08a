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
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import Options, Result, interleaved, main

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "train.py"
GOAL = 1.3


def seconds(command: list[str], *, folder: Path) -> float:
    """Wall time of a whole process."""
    started = time.perf_counter()
    _run(command, folder=folder)
    return time.perf_counter() - started


def first_step(command: list[str], *, stamp: Path, folder: Path) -> tuple[float, int]:
    """Seconds from the start of a process to the time that it writes into ``stamp``, and its number of parameters."""
    stamp.unlink(missing_ok=True)
    started = time.time()
    _run(command, folder=folder)
    written = json.loads(stamp.read_text(encoding="utf-8"))
    return written["finished"] - started, written["parameters"]


def ours(data: Path, stamp: Path) -> list[str]:
    """Our command; the callback that notes the time is allowed by its environment variable."""
    return [
        sys.executable,
        str(TRAIN),
        "experiment=drive_unet",
        "data=synthetic_drive",
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
    return [sys.executable, str(HERE / "handwritten_drive.py"), str(images), "--stamp", str(stamp)]


def benchmark(options: Options) -> Iterator[Result]:
    """Yield both rows."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        stamp = folder / "stamp.json"
        # The first runs render the images, bring every file into the page cache, and say what they train.
        own = first_step(ours(folder, stamp), stamp=stamp, folder=folder)[1]
        other = first_step(theirs(folder, stamp), stamp=stamp, folder=folder)[1]
        if own != other:
            raise RuntimeError(
                f"{own} parameters against {other}: let handwritten_drive.py follow drive_unet's network"
            )
        medians = interleaved(
            {
                "help": lambda: seconds([sys.executable, str(TRAIN), "--help"], folder=folder),
                "import": lambda: seconds([sys.executable, "-c", "import torch, lightning"], folder=folder),
                "ours": lambda: first_step(ours(folder, stamp), stamp=stamp, folder=folder)[0],
                "peer": lambda: first_step(theirs(folder, stamp), stamp=stamp, folder=folder)[0],
            },
            rounds=9,
            options=options,
        )
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
