"""Frames of mp4, Matroska and WebM through PyAV."""

from __future__ import annotations

from collections.abc import Generator
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.sources.base import SampleFormatError


def film_frames(data: bytes, *, uri: str) -> Generator[Any]:
    """Count and decode the frames of the first picture stream, in the order in which they are shown.

    Args:
        data: the whole file.
        uri: of it, for messages.

    Yields:
        First the number of frames, then each as uint8 ``(H, W, 3)``, turned as the file says.

    Raises:
        SampleFormatError: if it cannot be decoded.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(BytesIO(data), mode="r") as container:
            if not container.streams.video:
                raise SampleFormatError(f"{uri}: has no pictures")
            stream = container.streams.video[0]
            # Not every container says how many there are; packets are counted without decoding them.
            yield stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
            container.seek(0, stream=stream)
            for frame in container.decode(stream):
                yield _turned(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), frame.rotation)
    except FFmpegError as error:
        raise SampleFormatError(f"{uri}: {len(data)} bytes cannot be decoded ({error})") from error


def _turned(pixels: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Undo the rotation of a display matrix, which counts counter-clockwise."""
    return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90) % 4))
