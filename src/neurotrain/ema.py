"""Exponential moving average of a module's weights (Polyak averaging)."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn

from neurotrain.shards import local, part_of, whole, with_local


class AverageState(TypedDict):
    """What a checkpoint holds of an average: plain numbers and tensors.

    Attributes:
        updates: number of updates so far.
        average: averaged tensors by their name in the module.
    """

    updates: int
    average: dict[str, Tensor]


class ExponentialMovingAverage:
    r"""Averages the parameters and buffers of a module over its updates.

    ``average_t = d_t * average_{t-1} + (1 - d_t) * weights_t`` with ``d_t = min(decay, (1 + t) / (10 + t))`` under
    ``warmup`` (t counts from 0) and ``d_t = decay`` without. Floating buffers (running statistics) are averaged as
    well, integer ones are copied, non-persistent ones are left alone. Averages are float32 at least: in bfloat16 an
    update of 0.002 of the difference would round to nothing.

    Reference:
        Polyak & Juditsky, 1992; the warm-up is that of ``tf.train.ExponentialMovingAverage(num_updates=...)``.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> ema = ExponentialMovingAverage(decay=0.5, warmup=False)
        >>> _ = nn.init.constant_(layer.weight, 0.0)
        >>> ema.attach(layer)
        >>> _ = nn.init.constant_(layer.weight, 1.0)
        >>> ema.update()
        >>> with ema.swap():
        ...     layer.weight.item()
        0.5
        >>> layer.weight.item()
        1.0
    """

    def __init__(self, *, decay: float = 0.998, warmup: bool = True) -> None:
        """Set how fast old weights are forgotten.

        Args:
            decay: share of the old average that an update keeps, in ``[0, 1)``.
            warmup: whether the first updates forget faster, so that the initial weights do not linger.

        Raises:
            ValueError: if ``decay`` is outside ``[0, 1)``.
        """
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay}: expected a value in [0, 1)")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self._module: nn.Module | None = None
        self._swapped = False
        self._average: dict[str, Tensor] = {}
        # Tensors are looked up anew where their module holds them: ``Module.to`` replaces the objects of buffers.
        self._slots: list[tuple[Mapping[str, Tensor | None], str]] = []
        self._floating = 0  # number of floating tensors, which come first

    @property
    def module(self) -> nn.Module | None:
        """The module that is averaged; None before :meth:`attach`."""
        return self._module

    def attach(self, module: nn.Module, *, skip: Collection[str] = ()) -> None:
        """Starts averaging ``module`` from its present weights, or from the averages that were loaded before.

        Args:
            module: any module; its parameters, persistent buffers and device are followed from here on.
            skip: names of buffers that are left alone (counters, thresholds: state that is no weight).

        Raises:
            ValueError: if averages were loaded whose names or shapes are not the module's.
        """
        loaded = self._average if self._module is None else {}
        persistent = module.state_dict(keep_vars=True).keys() - set(skip)
        tensors: dict[str, Tensor] = dict(module.named_parameters())
        tensors |= {name: buffer for name, buffer in module.named_buffers() if name in persistent}
        tensors = dict(sorted(tensors.items(), key=lambda item: not item[1].is_floating_point()))
        if loaded:
            _check_same(_shapes(loaded), _shapes(tensors))
        with torch.inference_mode(False), torch.no_grad():
            self._average = {
                name: _part(loaded.get(name), tensor).to(tensor.device, _average_dtype(tensor), copy=True)
                for name, tensor in tensors.items()
            }
        if not loaded:
            self.updates = 0
        self._module = module
        self._slots = [_slot(module, name) for name in tensors]
        self._floating = sum(tensor.is_floating_point() for tensor in tensors.values())

    def update(self) -> None:
        """Takes the module's present weights into the average (call it after each optimizer step).

        Raises:
            RuntimeError: before :meth:`attach`, and inside :meth:`swap`.
        """
        if self._module is None or self._swapped:
            raise RuntimeError(f"update() called {'inside swap()' if self._swapped else 'before attach()'}")
        live = self._live()
        averages = list(self._average.values())
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        some, rest = slice(self._floating), slice(self._floating, None)
        wide = [t if t.dtype == a.dtype else t.to(a.dtype) for a, t in zip(averages[some], live[some], strict=True)]
        with torch.no_grad():
            if wide:
                torch._foreach_lerp_(averages[some], wide, 1.0 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            if live[rest]:
                torch._foreach_copy_(averages[rest], live[rest])  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        self.updates += 1

    @contextmanager
    def swap(self) -> Generator[None]:
        """Puts the averaged weights into the module for the length of a ``with`` block.

        No value is copied: the module's tensors point to the averages and back, also after an exception. Of what is
        sharded, this process's part alone changes places with its average.

        Raises:
            RuntimeError: before :meth:`attach`, and inside another :meth:`swap`.
        """
        if self._module is None or self._swapped:
            raise RuntimeError(f"swap() called {'inside swap()' if self._swapped else 'before attach()'}")
        tensors, live = self._tensors(), self._live()
        # Whoever shards a tensor holds its memory too: values move, not the pointer.
        sharded = [part is not tensor for tensor, part in zip(tensors, live, strict=True)]
        self._swapped = True
        with torch.inference_mode(False), torch.no_grad():
            own = [part.clone() if copied else part.data for part, copied in zip(live, sharded, strict=True)]
        try:
            with torch.inference_mode(False), torch.no_grad():
                _place(live, [a.to(t.dtype) for a, t in zip(self._average.values(), live, strict=True)], sharded)
            yield
        finally:
            with torch.inference_mode(False), torch.no_grad():
                _place(live, own, sharded)
            self._swapped = False

    def state_dict(self) -> AverageState:
        """The averages (not copied) and the number of updates.

        Averages of a sharded module are gathered: all ranks have to call this, while it is sharded.
        """
        if self._module is None:
            return {"updates": self.updates, "average": dict(self._average)}
        pairs = zip(self._average.items(), self._tensors(), strict=True)
        return {"updates": self.updates, "average": {name: _whole(own, like) for (name, own), like in pairs}}

    def load_state_dict(self, state: AverageState) -> None:
        """Takes over what :meth:`state_dict` gave, before or after :meth:`attach`.

        Args:
            state: number of updates and averages by name.

        Raises:
            ValueError: if the names or shapes are not those of the attached module.
            RuntimeError: inside :meth:`swap`.
        """
        if self._swapped:
            raise RuntimeError("load_state_dict() called inside swap()")
        given = state["average"]
        if self._module is None:
            self._average = {name: tensor.detach().clone() for name, tensor in given.items()}
        else:
            tensors = dict(zip(self._average, self._tensors(), strict=True))
            _check_same(_shapes(given), _shapes(tensors))
            with torch.no_grad():
                for name, average in self._average.items():
                    average.copy_(local(part_of(given[name], tensors[name])))
        self.updates = int(state["updates"])

    def _live(self) -> list[Tensor]:
        """What this process holds of the module's tensors; the averages move to their device first."""
        live = [local(tensor) for tensor in self._tensors()]
        names = list(self._average)
        if live and self._average[names[0]].device != live[0].device:
            for name, tensor in zip(names, live, strict=True):
                self._average[name] = self._average[name].to(tensor.device)
        return live

    def _tensors(self) -> list[Tensor]:
        """The module's tensors in the order of the averages."""
        return [tensor for holder, name in self._slots if (tensor := holder[name]) is not None]


def _part(loaded: Tensor | None, tensor: Tensor) -> Tensor:
    """What this process holds of an average: of one that was loaded, or of the tensor as it is."""
    return local(tensor.detach() if loaded is None else part_of(loaded.detach(), tensor))


def _whole(average: Tensor, like: Tensor) -> Tensor:
    """The whole average, of which this process holds what it holds of ``like``."""
    assert average.shape == local(like).shape, "averages are gathered while the module is sharded"
    return whole(with_local(average, like))


def _place(tensors: list[Tensor], values: list[Tensor], copied: list[bool]) -> None:
    """Let tensors have values: by their pointer, or copied."""
    for tensor, value, copy in zip(tensors, values, copied, strict=True):
        if copy:
            tensor.copy_(value)
        else:
            tensor.data = value


def _slot(module: nn.Module, name: str) -> tuple[Mapping[str, Tensor | None], str]:
    """Where a module holds the parameter or buffer of that name."""
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    parameters, buffers = owner._parameters, owner._buffers  # pyright: ignore[reportPrivateUsage]
    return (parameters, last) if last in parameters else (buffers, last)


def _average_dtype(tensor: Tensor) -> torch.dtype:
    """Float32 or wider for floating tensors, the same for the rest."""
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _check_same(given: Mapping[str, torch.Size], own: Mapping[str, torch.Size]) -> None:
    """Refuses averages of another module, naming the first differences."""
    for name in sorted(given.keys() - own.keys()):
        nearest = difflib.get_close_matches(name, own.keys(), n=1)
        raise ValueError(f"average {name!r} is not a tensor of the module; nearest: {nearest or 'none'}")
    for name in sorted(own.keys() - given.keys()):
        raise ValueError(f"no average was given for {name!r}")
    for name, shape in own.items():
        if given[name] != shape:
            raise ValueError(f"average {name!r} has shape {tuple(given[name])}, the module {tuple(shape)}")
