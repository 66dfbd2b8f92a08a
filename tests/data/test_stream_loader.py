"""The loader of streamed sources: readers in turn, exact resume, bad samples, how workers end."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_stream import TOTAL, Numbers, loader, plain, stream, write_shards

from neurotrain.data.engine import LoaderTimeoutError, Quarantine, TooManyBadSamplesError, WorkerDiedError, entries
from neurotrain.data.parts import SampleError
from neurotrain.data.sources import RawSample, SourceError, WebDatasetStream
from neurotrain.data.stream_loader import merge_states
from neurotrain.data.stream_reader import Preparation, StreamReader
from neurotrain.storage import LocalStorage, TransientError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def numbers(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch["number"].tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_once_and_each_epoch_anew(folder: Path, workers: int) -> None:
    one, other = loader(folder, num_workers=workers), loader(folder, num_workers=workers)
    first = plain(one)
    one.set_epoch(1)
    second = plain(one)
    one.close()
    for epoch in (first, second):
        assert sorted(number for batch, _ in epoch for number in batch) == list(range(TOTAL))
    assert first != second
    assert plain(other) == first
    assert plain(other) == first  # the same epoch once more
    other.close()


def test_one_worker_has_the_order_of_none_and_takes_its_state(folder: Path) -> None:
    alone, worker = loader(folder), loader(folder, num_workers=1)
    whole = plain(alone)
    head = plain(islice(worker, 5))
    alone.load_state_dict(worker.state_dict())
    assert head + plain(alone) == whole
    worker.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_behind_what_was_consumed(folder: Path, workers: int) -> None:
    before = loader(folder, num_workers=workers)
    before.set_epoch(2)
    running = iter(before)
    states, whole = {0: before.state_dict()}, []
    for consumed, batch in enumerate(running, 1):
        whole += plain([batch])
        states[consumed] = json.loads(json.dumps(before.state_dict()))
    assert len(whole) == TOTAL // 4
    for consumed in (0, 1, 6, 12):
        assert states[consumed]["batch"] == consumed
        after = loader(folder, num_workers=workers)
        after.load_state_dict(states[consumed])
        assert after.state_dict() == states[consumed]
        assert plain(after) == whole[consumed:]
        assert after.statistics()["read"] == TOTAL
        after.close()
    before.close()


def test_a_reader_can_be_sent_to_another_process(folder: Path) -> None:
    source = stream(folder)
    request = next(loader(folder).batch_sampler.requests())
    reader = StreamReader(
        source=source,
        fresh=source.state_dict(),
        start=None,
        prepare=Preparation(decoder=Numbers(), seed=7),
        reader=0,
        readers=1,
        samples=TOTAL,
        quarantine=Quarantine(),
        one_order=False,
    )
    sent = pickle.loads(pickle.dumps(reader))
    assert plain([sent.load_batch(request).batch]) == plain([reader.load_batch(request).batch])


def test_ranks_have_equal_steps_and_shares_of_their_own(folder: Path) -> None:
    loaders = [loader(folder, rank=rank, world_size=2, num_workers=2) for rank in range(2)]
    passes = [iter(one) for one in loaders]
    heads = [plain(islice(one, 3)) for one in passes]
    states = [one.state_dict() for one in loaders]
    tails = [plain(one) for one in passes]
    assert [len(head) + len(tail) for head, tail in zip(heads, tails, strict=True)] == [6, 6]
    seen = [number for part in heads + tails for batch, _ in part for number in batch]
    assert sorted(seen) == list(range(TOTAL))
    merged = json.loads(json.dumps(merge_states(states)))
    for rank, tail in enumerate(tails):
        resumed = loader(folder, rank=rank, world_size=2, num_workers=2)
        resumed.load_state_dict(merged)
        assert plain(resumed) == tail
        resumed.close()
        loaders[rank].close()
    with pytest.raises(ValueError, match=r"readers \['0', '1'\], this rank has \[2, 3\]"):
        loader(folder, rank=1, world_size=2, num_workers=2).load_state_dict(states[0])


def test_another_layout_resumes_between_epochs_only(folder: Path) -> None:
    before = loader(folder)
    running = iter(before)
    list(islice(running, 5))
    with pytest.raises(ValueError, match=r"written with 1 rank\(s\) of 1 reader\(s\), this run has 1 rank\(s\) of 2"):
        loader(folder, num_workers=2).load_state_dict(before.state_dict())
    list(running)
    after = loader(folder, num_workers=2)
    after.load_state_dict(before.state_dict())
    assert list(after) == []
    after.set_epoch(1)
    assert sorted(numbers(after)) == list(range(TOTAL))
    after.close()
    for settings, message in (({"batch_size": 6}, "batch_size=4"), ({"source": stream(folder, seed=4)}, "stream=")):
        with pytest.raises(ValueError, match=f"cannot resume: the checkpoint has {message}"):
            loader(folder, **settings).load_state_dict(before.state_dict())


def _gloo_rank(rank: int, folder: Path, out: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    one = loader(folder, rank=rank, world_size=2)
    running = iter(one)
    head = plain(islice(running, 2))
    state = one.state_dict()
    torch.save({"head": head, "state": state, "tail": plain(running)}, out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_the_first_ranks_checkpoint_holds_all_readers(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_gloo_rank, args=(rank, folder, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=60)
        assert process.exitcode == 0
    told = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert told[0]["state"] == told[1]["state"]
    for rank in range(2):
        resumed = loader(folder, rank=rank, world_size=2)
        resumed.load_state_dict(told[0]["state"])
        assert plain(resumed) == told[rank]["tail"]


def test_a_reader_that_finds_nothing_says_so(tmp_path: Path) -> None:
    empty = loader(write_shards(tmp_path, (3, 0)), source=stream(tmp_path, shuffle_shards=False), num_workers=2)
    with pytest.raises(SourceError, match=r"reader 1 of 2 .* gets no sample"):
        list(empty)


def test_a_short_share_begins_again_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(tmp_path, (20, 6))
    settings: dict[str, Any] = {"samples_per_epoch": 32, "num_workers": 2}
    one = loader(tmp_path, source=stream(tmp_path, shuffle_shards=False), **settings)
    running = iter(one)
    head = plain(islice(running, 6))
    state = json.loads(json.dumps(one.state_dict()))
    whole = head + plain(running)
    from_short = [number for batch, _ in whole[1::2] for number in batch]
    assert sorted(from_short[:6]) == sorted(from_short[6:12]) == list(range(20, 26))
    assert caplog.text.count("ended within epoch 0 and began again") == 1
    assert one.telemetry()["counters"] == {"toy/rounds": 2}
    resumed = loader(tmp_path, source=stream(tmp_path, shuffle_shards=False), **settings)
    resumed.load_state_dict(state)
    assert head + plain(resumed) == whole
    one.close()
    resumed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_its_sample(folder: Path, workers: int) -> None:
    one = loader(folder, decoder=Numbers(bad=(30,)), num_workers=workers)
    started = time.monotonic()
    with pytest.raises(SampleError, match=r"sample '2:s030' of toy \(.*2\.tar#s030\): .*spoilt") as caught:
        list(one)
    assert time.monotonic() - started < 5
    if workers:
        assert any("in worker" in note and "Traceback" in note for note in caught.value.__notes__)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_noticed(folder: Path) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerDiedError, match="was killed by signal 9"):
        list(loader(folder, decoder=Numbers(deadly=30), num_workers=2))
    assert time.monotonic() - started < 5
    assert not multiprocessing.active_children()


def test_a_worker_that_hangs_meets_the_deadline(folder: Path) -> None:
    with pytest.raises(LoaderTimeoutError, match=r"batch \d+ of epoch 0 did not come of worker \d"):
        list(loader(folder, decoder=Numbers(slow=30), num_workers=2, timeout=0.5))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_skipped_and_written_down(tmp_path: Path, workers: int) -> None:
    write_shards(tmp_path, broken=(17,))
    settings: dict[str, Any] = {
        "decoder": Numbers(bad=(5, 6, 40)),
        "num_workers": workers,
        "samples_per_epoch": TOTAL - 8,
        "quarantine": Quarantine(max_bad_share=0.2),
        "ledger": tmp_path,
    }
    one = loader(tmp_path, **settings)
    running = iter(one)
    head = plain(islice(running, 4))
    state = json.loads(json.dumps(one.state_dict()))
    whole = head + plain(running)
    seen = [number for batch, _ in whole for number in batch]
    assert not {5, 6, 17, 40} & set(seen)
    written = entries(tmp_path / "quarantine.rank0.jsonl")
    assert len(written) == len(one.bad_samples()) == one.statistics()["skipped"] >= 3
    assert one.statistics()["read"] == TOTAL - 8
    assert {entry["id"] for entry in written} <= {"0:s005", "0:s006", "3:s040", ""}
    assert all(entry["replacement"] for entry in written)
    one.close()
    resumed = loader(tmp_path, **settings)
    resumed.load_state_dict(state)
    assert head + plain(resumed) == whole
    assert entries(tmp_path / "quarantine.rank0.jsonl") == written
    assert resumed.statistics() == one.statistics()
    resumed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_end_the_run(folder: Path, tmp_path: Path, workers: int) -> None:
    one = loader(
        folder,
        decoder=Numbers(bad=tuple(range(TOTAL))),
        num_workers=workers,
        quarantine=Quarantine(max_bad_share=0.1),
        ledger=tmp_path,
    )
    with pytest.raises(TooManyBadSamplesError, match=r"5 bad samples among the 48 .* max_bad_share=0.1"):
        list(one)
    assert len(entries(tmp_path / "quarantine.rank0.jsonl")) == 5
    assert not multiprocessing.active_children()


class Flaky(WebDatasetStream):
    """Fails once on its way."""

    failures = 1

    def _read_shard(self, shard: int, first: int) -> Iterator[RawSample]:
        for number, sample in enumerate(super()._read_shard(shard, first), first):
            if number == 6 and self.failures:
                self.failures -= 1
                raise TransientError("toy://6", "busy")
            yield sample


def test_a_transient_error_is_tried_again(folder: Path) -> None:
    def flaky() -> Flaky:
        return Flaky(name="toy", storage=LocalStorage(root=folder), shuffle_buffer=5, seed=3)

    one = loader(folder, source=flaky(), quarantine=Quarantine(backoff=0))
    assert plain(one) == plain(loader(folder))
    assert one.statistics()["retried"] == 1
    assert not one.bad_samples()
    with pytest.raises(TransientError, match="busy"):
        list(loader(folder, source=flaky()))
