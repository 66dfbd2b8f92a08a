"""Typed samples and batches: the one vocabulary that data and tasks share.

Shape legend: ``B`` batch, ``C`` image channels, ``L`` labels of a multilabel problem, ``*spatial`` two or three axes.
"""

from typing import Literal, NamedTuple, NotRequired, Protocol, TypedDict, runtime_checkable

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


class VolumeBatch(TypedDict):
    """Whole prepared volumes of one shape, to be predicted and scored over the voxels of their files.

    The canonical frame is that of the file, its axes permuted and mirrored to run right, anterior, superior.

    Attributes:
        image: float32 ``(B, C, *spatial)``, cropped and resampled.
        reference: uint8 classes ``(B, *size)`` over all voxels of the canonical frame, or regions ``(B, L, *size)``;
            absent where nothing is labelled.
        box: int64 ``(B, 2, 3)``: first voxel of the canonical frame that the image covers, and the one after its last.
        size: int64 ``(B, 3)``: voxels of the canonical frame.
        spacing: float64 ``(B, 3)``: millimetres of a voxel of the canonical frame.
        id: B names.
        source: B dataset names.
    """

    image: Tensor
    reference: NotRequired[Tensor]
    box: Tensor
    size: Tensor
    spacing: Tensor
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
    """One image with its caption.

    Attributes:
        caption: the text; several of them are its lines.
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


class Category(NamedTuple):
    """One kind of object, as a data set calls it.

    Attributes:
        id: its number there, which need not be the next one.
        name: its name there.
    """

    id: int
    name: str


@runtime_checkable
class Categorized(Protocol):
    """Data whose labels stand for categories: label ``n`` is the ``n``-th of them."""

    def categories(self) -> tuple[Category, ...] | None:
        """The categories by label; None where nothing that was set up knows them."""
        ...


class DetectionSample(ImageSample):
    """One image with its annotated objects, N of them or none.

    Attributes:
        image: uint8 ``(3, H, W)`` as decoded, float32 in [0, 1] for a network.
        boxes: float64 ``(N, 4)``, left, top, right and bottom in pixels; as annotated, so perhaps empty or reaching
            outside of the image. Double precision, or overlaps near a threshold would fall on its other side.
        labels: int64 ``(N,)``, from 0.
        iscrowd: int64 ``(N,)``, 1 where the box stands for a crowd, which counts in evaluation only.
        area: float64 ``(N,)``, as annotated; it decides about an object's size class in evaluation.
        masks: uint8 ``(N, H, W)`` in {0, 1}, where they were asked for.
        size: int64 ``(2,)``, height and width of the image as it is stored.
    """

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    area: Tensor
    masks: NotRequired[Tensor]
    size: Tensor


class DetectionBatch(TypedDict):
    """Images of any shapes with their objects, listed; see :class:`DetectionSample`.

    Attributes:
        image: B images.
        boxes: of each.
        labels: of each.
        iscrowd: of each.
        area: of each.
        masks: of each, where they were asked for.
        size: int64 ``(B, 2)``.
        id: B names.
        source: B names of sources.
    """

    image: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]
    iscrowd: list[Tensor]
    area: list[Tensor]
    masks: NotRequired[list[Tensor]]
    size: Tensor
    id: list[str]
    source: list[str]


class ImageTextBatch(TypedDict):
    """Images of one shape with their captions, stacked.

    Attributes:
        image: float32 ``(B, C, H, W)``.
        caption: B texts; several captions of an image are the lines of its text.
        text_pooled: ``(B, E)``, one stored feature a text, where a text encoder ran ahead of training.
        id: B names.
        source: B names of sources.
    """

    image: Tensor
    caption: list[str]
    text_pooled: NotRequired[Tensor]
    id: list[str]
    source: list[str]
