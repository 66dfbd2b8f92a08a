"""Filling every cache that a data module names, before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from neurotrain.data.cache import BuildProgress, BuildReport
from neurotrain.data.cached.decoder import CachedDecoder
from neurotrain.data.cached_module import CachedPart
from neurotrain.data.planned_module import PlannedDataModule
from neurotrain.data.sources import Source

Tell = Callable[[str, BuildProgress], None]
"""Told the name of a build and how far it is, about once a second."""


@dataclass(frozen=True, kw_only=True)
class BuiltCache:
    """What the build of one cache over one source did.

    Attributes:
        name: ``latents of photos``.
        report: its counts, of this rank.
    """

    name: str
    report: BuildReport

    def __str__(self) -> str:
        """One line, then the samples that failed."""
        told = self.report
        rate = f", {told.encoded / told.seconds:.1f}/s" if told.encoded else ""
        counts = (
            f"{told.encoded} encoded, {told.present} present, {told.elsewhere} by others, {len(told.failed)} failed"
        )
        line = f"{self.name}: {counts} of {told.owned} ({told.total} in all) in {told.seconds:.1f} s{rate}"
        return "\n".join([line, *(f"  {name}: {reason}" for name, reason in told.failed)])


def build_caches(
    module: PlannedDataModule,
    *,
    latents: bool = True,
    texts: bool = True,
    rank: int | None = None,
    world_size: int | None = None,
    max_bad_share: float = 0.01,
    tell: Tell | None = None,
) -> list[BuiltCache]:
    """Encode and store what a data module's samples need: training, validation, test and prediction.

    Ranks share the work; what is stored is left alone, so a killed build goes on where it was.

    Args:
        module: with parts that look up in caches.
        latents: build those of images.
        texts: build those of captions.
        rank: of this process; None: of the environment that ``torchrun`` makes.
        world_size: number of processes; None: likewise.
        max_bad_share: of this rank's samples that may fail before a build stops, in [0, 1].
        tell: told of the progress.

    Returns:
        One for each cache and source, in that order.

    Raises:
        ValueError: if the module names no such cache.
        BuildError: if too many samples fail.
        CacheMissError: if a cache has no encoder.
    """
    built: list[BuiltCache] = []
    for decoder, source in _cached(module):
        if latents and decoder.latents is not None:
            name = f"latents of {source.name}"
            report = decoder.latents.latents.build(
                source, rank=rank, world_size=world_size, max_bad_share=max_bad_share, progress=_named(tell, name)
            )
            built.append(BuiltCache(name=name, report=report))
        if texts and decoder.texts is not None:
            name = f"texts of {source.name}"
            report = decoder.texts.embeddings.build(
                decoder.texts.texts(source), rank=rank, world_size=world_size, progress=_named(tell, name)
            )
            built.append(BuiltCache(name=name, report=report))
    if not built:
        wanted = " or ".join(name for name, asked in (("latents", latents), ("texts", texts)) if asked)
        raise ValueError(f"{module.title}: names no cache of {wanted or 'anything'}; see CachedDataModule")
    return built


def _cached(module: PlannedDataModule) -> Iterator[tuple[CachedDecoder, Source]]:
    """Decoders and whole sources, each pair once; folds of one source are built together."""
    chosen = [module.training(), *(module.evaluation(split) for split in ("validation", "test", "predict"))]
    seen: set[tuple[int, int]] = set()
    for part in (part for several in chosen for part in several.parts):
        if isinstance(part, CachedPart):
            pair = (id(part.decoder), id(part.source))
            if pair not in seen:
                seen.add(pair)
                yield part.decoder, part.source


def _named(tell: Tell | None, name: str) -> Callable[[BuildProgress], None] | None:
    if tell is None:
        return None
    return lambda progress: tell(name, progress)
