"""Running image-text retrieval; the maths are in :mod:`neurotrain.metrics.functional.retrieval`."""

from __future__ import annotations

import torch
from torch import Tensor

from neurotrain.metrics.functional.retrieval import check_ks, checked_pair, image_text_retrieval
from neurotrain.metrics.records import SampleRecords


class ImageTextRetrieval(SampleRecords):
    """Retrieval over a data set; see :func:`neurotrain.metrics.functional.image_text_retrieval`.

    It keeps all features in float32, and compares every image with every text at the end.

    Example:
        >>> metric = ImageTextRetrieval(features=2, ks=(1,))
        >>> metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.1]]))
        >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.9, 0.5]]))
        >>> metric.compute()["clip_accuracy"].item()
        0.75
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(
        self,
        *,
        features: int = 512,
        ks: tuple[int, ...] = (1, 5, 10),
        normalize: bool = True,
        chunk_size: int = 1024,
    ) -> None:
        """Set the size of the embedding and what is read.

        Args:
            features: D.
            ks: where recall is read.
            normalize: whether similarity is the cosine, not the plain product.
            chunk_size: rows of the similarity that are held at once.

        Raises:
            ValueError: if a number is less than 1.
        """
        super().__init__()
        check_ks(ks)
        if features < 1 or chunk_size < 1:
            raise ValueError(f"features={features} and chunk_size={chunk_size} must be at least 1")
        self.features = features
        self.ks = tuple(ks)
        self.normalize = normalize
        self.chunk_size = chunk_size
        self._add_rows("images", shape=(features,), dtype=torch.int32)
        self._add_rows("texts", shape=(features,), dtype=torch.int32)
        self._add_rows("owners", shape=(), dtype=torch.int64)
        self._add_rows("sizes", shape=(2,), dtype=torch.int64)

    def update(self, image_features: Tensor, text_features: Tensor, text_image: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            image_features: floats ``(I, D)``, each image of the data set once.
            text_features: floats ``(M, D)``.
            text_image: integer ``(M,)``, the image of this batch that each text is about; text ``m`` is about image
                ``m`` when not given.

        Raises:
            ValueError: if shapes, types or indices do not fit.
        """
        images, texts, owner = checked_pair(image_features, text_features, text_image)
        if images.shape[1] != self.features:
            raise ValueError(f"the features are {images.shape[1]} numbers, but features={self.features}")
        self._append("images", images.float().contiguous().view(torch.int32))
        self._append("texts", texts.float().contiguous().view(torch.int32))
        self._append("owners", owner.long())
        self._append("sizes", torch.tensor([[len(images), len(texts)]]))

    def compute(self) -> dict[str, Tensor]:
        """Figures of all images and texts of all ranks; see the function for their names."""
        sizes = self._rows("sizes")
        first = (sizes[:, 0].cumsum(0) - sizes[:, 0]).repeat_interleave(sizes[:, 1])
        return image_text_retrieval(
            self._rows("images").contiguous().view(torch.float32),
            self._rows("texts").contiguous().view(torch.float32),
            text_image=self._rows("owners") + first,
            ks=self.ks,
            normalize=self.normalize,
            chunk_size=self.chunk_size,
        )
