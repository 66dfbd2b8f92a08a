"""Damaged and hostile files: never a wrong number, never a step outside the folder."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from cache_toys import ToyEncoder, ToyPreparation, ToySource, contents, entry_of, key_of, same

from neurotrain.data.cache import CacheFormatError, LatentCache, TensorCache, gc, verify
from neurotrain.data.cache.folder import CacheFolder
from neurotrain.data.cache.manifest import load_manifest, manifests
from neurotrain.data.cache.shard import read_header

COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cache = TensorCache(folder=tmp_path / "c", shard_bytes=6 * 1024)
    for number in range(COUNT):
        cache.put(key_of(number), entry_of(number))
    cache.flush()
    return tmp_path / "c"


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").iterdir())


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def test_any_flipped_bit_of_a_shard_is_a_miss_and_never_a_wrong_number(folder: Path) -> None:
    path = shards(folder)[0]
    sound = path.read_bytes()
    draw = random.Random(0)
    header = int.from_bytes(sound[:8], "little")
    for place in [*draw.sample(range(8 + header), 60), *draw.sample(range(8 + header, len(sound)), 20), 0, 7]:
        flip(path, place)
        report = verify(folder)
        cache = TensorCache(folder=folder)
        found = [cache.get(key_of(number)) for number in range(COUNT)]
        assert all(entry is None or same(entry, entry_of(number)) for number, entry in enumerate(found))
        # A blank among those that fill the header up means nothing, everything else is noticed.
        assert not report.ok or sound[place : place + 1] == b" "
        assert report.ok or None in found
        path.write_bytes(sound)
    assert verify(folder).ok


def test_a_truncated_shard_is_left_out_and_collected(folder: Path) -> None:
    path = shards(folder)[0]
    os.truncate(path, path.stat().st_size - 64)
    report = verify(folder)
    assert list(report.refused) == [path.name]
    assert len(TensorCache(folder=folder)) == report.entries < COUNT
    assert gc(folder).refused == 1
    assert verify(folder).ok


def test_a_damaged_entry_is_encoded_anew_and_found_from_then_on(tmp_path: Path) -> None:
    source = ToySource([number.to_bytes(6, "big") for number in range(8)])
    samples = [source.read(index) for index in range(8)]
    encoder = ToyEncoder()

    def opened() -> LatentCache:
        cache = TensorCache(folder=tmp_path / "c")
        return LatentCache(cache=cache, encoder=encoder, prepare=ToyPreparation(), batch_size=2)

    first = opened()
    expected = first.fetch(samples)
    first.cache.close()
    path = shards(tmp_path / "c")[0]
    _, located = read_header(path.parent, path.name)
    flip(path, located[3].start + 5)
    encoder.seen.clear()
    again = opened()
    assert all(same(left, right) for left, right in zip(again.fetch(samples), expected, strict=True))
    assert len(encoder.seen) == 1
    assert again.cache.statistics.corrupt == 1
    again.cache.close()
    encoder.seen.clear()
    assert all(same(left, right) for left, right in zip(opened().fetch(samples), expected, strict=True))
    assert encoder.seen == []
    assert not verify(tmp_path / "c").ok, "the old bytes are still there"
    gc(tmp_path / "c")
    assert verify(tmp_path / "c").ok
    assert len(contents(tmp_path / "c")) == 8


def test_repairing_removes_what_is_damaged_and_nothing_else(folder: Path) -> None:
    path = shards(folder)[0]
    _, located = read_header(path.parent, path.name)
    flip(path, located[1].start)
    report = verify(folder, repair=True)
    assert report.corrupt == ((path.name, located[1].key.hex()),)
    assert report.repaired
    assert verify(folder).ok
    left = contents(folder)
    assert located[1].key not in left
    assert len(left) == COUNT - 1


def test_a_manifest_says_what_the_headers_say(folder: Path) -> None:
    gc(folder)
    (path,) = manifests(folder)
    headers = CacheFolder(folder)
    (path.rename(folder / "aside"))
    expected = headers.load()
    (folder / "aside").rename(path)
    index = load_manifest(path)
    assert index.shards == expected.shards
    assert [index.located(row) for row in range(COUNT)] == [expected.located(row) for row in range(COUNT)]


def test_a_damaged_manifest_is_noticed_and_not_needed(folder: Path) -> None:
    gc(folder)
    (path,) = manifests(folder)
    for place in range(0, path.stat().st_size, 97):
        flip(path, place)
        assert len(contents(folder)) == COUNT
        assert list(verify(folder).manifests) == [path.name]
        flip(path, place)
    flip(path, 40)
    gc(folder)
    assert verify(folder).ok


def test_a_manifest_of_files_that_are_gone_is_not_believed(folder: Path) -> None:
    cache = TensorCache(folder=folder)
    cache.write_manifest()
    gone = shards(folder)[0]
    lost = {entry.key for entry in read_header(gone.parent, gone.name)[1]}
    gone.unlink()
    assert contents(folder).keys() == {key_of(number) for number in range(COUNT)} - lost
    assert cache.get(next(iter(lost))) is None


def forged(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """Write a manifest whose hash is right and whose content is not."""
    import hashlib

    gc(folder)
    (path,) = manifests(folder)
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    columns = {name: table.column(name).to_numpy().copy() for name in table.column_names}
    about = json.loads(table.schema.metadata[b"neurotrain"])
    change(about, columns)
    table = pa.table(columns).replace_schema_metadata({b"neurotrain": json.dumps(about).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    path.unlink()
    content = sink.getvalue().to_pybytes()
    forgery = folder / f"manifest-{hashlib.blake2b(content, digest_size=16).hexdigest()}.arrow"
    forgery.write_bytes(content)
    return forgery


def _outside(about: dict[str, Any], _: dict[str, Any]) -> None:
    about["shards"][0][0] = "../../../etc/passwd"


def _absolute(about: dict[str, Any], _: dict[str, Any]) -> None:
    about["shards"][0][0] = "/etc/passwd"


def _huge_file(about: dict[str, Any], _: dict[str, Any]) -> None:
    about["shards"][0][1] = 2**80


def _huge_shape(about: dict[str, Any], _: dict[str, Any]) -> None:
    about["specs"][0][0][2] = [2**60, 2**60]


def _negative_shape(about: dict[str, Any], _: dict[str, Any]) -> None:
    about["specs"][0][0][2] = [-1, 4]


def _unknown_dtype(about: dict[str, Any], _: dict[str, Any]) -> None:
    about["specs"][0][0][1] = "O"


def _beyond_the_end(_: dict[str, Any], columns: dict[str, Any]) -> None:
    columns["start"][3] = 2**40


def _wrapping_around(_: dict[str, Any], columns: dict[str, Any]) -> None:
    columns["start"][3] = 2**64 - 64


def _no_such_file(_: dict[str, Any], columns: dict[str, Any]) -> None:
    columns["shard"][0] = 7


def _no_such_layout(_: dict[str, Any], columns: dict[str, Any]) -> None:
    columns["spec"][0] = 2**31


def _unsorted(_: dict[str, Any], columns: dict[str, Any]) -> None:
    columns["high"][:] = columns["high"][::-1]


def _other_type(_: dict[str, Any], columns: dict[str, Any]) -> None:
    columns["start"] = columns["start"].astype(np.float64)


def _missing(_: dict[str, Any], columns: dict[str, Any]) -> None:
    del columns["checksum"]


FORGERIES = [_outside, _absolute, _huge_file, _huge_shape, _negative_shape, _unknown_dtype, _beyond_the_end]
FORGERIES += [_wrapping_around, _no_such_file, _no_such_layout, _unsorted, _other_type, _missing]


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__.strip("_"))
def test_a_hostile_manifest_is_refused(folder: Path, change: Callable[..., None]) -> None:
    path = forged(folder, change)
    with pytest.raises(CacheFormatError, match=path.name):
        load_manifest(path)
    assert list(verify(folder).manifests) == [path.name]
    assert len(contents(folder)) == COUNT


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any], *, length: int | None = None) -> None:
    """Replace a shard's header, keeping its form."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    described = json.loads(content[8 : 8 + size])
    text = json.dumps(change(described) or described, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + content[8 + size :])


def _first(described: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in described.items() if name.endswith("/mean"))


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "shape": lambda d: _first(d).update(shape=[2**60, 2**60]),
    "negative": lambda d: _first(d).update(shape=[-4, -64]),
    "text": lambda d: _first(d).update(shape="4"),
    "float": lambda d: _first(d).update(shape=[256.0]),
    "many": lambda d: _first(d).update(shape=[4, 8, 8, *[1] * 50]),
    "dtype": lambda d: _first(d).update(dtype="F33"),
    "offsets": lambda d: _first(d).update(data_offsets=[0, 2**62]),
    "before": lambda d: _first(d).update(data_offsets=[-64, 960]),
    "list": lambda d: [1, 2],
    "deep": lambda d: {"__metadata__": {"format": d["__metadata__"]["format"]}, "a" * 32 + "/x": {"shape": [[[[]]]]}},
    "empty": lambda d: {"__metadata__": {"format": d["__metadata__"]["format"]}},
    "format": lambda d: d["__metadata__"].update(format="pt"),
    "checksum": lambda d: d["__metadata__"].update({"0" * 32: "00000000"}),
    "unsigned": lambda d: d["__metadata__"].pop(next(name for name in d["__metadata__"] if name != "format")),
    "name": lambda d: d.update({"../../x/mean": d.pop(next(name for name in d if name.endswith("/mean")))}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_header_is_refused(folder: Path, name: str) -> None:
    path = shards(folder)[0]
    rewritten(path, HEADERS[name])
    with pytest.raises(CacheFormatError, match=path.name):
        read_header(path.parent, path.name)
    assert 0 < len(contents(folder)) < COUNT
    assert list(verify(folder).refused) == [path.name]


@pytest.mark.parametrize("length", [2**63, 2**32, 0, 120])
def test_absurd_lengths_of_a_header(folder: Path, length: int) -> None:
    path = shards(folder)[0]
    rewritten(path, lambda described: None, length=length)
    with pytest.raises(CacheFormatError, match=path.name):
        read_header(path.parent, path.name)


def test_links_and_strangers_are_not_read(folder: Path, tmp_path: Path) -> None:
    path = shards(folder)[0]
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    (folder / "shards" / "evil.safetensors").write_bytes(outside.read_bytes())
    with pytest.raises(CacheFormatError, match="link"):
        read_header(path.parent, path.name)
    for name in ("../../outside", "evil.safetensors"):
        with pytest.raises(CacheFormatError, match="not the name"):
            read_header(path.parent, name)
    assert len(contents(folder)) < COUNT
    gc(folder)
    assert outside.exists()


def test_a_marker_of_another_format_or_none(folder: Path) -> None:
    (folder / "cache.json").write_text('{"format": 99}')
    with pytest.raises(CacheFormatError, match="99"):
        TensorCache(folder=folder)
    (folder / "cache.json").write_text("[]")
    with pytest.raises(CacheFormatError, match="damaged"):
        gc(folder)


def test_a_file_cut_short_under_an_open_cache_is_noticed_before_it_is_mapped(folder: Path) -> None:
    cache = TensorCache(folder=folder)
    for path in shards(folder):
        os.truncate(path, 64)
    assert all(cache.get(key_of(number)) is None for number in range(COUNT))


def test_a_value_is_right_or_absent_whatever_is_written_over_the_table_of_times(folder: Path) -> None:
    cache = TensorCache(folder=folder, max_bytes=10**6)
    (folder / "recency.bin").write_bytes(os.urandom(8 * 2**20))
    cache.put(key_of(100), {"mean": torch.zeros(3)})
    cache.close()
    report = gc(folder, max_bytes=4_000)
    assert report.nbytes <= 4_000
    assert verify(folder).ok
