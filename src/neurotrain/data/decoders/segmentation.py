"""Image, label mask and validity mask to a segmentation sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode, SegmentationSample
from neurotrain.data.datasets.decoding import PixelError, binary_of, intensities_of, values_of
from neurotrain.data.datasets.labels import check_classes, labels_of
from neurotrain.data.decoders.base import MAX_PIXELS, Decoder, bytes_of, field_uri
from neurotrain.data.decoders.jpeg import is_jpeg, jpeg_pixels
from neurotrain.data.decoders.pixels import opened
from neurotrain.data.sources.base import RawSample, SampleFormatError


class SegmentationDecoder(Decoder[SegmentationSample]):
    """Decodes ``image``, ``mask`` (or ``mask/<class name>`` for multilabel) and ``valid`` where it is there.

    Pixels stay as they are stored, an EXIF orientation is not applied: masks are drawn on the stored pixels.

    Args:
        mode: how masks are to be read.
        num_classes: 1 for binary; classes, background included, for multiclass; labels for multilabel.
        class_names: that many names; needed for multilabel.
        label_map: from stored value to label; values that it does not name stay. When not given, binary and multilabel
            masks hold 0 and 255, or 0 and 1.
        ignore_value: stored value of pixels that do not count; they get label 0 and are not ``valid``.
        channels: 3 for RGB, 1 for greyscale.
        max_pixels: pictures of more are refused.

    Raises:
        ValueError: if mode, number and names of the classes do not fit together.
    """

    def __init__(
        self,
        *,
        mode: SegmentationMode = "binary",
        num_classes: int = 1,
        class_names: Sequence[str] | None = None,
        label_map: Mapping[int, int] | None = None,
        ignore_value: int | None = None,
        channels: Literal[1, 3] = 3,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_classes(mode, num_classes, None if class_names is None else tuple(class_names))
        self.mode: SegmentationMode = mode
        self.num_classes = num_classes
        self.class_names = None if class_names is None else tuple(class_names)
        self.label_map = None if label_map is None else dict(label_map)
        self.ignore_value = ignore_value
        self.channels: Literal[1, 3] = channels
        self.max_pixels = max_pixels

    def __call__(self, raw: RawSample, generator: torch.Generator) -> SegmentationSample:
        """Decode one entry.

        Returns:
            ``image`` float32 ``(C, H, W)`` in [0, 1]; ``mask`` int64 ``(H, W)``, or ``(L, H, W)`` for multilabel;
            ``valid`` bool ``(H, W)``, all True where nothing says otherwise; ``id``; ``source``.

        Raises:
            SampleFormatError: if a field cannot be decoded, holds an unknown label or another size, or is missing.
        """
        image = self._image(raw)
        values = {field: self._values(raw, field) for field in self._mask_fields}
        parts = {field: self._labels(raw, field, found) for field, found in values.items()}
        valid = torch.ones(image.shape[-2:], dtype=torch.bool)
        if "valid" in raw.fields:
            valid = self._binary(raw, "valid")
        for field, part in {**parts, "valid": valid}.items():
            if part.shape != image.shape[-2:]:
                raise SampleFormatError(f"{field_uri(raw, field)}: has {_size(part)} pixels, the image {_size(image)}")
        if self.ignore_value is not None:
            for found in values.values():
                valid = valid & (found != self.ignore_value)
        labels = list(parts.values())
        mask = torch.stack(labels) if self.mode == "multilabel" else labels[0]
        return {"image": image, "mask": mask, "valid": valid, "id": raw.id, "source": raw.source}

    @property
    def _mask_fields(self) -> tuple[str, ...]:
        if self.mode != "multilabel":
            return ("mask",)
        assert self.class_names is not None, "checked with the mode"
        return tuple(f"mask/{name}" for name in self.class_names)

    def _image(self, raw: RawSample) -> Tensor:
        data, uri = bytes_of(raw, "image"), field_uri(raw, "image")
        if self.channels == 3 and is_jpeg(data):
            pixels = jpeg_pixels(data, max_pixels=self.max_pixels)
            if pixels is not None:
                # Laid out channel by channel before the division, which then runs over contiguous memory.
                planes_CHW = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
                return planes_CHW.float().div_(255)
        with opened(data, uri=uri, max_pixels=self.max_pixels) as image:
            try:
                return intensities_of(image, channels=self.channels)
            except PixelError as error:
                raise SampleFormatError(f"{uri}: {error}") from error

    def _values(self, raw: RawSample, field: str) -> Tensor:
        data, uri = bytes_of(raw, field), field_uri(raw, field)
        with opened(data, uri=uri, max_pixels=self.max_pixels) as image:
            try:
                return values_of(image)
            except PixelError as error:
                raise SampleFormatError(f"{uri}: {error}") from error

    def _binary(self, raw: RawSample, field: str) -> Tensor:
        try:
            return binary_of(self._values(raw, field))
        except PixelError as error:
            raise SampleFormatError(f"{field_uri(raw, field)}: {error}") from error

    def _labels(self, raw: RawSample, field: str, values: Tensor) -> Tensor:
        try:
            return labels_of(
                values,
                mode=self.mode,
                num_classes=self.num_classes,
                label_map=self.label_map,
                ignore_value=self.ignore_value,
            )
        except PixelError as error:
            raise SampleFormatError(f"{field_uri(raw, field)}: {error}") from error


def _size(part: Tensor) -> str:
    return f"{part.shape[-2]} x {part.shape[-1]}"
