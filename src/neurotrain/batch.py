"""Typed samples and batches: the one vocabulary that data and tasks share.

Shape legend: ``B`` batch, ``C`` image channels, ``L`` labels of a multilabel problem, ``*spatial`` two or three axes.
"""

from typing import Literal, NotRequired, TypedDict

from torch import Tensor

SegmentationMode = Literal["binary", "multiclass", "multilabel"]
"""``binary``: labels {0, 1}, one logit; ``multiclass``: labels 0..K-1, K logits; ``multilabel``: L labels apart."""


class SegmentationSample(TypedDict):
    """One image with its labels.

    Attributes:
        image: float32 ``(C, *spatial)``.
        mask: int64 labels ``(*spatial)``, or ``(L, *spatial)`` in {0, 1} for multilabel.
        valid: bool ``(*spatial)``; False where a pixel must not count (outside the field of view, ignored region).
        id: unique within its source, stable between runs.
        source: name of the dataset that the sample comes from.
    """

    image: Tensor
    mask: Tensor
    valid: Tensor
    id: str
    source: str


class SegmentationBatch(TypedDict):
    """Samples of one shape, stacked.

    Attributes:
        image: float32 ``(B, C, *spatial)``.
        mask: int64 ``(B, *spatial)``, or ``(B, L, *spatial)`` for multilabel.
        valid: bool ``(B, *spatial)``.
        id: B names.
        source: B dataset names.
    """

    image: Tensor
    mask: Tensor
    valid: Tensor
    id: list[str]
    source: list[str]


class ImageSample(TypedDict):
    """One image as it is seen; images that steer it travel beside it as ``conditioning/<name>``, of the same size.

    Attributes:
        image: uint8 ``(3, H, W)``, RGB.
        id: unique within its source, stable between runs.
        source: name of the source that the sample comes from.
    """

    image: Tensor
    id: str
    source: str


class ImageTextSample(ImageSample):
    """One image with one caption.

    Attributes:
        caption: the text.
    """

    caption: str


class ClassificationSample(ImageSample):
    """One image with its class.

    Attributes:
        label: int64 ``()``, from 0.
    """

    label: Tensor


class VideoSample(TypedDict):
    """One clip.

    Attributes:
        video: uint8 ``(T, 3, H, W)``, RGB.
        id: unique within its source, stable between runs.
        source: name of the source that the sample comes from.
        caption: the text, where captions were asked for.
    """

    video: Tensor
    id: str
    source: str
    caption: NotRequired[str]


class ArraySample(TypedDict):
    """One stored array: a volume, a latent, an embedding.

    Attributes:
        array: of the stored shape and type.
        id: unique within its source, stable between runs.
        source: name of the source that the sample comes from.
    """

    array: Tensor
    id: str
    source: str


class LatentSample(TypedDict):
    """What caches hold of one entry: the latent of its image, the embedding of its caption, or both.

    Attributes:
        latent: float32 ``(c, h, w)``, as the encoder gives it, neither scaled nor shifted.
        caption: the text that was embedded, empty where it was dropped.
        text_embedding: ``(L, D)``.
        text_attention_mask: bool ``(L,)``; False on padding.
        text_pooled: ``(E,)``, where the encoder gives one.
        image: uint8 ``(3, H, W)``, where it is decoded beside.
        id: unique within its source, stable between runs.
        source: name of the source that the sample comes from.
    """

    latent: NotRequired[Tensor]
    caption: NotRequired[str]
    text_embedding: NotRequired[Tensor]
    text_attention_mask: NotRequired[Tensor]
    text_pooled: NotRequired[Tensor]
    image: NotRequired[Tensor]
    id: str
    source: str


class ClassificationBatch(TypedDict):
    """Images of one shape with their classes, stacked.

    Attributes:
        image: float32 ``(B, C, H, W)``.
        label: int64 ``(B,)``, or ``(B, L)`` in {0, 1} for multilabel.
        id: B names.
        source: B names of sources.
    """

    image: Tensor
    label: Tensor
    id: list[str]
    source: list[str]
