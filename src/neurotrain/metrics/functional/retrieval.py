"""Agreement of two embeddings: which image finds its text, and which text its image.

Shape legend: ``I`` images, ``M`` texts, ``D`` features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def retrieval_ranks(
    image_features: Tensor,
    text_features: Tensor,
    *,
    text_image: Tensor | None = None,
    normalize: bool = True,
    chunk_size: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Place of the right answer in each ranking by similarity, from 1; of equal similarities the lower index is first.

    Args:
        image_features: floats ``(I, D)``; half precision is computed in float32.
        text_features: floats ``(M, D)``.
        text_image: integer ``(M,)``, the image that each text is about; text ``m`` is about image ``m`` when not given.
        normalize: whether similarity is the cosine, not the plain product.
        chunk_size: rows of the similarity that are held at once.

    Returns:
        int64 ``(I,)``: rank of the best of each image's texts, 0 for an image without one; int64 ``(M,)``: rank of each
        text's image.

    Raises:
        ValueError: if shapes, types or indices do not fit.

    Example:
        >>> images, texts = torch.eye(2), torch.tensor([[1.0, 0.1], [0.9, 0.5], [0.0, 1.0]])
        >>> [ranks.tolist() for ranks in retrieval_ranks(images, texts, text_image=torch.tensor([0, 1, 1]))]
        [[1, 1], [1, 2, 1]]
    """
    images, texts, owner = checked_pair(image_features, text_features, text_image)
    if normalize:
        images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
    owner_of_image = torch.arange(len(images), device=images.device)
    of_images = [
        _ranks(rows @ texts.T, owner == place[:, None])
        for rows, place in zip(images.split(chunk_size), owner_of_image.split(chunk_size), strict=True)
    ]
    of_texts = [
        _ranks(rows @ images.T, owner_of_image == place[:, None])
        for rows, place in zip(texts.split(chunk_size), owner.split(chunk_size), strict=True)
    ]
    return torch.cat(of_images), torch.cat(of_texts)


def _ranks(similarity: Tensor, right: Tensor) -> Tensor:
    """Rank of the best right answer of each row; 0 where there is none."""
    if not similarity.shape[1]:
        return torch.zeros(len(similarity), dtype=torch.int64, device=similarity.device)
    # max keeps the first of equal values
    best, place = similarity.masked_fill(~right, -torch.inf).max(dim=1, keepdim=True)
    before = torch.arange(similarity.shape[1], device=similarity.device) < place
    ahead = (similarity > best) | ((similarity == best) & before)
    return torch.where(right.any(dim=1), 1 + ahead.sum(dim=1), 0)


def checked_pair(
    image_features: Tensor, text_features: Tensor, text_image: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Features in float32 or float64 and the image of each text.

    Raises:
        ValueError: if shapes, types or indices do not fit.
    """
    if image_features.ndim != 2 or text_features.ndim != 2 or image_features.shape[1] != text_features.shape[1]:
        raise ValueError(
            f"image_features {tuple(image_features.shape)} and text_features {tuple(text_features.shape)} "
            "must be (I, D) and (M, D)"
        )
    if not (image_features.is_floating_point() and text_features.is_floating_point()):
        raise ValueError(f"features must be floats, not {image_features.dtype} and {text_features.dtype}")
    common = torch.promote_types(torch.promote_types(image_features.dtype, text_features.dtype), torch.float32)
    images, texts = image_features.detach().to(common), text_features.detach().to(common)
    if not (images.isfinite().all() and texts.isfinite().all()):
        raise ValueError("features must be finite")
    if text_image is None:
        if len(images) != len(texts):
            raise ValueError(f"{len(texts)} texts for {len(images)} images: text_image must say which belong together")
        return images, texts, torch.arange(len(images), device=images.device)
    if text_image.shape != (len(texts),) or text_image.is_floating_point():
        raise ValueError(f"text_image must be integers ({len(texts)},), not {tuple(text_image.shape)}")
    if len(text_image) and not 0 <= int(text_image.min()) <= int(text_image.max()) < len(images):
        raise ValueError(f"text_image must hold indices of {len(images)} images")
    return images, texts, text_image.to(images.device)


def image_text_retrieval(
    image_features: Tensor,
    text_features: Tensor,
    *,
    text_image: Tensor | None = None,
    ks: Sequence[int] = (1, 5, 10),
    normalize: bool = True,
    chunk_size: int = 1024,
) -> dict[str, Tensor]:
    """Figures of retrieval in both directions, with any number of texts an image.

    Args:
        image_features: floats ``(I, D)``; half precision is computed in float32.
        text_features: floats ``(M, D)``.
        text_image: integer ``(M,)``, the image that each text is about; text ``m`` is about image ``m`` when not given.
        ks: where recall is read.
        normalize: whether similarity is the cosine, not the plain product.
        chunk_size: rows of the similarity that are held at once.

    Returns:
        float64 scalars: ``image_to_text_recall_K`` (share of images with one of their texts among the K nearest) and
        ``text_to_image_recall_K``; ``image_to_text_median_rank`` and ``text_to_image_median_rank``, from 1; the same of
        ``mean_rank``; ``clip_accuracy``, the mean of both recalls at 1; ``similarity``, the mean over right pairs.
        Images without a text are answers but no questions; NaN where there is no question.

    Raises:
        ValueError: if shapes, types, indices or ``ks`` do not fit.

    Reference:
        open_clip's evaluation (``get_clip_metrics``); Karpathy and Fei-Fei, 2015, for several texts an image.

    Example:
        >>> figures = image_text_retrieval(torch.eye(2), torch.tensor([[1.0, 0.1], [0.9, 0.5]]), ks=(1,))
        >>> figures["image_to_text_recall_1"].item(), figures["text_to_image_recall_1"].item()
        (1.0, 0.5)
    """
    check_ks(ks)
    images, texts, owner = checked_pair(image_features, text_features, text_image)
    of_images, of_texts = retrieval_ranks(images, texts, text_image=owner, normalize=normalize, chunk_size=chunk_size)
    figures: dict[str, Tensor] = {}
    questions = {"image_to_text": of_images[of_images > 0], "text_to_image": of_texts}
    for name, ranks in questions.items():
        figures |= {f"{name}_recall_{k}": (ranks <= k).double().mean() for k in ks}
        figures[f"{name}_median_rank"] = ranks.double().quantile(0.5) if len(ranks) else ranks.double().mean()
        figures[f"{name}_mean_rank"] = ranks.double().mean()
    figures["clip_accuracy"] = torch.stack([(ranks == 1).double().mean() for ranks in questions.values()]).mean()
    if normalize:
        images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
    return figures | {"similarity": (images[owner].double() * texts.double()).sum(dim=1).mean()}


def check_ks(ks: Sequence[int]) -> None:
    """Refuse places that recall cannot be read at.

    Raises:
        ValueError: if there is none, or one is less than 1.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={list(ks)} must be numbers of at least 1")
