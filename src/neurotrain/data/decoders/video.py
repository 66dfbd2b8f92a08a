"""Clips to uint8 tensors: folders of frames, animations, arrays, and mp4 where PyAV is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from neurotrain.batch import VideoSample
from neurotrain.data.decoders.arrays import decode_npy
from neurotrain.data.decoders.base import MAX_PIXELS, Decoder, bytes_of, field_uri
from neurotrain.data.decoders.image import CaptionChoice, chosen_caption
from neurotrain.data.decoders.pixels import WHITE, decode_rgb, opened, rgb_of
from neurotrain.data.decoders.preparation import Aspect, Crop, ImagePreparation, Interpolation, Resolution, at_least
from neurotrain.data.sources.base import RawSample, SampleFormatError
from neurotrain.storage.extras import require

Clip = Literal["centre", "random", "first"]
"""Which part of a longer video is taken."""

_FRAMES = "video/"
_NPY = b"\x93NUMPY"


class VideoPreparation(ImagePreparation):
    """Takes some frames of a video and prepares them all alike.

    Args:
        frames: how many are taken.
        stride: every so many-th.
        clip: which part of a longer video is taken; a shorter one is left out.
        resolution: see :class:`~neurotrain.data.decoders.preparation.ImagePreparation`, as all that follow.
        resolution_type: likewise.
        aspect: likewise.
        aspect_buckets: likewise.
        multiple: likewise.
        crop: likewise.
        min_size: likewise.
        max_size: likewise.
        min_aspect: likewise.
        max_aspect: likewise.
        max_upscale: likewise.
        interpolation: likewise.

    Raises:
        ValueError: lists every setting that is out of its range or has no effect.

    Example:
        >>> VideoPreparation(frames=3, stride=2, clip="centre").chosen(9, torch.Generator())
        range(2, 7, 2)
        >>> VideoPreparation(frames=3, stride=2).chosen(4, torch.Generator())
        '4 frames, frames=3 with stride=2 need 5'
    """

    def __init__(
        self,
        *,
        frames: int = 16,
        stride: int = 1,
        clip: Clip = "centre",
        resolution: float = 256,
        resolution_type: Resolution = "pixel",
        aspect: Aspect = "square",
        aspect_buckets: Sequence[float] | None = None,
        multiple: int = 8,
        crop: Crop = "centre",
        min_size: int | None = None,
        max_size: int | None = None,
        min_aspect: float | None = None,
        max_aspect: float | None = None,
        max_upscale: float | None = 2.0,
        interpolation: Interpolation = "bicubic",
    ) -> None:
        self.frames = frames
        self.stride = stride
        self.clip: Clip = clip
        super().__init__(
            resolution=resolution,
            resolution_type=resolution_type,
            aspect=aspect,
            aspect_buckets=aspect_buckets,
            multiple=multiple,
            crop=crop,
            min_size=min_size,
            max_size=max_size,
            min_aspect=min_aspect,
            max_aspect=max_aspect,
            max_upscale=max_upscale,
            interpolation=interpolation,
        )

    @property
    def deterministic(self) -> bool:
        """True where neither a crop nor a clip is drawn."""
        return super().deterministic and self.clip != "random"

    @property
    def measures(self) -> tuple[str, ...]:
        """Width, height and frames."""
        return (*super().measures, "frames")

    @property
    def span(self) -> int:
        """Frames that a video must have."""
        return (self.frames - 1) * self.stride + 1

    def chosen(self, count: int, generator: torch.Generator) -> range | str:
        """Which frames of a video are taken.

        Args:
            count: frames that it has.
            generator: source of a random clip; no other one draws a number.

        Returns:
            Their numbers, or why the video is left out.
        """
        free = count - self.span
        if free < 0:
            return f"{count} frames, frames={self.frames} with stride={self.stride} need {self.span}"
        start = {"first": 0, "centre": free // 2}.get(self.clip)
        if start is None:
            start = int(torch.randint(free + 1, (), generator=generator))
        return range(start, start + self.span, self.stride)

    def screened(self, size: Sequence[int | None]) -> str | None:
        """Why a video of this width, height and number of frames is left out."""
        if size[2] is None:
            return "number of frames unknown"
        return f"fewer than {self.span} frames" if size[2] < self.span else super().screened(size)

    def _problems(self) -> list[str]:
        choices = get_args(Clip)
        wrong = [] if self.clip in choices else [f"clip={self.clip!r}: must be one of {', '.join(map(repr, choices))}"]
        return [*at_least("frames", self.frames, 1), *at_least("stride", self.stride, 1), *wrong, *super()._problems()]


class VideoDecoder(Decoder[VideoSample]):
    """Decodes a clip: ``video`` (GIF, WebP, ``.npy`` of uint8 ``(T, H, W, 3)``, mp4), or its frames ``video/<number>``.

    Only frames that are taken are kept; of an animation all before the last of them are decoded, for each builds upon
    the one before.

    Args:
        preparation: takes the frames and brings them to their size; None: all, as they are.
        captions: which line of ``caption`` is taken; None: samples have no caption.
        background: colour below transparent pixels.
        max_pixels: a clip of more pixels, over the frames that are taken, is refused.
    """

    def __init__(
        self,
        *,
        preparation: VideoPreparation | None = None,
        captions: CaptionChoice | None = None,
        background: tuple[int, int, int] = WHITE,
        max_pixels: int = 4 * MAX_PIXELS,
    ) -> None:
        self.preparation = preparation
        self.captions: CaptionChoice | None = captions
        self.background = background
        self.max_pixels = max_pixels

    @property
    def deterministic(self) -> bool:
        """True where nothing is drawn."""
        return (self.preparation is None or self.preparation.deterministic) and self.captions != "random"

    def __call__(self, raw: RawSample, generator: torch.Generator) -> VideoSample:
        """Decode one clip.

        Returns:
            ``video`` uint8 ``(T, 3, H, W)`` (in view of memory that lies ``(T, H, W, 3)``), ``id``, ``source``, and
            ``caption`` where captions are taken.

        Raises:
            SampleFormatError: if it cannot be decoded, is too short, or its frames have different sizes.
        """
        uri = field_uri(raw, "video")
        frames = self._placed(self._decoded(raw, generator, uri), uri, generator)
        sample: VideoSample = {
            "video": torch.from_numpy(frames).permute(0, 3, 1, 2),
            "id": raw.id,
            "source": raw.source,
        }
        if self.captions is not None:
            sample["caption"] = chosen_caption(raw, self.captions, generator)
        return sample

    def _decoded(self, raw: RawSample, generator: torch.Generator, uri: str) -> list[NDArray[np.uint8]]:
        names = sorted(name for name in raw.fields if name.startswith(_FRAMES))
        if names:
            chosen = self._chosen(len(names), generator, uri)
            limit = self.max_pixels // max(len(chosen), 1)
            return [
                decode_rgb(
                    bytes_of(raw, names[n]), uri=field_uri(raw, names[n]), max_pixels=limit, background=self.background
                )
                for n in chosen
            ]
        data = bytes_of(raw, "video")
        choose: Callable[[int], range] = lambda count: self._chosen(count, generator, uri)  # noqa: E731
        if data[:6] == _NPY:
            return self._array(decode_npy(data, uri=uri), choose, uri)
        if data[4:8] == b"ftyp" or data[:4] == b"\x1aE\xdf\xa3":  # mp4 and its relatives, Matroska and WebM
            return self._film(data, choose, uri)
        return self._animation(data, choose, uri)

    def _chosen(self, count: int, generator: torch.Generator, uri: str) -> range:
        found = range(count) if self.preparation is None else self.preparation.chosen(count, generator)
        if isinstance(found, str):
            raise SampleFormatError(f"{uri}: {found}: it should have been left out")
        if not found:
            raise SampleFormatError(f"{uri}: has no frames")
        return found

    def _array(self, array: NDArray[Any], choose: Callable[[int], range], uri: str) -> list[NDArray[np.uint8]]:
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
            raise SampleFormatError(f"{uri}: is {array.dtype} {array.shape}, expected uint8 (T, H, W, 3)")
        chosen = choose(len(array))
        self._check(array[0].shape[1] * array[0].shape[0], len(chosen), uri)
        return [array[number] for number in chosen]

    def _animation(self, data: bytes, choose: Callable[[int], range], uri: str) -> list[NDArray[np.uint8]]:
        with opened(data, uri=uri, max_pixels=self.max_pixels) as image:
            if image.format not in ("GIF", "WEBP", "PNG"):
                raise SampleFormatError(f"{uri}: is a {image.format}, expected GIF, WebP, APNG, npy or mp4")
            chosen = choose(int(getattr(image, "n_frames")))  # noqa: B009 - not on Pillow's base class
            self._check(image.width * image.height, len(chosen), uri)
            frames: list[NDArray[np.uint8]] = []
            for number in chosen:
                image.seek(number)
                frames.append(rgb_of(image, uri=uri, background=self.background))
            return frames

    def _film(self, data: bytes, choose: Callable[[int], range], uri: str) -> list[NDArray[np.uint8]]:
        require("av", extra="video", purpose="decoding mp4")
        from neurotrain.data.decoders.film import film_frames

        with closing(film_frames(data, uri=uri)) as frames:
            return self._taken(frames, choose, uri)

    def _taken(
        self, frames: Iterator[NDArray[np.uint8]], choose: Callable[[int], range], uri: str
    ) -> list[NDArray[np.uint8]]:
        """Keep what is chosen; the first thing that comes is how many there are."""
        count = int(next(frames))
        chosen = choose(count)
        kept: list[NDArray[np.uint8]] = []
        for number, frame in enumerate(frames):
            if number in chosen:
                self._check(frame.shape[0] * frame.shape[1], len(chosen), uri)
                kept.append(frame)
            if number >= chosen[-1]:
                break
        if len(kept) != len(chosen):
            raise SampleFormatError(f"{uri}: ends after {len(kept)} of the {len(chosen)} frames that are taken")
        return kept

    def _check(self, pixels: int, frames: int, uri: str) -> None:
        if pixels * frames > self.max_pixels:
            raise SampleFormatError(f"{uri}: {frames} frames of {pixels} pixels are more than {self.max_pixels}")

    def _placed(self, frames: list[NDArray[np.uint8]], uri: str, generator: torch.Generator) -> NDArray[np.uint8]:
        sizes = {frame.shape[:2] for frame in frames}
        if len(sizes) > 1:
            told = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
            raise SampleFormatError(f"{uri}: its frames have different sizes: {told}")
        if self.preparation is None:
            return np.stack(frames)
        height, width = frames[0].shape[:2]
        placement = self.preparation.place(width, height, generator)
        if isinstance(placement, str):
            raise SampleFormatError(f"{uri}: {width} x {height} pixels, {placement}: it should have been left out")
        return np.stack([self.preparation.apply(frame, placement) for frame in frames])
