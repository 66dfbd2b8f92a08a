"""neurotrain: a researcher states an experiment and gets a run that is exact, fast, resumable and comparable.

``compose`` and ``train`` are imported when they are first used, so that ``import neurotrain`` stays light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurotrain.app.compose import compose
    from neurotrain.app.train import train

__all__ = ["compose", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Import the public functions on first use."""
    if name == "compose":
        from neurotrain.app.compose import compose

        return compose
    if name == "train":
        from neurotrain.app.train import train

        return train
    raise AttributeError(f"module 'neurotrain' has no attribute {name!r}")
