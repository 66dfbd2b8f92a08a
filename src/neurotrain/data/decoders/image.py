"""Images to uint8 tensors: alone, with a caption, with a label, with the images that steer them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from neurotrain.batch import ClassificationSample, ImageSample, ImageTextSample
from neurotrain.data.decoders.base import MAX_PIXELS, Decoder, Sample, bytes_of, field_uri
from neurotrain.data.decoders.pixels import WHITE, decode_mask, decode_rgb
from neurotrain.data.decoders.preparation import ImagePreparation, Placement
from neurotrain.data.sources.base import RawSample, SampleFormatError

CaptionChoice = Literal["random", "first"]
"""Which of an image's captions (its caption's lines) is taken."""

DecodedCaptions = Literal["random", "first", "all"]
"""The same, or all of them: the lines as they are."""


class PictureDecoder(Decoder[Sample]):
    """What decoders of one image share: decoding, preparation, the images that steer it.

    Args:
        preparation: brings the image, and what belongs to it, to its size; None: it keeps its own.
        conditioning: further images of a sample by name, fields ``conditioning/<name>``: ``"image"`` is decoded and
            resampled like the image itself, ``"mask"`` holds labels and only ever takes the nearest pixel.
        background: colour below transparent pixels.
        max_pixels: pictures of more are refused.

    Raises:
        ValueError: if a kind of ``conditioning`` is unknown.
    """

    def __init__(
        self,
        *,
        preparation: ImagePreparation | None = None,
        conditioning: Mapping[str, Literal["image", "mask"]] | None = None,
        background: tuple[int, int, int] = WHITE,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.preparation = preparation
        self.conditioning = dict(conditioning or {})
        self.background = background
        self.max_pixels = max_pixels
        for name, kind in self.conditioning.items():
            if kind not in ("image", "mask"):
                raise ValueError(f"conditioning.{name}={kind!r}: must be 'image' or 'mask'")

    @property
    def deterministic(self) -> bool:
        """True where no crop is drawn."""
        return self.preparation is None or self.preparation.deterministic

    def decode_into(
        self, raw: RawSample, generator: torch.Generator, out: Mapping[str, NDArray[Any]]
    ) -> Mapping[str, Any]:
        """Decode one entry, straight into memory of the batch where that is possible.

        Args:
            raw: as its source read it.
            generator: source of every random number.
            out: arrays by field, shaped ``(C, H, W)``. An image that needs no preparation is decoded into that of
                ``image`` where it lies channels-last in memory (``(H, W, C)`` is contiguous) and has its size.

        Returns:
            The sample; ``image`` is ``out["image"]`` itself where it was written to.

        Raises:
            SampleFormatError: as when it is called.
        """
        place = out.get("image")
        pixels_HWC = None
        if place is not None and self.preparation is None and place.dtype == np.uint8 and place.ndim == 3:
            pixels_HWC = place.transpose(1, 2, 0)
        if place is None or pixels_HWC is None or not pixels_HWC.flags.c_contiguous:
            return cast(Mapping[str, Any], self._sample(raw, generator, None))
        sample = dict(cast(Mapping[str, Any], self._sample(raw, generator, pixels_HWC)))
        if sample["image"].data_ptr() == place.ctypes.data:
            sample["image"] = place
        return sample

    def __call__(self, raw: RawSample, generator: torch.Generator) -> Sample:
        """Decode one entry; see the class for what it holds."""
        return self._sample(raw, generator, None)

    @abstractmethod
    def _sample(self, raw: RawSample, generator: torch.Generator, out: NDArray[np.uint8] | None) -> Sample:
        """Decode one entry, the image into ``out`` where its size is that."""

    def _picture(self, raw: RawSample, generator: torch.Generator, out: NDArray[np.uint8] | None) -> dict[str, Any]:
        """``image``, ``conditioning``, ``id`` and ``source``."""
        uri = field_uri(raw, "image")
        pixels = decode_rgb(
            bytes_of(raw, "image"), uri=uri, max_pixels=self.max_pixels, background=self.background, out=out
        )
        placement: Placement | None = None
        if self.preparation is not None:
            height, width = pixels.shape[:2]
            found = self.preparation.place(width, height, generator)
            if isinstance(found, str):
                raise SampleFormatError(f"{uri}: {width} x {height} pixels, {found}: it should have been left out")
            placement = found
        sample: dict[str, Any] = {"image": self._placed(pixels, placement, nearest=False)}
        for name, kind in self.conditioning.items():
            sample[f"conditioning/{name}"] = self._condition(raw, name, kind, pixels.shape[:2], placement)
        return {**sample, "id": raw.id, "source": raw.source}

    def _condition(
        self, raw: RawSample, name: str, kind: str, size: tuple[int, ...], placement: Placement | None
    ) -> torch.Tensor:
        field = f"conditioning/{name}"
        data, uri = bytes_of(raw, field), field_uri(raw, field)
        if kind == "mask":
            pixels = decode_mask(data, uri=uri, max_pixels=self.max_pixels)
        else:
            pixels = decode_rgb(data, uri=uri, max_pixels=self.max_pixels, background=self.background)
        if pixels.shape[:2] != size:
            have, need = f"{pixels.shape[1]} x {pixels.shape[0]}", f"{size[1]} x {size[0]}"
            raise SampleFormatError(f"{uri}: has {have} pixels, the image {need}")
        return self._placed(pixels, placement, nearest=kind == "mask")

    def _placed(self, pixels: NDArray[np.uint8], placement: Placement | None, *, nearest: bool) -> torch.Tensor:
        if placement is not None:
            assert self.preparation is not None, "it made the placement"
            pixels = self.preparation.apply(pixels, placement, nearest=nearest)
        tensor = torch.from_numpy(pixels)
        return tensor if pixels.ndim == 2 else tensor.permute(2, 0, 1)


class ImageDecoder(PictureDecoder[ImageSample]):
    """Decodes ``image`` as it is meant to be seen; see :class:`PictureDecoder` for the arguments.

    The tensor is ``(3, H, W)`` in view of memory that lies ``(H, W, 3)``, as it was decoded.
    """

    def _sample(self, raw: RawSample, generator: torch.Generator, out: NDArray[np.uint8] | None) -> ImageSample:
        return self._picture(raw, generator, out)  # pyright: ignore[reportReturnType] - its keys are those


class ImageTextDecoder(PictureDecoder[ImageTextSample]):
    """Decodes ``image`` and takes one of the lines of ``caption``, or all of them.

    Args:
        choice: which of several captions is taken; ``all`` keeps their lines: the transform ``ImageOneCaption`` draws
            one in training, and evaluation sees them all.
        preparation: see :class:`PictureDecoder`.
        conditioning: see :class:`PictureDecoder`.
        background: see :class:`PictureDecoder`.
        max_pixels: see :class:`PictureDecoder`.

    Raises:
        ValueError: if a choice is unknown.
    """

    def __init__(
        self,
        *,
        choice: DecodedCaptions = "random",
        preparation: ImagePreparation | None = None,
        conditioning: Mapping[str, Literal["image", "mask"]] | None = None,
        background: tuple[int, int, int] = WHITE,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(
            preparation=preparation, conditioning=conditioning, background=background, max_pixels=max_pixels
        )
        if choice not in get_args(DecodedCaptions):
            raise ValueError(f"choice={choice!r}: must be one of {', '.join(map(repr, get_args(DecodedCaptions)))}")
        self.choice: DecodedCaptions = choice

    @property
    def deterministic(self) -> bool:
        """True where neither a crop nor a caption is drawn."""
        return super().deterministic and self.choice != "random"

    def _sample(self, raw: RawSample, generator: torch.Generator, out: NDArray[np.uint8] | None) -> ImageTextSample:
        picture = self._picture(raw, generator, out)
        return {**picture, "caption": chosen_caption(raw, self.choice, generator)}  # pyright: ignore[reportReturnType]


class ClassificationDecoder(PictureDecoder[ClassificationSample]):
    """Decodes ``image`` and ``label``.

    Args:
        class_names: names in the order of their numbers, for sources whose labels are names; None: they are numbers.
        preparation: see :class:`PictureDecoder`.
        background: see :class:`PictureDecoder`.
        max_pixels: see :class:`PictureDecoder`.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str] | None = None,
        preparation: ImagePreparation | None = None,
        background: tuple[int, int, int] = WHITE,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(preparation=preparation, background=background, max_pixels=max_pixels)
        self.class_names = None if class_names is None else tuple(class_names)
        self._numbers = {name: number for number, name in enumerate(self.class_names or ())}

    def _sample(
        self, raw: RawSample, generator: torch.Generator, out: NDArray[np.uint8] | None
    ) -> ClassificationSample:
        label = torch.tensor(self._label(raw), dtype=torch.int64)
        return {**self._picture(raw, generator, out), "label": label}  # pyright: ignore[reportReturnType]

    def _label(self, raw: RawSample) -> int:
        label = raw.fields.get("label")
        if isinstance(label, str) and label in self._numbers:
            return self._numbers[label]
        if isinstance(label, int) and label >= 0 and (self.class_names is None or label < len(self.class_names)):
            return label
        expected = "a number from 0" if self.class_names is None else f"one of {', '.join(map(repr, self.class_names))}"
        raise SampleFormatError(f"{raw.uri}: label {label!r} is not {expected}")


def chosen_caption(raw: RawSample, choice: DecodedCaptions, generator: torch.Generator) -> str:
    r"""One of the captions of an entry, the lines of its field ``caption``; or all of them.

    Raises:
        SampleFormatError: if there is none.

    Example:
        >>> raw = RawSample(id="7", source="toy", uri="7.png", fields={"caption": "A fox.\nRed fur."})
        >>> chosen_caption(raw, "first", torch.Generator())
        'A fox.'
    """
    text = raw.fields.get("caption")
    if not isinstance(text, str):
        raise SampleFormatError(f"{raw.uri}: has no caption")
    if choice == "all":
        return text
    lines = text.split("\n")
    if choice == "first" or len(lines) == 1:
        return lines[0]
    return lines[int(torch.randint(len(lines), (), generator=generator))]
