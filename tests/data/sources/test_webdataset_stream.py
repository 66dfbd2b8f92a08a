"""Streams over tar shards: order, readers, exact resume, compressed and broken shards."""

from __future__ import annotations

import gzip
import json
import tarfile
from itertools import islice
from pathlib import Path

import pytest
from tar_shards import HOSTILE, expected, samples, tar, write_shards

from neurotrain.data.sources import RawSample, SampleFormatError, WebDatasetStream
from neurotrain.storage import LocalStorage

COUNTS = (3, 1, 4, 0, 2, 5)
TOTAL = sum(COUNTS)


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_shards(tmp_path, COUNTS, packed=request.param)


def _stream(folder: Path, **settings: object) -> WebDatasetStream:
    given = {"shards": ["*.tar*"], "shuffle_buffer": 6, **settings}
    return WebDatasetStream(name="toy", storage=LocalStorage(root=folder), **given)  # pyright: ignore[reportArgumentType]


def _numbers(found: list[RawSample]) -> list[int]:
    return [int(sample.id.rpartition(":s")[2]) for sample in found]


def test_every_sample_once(folder: Path) -> None:
    found = list(_stream(folder).stream(epoch=0, shard=0, shards=1))
    numbers = _numbers(found)
    assert sorted(numbers) == list(range(TOTAL))
    assert numbers != sorted(numbers)
    assert all(dict(sample.fields) == expected(number) for number, sample in zip(numbers, found, strict=True))


def test_order_of_an_epoch_is_the_seeds(folder: Path) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return _numbers(list(_stream(folder, seed=seed).stream(epoch=epoch, shard=0, shards=1)))

    assert order(3, 1) == order(3, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 3) for epoch in (0, 1)}) == 4


def test_without_shuffling(folder: Path) -> None:
    stream = _stream(folder, shuffle_shards=False, shuffle_buffer=1)
    assert _numbers(list(stream.stream(epoch=2, shard=0, shards=1))) == list(range(TOTAL))


@pytest.mark.parametrize("sharing", ["shards", "samples"])
@pytest.mark.parametrize("readers", [2, 3])
def test_readers_share(folder: Path, sharing: str, readers: int) -> None:
    parts = [
        _numbers(list(_stream(folder, sharing=sharing).stream(epoch=0, shard=reader, shards=readers)))
        for reader in range(readers)
    ]
    assert all(parts)
    assert sorted(number for part in parts for number in part) == list(range(TOTAL))


def test_more_readers_than_shards(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"6 shards for 8 readers \(workers x ranks\), 2 would have nothing"):
        _stream(folder).stream(epoch=0, shard=0, shards=8)
    parts = [_numbers(list(_stream(folder, sharing="samples").stream(epoch=0, shard=r, shards=8))) for r in range(8)]
    assert sorted(number for part in parts for number in part) == list(range(TOTAL))


@pytest.mark.parametrize(("sharing", "readers"), [("shards", 1), ("shards", 2), ("samples", 3)])
def test_resumed_at_every_place(folder: Path, sharing: str, readers: int) -> None:
    for reader in range(readers):
        whole = list(_stream(folder, sharing=sharing).stream(epoch=1, shard=reader, shards=readers))
        for consumed in range(len(whole) + 1):
            first = _stream(folder, sharing=sharing)
            head = list(islice(first.stream(epoch=1, shard=reader, shards=readers), consumed))
            state = json.loads(json.dumps(first.state_dict()))
            second = _stream(folder, sharing=sharing)
            second.load_state_dict(state)
            assert json.loads(json.dumps(second.state_dict())) == state
            tail = list(second.stream(epoch=1, shard=reader, shards=readers))
            assert head + tail == whole


def test_states_of_several_readers_put_together(folder: Path) -> None:
    whole = [list(_stream(folder).stream(epoch=0, shard=reader, shards=2)) for reader in range(2)]
    parts: dict[str, object] = {}
    for reader, consumed in enumerate((2, 5)):
        stream = _stream(folder)
        list(islice(stream.stream(epoch=0, shard=reader, shards=2), consumed))
        state = stream.state_dict()
        parts.update(state["parts"])
    resumed = _stream(folder)
    resumed.load_state_dict({"identity": state["identity"], "parts": parts})
    for reader, consumed in enumerate((2, 5)):
        assert list(resumed.stream(epoch=0, shard=reader, shards=2)) == whole[reader][consumed:]


def test_a_finished_epoch_stays_finished_and_the_next_begins(folder: Path) -> None:
    first = _stream(folder)
    list(first.stream(epoch=0, shard=0, shards=1))
    second = _stream(folder)
    second.load_state_dict(first.state_dict())
    assert list(second.stream(epoch=0, shard=0, shards=1)) == []
    next_epoch = list(_stream(folder).stream(epoch=1, shard=0, shards=1))
    second.load_state_dict(first.state_dict())
    assert list(second.stream(epoch=1, shard=0, shards=1)) == next_epoch


def test_a_state_of_something_else(folder: Path) -> None:
    stream = _stream(folder)
    list(islice(stream.stream(epoch=0, shard=0, shards=2), 3))
    state = stream.state_dict()
    for other in (_stream(folder, seed=1), _stream(folder, shuffle_buffer=7), _stream(folder, fields={"image": "jpg"})):
        with pytest.raises(ValueError, match="the state is of another stream"):
            other.load_state_dict(state)
    stream.load_state_dict(state)
    with pytest.raises(ValueError, match="the state is of 2 readers"):
        stream.stream(epoch=0, shard=0, shards=3)
    with pytest.raises(ValueError, match="shard=3: shards=3 has 0 to 2"):
        stream.stream(epoch=0, shard=3, shards=3)


def _collected(stream: WebDatasetStream) -> tuple[list[int], list[str]]:
    found: list[RawSample] = []
    wrong: list[str] = []
    while len(wrong) < 10:
        try:
            for sample in stream.stream(epoch=0, shard=0, shards=1):
                found.append(sample)
        except SampleFormatError as error:
            wrong.append(str(error))
        else:
            break
    return _numbers(found), wrong


def test_a_bad_sample_costs_itself(tmp_path: Path) -> None:
    members = samples(0, 12)
    members[4 * 3 + 2] = ("s004.txt", b"\xff\xff")
    (tmp_path / "a.tar").write_bytes(tar(members))
    numbers, wrong = _collected(_stream(tmp_path))
    assert sorted(numbers) == [number for number in range(12) if number != 4]
    assert len(wrong) == 1
    assert "a.tar#s004: s004.txt is not UTF-8" in wrong[0]


def test_a_bad_sample_is_told_of_once_over_a_resume(tmp_path: Path) -> None:
    members = samples(0, 12)
    members[4 * 3 + 2] = ("s004.txt", b"\xff\xff")
    (tmp_path / "a.tar").write_bytes(tar(members))
    stream = _stream(tmp_path)
    with pytest.raises(SampleFormatError, match="s004"):
        list(stream.stream(epoch=0, shard=0, shards=1))
    resumed = _stream(tmp_path)
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    rest = _collected(resumed)
    assert rest == _collected(stream)
    assert not rest[1]


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_shard_costs_its_rest(tmp_path: Path, packed: bool) -> None:
    write_shards(tmp_path, (6, 6), packed=packed)
    path = next(tmp_path.glob("train-000*"))
    if packed:
        path.write_bytes(gzip.compress(tar(samples(0, 6)))[:-60])
    else:
        path.write_bytes(path.read_bytes()[: 9 * 1024 + 700])
    numbers, wrong = _collected(_stream(tmp_path))
    assert set(range(6, 12)) <= set(numbers)
    assert len(numbers) == len(set(numbers)) < 12
    assert len(wrong) == 1
    assert path.name in wrong[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_shards_are_refused(name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, reason = HOSTILE[name]
    (tmp_path / "in").mkdir()
    bad = tmp_path / "in" / ("bad.tar.gz" if packed else "bad.tar")
    bad.write_bytes(gzip.compress(data) if packed else data)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SampleFormatError, match=rf"{reason}|one extension") as caught:
        list(_stream(tmp_path / "in").stream(epoch=0, shard=0, shards=1))
    assert bad.name in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["in", bad.name])


def test_a_bomb_is_not_unpacked_into_memory(tmp_path: Path) -> None:
    """A member that claims much and compresses to little is refused by its header."""
    huge = tarfile.TarInfo("a.jpg")
    huge.size = 2**31
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(huge.tobuf() + bytes(2**22)))
    with pytest.raises(SampleFormatError, match="at most 268435456"):
        list(_stream(tmp_path).stream(epoch=0, shard=0, shards=1))


def test_settings(tmp_path: Path) -> None:
    for settings, message in (
        ({"shuffle_buffer": 0}, "shuffle_buffer=0: at least 1"),
        ({"sharing": "sample"}, "sharing='sample'"),
        ({"largest_member": 0}, "largest_member=0"),
        ({"shards": "pipe:touch canary"}, "not a URL or a command"),
    ):
        with pytest.raises(ValueError, match=message):
            list(_stream(tmp_path, **settings).stream(epoch=0, shard=0, shards=1))
    assert not list(tmp_path.iterdir())
