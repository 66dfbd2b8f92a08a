"""Two ranks that have DeepSpeed imported once, forked from a process that does nothing else."""

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

PATIENCE = 400


def run_zero(module: str, checks: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Run functions of a module, one after the other, on both ranks of one group.

    Args:
        module: beside this one.
        checks: names of functions that take a folder and the rank.
        folder: in which each check has a folder of its name.

    Returns:
        Of each rank what each check returned, by its name; an exception as text with its traceback.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["everything_imported"])
    process = context.Process(target=_parent, args=(module, list(checks), folder, str(Path(__file__).parent)))
    process.start()
    process.join(timeout=PATIENCE + 10)
    if process.exitcode is None:
        process.kill()
        process.join()
    # Our own files, and the text of exceptions.
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _parent(module: str, checks: list[str], folder: Path, path: str) -> None:
    sys.path.insert(0, path)
    torch.set_num_threads(1)
    _import_deepspeed()
    __import__(module)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, port, module, checks, folder)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    ranks[0].join(timeout=PATIENCE)
    ranks[1].join(timeout=10)
    for rank in ranks:
        if rank.exitcode is None:
            rank.kill()
            rank.join()


def _import_deepspeed() -> None:
    """Import what a first training would, without the compiler that DeepSpeed loads for one optimizer of its own."""
    compiles, torch.compile = torch.compile, _leave
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # pyright: ignore[reportMissingImports]
        import deepspeed.runtime.zero.stage3  # noqa: F401  # pyright: ignore[reportMissingImports]
    finally:
        torch.compile = compiles


def _leave(model: Callable[..., Any] | None = None, **_: Any) -> Any:  # noqa: ANN401
    return model if model is not None else _leave


def _rank(rank: int, port: int, module: str, checks: list[str], folder: Path) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        NODE_RANK="0",
    )
    found: dict[str, Any] = {}
    for name in checks:
        own = folder / name
        own.mkdir(exist_ok=True)
        try:
            found[name] = getattr(sys.modules[module], name)(own, rank)
        except Exception:  # the test of this check shows it; the others go on
            found[name] = traceback.format_exc()
        torch.save(found, folder / f"{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
