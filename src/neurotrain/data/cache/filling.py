"""Running an encoder over batches, and storing what it gives."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from neurotrain.data.cache.shard import CacheFullError
from neurotrain.data.cache.store import TensorCache

log = logging.getLogger(__name__)

Value = TypeVar("Value", Tensor, str)
"""What is encoded: a prepared image ``(C, H, W)``, or a text."""


class EncodeError(RuntimeError):
    """An encoder gave something that must not be stored; the message names the sample."""


class Work(NamedTuple, Generic[Value]):
    """One thing to encode.

    Attributes:
        key: to store it under.
        value: to encode.
        name: for messages.
    """

    key: bytes
    value: Value
    name: str


@dataclass
class EncodingStatistics:
    """What an encoder was asked for in this process.

    Attributes:
        encoded: values.
        batches: calls.
        seconds: in those calls.
        unstored: values that there was no room for.
    """

    encoded: int = 0
    batches: int = 0
    seconds: float = 0.0
    unstored: int = 0


class Filler(Generic[Value]):
    """Encodes what a cache lacks.

    Batches always have ``batch_size`` values, the last filled up with copies: kernels choose their algorithm by shape,
    and a value must not depend, in its last bits, on how many others were missing with it.

    Args:
        cache: to store into.
        encode: a batch of values to tensors ``(batch_size, ...)``.
        alike: values of one batch must agree in this, for instance in their shape.
        batch_size: values of each call.
        dtype: floating-point tensors are stored as this; None: as they come.
    """

    def __init__(
        self,
        *,
        cache: TensorCache,
        encode: Callable[[list[Value]], Mapping[str, Tensor]],
        alike: Callable[[Value], Hashable],
        batch_size: int,
        dtype: torch.dtype | None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype={dtype}: a floating-point dtype, or None to store what the encoder gives")
        self.cache = cache
        self.alike = alike
        self.batch_size = batch_size
        self.statistics = EncodingStatistics()
        self._encode = encode
        self._dtype = dtype

    def fill(self, work: Iterable[Work[Value]]) -> dict[bytes, dict[str, Tensor]]:
        """Encode and store; where there is no room, go on without storing and say so.

        Raises:
            EncodeError: names the value whose result must not be stored.
        """
        made: dict[bytes, dict[str, Tensor]] = {}
        groups: dict[Hashable, list[Work[Value]]] = {}
        for item in work:
            groups.setdefault(self.alike(item.value), []).append(item)
        for group in groups.values():
            for first in range(0, len(group), self.batch_size):
                batch = group[first : first + self.batch_size]
                for item, tensors in zip(batch, self.encode(batch), strict=True):
                    if isinstance(tensors, EncodeError):
                        raise tensors
                    made[item.key] = tensors
                    self._store(item.key, tensors)
        return made

    def encode(self, batch: Sequence[Work[Value]]) -> list[dict[str, Tensor] | EncodeError]:
        """Encode up to ``batch_size`` values of one kind.

        Returns:
            For each its tensors, on the CPU, or what is wrong with them.

        Raises:
            EncodeError: if the result is not one batch of tensors.
        """
        assert 1 <= len(batch) <= self.batch_size, "cut into batches before"
        values = [item.value for item in batch]
        values += [values[-1]] * (self.batch_size - len(values))
        started = time.perf_counter()
        with torch.no_grad():
            found = {name: self._plain(tensor) for name, tensor in self._encode(values).items()}
        self.statistics.seconds += time.perf_counter() - started
        self.statistics.batches += 1
        self.statistics.encoded += len(batch)
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if not found or any(shape[:1] != (self.batch_size,) for shape in shapes.values()):
            raise EncodeError(f"the encoder gave {shapes} for a batch of {self.batch_size}: one tensor (B, ...) a name")
        parts = [{name: tensor[place] for name, tensor in found.items()} for place in range(len(batch))]
        return [_checked(item.name, part) for item, part in zip(batch, parts, strict=True)]

    def _plain(self, tensor: Tensor) -> Tensor:
        dtype = self._dtype if self._dtype is not None and tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to("cpu", dtype)

    def _store(self, key: bytes, tensors: Mapping[str, Tensor]) -> None:
        try:
            self.cache.put(key, tensors)
        except CacheFullError as error:
            if not self.statistics.unstored:
                log.warning("values are encoded again each time, for want of room: %s", error)
            self.statistics.unstored += 1


def _checked(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor] | EncodeError:
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            return EncodeError(f"{name}: {key!r} ({tensor.dtype}) is not finite: another dtype may hold it")
    return {key: tensor.clone() for key, tensor in tensors.items()}
