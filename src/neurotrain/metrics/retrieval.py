"""Running image-text retrieval; the maths are in :mod:`neurotrain.metrics.functional.retrieval`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurotrain.metrics.functional.retrieval import check_ks, checked_pair, image_text_retrieval
from neurotrain.metrics.records import ID_BYTES, SampleRecords, decode_ids, encode_ids


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
        self._add_rows("ids", shape=(ID_BYTES,), dtype=torch.uint8)

    def update(
        self,
        image_features: Tensor,
        text_features: Tensor,
        text_image: Tensor | None = None,
        *,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            image_features: floats ``(I, D)``, each image of the data set once unless it has an id.
            text_features: floats ``(M, D)``.
            text_image: integer ``(M,)``, the image of this batch that each text is about; text ``m`` is about image
                ``m`` when not given.
            ids: name of each image; of images of one name the first counts, in the order of ranks and updates, with
                its texts.

        Raises:
            ValueError: if shapes, types, indices or the number of ids do not fit.
        """
        if ids is not None and len(ids) != len(image_features):
            raise ValueError(f"{len(ids)} ids were given for {len(image_features)} images")
        images, texts, owner = checked_pair(image_features, text_features, text_image)
        if images.shape[1] != self.features:
            raise ValueError(f"the features are {images.shape[1]} numbers, but features={self.features}")
        self._append("images", images.float().contiguous().view(torch.int32))
        self._append("texts", texts.float().contiguous().view(torch.int32))
        self._append("owners", owner.long())
        self._append("sizes", torch.tensor([[len(images), len(texts)]]))
        self._append("ids", torch.zeros(len(images), ID_BYTES, dtype=torch.uint8) if ids is None else encode_ids(ids))

    def compute(self) -> dict[str, Tensor]:
        """Figures of all images and texts of all ranks; see the function for their names."""
        sizes = self._rows("sizes")
        first = (sizes[:, 0].cumsum(0) - sizes[:, 0]).repeat_interleave(sizes[:, 1])
        images, texts = (self._rows(name).contiguous().view(torch.float32) for name in ("images", "texts"))
        owners = self._rows("owners") + first
        kept = _distinct_images(self._rows("ids"))
        # Where each image that counts stands among them; -1 for one that does not.
        place = torch.full((len(images),), -1, dtype=torch.int64)
        place[kept] = torch.arange(len(kept))
        place = place.to(owners.device)
        # Texts in the order of their images: of equal similarities the earlier one is the nearer.
        order = place[owners].argsort(stable=True)
        order = order[place[owners][order] >= 0]
        return image_text_retrieval(
            images[kept.to(images.device)],
            texts[order],
            text_image=place[owners][order],
            ks=self.ks,
            normalize=self.normalize,
            chunk_size=self.chunk_size,
        )


def _distinct_images(names: Tensor) -> Tensor:
    """Rows of the images that count: nameless ones as they came, then the first of each name by name."""
    if not names.any():
        return torch.arange(len(names))
    nameless: list[int] = []
    first: dict[str, int] = {}
    for row, name in enumerate(decode_ids(names)):
        if name:
            first.setdefault(name, row)
        else:
            nameless.append(row)
    return torch.tensor(nameless + [first[name] for name in sorted(first)], dtype=torch.int64)
