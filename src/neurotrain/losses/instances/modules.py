"""Losses of instances as modules; the mathematics are in the functions that they name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neurotrain.losses.functional import cross_entropy
from neurotrain.losses.instances.centres import centre_loss, centre_targets, offset_loss
from neurotrain.losses.instances.embedding import discriminative_loss
from neurotrain.losses.instances.mask_sets import MaskSetWeights, MaskTarget, mask_set_loss
from neurotrain.losses.options import bounded


class DiscriminativeLoss(nn.Module):
    """Module of :func:`~neurotrain.losses.instances.discriminative_loss`, where its options are explained.

    Args:
        pull_margin: at least 0.
        push_margin: at least 0.
        pull_weight: at least 0.
        push_weight: at least 0.
        norm_weight: at least 0.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        *,
        pull_margin: float = 0.5,
        push_margin: float = 1.5,
        pull_weight: float = 1.0,
        push_weight: float = 1.0,
        norm_weight: float = 0.001,
    ) -> None:
        super().__init__()
        self.pull_margin = bounded("pull_margin", pull_margin, low=0)
        self.push_margin = bounded("push_margin", push_margin, low=0)
        self.pull_weight = bounded("pull_weight", pull_weight, low=0)
        self.push_weight = bounded("push_weight", push_weight, low=0)
        self.norm_weight = bounded("norm_weight", norm_weight, low=0)

    def forward(self, embedding: Tensor, instance: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the scalar."""
        return discriminative_loss(
            embedding,
            instance,
            valid_BS=valid,
            pull_margin=self.pull_margin,
            push_margin=self.push_margin,
            pull_weight=self.pull_weight,
            push_weight=self.push_weight,
            norm_weight=self.norm_weight,
        )


class MaskSetLoss(nn.Module):
    """Weighted sum of the parts of :func:`~neurotrain.losses.instances.mask_set_loss`.

    In several processes its sums over masks are divided by the mean number of objects of a process: their mean over
    processes is then that of all images together. The classes' weighted mean stays each process's own.

    Args:
        label_weight: of the classes, at least 0.
        mask_weight: of the pixels' cross-entropy, at least 0.
        dice_weight: of the overlap, at least 0.
        no_object: see the function.
        points: see the function; None: all pixels.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> target = MaskTarget(torch.tensor([0]), torch.ones(1, 2, 2))
        >>> loss = MaskSetLoss(label_weight=1.0, mask_weight=1.0, dice_weight=0.0)
        >>> round(loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, 2), [target]).item(), 4)  # 2 log 2
        1.3863
    """

    def __init__(
        self,
        *,
        label_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object: float = 0.1,
        points: int | None = None,
    ) -> None:
        super().__init__()
        named = {"label_weight": label_weight, "mask_weight": mask_weight, "dice_weight": dice_weight}
        self.weights = MaskSetWeights(*(bounded(name, value, low=0) for name, value in named.items()))
        self.no_object = bounded("no_object", no_object, low=0, open_low=True)
        if points is not None and points < 1:
            raise ValueError(f"points={points}: must be at least 1, or None for all pixels")
        self.points = points

    def forward(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        targets: Sequence[MaskTarget],
        valid: Tensor | None = None,
        *,
        everywhere: bool = True,
    ) -> Tensor:
        """Compute the scalar; shapes and errors as at the function.

        Args:
            class_logits: see the function.
            mask_logits: see the function.
            targets: see the function.
            valid: see the function.
            everywhere: whether objects of all processes are counted, each of which must then come here as often; in
                evaluation, where processes have different numbers of batches, they need not.
        """
        parts = self.components(class_logits, mask_logits, targets, valid, everywhere=everywhere)
        return torch.stack([weight * parts[name] for name, weight in self.weights._asdict().items()]).sum()

    def components(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        targets: Sequence[MaskTarget],
        valid: Tensor | None = None,
        *,
        everywhere: bool = True,
    ) -> dict[str, Tensor]:
        """The parts, not weighted; see :meth:`forward`."""
        return mask_set_loss(
            class_logits,
            mask_logits,
            targets,
            valid_BS=valid,
            weights=self.weights,
            no_object=self.no_object,
            points=self.points,
            objects=_objects(targets, class_logits.device) if everywhere else None,
        )


class PanopticCentreLoss(nn.Module):
    """Semantic cross-entropy, the map of centres and the ways to them, as in Panoptic-DeepLab.

    Args:
        semantic_weight: of the cross-entropy, at least 0.
        centre_weight: of :func:`~neurotrain.losses.instances.centre_loss`, at least 0.
        offset_weight: of :func:`~neurotrain.losses.instances.offset_loss`, at least 0.
        sigma: of a centre's Gaussian in pixels.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Cheng et al., 2020 (arXiv:1911.10194), section 3.2, equation 1, whose weights are the defaults.
    """

    def __init__(
        self,
        *,
        semantic_weight: float = 1.0,
        centre_weight: float = 200.0,
        offset_weight: float = 0.01,
        sigma: float = 8.0,
    ) -> None:
        super().__init__()
        self.semantic_weight = bounded("semantic_weight", semantic_weight, low=0)
        self.centre_weight = bounded("centre_weight", centre_weight, low=0)
        self.offset_weight = bounded("offset_weight", offset_weight, low=0)
        self.sigma = bounded("sigma", sigma, low=0, open_low=True)

    def forward(
        self,
        logits: Tensor,
        heat: Tensor,
        offset: Tensor,
        target: Tensor,
        instance: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Compute the scalar.

        Args:
            logits: of K classes of stuff and things, ``(B, K, *spatial)``.
            heat: predicted map of centres, ``(B, 1, *spatial)``.
            offset: predicted way to the centre in pixels, ``(B, d, *spatial)``.
            target: classes ``(B, *spatial)``.
            instance: integers ``(B, *spatial)``: 0 for stuff, any other number names a thing of its image.
            valid: bool ``(B, *spatial)``, False where a pixel does not count; all count when None.
        """
        wanted = centre_targets(instance, sigma=self.sigma, valid_BS=valid)
        semantic = cross_entropy(logits, target, valid=valid)
        centre = centre_loss(heat, wanted.heat, valid_BS=valid)
        way = offset_loss(offset, wanted.offset, wanted.things)
        return self.semantic_weight * semantic + self.centre_weight * centre + self.offset_weight * way


def _objects(targets: Sequence[MaskTarget], device: torch.device) -> Tensor:
    """Objects of a process, mean over processes, at least 1."""
    count = torch.tensor(float(sum(len(target.labels) for target in targets)), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count.clamp_min(1)
