"""CLIP's loss, forward and backward, in chunks and in one piece, over open_clip's: peak memory and time.

Peak memory is what the process holds beyond its features at the worst moment: on a GPU by torch's own count, on a CPU
by the resident size that the kernel reports, each in a process of its own, so that nothing of another is left.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from harness import Options, Result, interleaved, is_installed, left_out, main
from torch import Tensor
from torch.nn import functional

from neurotrain.losses.contrastive import clip_loss

FEATURES = 256
CHUNK = 256


def results(options: Options) -> Iterator[Result]:
    """Rows by size of the batch."""
    sizes = (512, 2048) if options.quick else (1024, 4096, 8192)
    installed = is_installed("open_clip")
    if installed:
        import open_clip.loss  # noqa: F401 - once, for all processes that are forked from this one
    for place, size in enumerate(sizes):
        share = (place + 1) / len(sizes)
        names = ("chunked", "plain", *(("open_clip",) if installed else ()))
        memory: dict[str, float] = {}
        seconds = interleaved(
            {name: partial(_measured, name, size, memory) for name in names},
            rounds=1 if options.quick else 3,
            options=options,
            share=share,
        )
        for ours, goal_memory, goal_time in (("chunked", 0.5, 1.5), ("plain", 1.2, 1.2)):
            for what, unit, values, goal in (
                ("peak memory", "MiB", memory, goal_memory),
                ("forward and backward", "s", seconds, goal_time),
            ):
                name = f"CLIP loss, {ours}, batch of {size}: {what}"
                peer = "open_clip's ClipLoss"
                if not installed:
                    yield left_out(name=name, ours=values[ours], peer_name=peer, unit=unit, goal=goal)
                    continue
                yield Result(
                    name=name, ours=values[ours], peer=values["open_clip"], peer_name=peer, unit=unit, goal=goal
                )


def _measured(name: str, size: int, memory: dict[str, float]) -> float:
    """Seconds of one step in a fresh process; its peak memory goes into ``memory``."""
    # Forked before any thread or GPU context of torch exists here: the libraries are there, nothing else is.
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(there, name, size))
    child.start()
    there.close()
    try:
        found = here.recv()
    except EOFError as error:
        raise RuntimeError(f"{name} with a batch of {size} ended without a result: out of memory?") from error
    finally:
        here.close()
        child.join()
    memory[name] = max(memory.get(name, 0.0), found["mebibytes"])
    return float(found["seconds"])


def _send(there: Connection, name: str, size: int) -> None:
    there.send(measure(name, size))


def measure(name: str, size: int) -> dict[str, float]:
    """Run one candidate in this process.

    Args:
        name: ``chunked``, ``plain`` or ``open_clip``.
        size: of the batch.

    Returns:
        ``seconds`` of one forward and backward pass, ``mebibytes`` of memory beyond the features and their gradients.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw = torch.Generator().manual_seed(0)
    rows = [functional.normalize(torch.randn(size, FEATURES, generator=draw), dim=1).to(device) for _ in range(2)]
    image, text = (row.requires_grad_() for row in rows)
    scale = torch.tensor(20.0, device=device, requires_grad=True)
    loss = _loss(name)
    # Kernels and thread pools are there before anything is counted. On a GPU, whose memory is counted tensor by tensor,
    # the whole batch: kernels are loaded by shape. On a CPU a part of it: the kernel counts what the allocator keeps
    # for another time, too, and that is no need of the loss.
    first = size if device.type == "cuda" else 64
    loss(image[:first], text[:first], scale).backward()
    for leaf in (image, text, scale):
        leaf.grad = torch.zeros_like(leaf)
    before = _peak(device, start=True)
    started = time.perf_counter()
    loss(image, text, scale).backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "mebibytes": (_peak(device, start=False) - before) / 2**20}


def _loss(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if name == "open_clip":
        from open_clip.loss import ClipLoss as Theirs

        return Theirs()
    chunk = CHUNK if name == "chunked" else None
    return lambda image, text, scale: clip_loss(image, text, scale=scale, chunk_size=chunk)


def _peak(device: torch.device, *, start: bool) -> float:
    """Bytes held now (``start``), or at the worst moment since then."""
    if device.type == "cuda":
        if start:
            torch.cuda.reset_peak_memory_stats(device)
            return torch.cuda.memory_allocated(device)
        return torch.cuda.max_memory_allocated(device)
    if start:
        # Linux: 5 sets the high-water mark back to what is held now.
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    (held,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return float(held) * 1024


if __name__ == "__main__":
    main(results, description="CLIP's loss: ours over open_clip's, peak memory and time")
