"""Training on mixtures of images: mixup and cutmix by torchvision, from numbers that a resumed run draws again."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Mixing(ABC):
    """Maps a batch to a batch of mixed images with mixed targets."""

    @abstractmethod
    def __call__(
        self, image: Tensor, label: Tensor, *, num_classes: int, draw: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            image: float ``(B, C, H, W)``.
            label: integer classes ``(B,)``, or labels ``(B, K)`` in {0, 1}.
            num_classes: K.
            draw: what the random numbers follow from, besides the seed: rank and number of the batch.

        Returns:
            Images of the same shape, and targets: float ``(B, K)`` where anything was mixed, else ``label`` itself.
        """


class MixupCutmix(Mixing):
    """Either mixup or cutmix of each batch, with the batch itself moved on by one.

    Args:
        mixup_alpha: of the Beta distribution of mixup's weight; 0 leaves mixup out.
        cutmix_alpha: of the Beta distribution of cutmix's area; 0 leaves cutmix out.
        probability: share of batches that are mixed at all.
        cutmix_share: of the mixed batches, where both are in.
        seed: of every draw.

    Raises:
        ValueError: if a number is out of range, or both are left out.

    Reference:
        Zhang et al., 2018 (arXiv:1710.09412); Yun et al., 2019 (arXiv:1905.04899).

    Example:
        >>> image, label = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])
        >>> _, target = MixupCutmix(cutmix_alpha=0.0)(image, label, num_classes=2, draw=(0, 7))
        >>> target.sum(1).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        *,
        mixup_alpha: float = 0.2,
        cutmix_alpha: float = 1.0,
        probability: float = 1.0,
        cutmix_share: float = 0.5,
        seed: int = 0,
    ) -> None:
        if min(mixup_alpha, cutmix_alpha) < 0 or mixup_alpha == cutmix_alpha == 0:
            raise ValueError(
                f"mixup_alpha={mixup_alpha}, cutmix_alpha={cutmix_alpha}: need at least 0, and one of them more; "
                "mixing=null mixes nothing"
            )
        for name, value in (("probability", probability), ("cutmix_share", cutmix_share)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: a share lies in [0, 1]")
        self._mixup_alpha, self._cutmix_alpha = mixup_alpha, cutmix_alpha
        self._probability, self._seed = probability, seed
        self._cutmix_share = cutmix_share if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0)

    def __call__(
        self, image: Tensor, label: Tensor, *, num_classes: int, draw: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Mix; see :class:`Mixing`."""
        from torchvision.transforms import v2

        text = "/".join(map(str, (self._seed, *draw)))
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
        # torchvision draws from the CPU's global generator: it is lent for the call and put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            happens, which = torch.rand(2).tolist()
            if happens >= self._probability:
                return image, label
            if which < self._cutmix_share:
                return v2.CutMix(alpha=self._cutmix_alpha, num_classes=num_classes)(image, label)
            return v2.MixUp(alpha=self._mixup_alpha, num_classes=num_classes)(image, label)
