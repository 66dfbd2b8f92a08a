"""Start-up without what nobody asked for: heavy packages are executed when something of them is first wanted.

``import lightning`` imports torchmetrics for two classes, and torchmetrics' package imports its image, text and audio
functions and through them torchvision's models, scipy.signal and, where installed, transformers: 1.5 seconds and more
that a segmentation never uses. Lightning also imports ``torch._dynamo``, the compiler's front end, for one class to
compare with, any optimizer's first step imports it for a function that does nothing outside a compiled graph, and
``torch.use_deterministic_algorithms`` imports the back end, ``torch._inductor``, to set a flag: 1.5 seconds more,
whether or not anything is ever compiled.

Here each package stands as an empty module. The few names below are answered at once; the first other name that is
asked of it, or the first of the compiler's submodules that is imported, executes the package, and from then on it is
the ordinary one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

_AT_ONCE = {
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
    "__version__": "torchmetrics.__about__",
}
"""What Lightning imports from the package, and the module that holds it."""

P = ParamSpec("P")
R = TypeVar("R")

_COMPILER = "torch._dynamo"
_BACKEND = "torch._inductor"
_SETTINGS = frozenset({f"{_BACKEND}.config", f"{_BACKEND}.custom_graph_pass"})
"""Light submodules that ``torch.use_deterministic_algorithms`` imports to leave a word for the compiler."""


class _Metrics(ModuleType):
    """The package torchmetrics before its ``__init__`` has run."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a module
        if name == "_logger":  # torchmetrics.utilities wants it while it is imported
            return logging.getLogger(self.__name__)
        if name in _AT_ONCE:
            if name != "__version__":
                import_module("torchmetrics.utilities")  # before metric: each imports the other
            return getattr(import_module(_AT_ONCE[name]), name)
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)  # what the import system asks of any module
        return getattr(_executed(self), name)


class _Compiler(ModuleType):
    """The package ``torch._dynamo`` or ``torch._inductor`` before its ``__init__`` has run: nothing is compiled yet."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of a module
        if self.__name__ == _COMPILER and name in _BEFORE_COMPILING:
            return _BEFORE_COMPILING[name]
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)  # what the import system asks of any module
        return getattr(_executed(self), name)


class _InstanceOfCompiled(type):
    def __instancecheck__(cls, instance: object) -> bool:
        loaded = sys.modules.get(f"{_COMPILER}.eval_frame")
        return loaded is not None and isinstance(instance, loaded.OptimizedModule)


class OptimizedModule(metaclass=_InstanceOfCompiled):
    """What ``isinstance`` compares with in place of the compiler's class of that name; true for its instances."""


def _graph_break(msg: str = "") -> None:
    """Do nothing, as the compiler's function does outside a graph."""


def _disable(
    fn: Callable[P, R] | None = None, recursive: bool = True, *, reason: str | None = None, wrapping: bool = True
) -> Callable[..., Any]:
    """Keep a function out of compiled graphs: call it as it is until there is a compiler."""
    if fn is None:
        return partial(_disable, recursive=recursive, reason=reason, wrapping=wrapping)
    compiler = sys.modules[_COMPILER]
    real: list[Callable[P, R]] = []

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not real:
            if isinstance(compiler, _Compiler):
                return fn(*args, **kwargs)
            real.append(compiler.disable(fn, recursive, reason=reason, wrapping=wrapping))
        return real[0](*args, **kwargs)

    return call


_BEFORE_COMPILING = {"OptimizedModule": OptimizedModule, "graph_break": _graph_break, "disable": _disable}
"""What an uncompiled training asks of ``torch._dynamo``."""


class _Submodules(MetaPathFinder):
    """Executes a package of the compiler before its submodules are imported, as Python does for any package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None but for the submodule by which the package is asked for."""
        package = sys.modules.get(".".join(fullname.split(".")[:2]))
        if fullname in _SETTINGS or not isinstance(package, _Compiler):
            return None
        _executed(package)
        return ModuleSpec(fullname, _Existing(sys.modules[fullname])) if fullname in sys.modules else None


class _Existing(Loader):
    """Hands out a module that its package has imported in the meantime."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _executed(module: ModuleType) -> ModuleType:
    """Run the package's own ``__init__`` in the module that has stood for it."""
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    module.__class__ = ModuleType
    module.__spec__.loader.exec_module(module)
    return module


def _stand_in(name: str, kind: type[ModuleType]) -> ModuleType:
    spec = find_spec(name)
    assert spec is not None, f"{name}: a dependency"
    module = module_from_spec(spec)
    module.__class__ = kind
    sys.modules[name] = module
    return module


def defer_torchmetrics() -> None:
    """Let ``import torchmetrics`` execute the package at its first use; does nothing where it is imported already.

    Example:
        >>> defer_torchmetrics()
        >>> import torchmetrics
        >>> torchmetrics.MeanMetric.__name__
        'MeanMetric'
    """
    if "torchmetrics" not in sys.modules:
        _stand_in("torchmetrics", _Metrics)


def defer_compiler() -> None:
    """Let ``torch._dynamo`` be executed when something is compiled; does nothing where it is imported already.

    Example:
        >>> defer_compiler()
        >>> import torch
        >>> torch.compile(torch.nn.Linear(2, 2), backend="eager")(torch.ones(1, 2)).shape
        torch.Size([1, 2])
    """
    import torch

    if sys.modules.keys().isdisjoint({_COMPILER, _BACKEND}):
        for name in (_COMPILER, _BACKEND):
            setattr(torch, name.rpartition(".")[2], _stand_in(name, _Compiler))  # where an import would put it
        sys.meta_path.insert(0, _Submodules())
