"""What only local folders have: links, pipes, permissions, half-written files, hashes as etags."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from neurotrain.storage import (
    AccessDeniedError,
    ChangedError,
    InvalidKeyError,
    LocalStorage,
    ObjectNotFoundError,
    StorageError,
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "x").write_bytes(b"inside")
    return folder


def test_links_that_lead_out_are_refused_and_seen(root: Path, outside: Path) -> None:
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    storage = LocalStorage(root=root)
    for key in ("file", "folder/secret"):
        for operation in (storage.read, storage.stat, storage.exists, storage.path_of):
            with pytest.raises(InvalidKeyError, match="leads out of the root"):
                operation(key)
    with pytest.raises(InvalidKeyError, match="leads out"):
        storage.write("folder/new", b"x")
    with pytest.raises(InvalidKeyError, match="leads out"):
        storage.delete("folder/secret")
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    # Neither may vanish from a listing in silence: the read says why it can't be had.
    assert [(info.key, info.size) for info in storage.list()] == [("file", None), ("folder", None), ("real/x", 6)]
    with pytest.raises(StorageError, match="leads out"):
        list(storage.list("folder/"))


def test_links_are_followed_where_they_may(root: Path, outside: Path, tmp_path: Path) -> None:
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "within").symlink_to("real")
    storage = LocalStorage(root=root, links_into=[outside])
    assert [info.key for info in storage.list()] == ["file", "folder/secret", "real/x", "within/x"]
    assert storage.read("folder/secret") == b"secret"
    assert LocalStorage(root=root).read("within/x") == b"inside"
    (tmp_path / "link to root").symlink_to(root)
    assert LocalStorage(root=tmp_path / "link to root").read("real/x") == b"inside"
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "secret").write_bytes(b"2")
    (root / "neighbour").symlink_to(tmp_path / "root2" / "secret")
    with pytest.raises(InvalidKeyError):  # the name of the root is the beginning of its neighbour's
        storage.read("neighbour")


def test_loops_and_broken_links_end(root: Path) -> None:
    (root / "real" / "up").symlink_to(root)
    (root / "broken").symlink_to(root / "nothing")
    (root / "itself").symlink_to("itself")
    storage = LocalStorage(root=root)
    assert [info.key for info in storage.list()] == ["broken", "itself", "real/up", "real/x"]
    for key, error in {
        "broken": ObjectNotFoundError,
        "itself": InvalidKeyError,
        "real/up": ObjectNotFoundError,
    }.items():
        with pytest.raises(error):
            storage.read(key)


def test_a_pipe_does_not_hang(root: Path) -> None:
    os.mkfifo(root / "pipe")
    storage = LocalStorage(root=root)
    with pytest.raises(ObjectNotFoundError, match="not a regular file"):
        storage.read("pipe")
    assert [info.key for info in storage.list()] == ["pipe", "real/x"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_is_forbidden(root: Path) -> None:
    (root / "real" / "x").chmod(0)
    with pytest.raises(AccessDeniedError):
        LocalStorage(root=root).read("real/x")


def test_forbidden_is_typed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("neurotrain.storage.local.os.open", refuse)
    with pytest.raises(AccessDeniedError, match="real/x: Permission denied"):
        LocalStorage(root=root).read("real/x")


def test_a_hash_as_etag_follows_the_content_only(root: Path) -> None:
    storage = LocalStorage(root=root, etag="content")
    etag = storage.stat("real/x").etag
    os.utime(root / "real" / "x", (1, 1))
    assert storage.read("real/x", etag=etag) == b"inside"
    assert LocalStorage(root=root).stat("real/x").etag != etag
    assert [info.etag for info in storage.list()] == [etag]
    (root / "real" / "x").write_bytes(b"INSIDE")
    os.utime(root / "real" / "x", (1, 1))
    with pytest.raises(ChangedError):
        storage.read("real/x", etag=etag)


def test_an_exchange_at_one_time_and_size_changes_the_etag(root: Path) -> None:
    storage = LocalStorage(root=root)
    before = storage.stat("real/x")
    storage.write("real/x", b"INSIDE")
    os.utime(root / "real" / "x", ns=(0, (root / "real" / "x").stat().st_mtime_ns))
    os.utime(root / "real" / "x", (before.modified or 0, before.modified or 0))
    assert storage.stat("real/x").etag != before.etag


def test_unfinished_files_are_no_objects(root: Path) -> None:
    (root / ".neurotrain-abc.part").write_bytes(b"half")
    storage = LocalStorage(root=root)
    assert [info.key for info in storage.list()] == ["real/x"]
    with pytest.raises(InvalidKeyError, match="unfinished"):
        storage.write(".neurotrain-x", b"")


def test_a_folder_is_no_object(root: Path) -> None:
    storage = LocalStorage(root=root)
    with pytest.raises(ObjectNotFoundError):
        storage.read("real")
    with pytest.raises(StorageError):
        storage.write("real", b"")
    with pytest.raises(StorageError):
        storage.write("real/x/y", b"")
    assert storage.read("real/x") == b"inside"


def test_a_key_that_is_too_long(root: Path) -> None:
    with pytest.raises(InvalidKeyError, match="too long"):
        LocalStorage(root=root).read("x" * 300)


def _write_for_ever(root: Path, started: multiprocessing.Queue[int]) -> None:
    storage = LocalStorage(root=root)
    for number in range(1_000_000):
        storage.write("file", bytes([number % 256]) * (1000 + number % 256))
        started.put(1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_writers_leave_whole_objects(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    storage = LocalStorage(root=tmp_path)
    draw = random.Random(0)
    for _ in range(8):
        started = context.Queue()
        child = context.Process(target=_write_for_ever, args=(tmp_path, started), daemon=True)
        child.start()
        started.get(timeout=120)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        data = storage.read("file")
        assert data == data[:1] * (1000 + data[0])
        assert [info.key for info in storage.list()] == ["file"]


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="'stat' or 'content'"):
        LocalStorage(root="x", etag="md5")  # type: ignore[arg-type]
