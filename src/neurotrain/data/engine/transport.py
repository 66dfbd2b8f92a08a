"""A batch through shared memory: pickled, with the bytes of its arrays beside, so that the receiver copies nothing."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurotrain.data.engine.memory import SharedArena


class Parcel(NamedTuple):
    """Where a packed object lies in its slot.

    Attributes:
        offset: of the pickled part.
        length: of the pickled part.
        used: bytes of the slot that belong to the object.
    """

    offset: int
    length: int
    used: int


def pack(thing: Any, arena: SharedArena) -> Parcel:  # noqa: ANN401 - anything that can be pickled
    """Write an object into a slot; tensors and arrays that lie there already are not touched.

    Tensors lose their autograd history, as between any two processes.

    Args:
        thing: a batch and what belongs to it.
        arena: of the slot.

    Returns:
        What :func:`unpack` needs.
    """
    spans: list[tuple[int, int]] = []

    def place(buffer: pickle.PickleBuffer) -> None:
        raw = np.frombuffer(buffer.raw(), np.uint8) if len(buffer.raw()) else np.empty(0, np.uint8)
        spans.append((arena.place(raw) if raw.size else 0, raw.size))

    body = io.BytesIO()
    _Pickler(body, protocol=5, buffer_callback=place).dump(thing)
    head = pickle.dumps(spans, protocol=5)
    both = np.frombuffer(head + body.getbuffer(), np.uint8)
    offset = arena.place(both)
    return Parcel(offset, both.size, arena.used)


def unpack(parcel: Parcel, memory: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - what was packed
    """Read an object out of a slot.

    Args:
        parcel: from :func:`pack`.
        memory: bytes of the slot from its beginning; they live as long as any tensor or array of the object.

    Returns:
        The object; its tensors and arrays are views of ``memory``.
    """
    told = io.BytesIO(memory[parcel.offset : parcel.offset + parcel.length].tobytes())
    # Written by our own worker into memory without a name, which nobody else can reach.
    spans: list[tuple[int, int]] = pickle.load(told)  # noqa: S301
    buffers = [memory[offset : offset + size] for offset, size in spans]
    return pickle.load(told, buffers=buffers)  # noqa: S301


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any, /) -> Any:  # noqa: ANN401 - pickle's contract
        if type(obj) is Tensor and obj.layout is torch.strided and obj.device.type == "cpu" and not obj.is_quantized:
            order = memory_order(obj.stride())
            plain = obj.detach().permute(order).contiguous()
            bytes_of_it: Any = plain.reshape(-1).view(torch.uint8).numpy()
            raw = pickle.PickleBuffer(bytes_of_it)
            return _tensor, (raw, plain.dtype, tuple(plain.shape), order, obj.requires_grad)
        return NotImplemented


def memory_order(strides: Sequence[int]) -> tuple[int, ...]:
    """Axes as they lie in memory, outermost first; in their own order where that says nothing.

    Example:
        >>> memory_order(torch.zeros(4, 5, 3).permute(2, 0, 1).stride())
        (1, 2, 0)
    """
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def _tensor(
    raw: NDArray[np.uint8], dtype: torch.dtype, shape: tuple[int, ...], order: tuple[int, ...], requires_grad: bool
) -> Tensor:
    if len(raw):
        laid = torch.frombuffer(raw, dtype=torch.uint8).view(dtype).view(shape)
    else:
        laid = torch.empty(shape, dtype=dtype)
    return laid.permute(tuple(np.argsort(order))).requires_grad_(requires_grad)
