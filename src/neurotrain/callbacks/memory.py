"""Out of memory: what was on the device, and what to lower."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class MemoryReport(Callback):
    """Adds to an out-of-memory error what lay on the device, by kind, and which settings make it less."""

    def __init__(self) -> None:
        self._batch: list[str] = []
        self._batch_bytes = 0

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Notes the shapes of the batch; the batch itself is not held."""
        named = batch.items() if isinstance(batch, Mapping) else []
        self._batch = [f"{name} {tuple(value.shape)}" for name, value in named if isinstance(value, Tensor)]
        self._batch_bytes = _size(_tensors(batch))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Adds a note, which is shown below the traceback."""
        if is_out_of_memory(exception):
            exception.add_note(self.report(trainer, pl_module))

    def report(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Several lines for people."""
        device = trainer.strategy.root_device
        sizes = {**memory_by_kind(pl_module, trainer.optimizers), "batch": self._batch_bytes}
        if device.type == "cuda":
            peak, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
            # What is neither of the others at the peak: mostly what the forward pass keeps for the backward pass.
            sizes["activations and the rest, estimated"] = max(0, peak - sum(sizes.values()))
            head = f"{told(peak)} of {told(total)} were allocated at most"
        else:
            head = "what the process holds beside it, as activations, is not counted on this device"
        rows = [f"  {name}: {told(size)}" for name, size in sizes.items()]
        batch = f" (batch: {', '.join(self._batch)})" if self._batch else ""
        where = f"out of memory on {device} at step {trainer.global_step}{batch}; {head}:"
        return "\n".join([where, *rows, f"lower: {'; '.join(_advice(trainer))}"])


def memory_by_kind(module: nn.Module, optimizers: Iterable[Optimizer]) -> dict[str, int]:
    """Bytes of a module and its optimizers.

    Args:
        module: with the parameters.
        optimizers: over them.

    Returns:
        Bytes of ``parameters``, ``buffers``, ``gradients`` and ``optimizer state``; shared storage counts once.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> layer(torch.ones(1, 3)).sum().backward()
        >>> memory_by_kind(layer, [])
        {'parameters': 32, 'buffers': 0, 'gradients': 32, 'optimizer state': 0}
    """
    parameters = list(module.parameters())
    return {
        "parameters": _size(parameters),
        "buffers": _size(module.buffers()),
        "gradients": _size(parameter.grad for parameter in parameters if parameter.grad is not None),
        "optimizer state": _size(tensor for optimizer in optimizers for tensor in _tensors(optimizer.state)),
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up: an accelerator's, Python's or that of torch's own allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def told(size: float) -> str:
    """Bytes for people.

    Example:
        >>> told(12), told(3 * 2**30)
        ('12 bytes', '3.00 GiB')
    """
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.2f} {_UNITS[unit]}" if unit else f"{size:.0f} bytes"


def _advice(trainer: Trainer) -> list[str]:
    """Settings that cost less memory and are not chosen yet."""
    advice = ["data.batch_size (neurotrain find-batch-size experiment=NAME finds the largest that fits)"]
    advice.append("the size of what is trained on: patch, resolution or length")
    if trainer.accumulate_grad_batches == 1:
        advice.append("data.batch_size with trainer.accumulate_grad_batches, which keeps the global batch")
    if str(trainer.precision).startswith("32"):
        advice.append("trainer.precision=bf16-mixed")
    return advice


def _size(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors; those that share their storage count once."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401 - a batch or a state of any shape
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _tensors(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _tensors(member)
