"""Manifests on disk: whole or not there, mapped, and honest about damage."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from neurotrain.data.index import (
    ManifestError,
    listing_table,
    load_manifest,
    open_manifest,
    save_manifest,
    table_fingerprint,
    unchanged_rows,
)
from neurotrain.storage import ObjectInfo

TABLE = pa.table({"id": ["a", "b", None], "size": [1, None, 3], "share": [0.5, 1.5, None]})


def test_a_manifest_comes_back_mapped(tmp_path: Path) -> None:
    before = pa.total_allocated_bytes()
    table = pa.table({"id": [f"{number:08}" for number in range(100_000)]})
    saved = save_manifest(tmp_path / "deep" / "a.arrow", table, stamp="now")
    loaded = load_manifest(tmp_path / "deep" / "a.arrow")
    assert loaded.table == saved.table == table
    assert (loaded.stamp, loaded.fingerprint) == ("now", table_fingerprint(table))
    del table
    assert pa.total_allocated_bytes() - before < 100_000
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["a.arrow"]


def test_any_arrow_reader_reads_it(tmp_path: Path) -> None:
    save_manifest(tmp_path / "a.arrow", TABLE)
    with pa.OSFile(str(tmp_path / "a.arrow")) as file:
        assert pa.ipc.open_stream(file).read_all().replace_schema_metadata(None) == TABLE


@pytest.mark.parametrize("place", [0, 100, -1, "cut", "empty", "foreign"])
def test_damage_is_told_and_mended(tmp_path: Path, place: int | str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.arrow"
    save_manifest(path, TABLE, stamp="s")
    content = bytearray(path.read_bytes())
    if isinstance(place, int):
        content[place] ^= 1
    else:
        content = {"cut": content[:-7], "empty": bytearray(), "foreign": bytearray(b"x" * 500)}[place]
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"a\.arrow"):
        load_manifest(path)
    given: list[pa.Table | None] = []

    def build(previous: pa.Table | None) -> pa.Table:
        given.append(previous)
        return TABLE

    with caplog.at_level(logging.WARNING):
        again = open_manifest(path, stamp="s", build=build)
    assert given == [None]
    assert "it is built again" in caplog.text
    assert again.table == load_manifest(path).table == TABLE


def test_built_once_and_again_from_what_was_there(tmp_path: Path) -> None:
    given: list[pa.Table | None] = []

    def build(previous: pa.Table | None) -> pa.Table:
        given.append(previous)
        return TABLE

    path = tmp_path / "a.arrow"
    for stamp in ("one", "one", None, "two"):
        open_manifest(path, stamp=stamp, build=build)
    assert given == [None, TABLE]
    assert open_manifest(None, stamp="x", build=build).path is None


def test_a_failed_build_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    save_manifest(path, TABLE, stamp="one")

    def build(previous: pa.Table | None) -> pa.Table:
        raise RuntimeError("storage went away")

    with pytest.raises(RuntimeError, match="went away"):
        open_manifest(path, stamp="two", build=build)
    assert load_manifest(path).stamp == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.arrow"]


def test_pickled_as_its_path(tmp_path: Path) -> None:
    table = pa.table({"id": [f"{number:08}" for number in range(10_000)]})
    saved = save_manifest(tmp_path / "a.arrow", table)
    sent = pickle.dumps(saved)
    assert len(sent) < 1000
    assert pickle.loads(sent).table == table
    save_manifest(tmp_path / "a.arrow", TABLE)
    with pytest.raises(ManifestError, match="rebuilt while it was in use"):
        pickle.loads(sent)
    assert saved.table == table  # the old file is still mapped


def test_the_fingerprint_knows_values_and_order_only() -> None:
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    narrow = TABLE.set_column(1, "size", TABLE.column("size").cast(pa.int16()))
    same = [chunked, narrow, TABLE.select(["share", "size", "id"]), pa.concat_tables([TABLE, TABLE]).slice(3)]
    assert {table_fingerprint(table) for table in same} == {table_fingerprint(TABLE)}
    others = [
        TABLE.slice(0, 2),
        TABLE.take([1, 0, 2]),
        TABLE.rename_columns(["id", "size", "shape"]),
        TABLE.set_column(0, "id", pa.array(["a", "b", ""])),
        TABLE.set_column(0, "id", pa.array(["ab", "", None])),
        TABLE.set_column(1, "size", pa.array([1, 0, 3])),
        TABLE.append_column("lists", pa.array([[1], [], None])),
        TABLE.append_column("lists", pa.array([[], [1], None])),
    ]
    assert len({table_fingerprint(table) for table in [TABLE, *others]}) == 9
    assert table_fingerprint(TABLE, columns=["id", "absent"]) == table_fingerprint(TABLE.select(["id"]))


def test_only_what_changed_is_read_again() -> None:
    def info(key: str, size: int | None, etag: str | None, modified: float | None) -> ObjectInfo:
        return ObjectInfo(key=key, size=size, etag=etag, modified=modified)

    before = listing_table(
        [info("a", 1, "x", 1.0), info("b", 2, None, 1.0), info("c", 3, None, 1.0), info("d", 1, "x", 1)]
    )
    now = listing_table(
        [
            info("a", 1, "x", 9.0),  # same etag, copied: unchanged
            info("b", 2, None, 1.0),  # no etag, same time: unchanged
            info("c", 3, None, 2.0),  # no etag, newer
            info("d", 1, "y", 1.0),  # another etag
            info("e", 1, "x", 1.0),  # new
            info("f", None, None, None),
        ]
    )
    assert unchanged_rows(now, before).tolist() == [0, 1, -1, -1, -1, -1]
    assert unchanged_rows(now, None).tolist() == [-1] * 6
    unknown = listing_table([info("f", None, None, None)])
    assert unchanged_rows(unknown, unknown).tolist() == [-1]


def test_hidden_objects_are_not_listed() -> None:
    keys = ["a.png", ".b.png", "c/.d/e.png", "f/.g", "h..png"]
    infos = [ObjectInfo(key=key, size=1, etag=None, modified=None) for key in keys]
    assert listing_table(infos).column("key").to_pylist() == ["a.png", "h..png"]
    assert listing_table([]).num_rows == 0
