"""Cached latents: a training step with them against encoding on the fly, and lookups against raw safetensors reads.

``python benchmarks/cache.py [--json] [--quick]``. Lookups read the very same files: ours through the cache, the peer's
through ``safetensors.safe_open`` with all files open and a dictionary from key to file. A view is mapped memory on both
sides, a copy is memory of its own; on the first touch both have just opened the files, and ours compares the checksums.
The goal of lookups is 0.8 of the peer's number in a second, a ratio of times of 1.25.
The step trains the same small denoiser on the same latents; the peer has its decoded pictures in memory.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from harness import Options, Result, interleaved, main
from safetensors import safe_open
from torch import Tensor, nn

from neurotrain.data.cache import TensorCache, draw_latent, weights_fingerprint
from neurotrain.data.cache.keys import cache_key

LOOKUP_GOAL = 1 / 0.8
STEP_GOAL = 0.5
BATCH = 8
LAYOUTS: dict[str, dict[str, tuple[torch.dtype, tuple[int, ...]]]] = {
    "mean and logvar 4x64x64 f16": {"mean": (torch.float16, (4, 64, 64)), "logvar": (torch.float16, (4, 64, 64))},
    "latent 4x32x32 f32": {"latent": (torch.float32, (4, 32, 32))},
    "latent 16x128x128 bf16": {"latent": (torch.bfloat16, (16, 128, 128))},
}
"""A distribution of Stable Diffusion at 512 pixels, a small latent, and a large one."""


class SmallEncoder(nn.Module):
    """Encoder half of a small variational autoencoder: 8 times smaller, 4 channels of mean and 4 of log-variance."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 64)
        layers: list[nn.Module] = []
        for before, width in pairwise(widths):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
            ]
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(widths[-1], 8, 1))

    def fingerprint(self) -> str:
        """Identity of the weights."""
        return weights_fingerprint(self)

    def encode(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Mean and log-variance."""
        with torch.no_grad():
            mean_BCHW, logvar_BCHW = self.layers(image_BCHW).chunk(2, dim=1)
        return {"mean": mean_BCHW, "logvar": logvar_BCHW}


class Step:
    """One training step of a small denoiser on latents that somebody hands over."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 4, 3, padding=1))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)

    def __call__(self, latent_BCHW: Tensor, generator: torch.Generator) -> float:
        """Predict noise."""
        noise_BCHW = torch.randn(latent_BCHW.shape, generator=generator)
        loss = (self.network(latent_BCHW + noise_BCHW) - noise_BCHW).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def benchmark(options: Options) -> Iterator[Result]:
    """Yield all rows."""
    torch.manual_seed(0)
    for number, name in enumerate(LAYOUTS):
        with TemporaryDirectory() as folder:
            share = 0.2 * (number + 1)
            yield from lookups(Path(folder), name, options=options, share=share)
    with TemporaryDirectory() as folder:
        yield steps(Path(folder), options=options)


def lookups(folder: Path, name: str, *, options: Options, share: float) -> Iterator[Result]:
    """Microseconds an entry: views, copies, and copies on the first touch, which compares checksums."""
    size = sum(torch.Size(shape).numel() * dtype.itemsize for dtype, shape in LAYOUTS[name].values())
    keys = _fill(folder, name, count=min(2000, (64 if options.quick else 256) * 2**20 // size))
    raw = RawReader(folder / "shards")
    warm = TensorCache(folder=folder)
    _check_equal(warm, raw, keys, list(LAYOUTS[name]))
    names = list(LAYOUTS[name])
    times = interleaved(
        {
            "view": lambda: _seconds(keys, lambda key: warm.get(key, copy=False)),
            "raw view": lambda: _seconds(keys, lambda key: raw.get(key, names)),
            "copy": lambda: _seconds(keys, warm.get),
            "raw copy": lambda: _seconds(keys, lambda key: raw.copy(key, names)),
            "first": lambda: _seconds(keys, TensorCache(folder=folder).get),
            "raw first": lambda: _seconds(keys, partial(RawReader(folder / "shards").copy, names=names)),
        },
        rounds=9,
        options=options,
        share=share,
    )
    for ours, peer, what in (
        ("view", "raw view", "a view"),
        ("copy", "raw copy", "a copy"),
        ("first", "raw first", "a copy, first touch"),
    ):
        yield Result(
            name=f"{name}: {what}",
            ours=1e6 * times[ours],
            peer=1e6 * times[peer],
            peer_name="safetensors.safe_open, all files open",
            unit="us",
            goal=LOOKUP_GOAL,
        )


def steps(folder: Path, *, options: Options) -> Result:
    """Milliseconds of a step: latents out of the cache, or out of the encoder."""
    encoder = SmallEncoder().eval()
    images = torch.rand(64, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cache = TensorCache(folder=folder)
    keys = [cache_key(encoder.fingerprint(), str(number)) for number in range(len(images))]
    for first in range(0, len(images), BATCH):
        found = encoder.encode(images[first : first + BATCH])
        for row in range(BATCH):
            cache.put(keys[first + row], {name: tensor[row] for name, tensor in found.items()})
    cache.flush()

    def cached(rows: Sequence[int]) -> dict[str, Tensor]:
        entries = [cache.get(keys[row], copy=False) or {} for row in rows]
        return {name: torch.stack([entry[name] for entry in entries]) for name in ("mean", "logvar")}

    def encoded(rows: Sequence[int]) -> dict[str, Tensor]:
        return encoder.encode(images[list(rows)])

    count = 8 if options.quick else 40
    runs = {"ours": lambda: _train(cached, count), "peer": lambda: _train(encoded, count)}
    losses = [run()[1] for run in runs.values()]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-6)
    times = interleaved({name: (lambda run=run: run()[0]) for name, run in runs.items()}, rounds=9, options=options)
    return Result(
        name=f"training step on latents, batch {BATCH}, 256 pixels",
        ours=1000 * times["ours"],
        peer=1000 * times["peer"],
        peer_name="the same step, encoding on the fly",
        unit="ms",
        goal=STEP_GOAL,
    )


class RawReader:
    """The peer: every file open, keys looked up in a dictionary."""

    def __init__(self, folder: Path) -> None:
        self.files = [safe_open(str(path), framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self.file_of = {name.partition("/")[0]: file for file in self.files for name in file.keys()}  # noqa: SIM118

    def get(self, key: bytes, names: Sequence[str]) -> dict[str, Tensor]:
        """Views."""
        text = key.hex()
        file = self.file_of[text]
        return {name: file.get_tensor(f"{text}/{name}") for name in names}

    def copy(self, key: bytes, names: Sequence[str]) -> dict[str, Tensor]:
        """Memory of their own."""
        return {name: tensor.clone() for name, tensor in self.get(key, names).items()}


def _fill(folder: Path, name: str, *, count: int) -> list[bytes]:
    generator = torch.Generator().manual_seed(0)
    keys = [cache_key(name, str(number)) for number in range(count)]
    with TensorCache(folder=folder) as cache:
        for key in keys:
            layout = LAYOUTS[name].items()
            cache.put(key, {part: torch.randn(shape, generator=generator).to(dtype) for part, (dtype, shape) in layout})
    random.Random(0).shuffle(keys)  # noqa: S311 - an order, no secret
    return keys


def _check_equal(cache: TensorCache, raw: RawReader, keys: Sequence[bytes], names: Sequence[str]) -> None:
    """Refuse to time two readers that do not read the same."""
    for key in keys:
        ours, theirs = cache.get(key), raw.get(key, names)
        if ours is None or not all(torch.equal(ours[name], theirs[name]) for name in names):
            raise AssertionError(f"{key.hex()} differs")


def _seconds(keys: Sequence[bytes], read: Callable[[bytes], object]) -> float:
    started = time.perf_counter()
    for key in keys:
        read(key)
    return (time.perf_counter() - started) / len(keys)


def _train(latents: Callable[[Sequence[int]], dict[str, Tensor]], count: int) -> tuple[float, float]:
    """Seconds a step, and the last loss."""
    step, generator = Step(), torch.Generator().manual_seed(1)
    loss, started = 0.0, time.perf_counter()
    for number in range(count):
        rows = [(number * BATCH + row) % 64 for row in range(BATCH)]
        latent_BCHW = draw_latent(latents(rows), mode="sample", generator=generator)
        loss = step(latent_BCHW, generator)
    return (time.perf_counter() - started) / count, loss


if __name__ == "__main__":
    main(benchmark, description="Cached latents: time of ours over raw reads, and over encoding on the fly")
