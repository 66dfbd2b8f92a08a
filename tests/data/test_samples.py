"""Reading, keeping, transforming and stacking samples."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from toy_dataset import Toy

from neurotrain.batch import SegmentationSample
from neurotrain.data import EpochPlan, PlannedLoader, PlannedSamples, SampleCache, SampleError, SampleKey, collate
from neurotrain.data.transforms import CentreCrop, Identity, NormalizeInside, RandomNoise, RandomPatch, Transform

SAMPLE_BYTES = 3 * 40 * 36 * 4 + 40 * 36 * 8 + 40 * 36


def test_keeps_what_fits_and_decodes_the_rest_each_time() -> None:
    toy = Toy(train=3)
    cache = SampleCache(dataset=toy, limit=2 * SAMPLE_BYTES)
    records = toy.records("train")
    for _ in range(3):
        for record in records:
            assert cache.read(record)["id"] == record.id
    assert (len(cache), cache.used) == (2, 2 * SAMPLE_BYTES)
    assert toy.reads == ["train0", "train1", "train2", "train2", "train2"]


def test_prepares_once() -> None:
    toy = Toy(train=1)
    cache = SampleCache(dataset=toy, prepare=NormalizeInside(), limit=2**20)
    record = toy.records("train")[0]
    first = cache.read(record)
    assert cache.read(record) is first
    torch.testing.assert_close(first["image"], NormalizeInside()(toy.read(record), torch.Generator())["image"])


def test_keeps_no_storage_beyond_the_sample() -> None:
    toy = Toy(train=1)
    cache = SampleCache(dataset=toy, prepare=CentreCrop(size=4), limit=2**20)
    cache.read(toy.records("train")[0])
    kept = cache.read(toy.records("train")[0])
    assert kept["image"].untyped_storage().nbytes() == 3 * 4 * 4 * 4
    assert cache.used == 4 * 4 * (3 * 4 + 8 + 1)


def test_fills_until_one_does_not_fit() -> None:
    toy = Toy(train=4)
    cache = SampleCache(dataset=toy, limit=2 * SAMPLE_BYTES + 5)
    cache.fill(toy.records("train"))
    assert len(cache) == 2
    assert toy.reads == ["train0", "train1", "train2"]
    nothing = SampleCache(dataset=toy)
    nothing.fill(toy.records("train"))
    assert (len(nothing), nothing.used) == (0, 0)


def test_workers_share_what_is_kept_and_keep_nothing_themselves() -> None:
    toy = Toy(train=4)
    cache = SampleCache(dataset=toy, limit=2 * SAMPLE_BYTES)
    cache.fill(toy.records("train")[:1])

    class Report(Identity):
        def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
            return {**sample, "id": f"{len(toy.reads)} read, {len(cache)} kept"}

    plan = EpochPlan(length=4, shuffle=False)
    samples = PlannedSamples(records=toy.records("train"), cache=cache, transform=Report(), plan=plan, source="toy")
    batches = PlannedLoader(dataset=samples, plan=plan, batch_size=1, collate=collate, num_workers=1)
    assert [batch["id"] for batch in batches] == [[f"{1 + number} read, 1 kept"] for number in range(4)]


def samples_of(toy: Toy, transform: Transform) -> PlannedSamples:
    records = toy.records("train")
    plan = EpochPlan(length=len(records), seed=4)
    cache = SampleCache(dataset=toy, limit=2**20)
    return PlannedSamples(records=records, cache=cache, transform=transform, plan=plan, source="toy")


def test_a_sample_is_a_function_of_its_key() -> None:
    samples = samples_of(Toy(train=3), RandomPatch(size=8))
    key = SampleKey(1, 2, 3)
    first = samples[key]["image"]
    samples[SampleKey(0, 0, 0)]
    assert torch.equal(samples[key]["image"], first)
    assert not torch.equal(samples[SampleKey(1, 2, 4)]["image"], first)
    assert len(samples) == 3


def test_survives_being_sent_to_a_process_that_was_not_forked() -> None:
    samples = samples_of(Toy(train=3), RandomPatch(size=8))
    key = SampleKey(2, 0, 1)
    again = pickle.loads(pickle.dumps(samples))
    assert torch.equal(again[key]["image"], samples[key]["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_sample_and_its_file(workers: int) -> None:
    toy = Toy(train=4, broken="train2")
    samples = samples_of(toy, Identity())
    plan = EpochPlan(length=4, shuffle=False)
    batches = PlannedLoader(dataset=samples, plan=plan, batch_size=1, collate=collate, num_workers=workers)
    with pytest.raises(SampleError, match=r"(?s)sample 'train2' of toy \(train2.png\).*cannot be decoded") as caught:
        list(batches)
    batches.close()
    told = str(caught.value) if workers else str(caught.value.__cause__)
    assert "cannot be decoded" in told
    with pytest.raises(SampleError, match="'train2'"):
        SampleCache(dataset=toy, limit=2**20).fill(toy.records("train"))


def test_refuses_a_preparation_that_draws_and_a_negative_limit() -> None:
    with pytest.raises(ValueError, match="prepare=RandomNoise draws random numbers"):
        SampleCache(dataset=Toy(), prepare=RandomNoise())
    with pytest.raises(ValueError, match="cache_bytes=-1"):
        SampleCache(dataset=Toy(), limit=-1)


def test_collate_stacks_and_keeps_names() -> None:
    toy = Toy(train=2)
    samples = [toy.read(record) for record in toy.records("train")]
    batch = collate(samples)
    assert batch["image"].shape == (2, 3, 40, 36)
    assert torch.equal(batch["mask"][1], samples[1]["mask"])
    assert batch["valid"].dtype == torch.bool
    assert (batch["id"], batch["source"]) == (["train0", "train1"], ["toy", "toy"])


def test_collate_names_shapes_that_differ() -> None:
    toy = Toy(train=2)
    first, second = (toy.read(record) for record in toy.records("train"))
    with pytest.raises(ValueError, match=r"toy/train0 \(3, 40, 36\), toy/train1 \(3, 5, 5\): use a transform"):
        collate([first, CentreCrop(size=5)(second, torch.Generator())])


def test_reads_are_listed_by_path() -> None:
    assert Toy(train=1).records("train")[0].image == Path("train0.png")
