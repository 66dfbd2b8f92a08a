"""Start-up without what nobody asked for: torchmetrics' package is executed when something of it is first wanted.

``import lightning`` imports torchmetrics for two classes, and torchmetrics' package imports its image, text and audio
functions and through them torchvision's models, scipy.signal and, where installed, transformers: 1.5 seconds and more
that a segmentation never uses. Here the package stands as an empty module whose submodules import as ever; the first
name that is asked of the package itself, but for the few below, executes it, and from then on it is the ordinary one.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_AT_ONCE = {
    "Metric": "torchmetrics.metric",
    "MetricCollection": "torchmetrics.collections",
    "__version__": "torchmetrics.__about__",
}
"""What Lightning imports from the package, and the module that holds it."""


class _Deferred(ModuleType):
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
        return _executed(self, name)


def _executed(module: ModuleType, name: str) -> Any:  # noqa: ANN401 - any attribute of a module
    """Run the package's own ``__init__`` and return what was asked for."""
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    module.__class__ = ModuleType
    module.__spec__.loader.exec_module(module)
    return getattr(module, name)


def defer_torchmetrics() -> None:
    """Let ``import torchmetrics`` execute the package at its first use; does nothing where it is imported already.

    Example:
        >>> defer_torchmetrics()
        >>> import torchmetrics
        >>> torchmetrics.MeanMetric.__name__
        'MeanMetric'
    """
    if "torchmetrics" in sys.modules:
        return
    spec = find_spec("torchmetrics")
    assert spec is not None, "a dependency of Lightning"
    module = module_from_spec(spec)
    module.__class__ = _Deferred
    sys.modules["torchmetrics"] = module
