"""The training loop that a researcher writes by hand around a given network and loss: the peer of ``step_overhead.py``.

It does what our task and callbacks do for the numbers, and nothing for the comfort: no progress, no table, no
checkpoint, no guard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neurotrain.batch import SegmentationBatch


@dataclass(kw_only=True)
class Loop:
    """One training run of binary segmentation.

    Attributes:
        network: returns logits, or logits with auxiliary ones.
        loss: of logits, labels and validity.
        optimizer: makes an optimizer of parameter groups.
        factor: of the learning rate, from step and number of steps.
        steps: number of steps.
        bfloat16: whether the network runs under autocast.
        clip: largest norm of the gradient; None does not clip.
        channels_last: memory format of images and weights.
        aux_weight: of the mean loss over auxiliary logits.
        decay: of the averaged weights.
        counts: true positives, predicted positives, positives and valid pixels so far.
        loss_sum: of all steps.
    """

    network: nn.Module
    loss: nn.Module
    optimizer: Callable[[list[dict[str, object]]], Optimizer]
    factor: Callable[[int, int], float]
    steps: int
    bfloat16: bool
    clip: float | None
    channels_last: bool
    aux_weight: float = 1.0
    decay: float = 0.998
    counts: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.int64))
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    average: list[Tensor] = field(default_factory=list[Tensor])

    def run(self, batches: Iterable[SegmentationBatch]) -> None:
        """Train on every batch once."""
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        self.network.to(memory_format=layout).train()
        optimizer = self.optimizer(_decaying_groups(self.network))
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, self.steps))
        live = [tensor for tensor in self.network.state_dict().values() if tensor.is_floating_point()]
        self.average = [tensor.detach().clone() for tensor in live]
        for step, batch in enumerate(batches):
            optimizer.zero_grad()
            logits, loss = self.forward(batch["image"].contiguous(memory_format=layout), batch["mask"], batch["valid"])
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(weights, self.clip)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, live, 1 - min(self.decay, (1 + step) / (10 + step)))
                self.count(logits, batch["mask"], batch["valid"])
                self.loss_sum += loss

    def forward(self, image: Tensor, mask: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and loss of one batch."""
        with self._precision():
            output = self.network(image)
            logits, aux = (output, ()) if isinstance(output, Tensor) else output
            loss = self.loss(logits, mask, valid)
            if aux:
                extra = torch.stack([self.loss(head, mask, valid) for head in aux])
                loss = loss + self.aux_weight * extra.mean()
        return logits, loss

    def count(self, logits: Tensor, mask: Tensor, valid: Tensor) -> None:
        """Add a batch's confusion counts inside the field of view, at logit 0."""
        predicted, wanted = (logits[:, 0] > 0) & valid, mask.bool() & valid
        parts = (predicted & wanted, predicted, wanted, valid)
        self.counts += torch.stack([part.sum(dtype=torch.int32) for part in parts])

    def dice(self) -> float:
        """Dice of everything counted; NaN where nothing was positive."""
        hits, predicted, wanted, _ = self.counts.tolist()
        return 2 * hits / (predicted + wanted) if predicted + wanted else math.nan

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if self.bfloat16 else nullcontext()


def _decaying_groups(network: nn.Module) -> list[dict[str, object]]:
    parameters = list(network.parameters())
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
