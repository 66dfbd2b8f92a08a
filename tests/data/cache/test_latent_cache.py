"""Latents: encoded once per picture, encoder and setting; a change of any is a miss."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from cache_toys import ToyEncoder, ToyPreparation, ToySource, contents, same
from torch import Tensor

from neurotrain.data.cache import (
    BuildError,
    BuildProgress,
    CacheFullError,
    CacheMissError,
    EncodeError,
    LatentCache,
    TensorCache,
    draw_latent,
    gc,
)
from neurotrain.data.cache.latents import Identify
from neurotrain.data.sources import RawSample, SampleFormatError


def source_of(count: int = 10, **settings: object) -> ToySource:
    return ToySource([number.to_bytes(6, "big") for number in range(count)], **settings)  # pyright: ignore[reportArgumentType]


def latents_of(
    folder: Path,
    encoder: ToyEncoder | str | None = None,
    *,
    size: int = 4,
    dtype: torch.dtype | None = None,
    batch_size: int = 4,
    identify: Identify = "object",
) -> LatentCache:
    return LatentCache(
        cache=TensorCache(folder=folder),
        encoder=ToyEncoder() if encoder is None else encoder,
        prepare=ToyPreparation(size=size),
        dtype=dtype,
        batch_size=batch_size,
        identify=identify,
    )


def test_what_is_missing_is_encoded_once_and_stored(tmp_path: Path) -> None:
    source, encoder = source_of(), ToyEncoder()
    samples = [source.read(index) for index in (0, 1, 2, 1, 7)]
    latents = latents_of(tmp_path / "c", encoder)
    first = latents.fetch(samples)
    assert sorted(encoder.seen) == [0, 1, 2, 7]
    assert all(
        torch.equal(entry["mean"], ToyPreparation()(sample)) for entry, sample in zip(first, samples, strict=True)
    )
    first[1]["mean"].zero_()
    assert not torch.equal(first[3]["mean"], first[1]["mean"]), "a picture that occurs twice has memory of its own"
    second = latents.fetch(samples)
    assert len(encoder.seen) == 4
    assert same(second[3], first[3])
    assert same(second[1], first[3])
    assert (latents.cache.statistics.hits, latents.cache.statistics.misses) == (5, 5)
    assert latents.statistics.encoded == 4
    latents.cache.close()
    assert latents_of(tmp_path / "c", "toy-1.0").fetch(samples)[4].keys() == {"mean", "logvar"}


def test_building_stores_what_fetching_would(tmp_path: Path) -> None:
    source = source_of(10)
    told: list[BuildProgress] = []
    built = latents_of(tmp_path / "built")
    report = built.build(source, progress=told.append)
    assert (report.total, report.owned, report.encoded, report.present, report.failed) == (10, 10, 10, 0, ())
    assert (told[-1].done, told[-1].total, told[-1].encoded) == (10, 10, 10)
    fetched = latents_of(tmp_path / "fetched", batch_size=3)
    fetched.fetch([source.read(index) for index in (9, 2, 5)])
    fetched.fetch([source.read(index) for index in range(10)])
    fetched.cache.close()
    left, right = contents(tmp_path / "built"), contents(tmp_path / "fetched")
    assert left.keys() == right.keys()
    assert all(same(left[key], right[key]) for key in left)


@pytest.mark.parametrize(("told", "identity", "reads"), [(True, True, 0), (False, True, 10), (True, False, 10)])
def test_a_second_build_finds_everything_and_reads_no_more_than_it_must(
    tmp_path: Path, told: bool, identity: bool, reads: int
) -> None:
    source = source_of(told=told, identity=identity)
    latents_of(tmp_path / "c").build(source)
    source.reads = 0
    encoder = ToyEncoder()
    report = latents_of(tmp_path / "c", encoder).build(source)
    assert (report.encoded, report.present, encoder.seen) == (0, 10, [])
    assert source.reads == reads


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": ToyEncoder(weight=2.0)},
        {"size": 5},
        {"dtype": torch.float16},
        {"identify": "content"},
    ],
    ids=["weights", "resolution", "dtype", "identity"],
)
def test_a_changed_setting_is_a_miss_and_going_back_is_a_hit(tmp_path: Path, change: dict[str, object]) -> None:
    sample = source_of().read(3)
    latents_of(tmp_path / "c").fetch([sample])
    before = latents_of(tmp_path / "c")
    before.fetch([sample])
    before.cache.close()
    changed = latents_of(tmp_path / "c", **change)  # pyright: ignore[reportArgumentType]
    assert changed.get(sample) is None
    (entry,) = changed.fetch([sample])
    changed.cache.close()
    assert not same(entry, before.get(sample)) or "identify" in change
    assert latents_of(tmp_path / "c").get(sample) is not None
    assert len(contents(tmp_path / "c")) == 2


def test_a_changed_object_is_a_miss(tmp_path: Path) -> None:
    source = source_of()
    latents = latents_of(tmp_path / "c")
    latents.build(source)
    source.contents[4] = (999).to_bytes(6, "big")
    assert latents.get(source.read(4)) is None
    report = latents.build(source)
    assert (report.encoded, report.present) == (1, 9)
    assert gc(tmp_path / "c", live_keys=latents.live_keys(source)).removed.entries == 1
    assert len(contents(tmp_path / "c")) == 10


@pytest.mark.parametrize("told", [True, False])
def test_live_keys_are_those_of_the_samples(tmp_path: Path, told: bool) -> None:
    source = source_of(told=told)
    latents = latents_of(tmp_path / "c")
    samples = [source.read(index) for index in range(10)]
    assert latents.live_keys(source) == {latents.key(sample) for sample in samples}
    latents.fetch(samples[:5])
    assert latents.live_keys(source) == {latents.key(sample) for sample in samples}


def test_one_content_in_two_places_is_encoded_once_by_content_and_twice_by_object(tmp_path: Path) -> None:
    source = ToySource([b"\0\0\0\0\0\7"] * 6)
    by_content, by_object = ToyEncoder(), ToyEncoder()
    report = latents_of(tmp_path / "c", by_content, identify="content").build(source)
    assert (report.encoded, report.present) == (1, 5)
    assert latents_of(tmp_path / "o", by_object).build(source).encoded == 6


def test_equal_etags_of_two_objects_are_two_entries(tmp_path: Path) -> None:
    """A local file's etag is made of its size and time, which an archive gives to many files alike."""
    latents, identity = latents_of(tmp_path / "c"), {"image": "6-1"}
    samples = [
        RawSample(id=str(n), source="s", uri=f"file:///{n}", fields={"image": bytes([0] * 5 + [n])}, identity=identity)
        for n in range(2)
    ]
    left, right = latents.fetch(samples)
    assert not same(left, right)


def test_a_value_does_not_depend_on_what_was_missing_with_it(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Watching(ToyEncoder):
        def encode(self, image_BCHW: Tensor) -> dict[str, Tensor]:
            sizes.append(len(image_BCHW))
            return super().encode(image_BCHW)

    source = source_of(7)
    latents = latents_of(tmp_path / "c", Watching(), batch_size=4)
    latents.fetch([source.read(0)])
    latents.build(source)
    assert set(sizes) == {4}


def test_workers_look_up_and_miss_loudly(tmp_path: Path) -> None:
    source = source_of()
    latents = latents_of(tmp_path / "c")
    latents.fetch([source.read(1)])
    latents.cache.flush()
    reader: LatentCache = pickle.loads(pickle.dumps(latents.lookup_only()))
    assert same(reader.fetch([source.read(1)])[0], latents.get(source.read(1)))
    with pytest.raises(CacheMissError, match="2 of 3 samples are not cached, first mem://toy/0"):
        reader.fetch([source.read(index) for index in range(3)])
    with pytest.raises(CacheMissError, match="needs an encoder"):
        reader.build(source)


def test_bad_samples_are_counted_listed_and_limited(tmp_path: Path) -> None:
    source = source_of(20, bad=(3, 11))
    latents = latents_of(tmp_path / "c")
    report = latents.build(source, max_bad_share=0.1)
    assert [name for name, _ in report.failed] == ["toy/3", "toy/11"]
    assert "truncated" in report.failed[0][1]
    assert report.encoded == 18
    with pytest.raises(BuildError, match=r"max_bad_share=0\.05") as raised:
        latents_of(tmp_path / "d").build(source, max_bad_share=0.05)
    assert len(raised.value.failed) == 2
    with pytest.raises(SampleFormatError):
        latents.fetch([source.read(4), source.read(3)])


class Overflowing(ToyEncoder):
    """Gives infinities for one picture."""

    def encode(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        found = super().encode(image_BCHW)
        found["mean"] = torch.where(image_BCHW[:, :1, :1, :1] == 2, torch.inf, found["mean"])
        return found


def test_what_is_not_finite_is_not_stored(tmp_path: Path) -> None:
    source = source_of()
    latents = latents_of(tmp_path / "c", Overflowing())
    with pytest.raises(EncodeError, match=r"mem://toy/2: 'mean' .* is not finite"):
        latents.fetch([source.read(2)])
    report = latents.build(source, max_bad_share=0.2)
    assert [name for name, _ in report.failed] == ["mem://toy/2"]
    assert report.encoded == 9
    narrow = latents_of(tmp_path / "d", ToyEncoder(weight=1e6), dtype=torch.float16)
    with pytest.raises(EncodeError, match="another dtype"):
        narrow.fetch([source.read(5)])


class Shapeless(ToyEncoder):
    """Forgets the batch."""

    def encode(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        return {"mean": image_BCHW.sum(dim=0)}


def test_an_encoder_that_forgets_the_batch(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"for a batch of 4"):
        latents_of(tmp_path / "c", Shapeless()).fetch([source_of().read(0)])


def test_without_room_a_run_goes_on_and_a_build_stops(tmp_path: Path) -> None:
    source = source_of()
    cache = TensorCache(folder=tmp_path / "c", max_bytes=500)
    latents = LatentCache(cache=cache, encoder=ToyEncoder(), prepare=ToyPreparation(), batch_size=4)
    found = latents.fetch([source.read(index) for index in range(10)])
    assert all(torch.equal(entry["mean"], ToyPreparation()(source.read(n))) for n, entry in enumerate(found))
    assert latents.statistics.unstored == 10
    with pytest.raises(CacheFullError, match="max_bytes=500"):
        latents.build(source)


def test_ranks_share_a_source_between_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(40)
    owned: list[int] = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        encoder = ToyEncoder()
        report = latents_of(tmp_path / "c", encoder).build(source)
        assert report.owned == report.encoded == len(encoder.seen)
        owned.append(report.owned)
    assert sum(owned) == 40
    assert all(owned)
    with pytest.raises(ValueError, match="rank=3"):
        latents_of(tmp_path / "c").build(source, rank=3, world_size=3)
    with pytest.raises(ValueError, match="give both"):
        latents_of(tmp_path / "c").build(source, rank=1)


def test_a_latent_is_the_mean_or_drawn_by_the_samples_own_generator() -> None:
    entry = {
        "mean": torch.full((4, 64, 64), 3.0),
        "logvar": torch.full((4, 64, 64), 2 * torch.log(torch.tensor(0.5)).item()),
    }
    assert torch.equal(draw_latent(entry), entry["mean"])
    drawn = draw_latent(entry, mode="sample", generator=torch.Generator().manual_seed(1))
    again = draw_latent(entry, mode="sample", generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)
    assert drawn.mean().item() == pytest.approx(3.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)
    half = {name: tensor.half() for name, tensor in entry.items()}
    assert draw_latent(half, mode="sample", generator=torch.Generator().manual_seed(1)).dtype == torch.float32
    assert torch.equal(draw_latent({"latent": torch.ones(2)}), torch.ones(2))


@pytest.mark.parametrize(
    ("tensors", "mode", "seeded"),
    [
        ({"mean": torch.zeros(1)}, "sample", True),
        ({"latent": torch.zeros(1)}, "sample", True),
        ({"mean": torch.zeros(1), "logvar": torch.zeros(1)}, "sample", False),
        ({"mean": torch.zeros(1), "logvar": torch.zeros(1)}, "mean", True),
        ({"pooled": torch.zeros(1)}, "mean", False),
    ],
)
def test_a_latent_that_cannot_be_drawn(tensors: dict[str, Tensor], mode: str, seeded: bool) -> None:
    with pytest.raises(ValueError, match=mode):
        draw_latent(tensors, mode=mode, generator=torch.Generator() if seeded else None)  # pyright: ignore[reportArgumentType]
