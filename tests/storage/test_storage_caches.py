"""The disk cache and the memory tier: right bytes, bounded, shared by processes, safe from kills and damage."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from neurotrain.storage import (
    CachedStorage,
    ChangedError,
    LocalStorage,
    MemoryStorage,
    MemoryTier,
    ObjectNotFoundError,
    Storage,
    StorageError,
)
from neurotrain.storage.disk_cache import DiskCache

Layer = Callable[..., CachedStorage | MemoryTier]


@pytest.fixture
def inner() -> MemoryStorage:
    storage = MemoryStorage(name=uuid4().hex)
    for number in range(20):
        storage.write(f"{number:02d}", bytes([number]) * 100)
    return storage


@pytest.fixture(params=["disk", "memory"])
def layer(request: pytest.FixtureRequest, tmp_path: Path) -> Layer:
    def make(storage: Storage, *, max_bytes: int = 10_000, **options: object) -> CachedStorage | MemoryTier:
        if request.param == "disk":
            return CachedStorage(storage=storage, folder=tmp_path / "cache", max_bytes=max_bytes, **options)
        return MemoryTier(storage=storage, max_bytes=max_bytes, **options)

    return make


def test_the_second_read_is_a_hit(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner)
    for part in ({}, {"start": 3, "length": 5}, {"start": 90}, {"start": 500}):
        first = cached.read("07", **part)
        assert first == inner.read("07", **part)
        before = cached.statistics()
        assert cached.read("07", **part) == first
        after = cached.statistics()
        assert (after.cache_hits - before.cache_hits, after.reads - before.reads) == (1, 0)


def test_a_changed_object_is_never_served(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner)
    etag = inner.stat("03").etag
    assert cached.read("03", etag=etag) == bytes([3]) * 100
    inner.write("03", b"new")
    assert cached.read("03") == b"new"
    # What the caller knows as the old one is still the old one where it is kept, and refused where it is not.
    assert cached.read("03", start=1, length=2) == b"ew"
    with pytest.raises(ChangedError):
        cached.read("03", start=2, length=1, etag="0" * 40)


def test_check_once_asks_once(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner, check="once")
    assert cached.read("03") == bytes([3]) * 100
    inner.write("03", b"new")
    assert cached.read("03") == bytes([3]) * 100
    cached.write("03", b"own")  # its own writes are known
    assert cached.read("03") == b"own"


def test_check_once_follows_when_nothing_is_kept(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner, check="once", max_bytes=99)
    assert cached.read("03") == bytes([3]) * 100
    inner.write("03", b"new")
    assert cached.read("03") == b"new"
    assert cached.read("03") == b"new"
    assert cached.statistics().cache_hits == 1


def test_what_is_not_there_is_not_cached(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner)
    for _ in range(2):
        with pytest.raises(ObjectNotFoundError):
            cached.read("none")
    inner.write("none", b"now")
    assert cached.read("none") == b"now"
    assert [info.key for info in cached.list("0")] == [f"{number:02d}" for number in range(10)]
    assert cached.uri_of("x") == inner.uri_of("x")


def test_many_in_order_with_errors_in_their_place(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner, concurrency=3)
    names = [f"{number:02d}" for number in range(20)]
    for _ in range(2):
        results = list(cached.read_many([*names[:5], "none", *names[5:]]))
        assert isinstance(results.pop(5), ObjectNotFoundError)
        assert results == [bytes([number]) * 100 for number in range(20)]
    assert cached.statistics().cache_hits == 20
    assert next(iter(cached.read_many(names))) == bytes(100)


def test_bytes_stay_within_the_bound(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner, max_bytes=1000)
    draw = random.Random(0)
    for _ in range(200):
        number = draw.randrange(20)
        assert cached.read(f"{number:02d}") == bytes([number]) * 100
        held = cached.cache.bytes_held() if isinstance(cached, CachedStorage) else cached.bytes_held
        assert held <= 1000
    assert 0 < cached.statistics().cache_hits < 200


def test_the_least_recently_used_goes_first(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner, max_bytes=650)
    for number in (0, 1, 2, 3, 4):
        cached.read(f"{number:02d}")
    cached.read("00")
    cached.read("05")
    cached.read("06")
    before = cached.statistics().cache_hits
    cached.read("00")
    assert cached.statistics().cache_hits == before + 1
    cached.read("01")
    assert cached.statistics().cache_hits == before + 1


def test_larger_than_everything_is_read_through(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner, max_bytes=99)
    for _ in range(2):
        assert cached.read("05") == bytes([5]) * 100
    assert cached.statistics().cache_hits == 0


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"check": "never"}, {"concurrency": 0}])
def test_bad_options_are_refused(layer: Layer, inner: MemoryStorage, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        layer(inner, **options)


def test_pickled_layers_work(layer: Layer, inner: MemoryStorage) -> None:
    cached = layer(inner, check="once")
    cached.read("01")
    copy = pickle.loads(pickle.dumps(cached))
    assert copy.statistics().reads == 0
    inner.write("01", b"new")
    assert copy.read("01") == b"new"  # it trusts nothing that another process was told


def test_storages_do_not_answer_for_each_other(tmp_path: Path) -> None:
    one, two = MemoryStorage(name=uuid4().hex), MemoryStorage(name=uuid4().hex)
    one.write("a", b"same")
    two.write("a", b"same")
    caches = [CachedStorage(storage=inner, folder=tmp_path, max_bytes=10_000) for inner in (one, two)]
    assert [cached.read("a") for cached in caches] == [b"same"] * 2
    assert [cached.statistics().cache_hits for cached in caches] == [0, 0]


def test_a_part_of_a_whole_that_is_kept(tmp_path: Path, inner: MemoryStorage) -> None:
    cached = CachedStorage(storage=inner, folder=tmp_path, max_bytes=10_000)
    cached.read("09")
    assert cached.read("09", start=95, length=50) == bytes([9]) * 5
    assert cached.statistics().reads == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer"])
def test_damage_is_found_and_mended(tmp_path: Path, inner: MemoryStorage, damage: str) -> None:
    cached = CachedStorage(storage=inner, folder=tmp_path, max_bytes=10_000)
    cached.read("09")
    (entry,) = tmp_path.glob("??/*")
    held = bytearray(entry.read_bytes())
    held[-1] ^= damage == "flip"
    changed = {"flip": held, "cut": held[:-1], "empty": b"", "longer": held + b"x"}[damage]
    entry.write_bytes(changed)
    assert cached.read("09") == bytes([9]) * 100
    assert cached.statistics().reads == 2
    assert cached.read("09") == bytes([9]) * 100
    assert cached.statistics().cache_hits == 1


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path, inner: MemoryStorage) -> None:
    (tmp_path / "file").write_bytes(b"")
    cached = CachedStorage(storage=inner, folder=tmp_path / "file", max_bytes=10_000)
    with pytest.raises(StorageError, match="the cache: Not a directory"):
        cached.read("09")


def test_memory_keeps_what_came_first_if_told_so(inner: MemoryStorage) -> None:
    tier = MemoryTier(storage=inner, max_bytes=500, policy="keep")
    names = [f"{number:02d}" for number in range(20)]
    for _ in range(2):
        assert list(tier.read_many(names)) == [bytes([number]) * 100 for number in range(20)]
    assert tier.statistics().cache_hits == 5
    assert tier.bytes_held == 500


def test_preloading_fills_the_memory_and_says_how_far(inner: MemoryStorage) -> None:
    names = [f"{number:02d}" for number in range(20)]
    tier = MemoryTier(storage=inner, max_bytes=550, policy="keep")
    assert tier.preload(names) == 5
    assert tier.bytes_held == 500
    assert MemoryTier(storage=inner, max_bytes=5000).preload(names) == 20
    with pytest.raises(ObjectNotFoundError):
        tier.preload(["none"])


def _hits_in_child(tier: MemoryTier, results: multiprocessing.Queue[tuple[int, int]]) -> None:
    data = list(tier.read_many([f"{number:02d}" for number in range(20)]))
    results.put((tier.statistics().cache_hits, len(data)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers_share_what_was_preloaded(inner: MemoryStorage) -> None:
    tier = MemoryTier(storage=inner, max_bytes=5000)
    tier.preload([f"{number:02d}" for number in range(20)])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with tier._own_lock():  # another thread is in the middle of a read when the process forks
        child = context.Process(target=_hits_in_child, args=(tier, results), daemon=True)
        child.start()
    assert results.get(timeout=120) == (20, 20)
    child.join(timeout=120)


def _hammer(folder: Path, seed: int, ready: multiprocessing.Queue[int]) -> None:
    cache = DiskCache(folder, max_bytes=20_000)
    draw = random.Random(seed)
    ready.put(seed)
    while True:
        number = draw.randrange(60)
        content = bytes([number]) * (200 + 10 * number)
        held = cache.get(str(number))
        assert held in (None, content)
        if held is None:
            cache.put(str(number), content)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_processes_leave_a_sound_and_bounded_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    draw = random.Random(1)
    ready = context.Queue()
    cache = DiskCache(tmp_path, max_bytes=20_000)
    workers = [context.Process(target=_hammer, args=(tmp_path, seed, ready), daemon=True) for seed in range(2)]
    for worker in workers:
        worker.start()
    for round_ in range(12):
        ready.get(timeout=120)
        time.sleep(draw.uniform(0.01, 0.08))
        # A scan is no snapshot: while others write, a file that goes and the one that takes its place both count.
        assert cache.bytes_held() <= 20_000 + 2 * 1_000
        victim = workers.pop(0)
        assert victim.exitcode is None, "a worker read wrong bytes"
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        workers.append(context.Process(target=_hammer, args=(tmp_path, 10 + round_, ready), daemon=True))
        workers[-1].start()
    for worker in workers:
        worker.kill()
        worker.join()
    for number in range(60):
        assert cache.get(str(number)) in (None, bytes([number]) * (200 + 10 * number))
    for number in range(60, 200):  # new entries push out whatever the killed ones left
        cache.put(str(number), bytes(500))
        assert cache.bytes_held() <= 20_000
    left = [path.stat().st_size for path in tmp_path.glob("??/.neurotrain-*")]
    assert sum(left) == 0


def test_a_killed_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(50_000)
    storage = LocalStorage(root=tmp_path / "root")
    storage.write("large", data)

    class Dying(MemoryStorage):
        reads = 0

        def stat(self, key: str):  # noqa: ANN202
            return storage.stat(key)

        def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
            self.reads += 1
            if self.reads == 4:
                raise KeyboardInterrupt
            return storage.read(key, start=start, length=length, etag=etag)

    dying = Dying(name=uuid4().hex)
    with pytest.raises(KeyboardInterrupt):
        dying.download("large", tmp_path / "copy", part_bytes=10_000)
    assert not (tmp_path / "copy").exists()
    dying.download("large", tmp_path / "copy", part_bytes=10_000)
    assert (tmp_path / "copy").read_bytes() == data
    assert dying.reads == 6  # three arrived, one was interrupted, two were left


def test_two_downloads_of_one_object(tmp_path: Path) -> None:
    storage = LocalStorage(root=tmp_path / "root")
    data = random.Random(0).randbytes(200_000)
    storage.write("large", data)
    threads = [
        threading.Thread(target=storage.download, args=("large", tmp_path / "copy"), kwargs={"part_bytes": 5000})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert (tmp_path / "copy").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "root"]
