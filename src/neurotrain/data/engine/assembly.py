"""Batches out of samples: arrays stacked where they will be read, everything else in lists, one batch a request."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurotrain.data.engine.memory import Arena
from neurotrain.data.engine.protocols import (
    BatchRequest,
    BatchSource,
    CountingSource,
    DirectSource,
    MakeKey,
    NamedSource,
    SampleSource,
)
from neurotrain.data.engine.quarantine import BadSampleHandler, Quarantine, Report, mixed
from neurotrain.data.engine.transport import memory_order

_NOTHING = Report()  # of a batch to which nothing happened; nobody writes to it but the worker that made the batch
_GLOBALS = 2  # a further word keeps these seeds apart from the samples' own
_NUMERIC = "biufc"  # kinds of numpy's types that a tensor can have


class Mark(Protocol):
    """Two numbers that tell where the work is; the second one is the row."""

    def __setitem__(self, place: int, value: int, /) -> None:
        """Write one."""
        ...


@dataclass(frozen=True, slots=True)
class _Spec:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    torch_dtype: torch.dtype | None  # of what numpy has no type for
    order: tuple[int, ...]  # axes as they lie in memory, outermost first

    def stacks_with(self, other: _Spec | None) -> bool:
        """Whether both fit into one batch, wherever their numbers lie in memory."""
        if other is None:
            return False
        return (self.shape, self.dtype, self.torch_dtype) == (other.shape, other.dtype, other.torch_dtype)


class _Rows(Protocol):
    """The places of one batch."""

    def out(self, row: int) -> Mapping[str, NDArray[Any]]: ...

    def put(self, row: int, sample: Any) -> None: ...  # noqa: ANN401


class BatchMaker:
    """Makes the batch of a request, in a worker or in the main process alike.

    Args:
        source: of the samples.
        make_key: makes a key of (index, epoch, position, source).
        collate: makes a batch of the samples; None: see :class:`StackedRows`.
        ragged: fields whose arrays differ in shape; they are listed, not stacked.
        quarantine: what to do with bad samples; None: any error ends the pass.
        seed: of the order, for replacements and global random numbers.
        seed_globals: seed the global generators of ``random``, numpy and torch for each sample.

    Raises:
        ValueError: if the settings do not fit each other or the source.
    """

    def __init__(
        self,
        *,
        source: SampleSource[Any] | BatchSource,
        make_key: MakeKey,
        collate: Callable[[list[Any]], Any] | None = None,
        ragged: Collection[str] = (),
        quarantine: Quarantine | None = None,
        seed: int = 0,
        seed_globals: bool = False,
    ) -> None:
        whole = isinstance(source, BatchSource)
        for name, given in (("collate", collate), ("quarantine", quarantine), ("seed_globals", seed_globals)):
            if whole and given:
                raise ValueError(f"{name} has no effect on {type(source).__name__}, which makes whole batches")
        if ragged and (whole or collate is not None):
            raise ValueError(f"ragged={tuple(ragged)} has no effect: the batch is made elsewhere")
        self._whole = source.load_batch if isinstance(source, BatchSource) else None
        self._source: Any = source
        self._direct = isinstance(source, DirectSource) and collate is None
        self._counting = source if isinstance(source, CountingSource) else None
        self._make_key = make_key
        self._collate = collate
        self._ragged = frozenset(ragged)
        self._handler: BadSampleHandler | None = None
        if quarantine is not None:
            if not isinstance(source, NamedSource):
                raise ValueError(
                    f"quarantine needs a source with identify() and count(), {type(source).__name__} lacks one of them"
                )
            self._handler = BadSampleHandler(policy=quarantine, source=source, seed=seed, make_key=make_key)
        self._seed = seed if seed_globals else None
        self._specs: dict[str, _Spec] = {}

    def make(self, request: BatchRequest, arena: Arena, mark: Mark) -> tuple[Any, Report]:
        """Make one batch.

        Args:
            request: which samples.
            arena: where stacked arrays go.
            mark: is told the row at work.

        Returns:
            The batch, and what happened on the way.
        """
        if self._whole is not None and self._counting is None:
            return self._whole(request), _NOTHING
        report = Report()
        if self._whole is not None:
            batch = self._whole(request)
        elif self._collate is not None:
            listed = _ListedRows(len(request))
            self._fill(listed, request, mark, report)
            batch = self._collate(listed.samples)
        else:
            stacked = StackedRows(len(request), arena=arena, ragged=self._ragged, specs=self._specs)
            self._fill(stacked, request, mark, report)
            batch, self._specs = stacked.finish(), stacked.specs
        if self._counting is not None:
            report.counters = dict(self._counting.counters())
        return batch, report

    def _fill(self, rows: _Rows, request: BatchRequest, mark: Mark, report: Report) -> None:
        bad: list[tuple[int, Any, Exception]] = []
        handler, put = self._handler, self._put
        for row, key in enumerate(request.keys(self._make_key)):
            mark[1] = row
            try:
                put(rows, row, key)
            except Exception as error:
                if handler is None:
                    raise
                final = handler.retry(lambda row=row, key=key: put(rows, row, key), error, report)
                if final is not None:
                    bad.append((row, key, final))
        # Last, when the others have told what shape a sample of this batch has.
        for row, key, error in bad:
            assert handler is not None
            mark[1] = row
            handler.replace(lambda chosen, row=row: put(rows, row, chosen), key, request.batch, error, report)

    def _put(self, rows: _Rows, row: int, key: Any) -> None:  # noqa: ANN401
        if self._seed is not None:
            with _seeded_globals(self._seed, key.epoch, key.position):
                rows.put(row, self._load(rows, row, key))
        else:
            rows.put(row, self._load(rows, row, key))

    def _load(self, rows: _Rows, row: int, key: Any) -> Any:  # noqa: ANN401
        return self._source.load_into(key, rows.out(row)) if self._direct else self._source.load(key)


class _ListedRows:
    def __init__(self, rows: int) -> None:
        self.samples: list[Any] = [None] * rows

    def out(self, row: int) -> Mapping[str, NDArray[Any]]:
        return {}

    def put(self, row: int, sample: Any) -> None:  # noqa: ANN401
        self.samples[row] = sample


class StackedRows:
    """A batch of mappings: numeric arrays and tensors of one shape are stacked to a tensor, other fields are listed.

    The first sample decides which fields there are, what shape they have in this batch and how they lie in memory;
    batches may differ.

    Args:
        rows: samples.
        arena: where the stacked arrays are made.
        ragged: fields that are listed though they are arrays.
        specs: shapes of the batch before, which this one probably has too.
    """

    def __init__(self, rows: int, *, arena: Arena, ragged: Collection[str], specs: Mapping[str, _Spec]) -> None:
        self._rows = rows
        self._arena = arena
        self._ragged = ragged
        self._lists: dict[str, list[Any]] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._fields: list[str] | None = None
        self._out: dict[str, NDArray[Any]] = {}
        self.specs = dict(specs)

    def out(self, row: int) -> Mapping[str, NDArray[Any]]:
        """Where the arrays of one sample may be written."""
        if self._fields is None and self.specs and not self._arrays:
            self._allocate()
        self._out = {name: array[row, ...] for name, array in self._arrays.items()}
        return self._out

    def put(self, row: int, sample: Mapping[str, Any]) -> None:
        """Take one sample.

        Raises:
            ValueError: if its fields, shapes or types are not those of the batch's first sample.
        """
        if self._fields is None:
            sample = self._begin(sample)
        if self._fields != list(sample):
            self._check_fields(sample)
        arrays, out = self._arrays, self._out
        for name, value in sample.items():
            array = arrays.get(name)
            if array is None:
                self._lists[name][row] = value
            elif value is not out.get(name):
                self._copy(name, array, row, value)

    def finish(self) -> dict[str, Any]:
        """The batch: tensors and lists by field."""
        assert self._fields is not None, "no sample was put"
        batch: dict[str, Any] = {}
        for name in self._fields:
            if name in self._lists:
                batch[name] = self._lists[name]
                continue
            tensor = torch.from_numpy(self._arrays[name])
            dtype = self.specs[name].torch_dtype
            batch[name] = tensor if dtype is None else tensor.view(dtype)
        return batch

    def _begin(self, sample: Any) -> Mapping[str, Any]:  # noqa: ANN401 - whatever the source made
        if not isinstance(sample, Mapping):
            raise TypeError(
                f"a sample is a {type(sample).__name__}: without collate, batches are made of mappings of fields"
            )
        found = {
            name: spec
            for name, value in sample.items()
            if name not in self._ragged and (spec := _spec_of(value)) is not None
        }
        if found != self.specs or not self._arrays:
            # What was written to the rows of another layout moves to the new one.
            sample = {name: value.copy() if value is self._out.get(name) else value for name, value in sample.items()}
            self._out = {}
            self.specs = found
            self._allocate()
        self._lists = {name: [None] * self._rows for name in sample if name not in found}
        self._fields = list(sample)
        return sample

    def _allocate(self) -> None:
        self._arrays = {name: self._array(spec) for name, spec in self.specs.items()}

    def _array(self, spec: _Spec) -> NDArray[Any]:
        """Rows that lie in memory as the first sample does: decoded pixels stay channels-last."""
        laid = self._arena.array((self._rows, *(spec.shape[axis] for axis in spec.order)), spec.dtype)
        return laid.transpose(0, *(1 + np.argsort(spec.order)))

    def _check_fields(self, sample: Mapping[str, Any]) -> None:
        assert self._fields is not None
        if set(self._fields) != set(sample):
            raise ValueError(
                f"a sample{_called(sample)} has the fields {sorted(sample)}, the first one of its batch has "
                f"{sorted(self._fields)}"
            )

    def _copy(self, name: str, array: NDArray[Any], row: int, value: Any) -> None:  # noqa: ANN401
        expected, found = self.specs[name], _spec_of(value)
        if not expected.stacks_with(found):
            told = type(value).__name__ if found is None else _told(found)
            raise ValueError(
                f"field {name!r} of a sample is {told}, of the first one of its batch {_told(expected)}: "
                f"use a transform of fixed output size, a batch size of 1, or ragged=({name!r},) for a list"
            )
        array[row, ...] = _as_array(value)


def _spec_of(value: Any) -> _Spec | None:  # noqa: ANN401
    """Shape and type of what can be stacked; None for everything else."""
    if isinstance(value, np.ndarray | np.generic):
        plain = value.dtype.kind in _NUMERIC and value.dtype.isnative
        return _Spec(value.shape, value.dtype, None, memory_order(value.strides)) if plain else None
    if not isinstance(value, Tensor):
        return None
    order = memory_order(value.stride())
    stand_in = _STAND_INS.get(value.dtype)
    if stand_in is not None:
        return _Spec(tuple(value.shape), stand_in, value.dtype, order)
    return _Spec(tuple(value.shape), torch.empty(0, dtype=value.dtype).numpy().dtype, None, order)


def _as_array(value: Any) -> NDArray[Any]:  # noqa: ANN401
    if not isinstance(value, Tensor):
        return value
    plain = value.detach()
    return plain.view(_INTEGERS[plain.element_size()]).numpy() if plain.dtype in _STAND_INS else plain.numpy()


def _told(spec: _Spec) -> str:
    return f"{spec.torch_dtype or spec.dtype} {spec.shape}"


def _called(sample: Mapping[str, Any]) -> str:
    return f" {sample['id']!r}" if "id" in sample else ""


@contextmanager
def _seeded_globals(seed: int, epoch: int, position: int) -> Generator[None]:
    """Global generators that depend on the sample alone, and are afterwards what they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    word = mixed(seed, epoch, position, _GLOBALS)
    random.seed(word)
    np.random.seed(word & 0xFFFF_FFFF)
    torch.manual_seed(word)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


_INTEGERS = {1: torch.uint8, 2: torch.int16}
_STAND_INS: dict[torch.dtype, np.dtype[Any]] = {
    torch.bfloat16: np.dtype(np.int16),
    torch.float8_e4m3fn: np.dtype(np.uint8),
    torch.float8_e5m2: np.dtype(np.uint8),
}
