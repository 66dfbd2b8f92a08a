"""The store itself: what is put is found, by whoever opens the folder, within the budget."""

from __future__ import annotations

import multiprocessing
import pickle
import resource
from gc import collect
from pathlib import Path
from shutil import rmtree

import pytest
import torch
from cache_toys import contents, entry_of, key_of, same
from safetensors.torch import load_file

from neurotrain.data.cache import CacheFormatError, CacheFullError, TensorCache, gc, stats, store, verify
from neurotrain.data.cache.layout import DTYPES


def filled(folder: Path, numbers: range, *, shard_bytes: int = 8 * 1024, max_bytes: int | None = None) -> TensorCache:
    cache = TensorCache(folder=folder, shard_bytes=shard_bytes, max_bytes=max_bytes)
    for number in numbers:
        cache.put(key_of(number), entry_of(number))
    cache.flush()
    return cache


def test_entries_come_back_bit_equal(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c", range(40))
    for reader in (cache, TensorCache(folder=tmp_path / "c")):
        assert len(reader) == 40
        assert all(same(reader.get(key_of(number)), entry_of(number)) for number in range(40))
        assert reader.get(key_of(99)) is None
        assert reader.statistics.hits == 40
        assert reader.statistics.misses == 1


def test_before_it_is_written_an_entry_is_found_in_its_own_process_only(tmp_path: Path) -> None:
    cache = TensorCache(folder=tmp_path / "c")
    given = entry_of(1)
    expected = {name: tensor.clone() for name, tensor in given.items()}
    cache.put(key_of(1), given)
    given["mean"].zero_()
    assert same(cache.get(key_of(1)), expected)
    other = TensorCache(folder=tmp_path / "c")
    assert other.get(key_of(1)) is None
    cache.flush()
    assert same(other.get(key_of(1)), expected)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_and_odd_shapes(tmp_path: Path, dtype: torch.dtype) -> None:
    raw = torch.arange(7 * 8, dtype=torch.uint8) % 2
    given = {
        "flat": raw.view(dtype).clone() if dtype != torch.bool else raw.bool(),
        "scalar": torch.zeros((), dtype=torch.float32),
        "empty": torch.zeros(3, 0, dtype=torch.float64),
        "strided": torch.arange(12.0).reshape(3, 4).T,
    }
    cache = TensorCache(folder=tmp_path / "c")
    cache.put(key_of(0), given)
    cache.flush()
    found = TensorCache(folder=tmp_path / "c").get(key_of(0))
    assert found is not None
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in given.items()
    }
    assert torch.equal(found["strided"], given["strided"])
    assert torch.equal(found["flat"].view(torch.uint8), given["flat"].view(torch.uint8))


def test_any_reader_of_safetensors_opens_a_shard(tmp_path: Path) -> None:
    filled(tmp_path / "c", range(3), shard_bytes=2**20)
    (path,) = (tmp_path / "c" / "shards").iterdir()
    tensors = load_file(path)
    for number in range(3):
        for name, tensor in entry_of(number).items():
            assert torch.equal(tensors[f"{key_of(number).hex()}/{name}"], tensor)


def test_a_view_is_the_file_and_a_copy_is_not(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c", range(2))
    copy = cache.get(key_of(0))
    assert copy is not None
    copy["mean"].zero_()
    assert same(cache.get(key_of(0)), entry_of(0))
    view, again = cache.get(key_of(1), copy=False), cache.get(key_of(1), copy=False)
    assert view is not None
    assert again is not None
    assert view["mean"].data_ptr() == again["mean"].data_ptr()
    assert verify(tmp_path / "c").ok


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    size = 1500  # an entry and its description are below this
    cache = TensorCache(folder=tmp_path / "c", max_bytes=20 * size, shard_bytes=1)
    for number in range(12):
        cache.put(key_of(number), entry_of(number))
        for used in (0, 1):
            cache.get(key_of(used))
    for number in range(12, 30):
        cache.put(key_of(number), entry_of(number))
        for used in (0, 1):
            assert same(cache.get(key_of(used)), entry_of(used)), f"a used entry was evicted at {number}"
        on_disk = sum(path.stat().st_size for path in (tmp_path / "c" / "shards").iterdir())
        assert on_disk <= 20 * size
    cache.close()
    kept = {number for number in range(30) if key_of(number) in TensorCache(folder=tmp_path / "c")}
    newest = sorted(kept - {0, 1})
    assert {0, 1} < kept
    assert newest == list(range(newest[0], 30)), "an older entry outlived a newer one"
    assert len(newest) > 5
    assert cache.statistics.evicted == 30 - len(kept)


def test_collecting_to_a_budget_rewrites_files_and_keeps_what_was_used(tmp_path: Path) -> None:
    cache = TensorCache(folder=tmp_path / "c", max_bytes=10**7)
    for number in range(50):
        cache.put(key_of(number), entry_of(number))
    cache.flush()
    for number in range(0, 50, 5):
        cache.get(key_of(number))
    report = gc(tmp_path / "c", max_bytes=25_000)
    assert report.nbytes == sum(path.stat().st_size for path in (tmp_path / "c" / "shards").iterdir()) <= 25_000
    kept = contents(tmp_path / "c")
    assert {key_of(number) for number in range(0, 50, 5)} <= kept.keys()
    assert report.entries == len(kept) == 50 - report.removed.entries
    assert same(kept[key_of(45)], entry_of(45))


def test_an_entry_beyond_the_budget_is_refused(tmp_path: Path) -> None:
    cache = TensorCache(folder=tmp_path / "c", max_bytes=5_000)
    cache.put(key_of(0), entry_of(0))
    cache.flush()
    with pytest.raises(CacheFullError, match="max_bytes=5000"):
        cache.put(key_of(1), entry_of(1, size=64))
    assert same(cache.get(key_of(0)), entry_of(0))


def _fill_until_full(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    cache = TensorCache(folder=folder, shard_bytes=20_000)
    for number in range(10):
        cache.put(key_of(number), entry_of(number))
    cache.flush()
    cache.put(key_of(10), entry_of(10, size=30))
    with pytest.raises(CacheFullError, match="no room for"):
        cache.put(key_of(11), entry_of(11, size=40))
    assert same(cache.get(key_of(3)), entry_of(3))
    cache.put(key_of(77), entry_of(77))
    cache.flush()


def test_a_full_disk_keeps_what_is_there_and_says_so(tmp_path: Path) -> None:
    assert _in_fork(_fill_until_full, tmp_path / "c") == 0
    report = verify(tmp_path / "c")
    assert report.ok
    assert report.unfinished == ()
    kept = contents(tmp_path / "c")
    assert all(same(kept[key_of(number)], entry_of(number)) for number in (*range(10), 77))


def test_one_live_set_is_kept(tmp_path: Path) -> None:
    filled(tmp_path / "c", range(30))
    live = {key_of(number) for number in range(0, 30, 3)}
    report = gc(tmp_path / "c", live_keys=live | {key_of(1000)})
    assert set(contents(tmp_path / "c")) == live
    assert report.removed.entries == 20
    assert report.freed > 0
    assert len(list((tmp_path / "c").glob("manifest-*.arrow"))) == 1


def test_collection_joins_small_files_and_drops_second_copies(tmp_path: Path) -> None:
    first, second = TensorCache(folder=tmp_path / "c"), TensorCache(folder=tmp_path / "c")
    for cache in (first, second):
        for number in range(5):
            cache.put(key_of(number), entry_of(number))
            cache.flush()
    before = stats(tmp_path / "c")
    assert (before.entries, before.shards, before.superseded) == (5, 10, 5)
    report = gc(tmp_path / "c")
    after = stats(tmp_path / "c")
    assert (after.entries, after.shards, after.superseded) == (5, 1, 0)
    assert report.removed.superseded == 5
    assert report.removed.entries == 0
    assert sum(after.layouts.values()) == 5
    # A process that had the old files open goes on.
    assert same(first.get(key_of(2)), entry_of(2))


def _put_and_read(folder: Path, numbers: range, others: range) -> None:
    cache = TensorCache(folder=folder, shard_bytes=4096)
    for number in numbers:
        cache.put(key_of(number), entry_of(number))
        for other in (number, others[0]):
            found = cache.get(key_of(other))
            assert found is None or same(found, entry_of(other))
    cache.close()


def test_two_processes_read_and_write_at_once_while_a_third_collects(tmp_path: Path) -> None:
    TensorCache(folder=tmp_path / "c")
    context = multiprocessing.get_context("fork")
    shares = [(range(60), range(60, 120)), (range(60, 120), range(60))]
    processes = [context.Process(target=_put_and_read, args=(tmp_path / "c", *share)) for share in shares]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        gc(tmp_path / "c")
    assert [process.exitcode for process in processes] == [0, 0]
    assert set(contents(tmp_path / "c")) == {key_of(number) for number in range(120)}


def _check(cache: TensorCache) -> None:
    assert all(same(cache.get(key_of(number)), entry_of(number)) for number in range(6))
    assert cache.pending == 0
    cache.put(key_of(50), entry_of(50))
    cache.close()


def test_after_fork_a_child_writes_its_own_and_leaves_the_parents(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c", range(6))
    cache.put(key_of(7), entry_of(7))
    assert _in_fork(_check, cache) == 0
    assert cache.pending == 1
    assert same(cache.get(key_of(50)), entry_of(50))
    cache.close()
    assert set(contents(tmp_path / "c")) == {key_of(number) for number in (*range(6), 7, 50)}


def test_pickled_it_opens_the_folder_anew(tmp_path: Path) -> None:
    cache = filled(tmp_path / "c", range(6), max_bytes=10**6)
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.max_bytes == 10**6
    assert same(copy.get(key_of(3)), entry_of(3))


def test_an_entry_does_not_wait_longer_than_it_is_told_to(tmp_path: Path) -> None:
    cache = TensorCache(folder=tmp_path / "c", flush_seconds=1e-9)
    cache.put(key_of(0), entry_of(0))
    assert cache.pending == 0
    assert key_of(0) in TensorCache(folder=tmp_path / "c")


def test_what_waits_is_written_when_nobody_closes_the_cache(tmp_path: Path) -> None:
    def forget() -> None:
        TensorCache(folder=tmp_path / "c").put(key_of(0), entry_of(0))

    forget()
    collect()
    assert key_of(0) not in TensorCache(folder=tmp_path / "c")
    store._at_exit()
    assert key_of(0) in TensorCache(folder=tmp_path / "c")


def test_what_waits_for_a_folder_that_is_gone_is_given_up_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = TensorCache(folder=tmp_path / "c")
    cache.put(key_of(0), entry_of(0))
    rmtree(tmp_path / "c")
    store._at_exit()
    assert "not stored" in caplog.text
    assert cache.pending == 0


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(CacheFormatError, match=r"precious\.txt"):
        TensorCache(folder=tmp_path)
    for function in (gc, verify, stats):
        with pytest.raises(FileNotFoundError, match="is not a cache"):
            function(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("argument", [{"max_bytes": 0}, {"shard_bytes": -1}, {"flush_seconds": 0.0}])
def test_numbers_that_cannot_be(tmp_path: Path, argument: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(argument))):
        TensorCache(folder=tmp_path, **argument)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("tensors", [{}, {"a/b": torch.zeros(1)}, {"": torch.zeros(1)}, {"~": torch.zeros(1)}])
def test_tensors_that_cannot_be_stored(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    cache = TensorCache(folder=tmp_path)
    with pytest.raises(ValueError, match="tensor"):
        cache.put(key_of(0), tensors)
    with pytest.raises(ValueError, match="16 bytes"):
        cache.put(b"short", entry_of(0))


def _in_fork(target: object, *arguments: object) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)  # pyright: ignore[reportArgumentType]
    process.start()
    process.join(60)
    return process.exitcode
