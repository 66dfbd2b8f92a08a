"""Losses of pairs of embeddings as modules, which see the pairs of all processes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from neurotrain.losses.contrastive.functional import clip_loss, siglip_loss
from neurotrain.losses.contrastive.gathering import gathered


class ContrastiveLoss(nn.Module, ABC):
    """A scalar from unit vectors of images and texts, pair by pair.

    Args:
        chunk_size: rows whose similarities are held at once, for batches of which all do not fit into memory; None:
            all of them.

    Attributes:
        needs_bias: whether it needs a network with a learnt bias.

    Raises:
        ValueError: if ``chunk_size`` is below 1.
    """

    needs_bias: bool

    def __init__(self, *, chunk_size: int | None = None) -> None:
        super().__init__()
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size={chunk_size}: must be at least 1, or None for all at once")
        self.chunk_size = chunk_size

    @abstractmethod
    def forward(
        self, image_BD: Tensor, text_BD: Tensor, *, scale: Tensor, bias: Tensor | None = None, everywhere: bool = True
    ) -> Tensor:
        """Compute the loss.

        Args:
            image_BD: unit vectors ``(B, D)``.
            text_BD: likewise.
            scale: scalar, the inverse temperature.
            bias: scalar, where the loss has one.
            everywhere: whether the pairs of all processes are seen; every process must then have as many.

        Returns:
            The mean over this process's pairs; its mean over processes is the loss of all pairs.
        """


class ClipLoss(ContrastiveLoss):
    """Module of :func:`~neurotrain.losses.contrastive.functional.clip_loss`.

    Args:
        chunk_size: rows whose similarities are held at once; None: all of them.

    Example:
        >>> import torch
        >>> round(ClipLoss(chunk_size=1)(torch.eye(2), torch.eye(2), scale=torch.tensor(1.0)).item(), 4)
        0.3133
    """

    needs_bias = False

    def __init__(self, *, chunk_size: int | None = None) -> None:
        super().__init__(chunk_size=chunk_size)

    def forward(
        self, image_BD: Tensor, text_BD: Tensor, *, scale: Tensor, bias: Tensor | None = None, everywhere: bool = True
    ) -> Tensor:
        """Compute the scalar; a bias is the same for every answer and says nothing."""
        if not everywhere:
            return clip_loss(image_BD, text_BD, scale=scale, chunk_size=self.chunk_size)
        image, text = gathered(image_BD), gathered(text_BD)
        return clip_loss(
            image_BD,
            text_BD,
            scale=scale,
            all_image_ND=image.rows,
            all_text_ND=text.rows,
            first=image.first,
            chunk_size=self.chunk_size,
        )


class SigLipLoss(ContrastiveLoss):
    """Module of :func:`~neurotrain.losses.contrastive.functional.siglip_loss`.

    Args:
        chunk_size: rows whose similarities are held at once; None: all of them.

    Example:
        >>> import torch
        >>> zero = torch.tensor(0.0)
        >>> round(SigLipLoss()(torch.eye(2), torch.eye(2), scale=zero, bias=zero).item(), 4)
        1.3863
    """

    needs_bias = True

    def __init__(self, *, chunk_size: int | None = None) -> None:
        super().__init__(chunk_size=chunk_size)

    def forward(
        self, image_BD: Tensor, text_BD: Tensor, *, scale: Tensor, bias: Tensor | None = None, everywhere: bool = True
    ) -> Tensor:
        """Compute the scalar.

        Raises:
            ValueError: if there is no bias.
        """
        if bias is None:
            raise ValueError("bias=None: SigLIP's loss needs one, or the many wrong pairs drown the right ones")
        if not everywhere:
            return siglip_loss(image_BD, text_BD, scale=scale, bias=bias, chunk_size=self.chunk_size)
        text = gathered(text_BD)
        return siglip_loss(
            image_BD,
            text_BD,
            scale=scale,
            bias=bias,
            all_text_ND=text.rows,
            first=text.first,
            chunk_size=self.chunk_size,
        )
