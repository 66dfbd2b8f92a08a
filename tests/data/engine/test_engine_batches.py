"""What batches look like: stacked, listed, of changing shape, without copies, the same whoever makes them."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest
import torch
from engine_toys import PLAN, Direct, Growing, Toy, Whole, plain

from neurotrain.data.engine.memory import SharedArena, SharedBytes
from neurotrain.data.engine.transport import pack, unpack
from neurotrain.data.loader import PlannedLoader
from neurotrain.data.plan import EpochPlan, SampleKey


def loader(source: Any, **settings: Any) -> PlannedLoader:
    return PlannedLoader(**{"dataset": source, "plan": PLAN, "batch_size": 4, **settings})


def test_arrays_and_tensors_are_stacked_and_everything_else_is_listed() -> None:
    batch = next(iter(loader(Toy())))
    keys = [PLAN.key(epoch=0, position=position) for position in range(4)]
    assert batch["image"].shape == (4, 4, 4, 3)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].tolist() == [key.index for key in keys] == batch["image"][:, 0, 0, 0].tolist()
    assert batch["draw"].dtype == torch.int64
    assert batch["id"] == [str(key.index) for key in keys]
    assert batch["key"] == [tuple(key) for key in keys]


@pytest.mark.parametrize("source", [Toy, Direct, Growing])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_very_same_batches(source: type[Toy], workers: int) -> None:
    here = [plain(batch) for batch in loader(source(), batch_size=2)]
    told = loader(source(), batch_size=2, num_workers=workers)
    there = [plain(batch) for batch in told]
    for batch in (*here, *there):
        batch.pop("written", None)
    assert here == there
    assert len(here) == 12


def test_a_direct_source_writes_all_but_the_very_first_sample_in_place() -> None:
    written = [batch["written"][-1] for batch in loader(Direct())]
    assert written == [3, 7, 11, 15, 19, 23]


class Odd(Toy):
    """One sample is unlike the others."""

    def __init__(self, change: dict[str, Any]) -> None:
        super().__init__()
        self.change = change

    def load(self, key: SampleKey) -> dict[str, Any]:
        return {**super().load(key), **(self.change if key.position == 2 else {})}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": np.zeros((4, 5, 3), np.uint8)},
            r"'image' of a sample is uint8 \(4, 5, 3\).*uint8 \(4, 4, 3\).*ragged",
        ),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "float32.*uint8"),
        ({"image": "none"}, "'image' of a sample is str"),
        ({"extra": 1}, "has the fields.*extra.*the first one"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_do_not_fit_together_are_named(change: dict[str, Any], message: str, workers: int) -> None:
    with pytest.raises(ValueError, match=message):
        next(iter(loader(Odd(change), num_workers=workers)))


def test_fields_said_to_be_ragged_are_listed() -> None:
    batch = next(iter(loader(Odd({"image": np.zeros((9, 9, 3), np.uint8)}), ragged=("image",), num_workers=1)))
    assert [image.shape[0] for image in batch["image"]] == [4, 4, 9, 4]


def test_without_collate_samples_are_mappings() -> None:
    class Numbers:
        def load(self, key: SampleKey) -> int:
            return key.index

    with pytest.raises(TypeError, match="a sample is a int: without collate"):
        next(iter(loader(Numbers())))
    assert next(iter(loader(Numbers(), collate=sum))) == sum(PLAN.key(epoch=0, position=at).index for at in range(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_may_make_whole_batches(workers: int) -> None:
    batches = list(loader(Whole(), num_workers=workers))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == PLAN.order(0).tolist()
    assert all((batch["worker"] is None) == (workers == 0) for batch in batches)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (Whole(), {"collate": list}, "collate has no effect on Whole"),
        (Toy(), {"collate": list, "ragged": ("image",)}, r"ragged=\('image',\) has no effect"),
        (Toy(), {"persistent_workers": True}, "persistent_workers has no effect with num_workers=0"),
        (Toy(), {"prefetch": 0}, "prefetch=0"),
        (Toy(), {"num_workers": -1}, "num_workers=-1"),
        (Toy(), {"timeout": 0}, "timeout=0"),
    ],
)
def test_settings_without_effect_are_refused(source: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(source, **settings)


def test_memory_is_used_again_once_a_batch_is_freed() -> None:
    plan = EpochPlan(count=10, samples_per_epoch=400)
    told = loader(Toy(size=64), plan=plan, num_workers=1, prefetch=1)
    places = {batch["image"].data_ptr() for batch in told}
    assert 1 <= len(places) <= 3  # of 100 batches


@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_keeps_all_batches_gets_copies_and_no_deadlock(workers: int) -> None:
    told = loader(Toy(size=32), num_workers=workers, prefetch=1, timeout=20, persistent_workers=True)
    kept = list(told)
    assert told.telemetry()["copies"] == len(kept) - 2
    expected = [plain(batch) for batch in loader(Toy(size=32))]
    assert [plain(batch) for batch in kept] == expected
    told.close()
    gc.collect()
    assert [plain(batch) for batch in kept] == expected  # readable when the workers and the loader's memory are gone


def test_one_tensor_keeps_its_batch_only() -> None:
    told = loader(Toy(size=32), num_workers=1, prefetch=1)
    iterator = iter(told)
    row = next(iterator)["image"][2]
    before = row.clone()
    for _ in range(5):
        next(iterator)
    assert torch.equal(row, before)


def test_batches_are_the_consumers_to_change() -> None:
    for batch in loader(Toy(), num_workers=1):
        batch["image"].zero_()
        assert not batch["image"].any()
    assert [plain(batch) for batch in loader(Toy(), num_workers=1)] == [plain(batch) for batch in loader(Toy())]


def test_anything_that_can_be_pickled_travels() -> None:
    memory = SharedBytes()
    arena = SharedArena(memory)
    arena.begin()
    inside = arena.array((3, 2), np.dtype(np.float32))
    inside[:] = 5
    thing = {
        "inside": torch.from_numpy(inside),
        "turned": torch.arange(6).view(2, 3).t(),
        "empty": torch.empty(0, 3),
        "empty_array": np.zeros((0, 2)),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.tensor([1j]),
        "scalar": torch.tensor(3.0),
        "learnt": torch.ones(2, requires_grad=True),
        "sparse": torch.eye(2).to_sparse(),
        "nested": [{"text": "x"}, (1, None)],
    }
    parcel = pack(thing, arena)
    there = unpack(parcel, np.frombuffer(memory.map, np.uint8))
    assert there.keys() == thing.keys()
    for name, value in thing.items():
        if isinstance(value, torch.Tensor):
            assert there[name].dtype == value.dtype
            assert torch.equal(there[name].to_dense(), value.to_dense()), name
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(there[name], value)
    assert there["nested"] == thing["nested"]
    assert there["learnt"].requires_grad
    inside[0, 0] = 9  # what lay in the slot was not copied
    assert there["inside"][0, 0] == 9
    memory.close()


class Global(Toy):
    """Draws from the global generators."""

    def load(self, key: SampleKey) -> dict[str, Any]:
        return {"drawn": (random.random(), float(np.random.rand()), float(torch.rand(())))}


def test_global_generators_can_be_seeded_by_sample() -> None:
    before = torch.get_rng_state(), random.getstate()
    drawn = [batch["drawn"] for batch in loader(Global(), seed_globals=True)]
    assert drawn == [batch["drawn"] for batch in loader(Global(), seed_globals=True, num_workers=2)]
    assert len({one for batch in drawn for one in batch}) == 24
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
