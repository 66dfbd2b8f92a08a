"""Indices of sources: incremental, parallel, and as fast for a million entries as for ten."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from neurotrain.data.index import read_parallel
from neurotrain.data.sources import FolderSource, SiblingText
from neurotrain.storage import LocalStorage, MemoryStorage, ObjectInfo


class CountingStorage(MemoryStorage):
    """Notes what is read and listed."""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.read_keys: list[str] = []
        self.listings = 0

    def read(self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
        self.read_keys.append(key)
        return super().read(key, start=start, length=length, etag=etag)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.listings += 1
        yield from super().list(prefix)


def png(width: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (width, 4)).save(stream, "PNG")
    return stream.getvalue()


def test_only_new_and_changed_objects_are_read_again(tmp_path: Path) -> None:
    storage = CountingStorage(name="incremental")
    for number in range(5):
        storage.write(f"{number}.png", png(10 + number))
        storage.write(f"{number}.txt", f"photo {number}".encode())

    def setup() -> FolderSource:
        storage.read_keys.clear()
        source = FolderSource(
            name="toy", storage=storage, captions=SiblingText(), index_dir=tmp_path, dimensions=True, threads=2
        )
        source.setup()
        source.setup()  # a second time does nothing
        return source

    first = setup()
    assert sorted(storage.read_keys) == sorted(f"{n}.{e}" for n in range(5) for e in ("png", "txt"))
    assert first.table().column("width").to_pylist() == [10, 11, 12, 13, 14]
    unchanged = setup()
    assert storage.read_keys == []
    assert unchanged.fingerprint() == first.fingerprint()
    storage.write("1.png", png(99))
    storage.write("2.txt", b"another")
    storage.write("5.png", png(15))
    storage.write("5.txt", b"photo 5")
    storage.delete("0.png")
    storage.delete("0.txt")
    second = setup()
    assert sorted(storage.read_keys) == ["1.png", "2.txt", "5.png", "5.txt"]
    assert second.table().column("width").to_pylist() == [99, 12, 13, 14, 15]
    assert second.table().column("caption").to_pylist() == ["photo 1", "another", "photo 3", "photo 4", "photo 5"]
    assert second.fingerprint() != first.fingerprint()
    assert len(list(tmp_path.iterdir())) == 1


def test_other_settings_have_an_index_of_their_own(tmp_path: Path) -> None:
    storage = CountingStorage(name="settings")
    storage.write("a.png", png(4))
    for dimensions in (True, False):
        FolderSource(name="toy", storage=storage, index_dir=tmp_path, dimensions=dimensions).setup()
    assert len(list(tmp_path.iterdir())) == 2


def test_without_refresh_nothing_is_listed(tmp_path: Path) -> None:
    storage = CountingStorage(name="norefresh")
    storage.write("a.png", png(4))
    for listings in (1, 1):
        source = FolderSource(name="toy", storage=storage, index_dir=tmp_path, refresh=False)
        source.setup()
        assert (len(source), storage.listings) == (1, listings)
        storage.write("b.png", png(4))
    FolderSource(name="toy", storage=storage, index_dir=tmp_path).setup()
    assert storage.listings == 2


def test_a_damaged_index_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = CountingStorage(name="damaged")
    storage.write("a.png", png(4))
    source = FolderSource(name="toy", storage=storage, index_dir=tmp_path)
    source.setup()
    path = source.index_path
    assert path is not None
    path.write_bytes(path.read_bytes()[:-50])
    again = FolderSource(name="toy", storage=storage, index_dir=tmp_path)
    with caplog.at_level(logging.WARNING):
        again.setup()
    assert "its checksum does not fit" in caplog.text
    assert again.read(0) == source.read(0)


def test_an_unreadable_header_costs_itself(caplog: pytest.LogCaptureFixture) -> None:
    storage = MemoryStorage(name="headers")
    storage.write("a.png", png(4))
    storage.write("b.png", b"no image")
    source = FolderSource(name="toy", storage=storage, dimensions=True)
    source.setup()
    assert source.table().column("width").to_pylist() == [4, None]
    assert source.table().column("frames").to_pylist() == [1, None]
    assert "1 headers cannot be read: b.png" in caplog.text


def test_reads_at_once_and_in_order() -> None:
    together = threading.Barrier(4, timeout=10)

    def slow(number: int) -> int:
        if number < 4:
            together.wait()  # four calls must be under way at the same time
        return number * number

    assert list(read_parallel(slow, range(100), threads=4, label="x")) == [number**2 for number in range(100)]
    assert list(read_parallel(slow, [], threads=4, label="x")) == []


def test_the_first_failure_ends_it() -> None:
    made: list[int] = []

    def fail(number: int) -> int:
        made.append(number)
        if number == 3:
            raise OSError("three")
        return number

    with pytest.raises(OSError, match="three"):
        list(read_parallel(fail, range(10_000), threads=2, label="x"))
    assert len(made) < 100
    with pytest.raises(ValueError, match="threads=0"):
        read_parallel(fail, [1], threads=0, label="x")


class GeneratedStorage(LocalStorage):
    """A listing of many objects that nobody wrote."""

    def __init__(self, *, root: Path, count: int) -> None:
        super().__init__(root=root)
        self.count = count

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for number in range(self.count):
            yield ObjectInfo(key=f"{number // 1000:04}/{number:07}.jpg", size=number, etag=f"{number:x}", modified=1.0)


def test_many_entries_start_warm(tmp_path: Path) -> None:
    count = 30_000
    storage = GeneratedStorage(root=tmp_path, count=count)
    began = time.perf_counter()
    FolderSource(name="many", storage=storage, index_dir=tmp_path).setup()
    cold = time.perf_counter() - began
    began = time.perf_counter()
    warm = FolderSource(name="many", storage=storage, index_dir=tmp_path, refresh=False)
    warm.setup()
    assert time.perf_counter() - began < cold / 2
    assert len(warm) == count
    assert warm.table().slice(count - 1).to_pylist()[0]["id"] == "0029/0029999"
