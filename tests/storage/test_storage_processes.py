"""Forks in the middle of reads, ends of processes, and storages that nobody closes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from backends import http_storage, put_file, s3_storage
from servers import CREDENTIALS, FolderServer, MotoServer

from neurotrain.storage import HttpStorage, Storage, StorageError


def _read_all(storage: Storage, names: list[str], results: multiprocessing.Queue[object]) -> None:
    results.put(list(storage.read_many(names)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", ["http", "s3"])
def test_forks_in_the_middle_of_reads(name: str, moto: MotoServer, web: FolderServer) -> None:
    names = [f"many/{number}" for number in range(8)]
    if name == "http":
        storage, folder = http_storage(web)
        for each in names:
            put_file(folder, each, each.encode())
    else:
        storage = s3_storage(moto)
        for each in names:
            storage.write(each, each.encode())
    expected = [each.encode() for each in names]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ended = threading.Event()

    def keep_reading() -> None:
        while not ended.is_set():
            assert list(storage.read_many(names)) == expected

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(keep_reading)
        try:
            for _ in range(3):
                child = context.Process(target=_read_all, args=(storage, names, results), daemon=True)
                child.start()
                assert results.get(timeout=120) == expected
                child.join(timeout=120)
                assert child.exitcode == 0
        finally:
            ended.set()
        busy.result(timeout=120)
    storage.close()


_SCRIPT = """
import os, sys
from neurotrain.storage import {kind}
storage = {kind}({options})
assert storage.read("a") == b"1"
{then}
"""
_ENDS = {
    "leaves": "",
    "drops": "del storage",
    "forks": (
        "child = os.fork()\n"
        "assert storage.read('a') == b'1'\n"
        "if child:\n    assert os.waitpid(child, 0)[1] == 0\n    assert storage.read('a') == b'1'"
    ),
    "forks and leaves": "child = os.fork()\nif child:\n    assert os.waitpid(child, 0)[1] == 0",
}


@pytest.mark.parametrize(
    ("kind", "end"),
    [*(("HttpStorage", end) for end in _ENDS), ("S3Storage", "leaves"), ("S3Storage", "forks")],
)
def test_processes_end_in_silence(kind: str, end: str, moto: MotoServer, web: FolderServer, tmp_path: Path) -> None:
    if kind == "HttpStorage":
        storage, folder = http_storage(web)
        put_file(folder, "a", b"1")
        options = f"base_url={storage.base_url!r}, allowed_hosts=('127.0.0.1',)"
    else:
        s3 = s3_storage(moto)
        s3.write("a", b"1")
        s3.close()
        options = f"bucket={s3.bucket!r}, prefix='some/prefix', endpoint_url={moto.url!r}, **{CREDENTIALS!r}"
    script = _SCRIPT.format(kind=kind, options=options, then=_ENDS[end])
    command = [sys.executable, "-W", "default", "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_storage_that_is_forgotten_closes_its_connections(web: FolderServer) -> None:
    storage, folder = http_storage(web)
    put_file(folder, "a", b"1")
    assert storage.read("a") == b"1"
    link = storage._link
    assert link is not None
    session = link.run(_session_of(storage))
    del storage
    gc.collect()
    assert session.closed


@pytest.mark.parametrize("name", ["http", "s3"])
def test_every_client_is_closed_though_others_read_when_the_storage_is(
    name: str, moto: MotoServer, web: FolderServer
) -> None:
    if name == "http":
        storage, folder = http_storage(web)
        put_file(folder, "a", b"1")
    else:
        storage = s3_storage(moto)
        storage.write("a", b"1")
    opened: list[object] = []
    closed: list[object] = []
    connect, disconnect = storage._connect, storage._disconnect

    async def counted_connect() -> object:
        client = await connect()
        opened.append(client)
        return client

    async def counted_disconnect(client: object) -> None:
        closed.append(client)
        await disconnect(client)

    storage._connect, storage._disconnect = counted_connect, counted_disconnect
    storage.close()
    ended = threading.Event()

    def keep_reading() -> list[str]:
        errors: list[str] = []
        while not ended.is_set():
            try:
                for answer in storage.read_many(["a"] * 3):
                    assert answer == b"1" or "closed while" in str(answer)
                assert storage.read("a") == b"1"
            except StorageError as error:
                errors.append(str(error))
        return errors

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(keep_reading) for _ in range(4)]
        for _ in range(40):
            time.sleep(0.02)
            storage.close()
        ended.set()
        errors = [error for reader in readers for error in reader.result(timeout=120)]
    storage.close()
    assert errors
    assert [error for error in errors if "closed while" not in error] == []
    assert len(opened) > 1
    assert {id(client) for client in opened} == {id(client) for client in closed}


async def _session_of(storage: HttpStorage) -> object:
    assert storage._link is not None
    client = await storage._link.client(storage._connect)
    return client._session


def test_threads_do_not_pile_up(web: FolderServer) -> None:
    storage, folder = http_storage(web)
    put_file(folder, "a", b"1")
    storage.read("a")
    before = threading.active_count()
    for _ in range(5):
        other, _ = http_storage(web, folder=folder)
        assert other.read("a") == b"1"
        other.close()
    assert threading.active_count() <= before + 1
    assert os.getpid() > 0
    storage.close()
