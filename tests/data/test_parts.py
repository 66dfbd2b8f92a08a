"""Reading, keeping, transforming and stacking samples."""

from __future__ import annotations

import pickle

import pytest
import torch
from toy_dataset import Toy

from neurotrain.batch import SegmentationSample
from neurotrain.data import DatasetPart, EpochPlan, PartSamples, PlannedLoader, SampleError, SampleKey
from neurotrain.data.parts import Step
from neurotrain.data.transforms import CentreCrop, Identity, NormalizeInside, RandomNoise, RandomPatch, Transform

SAMPLE_BYTES = 3 * 40 * 36 * 4 + 40 * 36 * 8 + 40 * 36


def part_of(toy: Toy, *, prepare: Transform | None = None, cache_bytes: int = 0) -> DatasetPart:
    return DatasetPart(dataset=toy, records=toy.records("train"), prepare=prepare, cache_bytes=cache_bytes)


def samples_of(part: DatasetPart, transform: Step[SegmentationSample]) -> PartSamples[SegmentationSample]:
    return PartSamples(parts=[part], transforms=[transform], seed=4)


def test_keeps_what_fits_and_decodes_the_rest_each_time() -> None:
    toy = Toy(train=3)
    part = part_of(toy, cache_bytes=2 * SAMPLE_BYTES)
    for _ in range(3):
        for index in range(len(part)):
            assert part.read(index)["id"] == f"train{index}"
    assert (part.kept, part.used) == (2, 2 * SAMPLE_BYTES)
    assert toy.reads == ["train0", "train1", "train2", "train2", "train2"]


def test_prepares_once() -> None:
    toy = Toy(train=1)
    part = part_of(toy, prepare=NormalizeInside(), cache_bytes=2**20)
    first = part.read(0)
    assert part.read(0) is first
    expected = NormalizeInside()(toy.read(toy.records("train")[0]), torch.Generator())
    torch.testing.assert_close(first["image"], expected["image"])


def test_keeps_no_storage_beyond_the_sample() -> None:
    part = part_of(Toy(train=1), prepare=CentreCrop(size=4), cache_bytes=2**20)
    part.read(0)
    assert part.read(0)["image"].untyped_storage().nbytes() == 3 * 4 * 4 * 4
    assert part.used == 4 * 4 * (3 * 4 + 8 + 1)


def test_fills_until_one_does_not_fit() -> None:
    toy = Toy(train=4)
    part = part_of(toy, cache_bytes=2 * SAMPLE_BYTES + 5)
    part.fill()
    assert part.kept == 2
    assert toy.reads == ["train0", "train1", "train2"]
    nothing = part_of(toy)
    nothing.fill()
    assert (nothing.kept, nothing.used) == (0, 0)
    assert toy.reads == ["train0", "train1", "train2"]


def test_workers_share_what_is_kept_and_keep_nothing_themselves() -> None:
    toy = Toy(train=4)
    part = part_of(toy, cache_bytes=2 * SAMPLE_BYTES)
    part.read(0)

    class Report(Identity):
        def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
            return {**sample, "id": f"{len(toy.reads)} read, {part.kept} kept"}

    plan = EpochPlan(count=4, shuffle=False)
    batches = PlannedLoader(dataset=samples_of(part, Report()), plan=plan, batch_size=1, num_workers=1)
    assert [batch["id"] for batch in batches] == [[f"{1 + number} read, 1 kept"] for number in range(4)]


def test_a_sample_is_a_function_of_its_key() -> None:
    samples = samples_of(part_of(Toy(train=3), cache_bytes=2**20), RandomPatch(size=8))
    key = SampleKey(1, 2, 3)
    first = samples.load(key)["image"]
    samples.load(SampleKey(0, 0, 0))
    assert torch.equal(samples.load(key)["image"], first)
    assert not torch.equal(samples.load(SampleKey(1, 2, 4))["image"], first)
    assert (samples.count(0), samples.identify(key).id) == (3, "train1")


def test_several_parts_are_told_apart_by_the_keys() -> None:
    parts = [part_of(Toy(train=2)), part_of(Toy(train=3))]
    samples = PartSamples(parts=parts, transforms=[None, CentreCrop(size=4)], seed=0)
    assert samples.load(SampleKey(1, 0, 0, source=0))["image"].shape == (3, 40, 36)
    assert samples.load(SampleKey(2, 0, 0, source=1))["image"].shape == (3, 4, 4)


def test_survives_being_sent_to_a_process_that_was_not_forked() -> None:
    samples = samples_of(part_of(Toy(train=3), cache_bytes=2**20), RandomPatch(size=8))
    key = SampleKey(2, 0, 1)
    again = pickle.loads(pickle.dumps(samples))
    assert torch.equal(again.load(key)["image"], samples.load(key)["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_sample_and_its_file(workers: int) -> None:
    toy = Toy(train=4, broken="train2")
    part = part_of(toy, cache_bytes=2**20)
    plan = EpochPlan(count=4, shuffle=False)
    batches = PlannedLoader(dataset=samples_of(part, Identity()), plan=plan, batch_size=1, num_workers=workers)
    with pytest.raises(SampleError, match=r"(?s)sample 'train2' of toy \(train2.png\).*cannot be decoded"):
        list(batches)
    batches.close()
    with pytest.raises(SampleError, match="'train2'"):
        part.fill()
    part.fill(strict=False)
    assert part.kept == 3


def test_refuses_a_preparation_that_draws_and_a_negative_limit() -> None:
    with pytest.raises(ValueError, match="prepare=RandomNoise draws random numbers"):
        part_of(Toy(), prepare=RandomNoise())
    with pytest.raises(ValueError, match="cache_bytes=-1"):
        part_of(Toy(), cache_bytes=-1)


def test_batches_stack_arrays_and_list_names() -> None:
    part = part_of(Toy(train=2))
    loader = PlannedLoader(dataset=samples_of(part, Identity()), plan=EpochPlan(count=2, shuffle=False), batch_size=2)
    batch = next(iter(loader))
    assert batch["image"].shape == (2, 3, 40, 36)
    assert torch.equal(batch["mask"][1], part.read(1)["mask"])
    assert batch["valid"].dtype == torch.bool
    assert (batch["id"], batch["source"]) == (["train0", "train1"], ["toy", "toy"])


def test_shapes_that_differ_are_told() -> None:
    class Half(Identity):
        def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
            return CentreCrop(size=5)(sample, generator) if sample["id"] == "train1" else sample

    samples = samples_of(part_of(Toy(train=2)), Half())
    loader = PlannedLoader(dataset=samples, plan=EpochPlan(count=2, shuffle=False), batch_size=2)
    with pytest.raises(
        ValueError, match=r"\(3, 5, 5\), of the first one of its batch .*\(3, 40, 36\): use a transform"
    ):
        next(iter(loader))


def test_a_digest_tells_records_and_their_order() -> None:
    toy = Toy(train=3)
    records = toy.records("train")
    digests = {
        DatasetPart(dataset=toy, records=[records[i] for i in order]).digest()
        for order in ((0, 1, 2), (0, 2, 1), (0, 1))
    }
    assert len(digests) == 3
    assert part_of(toy).digest() == part_of(Toy(train=3)).digest()
    assert part_of(toy).table().column("id").to_numpy(zero_copy_only=False).tolist() == ["train0", "train1", "train2"]
