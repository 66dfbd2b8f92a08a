"""Small encoders, sources and caches for the tests of the caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from neurotrain.data.cache import TensorCache
from neurotrain.data.cache.keys import Settings
from neurotrain.data.sources import RawSample, SampleFormatError, Source


def key_of(number: int) -> bytes:
    """A key that looks like a hash."""
    from neurotrain.data.cache.keys import cache_key

    return cache_key(str(number))


def entry_of(number: int, *, size: int = 8) -> dict[str, Tensor]:
    """Tensors of several dtypes and an odd number of bytes."""
    generator = torch.Generator().manual_seed(number)
    return {
        "mean": torch.randn(4, size, size, generator=generator),
        "half": torch.randn(3, size, generator=generator).bfloat16(),
        "mask": torch.rand(5 + number % 3, generator=generator) < 0.5,
    }


def same(left: Mapping[str, Tensor] | None, right: Mapping[str, Tensor] | None) -> bool:
    """Bit-equal dictionaries."""
    if left is None or right is None or left.keys() != right.keys():
        return False
    return all(left[n].dtype == right[n].dtype and torch.equal(left[n], right[n]) for n in left)


def contents(folder: Path) -> dict[bytes, dict[str, Tensor]]:
    """Everything that a cache holds."""
    cache = TensorCache(folder=folder)
    found = {key: cache.get(key) for key in list(cache.keys())}
    assert all(entry is not None for entry in found.values())
    return {key: entry for key, entry in found.items() if entry is not None}


class ToySource(Source):
    """Samples of a few bytes each; counts reads."""

    def __init__(
        self, contents: Sequence[bytes], *, identity: bool = True, told: bool = True, bad: Sequence[int] = ()
    ) -> None:
        super().__init__(name="toy")
        self.contents = list(contents)
        self.identity = identity
        self.told = told
        self.bad = set(bad)
        self.reads = 0

    def setup(self) -> None:
        return

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.contents)

    def etag(self, index: int) -> str:
        return f"etag-{hash_of(self.contents[index])}"

    def read(self, index: int) -> RawSample:
        self.reads += 1
        uri = f"mem://toy/{index}"
        if index in self.bad:
            raise SampleFormatError(f"{uri}: truncated")
        identity = {"image": self.etag(index)} if self.identity else {}
        fields = {"image": self.contents[index], "caption": f"picture {index % 5}"}
        return RawSample(id=str(index), source=self.name, uri=uri, fields=fields, identity=identity)

    def table(self) -> pa.Table:
        columns = {"id": [str(index) for index in range(len(self))]}
        if self.told:
            columns["uri"] = [f"mem://toy/{index}" for index in range(len(self))]
            columns["etag"] = [self.etag(index) for index in range(len(self))]
        return pa.table(columns)

    def fingerprint(self) -> str:
        return hash_of(b"".join(self.contents))[:16]


def hash_of(content: bytes) -> str:
    from neurotrain.data.cache.keys import content_hash

    return content_hash(content)


class ToyPreparation:
    """Bytes to a picture of their values."""

    def __init__(self, *, size: int = 4) -> None:
        self.size = size

    def settings(self) -> Settings:
        return {"size": self.size}

    def __call__(self, sample: RawSample) -> Tensor:
        content = sample.fields["image"]
        assert isinstance(content, bytes)
        number = int.from_bytes(content[:6], "big")
        return torch.arange(3 * self.size * self.size).reshape(3, self.size, self.size) * 1e-3 + number


class ToyEncoder:
    """Mean and variance of pixels; writes down what it is asked for."""

    def __init__(self, *, weight: float = 1.0, log: Path | None = None) -> None:
        self.weight = weight
        self.log = log
        self.seen: list[float] = []

    def fingerprint(self) -> str:
        return f"toy-{self.weight}"

    def encode(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        firsts = [float(value) for value in dict.fromkeys(image_BCHW[:, 0, 0, 0].tolist())]
        self.seen += firsts
        if self.log is not None:
            with self.log.open("a") as file:
                file.write("".join(f"{value:.0f}\n" for value in firsts))
        return {"mean": image_BCHW * self.weight, "logvar": torch.zeros_like(image_BCHW)}


class ToyTexts:
    """A text's letters as numbers; counts texts."""

    def __init__(self, *, length: int = 6) -> None:
        self.length = length
        self.seen: list[str] = []

    def fingerprint(self) -> str:
        return f"letters-{self.length}"

    def encode(self, texts: list[str]) -> dict[str, Tensor]:
        self.seen += list(dict.fromkeys(texts))
        codes = torch.zeros(len(texts), self.length, dtype=torch.int64)
        for row, text in enumerate(texts):
            letters = [ord(letter) for letter in text[: self.length]]
            codes[row, : len(letters)] = torch.tensor(letters, dtype=torch.int64)
        return {"embedding": codes[..., None].float().expand(-1, -1, 3), "attention_mask": codes > 0}
