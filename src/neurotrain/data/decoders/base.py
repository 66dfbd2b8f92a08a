"""What every decoder does: the raw fields of one entry to one typed sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch

from neurotrain.data.sources.base import RawSample, SampleFormatError

Sample = TypeVar("Sample", covariant=True)

MAX_PIXELS = 89_478_485
"""Pixels above which a picture is taken for a decompression bomb, as Pillow has it: 256 MiB at 3 bytes each."""


class Decoder(ABC, Generic[Sample]):
    """Decodes one entry; safe to call from several threads, picklable, and a function of its arguments alone."""

    @property
    def deterministic(self) -> bool:
        """True where the result does not depend on the generator, so that it may be computed once and kept."""
        return True

    @abstractmethod
    def __call__(self, raw: RawSample, generator: torch.Generator) -> Sample:
        """Decode one entry.

        Args:
            raw: as its source read it.
            generator: source of every random number.

        Raises:
            SampleFormatError: names the URI, the field and what is wrong with it.
        """


def field_uri(raw: RawSample, field: str) -> str:
    """Where a field came from, for messages.

    Example:
        >>> raw = RawSample(id="7", source="toy", uri="s3://bucket/7.png", fields={})
        >>> field_uri(raw, "image"), field_uri(raw, "mask")
        ('s3://bucket/7.png', 's3://bucket/7.png (mask)')
    """
    return raw.uri if field in ("image", "video") else f"{raw.uri} ({field})"


def bytes_of(raw: RawSample, field: str) -> bytes:
    """An encoded field.

    Raises:
        SampleFormatError: if there is none, or it holds no bytes.
    """
    value = raw.fields.get(field)
    if isinstance(value, bytes):
        return value
    if value is None:
        raise SampleFormatError(f"{raw.uri}: has no field {field!r}, only {', '.join(map(repr, sorted(raw.fields)))}")
    raise SampleFormatError(f"{field_uri(raw, field)}: holds {type(value).__name__}, expected an encoded file")
