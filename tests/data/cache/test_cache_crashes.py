"""A build killed at any point leaves a cache that is whole, and goes on to the same end."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest
from cache_toys import ToyEncoder, ToyPreparation, ToySource, contents, same

from neurotrain.data.cache import BuildProgress, LatentCache, TensorCache, gc, verify
from neurotrain.data.cache.locks import Claims

SAMPLES = 60
KILLS = 20


def source_of(count: int = SAMPLES) -> ToySource:
    return ToySource([number.to_bytes(6, "big") for number in range(count)])


def latents_of(folder: Path, *, log: Path | None = None, shard_bytes: int = 4096) -> LatentCache:
    cache = TensorCache(folder=folder, shard_bytes=shard_bytes)
    return LatentCache(cache=cache, encoder=ToyEncoder(log=log), prepare=ToyPreparation(), batch_size=4)


class KillAtCall:
    """Replaces the calls by which files come to be; at one of them the process dies, some before, some half-way."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0

    def install(self) -> None:
        os.write = self._wrapped(os.write, half=True)
        os.fsync = self._wrapped(os.fsync)
        os.rename = self._wrapped(os.rename)
        os.unlink = self._wrapped(os.unlink)

    def _wrapped(self, call: Callable[..., Any], *, half: bool = False) -> Callable[..., Any]:
        def killing(*arguments: object) -> object:
            self.calls += 1
            if self.calls == self.at:
                if half:
                    descriptor, piece = arguments
                    assert isinstance(piece, memoryview)
                    call(descriptor, piece[: len(piece) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        return killing


def _build(folder: Path, at: int, log: Path, calls: Path) -> None:
    killer = KillAtCall(at)
    killer.install()
    latents_of(folder, log=log).build(source_of())
    calls.write_text(str(killer.calls))


def run(target: Callable[..., None], *arguments: object) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[bytes, dict[str, Any]], int]:
    folder = tmp_path_factory.mktemp("whole")
    assert run(_build, folder / "c", -1, folder / "log", folder / "calls") == 0
    return contents(folder / "c"), int((folder / "calls").read_text())


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_a_seeded_call_it_resumes_to_the_same_cache(
    seed: int, uninterrupted: tuple[dict[bytes, dict[str, Any]], int], tmp_path: Path
) -> None:
    expected, calls = uninterrupted
    # One kill in every twentieth of the build.
    at = 1 + int((seed + random.Random(seed).random()) * calls / KILLS)
    assert run(_build, tmp_path / "c", at, tmp_path / "log", tmp_path / "calls") == -signal.SIGKILL
    report = verify(tmp_path / "c")
    assert report.ok, report
    partial = contents(tmp_path / "c")
    assert len(partial) == report.entries
    assert all(same(entry, expected[key]) for key, entry in partial.items())
    latents = latents_of(tmp_path / "c")
    finished = latents.build(source_of())
    assert finished.present == len(partial)
    assert finished.encoded == SAMPLES - len(partial)
    whole = contents(tmp_path / "c")
    assert whole.keys() == expected.keys()
    assert all(same(whole[key], expected[key]) for key in expected)
    assert gc(tmp_path / "c").unfinished == len(report.unfinished)
    after = verify(tmp_path / "c")
    assert (after.ok, after.unfinished, after.entries) == (True, (), SAMPLES)


def _compact(folder: Path, at: int, calls: Path) -> None:
    killer = KillAtCall(at)
    killer.install()
    live = list(TensorCache(folder=folder).keys())[::2]
    gc(folder, live_keys=live, shard_bytes=16 * 1024)
    calls.write_text(str(killer.calls))


@pytest.mark.parametrize("seed", range(6))
def test_a_collection_killed_at_a_seeded_call_loses_nothing_that_is_wanted(seed: int, tmp_path: Path) -> None:
    latents_of(tmp_path / "c").build(source_of())
    before = contents(tmp_path / "c")
    wanted = list(before)[::2]
    at = 1 + random.Random(seed).randrange(30)
    assert run(_compact, tmp_path / "c", at, tmp_path / "calls") == -signal.SIGKILL
    assert verify(tmp_path / "c").ok
    left = contents(tmp_path / "c")
    assert all(same(left[key], before[key]) for key in wanted)
    assert left.keys() <= before.keys()
    gc(tmp_path / "c", live_keys=wanted)
    assert set(contents(tmp_path / "c")) == set(wanted)


def _build_share(folder: Path, log: Path, rank: int | None, world_size: int | None, start: Barrier) -> None:
    latents = latents_of(folder, log=log, shard_bytes=2048)
    start.wait()
    report = latents.build(source_of(200), rank=rank, world_size=world_size)
    assert report.encoded + report.present + report.elsewhere == report.owned
    latents.cache.close()


@pytest.mark.parametrize("ranked", [True, False], ids=["as ranks", "without knowing of each other"])
def test_two_processes_build_without_encoding_anything_twice(ranked: bool, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    places = [(0, 2), (1, 2)] if ranked else [(0, 1), (0, 1)]
    logs = [tmp_path / "log0", tmp_path / "log1"]
    processes = [
        context.Process(target=_build_share, args=(tmp_path / "c", log, *place, start))
        for log, place in zip(logs, places, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    encoded = [log.read_text().split() for log in logs]
    assert sorted(map(int, encoded[0] + encoded[1])) == list(range(200)), "each once"
    assert all(encoded), "both worked"
    assert len(contents(tmp_path / "c")) == 200


def _hold_and_die(folder: Path, held: Event) -> None:
    claims = Claims(folder / "claims.lock")
    for key in claimed_keys(folder):
        assert claims.take(key)
    held.set()
    signal.pause()


def claimed_keys(folder: Path) -> list[bytes]:
    latents, source = latents_of(folder), source_of(8)
    return [latents.key(source.read(index)) for index in range(8)]


def test_what_a_dead_process_had_claimed_is_built_by_another(tmp_path: Path) -> None:
    TensorCache(folder=tmp_path / "c")
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold_and_die, args=(tmp_path / "c", held))
    holder.start()
    assert held.wait(60)
    seen: list[int] = []

    def kill_once_all_others_are_done(progress: BuildProgress) -> None:
        seen.append(progress.done)
        holder.kill()
        holder.join()

    latents = latents_of(tmp_path / "c")
    report = latents.build(source_of(40), progress=kill_once_all_others_are_done)
    assert report.encoded == 40
    assert seen[-1] == 40
