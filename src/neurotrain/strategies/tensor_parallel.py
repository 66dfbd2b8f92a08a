"""Training of a transformer whose layers are cut over the processes."""

from __future__ import annotations

from typing import Any, final

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from neurotrain.networks.blocks import Attention, FeedForward
from neurotrain.strategies.one_file import OneFileStrategy
from neurotrain.strategies.tensor_plan import cut_blocks


@final
class TensorParallelStrategy(OneFileStrategy):
    """Cuts attention and perceptrons over all processes, which see the same batches; see ``tensor_plan``.

    For networks of our own blocks: text transformers and what is built of ``networks.blocks``. What is not cut
    (embeddings, norms, convolutions) is computed by every process.

    Reference:
        Shoeybi et al., 2019 (arXiv:1909.08053), section 3.
    """

    def __init__(self, *, timeout_seconds: float = 1800.0) -> None:
        """Set how long processes wait for each other.

        Args:
            timeout_seconds: a collective that takes longer ends the run.

        Raises:
            ValueError: if it is not positive.
        """
        super().__init__(timeout_seconds=timeout_seconds)
        self._compared = False

    def setup_environment(self) -> None:
        """Starts the processes; all of them share each layer."""
        self._data_parallel_size, self._tensor_parallel_size = 1, self.num_nodes * self.num_processes
        super().setup_environment()

    def training_step(  # pyright: ignore[reportIncompatibleMethodOverride] - Lightning names no argument
        self,
        *args: Any,  # noqa: ANN401 - a batch and its number
    ) -> STEP_OUTPUT:
        """Makes sure that the first batch is the same on all processes: parts of different ones would make no sum.

        Raises:
            ValueError: if it is not.
        """
        if not self._compared:
            self._compared = True
            check_equal_batches(args[0])
        return super().training_step(*args)

    def check(self, task: LightningModule) -> None:
        """Every task may be cut, if its network has blocks that can be."""

    def divide(self, task: LightningModule) -> nn.Module:
        """Cut the blocks.

        Raises:
            ValueError: if there is none, or one cannot be cut evenly.
        """
        if not cut_blocks(task, self.device_mesh["tensor_parallel"]):
            networks = ", ".join(f"{name}={type(part).__name__}" for name, part in task.named_children())
            raise ValueError(
                f"trainer.strategy: TensorParallelStrategy has no plan for {type(task).__name__} ({networks}): it cuts "
                f"{Attention.__name__} and {FeedForward.__name__} of networks.blocks and text transformers; "
                "use trainer=fsdp"
            )
        return task


def check_equal_batches(batch: Any) -> None:  # noqa: ANN401 - what a loader yields
    """Compare a batch over all processes; a collective.

    Args:
        batch: nested mappings and sequences of tensors and plain values.

    Raises:
        ValueError: on all processes, if two of them hold different batches.
    """
    own = [
        (tuple(leaf.shape), leaf.double().nan_to_num().sum().item()) if isinstance(leaf, Tensor) else repr(leaf)
        for leaf in tree_leaves(batch)
    ]
    told: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(told, own)
    if any(other != own for other in told):
        raise ValueError(
            "trainer.strategy: processes that share each layer need the same batches, this data module gives each "
            "its own"
        )
