"""Two processes that run checks together, as ``torchrun`` would start them; forked from one that has torch imported."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Check = Callable[[Path], Any]
"""Runs on both ranks in one folder and returns what a test compares: plain values and tensors."""


def run_together(checks: Sequence[Check], folder: Path) -> list[dict[str, Any]]:
    """Run checks one after the other on two ranks of one group.

    Args:
        checks: functions of a module that both can import.
        folder: in which each check has a folder of its name.

    Returns:
        Of each rank what each check returned, by its name; an exception as ``RuntimeError`` with its traceback.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rank_checks"])
    names = [(check.__module__, check.__name__) for check in checks]
    processes = [context.Process(target=_rank, args=(rank, port, names, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=420)
        if process.exitcode is None:
            process.kill()
            process.join()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def result(found: dict[str, Any], check: Check) -> Any:  # noqa: ANN401 - what checks return
    """What a check returned on a rank; its exception is raised here."""
    value = found[check.__name__]
    if isinstance(value, RuntimeError):
        raise value
    return value


def _rank(rank: int, port: int, names: list[tuple[str, str]], folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        GROUP_RANK="0",
        TORCHELASTIC_RUN_ID="none",
    )
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for module, name in names:
        check = getattr(__import__(module), name)
        own = folder / name
        own.mkdir(exist_ok=True)
        try:
            found[name] = check(own)
        except Exception:  # shown by the test of this check; the others go on
            found[name] = RuntimeError(traceback.format_exc())
        torch.save(found, folder / f"{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
