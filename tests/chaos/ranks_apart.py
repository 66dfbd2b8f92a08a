"""Processes that train the tiny task, alone or as ranks of one run, and what becomes of them."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from callback_toys import ToyLoader, ToyTask, make_trainer, seed
from forked import server
from lightning.pytorch import Callback

from neurotrain.callbacks import Preemption, RunCheckpoint, Watchdog

PATIENCE = 60
"""Seconds in which every fault must have ended."""


class Ranks:
    """Processes that each train in ``folder`` with the callbacks that ``faults(rank)`` makes.

    What each writes to its standard error is in ``<folder>/<rank>.txt``.
    """

    def __init__(self, folder: Path, faults: Callable[[int], list[Callback]], *, world_size: int, **fit: Any) -> None:  # noqa: ANN401
        context = server()
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.folder = folder
        self.processes: list[BaseProcess] = [
            context.Process(target=_train, args=(rank, world_size, port, folder, faults, fit))
            for rank in range(world_size)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        for process in self.processes:
            process.start()
        self.pids = [process.pid for process in self.processes]

    def pid(self, rank: int = 0) -> int:
        """Process of a rank."""
        pid = self.processes[rank].pid
        assert pid is not None
        return pid

    def wait_for(self, text: str, *, rank: int = 0) -> None:
        """Wait until a rank has said something."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.said(rank):
            assert time.monotonic() < deadline, self.said(rank)
            assert self.processes[rank].exitcode is None, self.said(rank)
            time.sleep(0.005)

    def said(self, rank: int = 0) -> str:
        """What a rank wrote to its standard error."""
        path = self.folder / f"{rank}.txt"
        return path.read_text() if path.is_file() else ""

    def end(self) -> list[int]:
        """Wait for all; their exit codes."""
        deadline = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        hanging = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for rank in hanging:
            self.processes[rank].kill()
            self.processes[rank].join()
        assert not hanging, "\n".join(f"rank {rank} hangs: {self.said(rank)}" for rank in range(len(self.processes)))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.close()
        return [code for code in codes if code is not None]


class Slowly(Callback):
    """Says each step and waits a little, so that there is time for a signal."""

    def __init__(self, *, seconds: float = 0.02) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, trainer: Any, *_: object) -> None:  # noqa: ANN401
        os.write(2, f"step {trainer.global_step} done\n".encode())
        time.sleep(self.seconds)


def _train(
    rank: int, world_size: int, port: int, folder: Path, faults: Callable[[int], list[Callback]], fit: dict[str, Any]
) -> None:
    with (folder / f"{rank}.txt").open("wb") as told:
        os.dup2(told.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    logging.getLogger("neurotrain").addHandler(logging.StreamHandler(sys.stderr))
    logging.getLogger("neurotrain").setLevel(logging.INFO)
    warnings.simplefilter("default")  # what a test turns into errors is told here as it is to users
    torch.set_num_threads(1)
    settings: dict[str, Any] = {"max_epochs": 50, **fit}
    deadline, saving = settings.pop("deadline", 900.0), settings.pop("saving", {})
    resume, batches = settings.pop("resume", None), settings.pop("batches", 6)
    if world_size > 1:
        os.environ.update(
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            GLOO_SOCKET_IFNAME="lo",
            WORLD_SIZE=str(world_size),
            LOCAL_RANK=str(rank),
            NODE_RANK="0",
        )
        settings.update(strategy="ddp", devices=world_size, use_distributed_sampler=False)
    seed()
    callbacks = [Preemption(), Watchdog(deadline=deadline), RunCheckpoint(**saving), *faults(rank)]
    trainer = make_trainer(folder, callbacks, **settings)
    try:
        trainer.fit(ToyTask(), ToyLoader(batches=batches), ckpt_path=resume, weights_only=True)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
