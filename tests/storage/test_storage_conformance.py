"""One suite over all backends: what a storage promises, whatever lies underneath."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from backends import Backend

from neurotrain.storage import (
    ChangedError,
    InvalidKeyError,
    ObjectNotFoundError,
    Statistics,
    Storage,
    StorageError,
    UnsupportedOperationError,
)

NAMES = ["a.txt", "a/b.txt", "a-b.txt", "train/0.bin", "train/1 ä+%41#?&.bin", "train/deep/er/x", "train2/0.bin", "z"]
BAD = ["", "/a", "a/", "../a", "a/../../b", "a//b", ".", "./a", "a/.", "..", "a\0b"]


def _fill(backend: Backend, names: list[str]) -> None:
    for name in names:
        backend.put(name, name.encode())


def test_a_listing_is_sorted_and_whole(backend: Backend) -> None:
    _fill(backend, NAMES[1:])
    assert [info.key for info in backend.storage.list()] == sorted(NAMES[1:])


def test_a_listing_of_many_pages(backend: Backend) -> None:
    names = [f"many/{number:03d}" for number in range(16)]
    _fill(backend, names)
    assert [info.key for info in backend.storage.list("many/")] == names


@pytest.mark.parametrize(
    ("prefix", "count"),
    [("train/", 3), ("train", 4), ("train/deep/", 1), ("train/1 ", 1), ("a", 2), ("none/", 0), ("z", 1), ("z/", 0)],
)
def test_a_prefix_is_the_beginning_of_a_key(backend: Backend, prefix: str, count: int) -> None:
    _fill(backend, NAMES[1:])
    found = [info.key for info in backend.storage.list(prefix)]
    assert found == [name for name in sorted(NAMES[1:]) if name.startswith(prefix)]
    assert len(found) == count


def test_an_empty_storage_lists_nothing(backend: Backend) -> None:
    assert list(backend.storage.list()) == []


def test_listed_and_asked_agree(backend: Backend) -> None:
    backend.put("a/b.bin", b"12345")
    (listed,) = backend.storage.list()
    asked = backend.storage.stat("a/b.bin")
    assert asked.size == 5
    assert asked.etag
    if backend.name == "hf":  # its answers know no times
        assert asked.modified is None
    else:
        assert asked.modified is not None
        assert abs(asked.modified - time.time()) < 60
    if backend.name != "http":  # a page of names says no more
        assert listed == asked


def test_an_etag_changes_with_the_content(backend: Backend) -> None:
    backend.put("a", b"one")
    first = backend.storage.stat("a")
    assert backend.storage.stat("a") == first
    backend.put("a", b"two")
    assert backend.storage.stat("a").etag != first.etag
    assert backend.storage.read("a") == b"two"


@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (0, 4), (3, 4), (3, None), (9, 1), (8, 100), (10, None), (50, 5), (0, 0), (2, 0)]
)
def test_ranges(backend: Backend, start: int, length: int | None) -> None:
    data = b"0123456789"
    backend.put("numbers", data)
    expected = data[start : None if length is None else start + length]
    assert backend.storage.read("numbers", start=start, length=length) == expected


def test_a_read_of_what_has_changed_is_refused(backend: Backend) -> None:
    backend.put("a", b"first")
    etag = backend.storage.stat("a").etag
    assert backend.storage.read("a", etag=etag) == b"first"
    assert backend.storage.read("a", start=1, length=2, etag=etag) == b"ir"
    backend.put("a", b"other")
    for part in ({}, {"start": 1, "length": 2}, {"length": 0}):
        with pytest.raises(ChangedError, match="no longer"):
            backend.storage.read("a", etag=etag, **part)


def test_fetched_together(backend: Backend) -> None:
    backend.put("a", b"0123456789")
    info = backend.storage.stat("a")
    assert backend.storage.fetch("a") == (info, b"0123456789")
    assert backend.storage.fetch("a", start=8, length=5) == (info, b"89")
    assert backend.storage.fetch("a", start=80, length=5) == (info, b"")


def test_an_empty_object(backend: Backend) -> None:
    backend.put("empty", b"")
    assert backend.storage.read("empty") == b""
    assert backend.storage.read("empty", start=0, length=5) == b""
    assert backend.storage.stat("empty").size == 0


def test_larger_objects_arrive_whole(backend: Backend) -> None:
    data = bytes(range(256)) * 12_000
    backend.put("large", data)
    assert backend.storage.read("large") == data
    assert backend.storage.read("large", start=1_000_001, length=500_000) == data[1_000_001:1_500_001]


@pytest.mark.parametrize("range_", [{"start": -1}, {"length": -1}])
def test_negative_ranges_are_refused(backend: Backend, range_: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="-1"):
        backend.storage.read("a", **range_)


def test_what_is_not_there(backend: Backend) -> None:
    storage = backend.storage
    backend.put("folder/x", b"1")
    for key in ("none", "folder/none", "folder/x/none", "no/such/folder"):
        assert not storage.exists(key)
        with pytest.raises(ObjectNotFoundError) as caught:
            storage.read(key)
        assert caught.value.uri == storage.uri_of(key)
        with pytest.raises(ObjectNotFoundError):
            storage.read(key, start=1, length=1)
        with pytest.raises(ObjectNotFoundError):
            storage.read(key, length=0)
    assert storage.exists("folder/x")


@pytest.mark.parametrize("key", BAD)
def test_keys_never_leave_the_root(backend: Backend, key: str) -> None:
    storage = backend.storage
    for operation in (storage.read, storage.stat, storage.exists, storage.delete):
        with pytest.raises(InvalidKeyError):
            operation(key)
    with pytest.raises(InvalidKeyError):
        storage.write(key, b"x")
    if key not in ("", "a/"):
        with pytest.raises(InvalidKeyError):
            list(storage.list(key))


def test_writing(backend: Backend, tmp_path: Path) -> None:
    storage = backend.storage
    if not backend.writable:
        with pytest.raises(UnsupportedOperationError, match="read, not written"):
            storage.write("a", b"x")
        with pytest.raises(UnsupportedOperationError, match="nothing is deleted"):
            storage.delete("a")
        return
    source = tmp_path / "source.bin"
    source.write_bytes(b"from a file")
    assert storage.write("new/folder/a", b"bytes").size == 5
    assert storage.write("new/folder/a", source) == storage.stat("new/folder/a")
    assert storage.read("new/folder/a") == b"from a file"
    storage.delete("new/folder/a")
    assert not storage.exists("new/folder/a")
    storage.delete("new/folder/a")
    storage.delete("never/was")
    assert list(storage.list()) == []


def test_many_at_once_in_order(backend: Backend) -> None:
    names = [f"many/{number:03d}" for number in range(18)]
    _fill(backend, names)
    asked = [*names[:9], "none", "../out", *names[9:]]
    results = list(backend.storage.read_many(asked))
    assert isinstance(results[9], ObjectNotFoundError)
    assert isinstance(results[10], InvalidKeyError)
    assert [*results[:9], *results[11:]] == [name.encode() for name in names]


def test_a_reader_of_many_may_leave_early(backend: Backend) -> None:
    _fill(backend, [f"many/{number:03d}" for number in range(10)])
    taken = 0
    reading = backend.storage.read_many(f"many/{number:03d}" for number in range(10))
    for taken, data in enumerate(reading, start=1):
        assert data == f"many/{taken - 1:03d}".encode()
        if taken == 3:
            break
    del reading
    assert taken == 3
    assert backend.storage.read("many/005") == b"many/005"


def test_downloads(backend: Backend, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    backend.put("a/large", data)
    target = tmp_path / "copy"
    info = backend.storage.download("a/large", target, part_bytes=10_000)
    assert info == backend.storage.stat("a/large")
    assert target.read_bytes() == data
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["copy"]
    with pytest.raises(ObjectNotFoundError):
        backend.storage.download("none", target)
    assert target.read_bytes() == data


def test_what_was_done_is_counted(backend: Backend) -> None:
    backend.put("a", b"12345")
    before = backend.storage.statistics()
    backend.storage.read("a")
    backend.storage.read("a", start=1, length=2)
    list(backend.storage.read_many(["a", "none"]))
    after = backend.storage.statistics()
    assert after.reads - before.reads == 3
    assert after.bytes_read - before.bytes_read == 12
    assert after.errors - before.errors == 1
    assert after.retries == 0


def test_threads_share_one(backend: Backend) -> None:
    names = [f"many/{number}" for number in range(8)]
    _fill(backend, names)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(backend.storage.read, names * 4)) == [name.encode() for name in names * 4]
    assert backend.storage.statistics().reads == 32


def test_pickled_after_use(backend: Backend) -> None:
    backend.put("a", b"content")
    assert backend.storage.read("a") == b"content"
    copy = pickle.loads(pickle.dumps(backend.storage))
    assert copy.uri == backend.storage.uri
    assert copy.statistics() == Statistics()
    assert copy.read("a") == b"content"
    copy.close()


def _read_in_child(storage: Storage, key: str, results: multiprocessing.Queue[object]) -> None:
    try:
        results.put((storage.read(key), [info.key for info in storage.list()], storage.statistics().reads))
        storage.close()
    except BaseException as error:
        results.put(error)
        raise


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_what_the_parent_reads(backend: Backend, method: str) -> None:
    backend.put("a", b"content")
    assert backend.storage.read("a") == b"content"
    context = multiprocessing.get_context(method)
    results = context.Queue()
    children = [
        context.Process(target=_read_in_child, args=(backend.storage, "a", results), daemon=True)
        for _ in range(1 if method == "spawn" else 2)
    ]
    for child in children:
        child.start()
    found = [results.get(timeout=120) for _ in children]
    for child in children:
        child.join(timeout=120)
        assert child.exitcode == 0
    assert found == [(b"content", ["a"], 1)] * len(children)
    assert backend.storage.read("a") == b"content"


def test_errors_travel_between_processes(backend: Backend) -> None:
    with pytest.raises(StorageError) as caught:
        backend.storage.read("none")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is ObjectNotFoundError
    assert str(copy) == str(caught.value)
    assert copy.uri == backend.storage.uri_of("none")


def test_repr_names_the_root(backend: Backend) -> None:
    assert repr(backend.storage) == f"{type(backend.storage).__name__}({backend.storage.uri})"
    assert "secret" not in repr(backend.storage)


def test_a_closed_storage_opens_again(backend: Backend) -> None:
    backend.put("a", b"1")
    backend.storage.close()
    assert backend.storage.read("a") == b"1"
    backend.storage.close()
    backend.storage.close()
    assert io.BytesIO(backend.storage.read("a")).read() == b"1"
