"""WebDataset shards at random: the index, fields, what is refused, and other writers' and readers' shards."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from servers import start_http
from tar_shards import HOSTILE, expected, special, tar, write_shards

from neurotrain.data.sources import SampleFormatError, WebDatasetSource, WebDatasetStream
from neurotrain.storage import HttpStorage, LocalStorage, MemoryStorage, ObjectNotFoundError, Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_shards(tmp_path / "data", (5, 1, 7))


def _source(where: Path | Storage, **settings: object) -> WebDatasetSource:
    storage = where if isinstance(where, Storage) else LocalStorage(root=where)
    source = WebDatasetSource(name="toy", storage=storage, **settings)  # pyright: ignore[reportArgumentType]
    source.setup()
    return source


def test_every_sample_at_random(folder: Path) -> None:
    source = _source(folder)
    assert len(source) == 13
    for index in np.random.default_rng(0).permutation(13).tolist():
        sample = source.read(index)
        shard = int(index >= 5) + int(index >= 6)
        assert dict(sample.fields) == expected(index)
        assert sample.id == f"train-{shard:03d}:s{index:03d}"
        assert sample.uri == f"file://{folder}/train-{shard:03d}.tar#s{index:03d}"
        assert set(sample.identity) == {"image"}


def test_table(folder: Path) -> None:
    table = _source(folder).table()
    assert table.column_names == ["id", "shard", "size", "label"]
    assert table.slice(6, 1).to_pylist() == [
        {"id": "train-002:s006", "shard": 2, "size": (1 + 97 * 6) + 1 + len("größe 6".encode()), "label": 2}
    ]
    assert table.column("id").to_pylist() == [_source(folder).read(index).id for index in range(13)]


def test_index_is_built_once_for_a_state_of_a_shard(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    first = _source(folder, index_dir=index)
    made = {path: path.stat().st_mtime_ns for path in index.iterdir()}
    assert len(made) == 3
    again = _source(folder, index_dir=index)
    assert {path: path.stat().st_mtime_ns for path in index.iterdir()} == made
    assert again.fingerprint() == first.fingerprint()
    assert again.table().equals(first.table())
    (folder / "train-001.tar").write_bytes(tar([("new.jpg", b"\xff")]))
    changed = _source(folder, index_dir=index)
    assert changed.read(5).id == "train-001:new"
    assert len(list(index.iterdir())) == 4
    assert changed.fingerprint() != first.fingerprint()


def test_a_kept_index_that_is_damaged_is_made_anew(folder: Path, tmp_path: Path) -> None:
    _source(folder, index_dir=tmp_path / "index")
    for path in (tmp_path / "index").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert dict(_source(folder, index_dir=tmp_path / "index").read(12).fields) == expected(12)


def test_narrower_limits_hold_for_a_kept_index(folder: Path, tmp_path: Path) -> None:
    _source(folder, index_dir=tmp_path / "index")
    with pytest.raises(SampleFormatError, match="at most 100: raise largest_member"):
        _source(folder, index_dir=tmp_path / "index", largest_member=100)
    with pytest.raises(SampleFormatError, match="more than 10 members"):
        _source(folder, index_dir=tmp_path / "index", most_members=10)


def test_only_headers_and_one_sample_are_fetched() -> None:
    storage = MemoryStorage(name="tar-ranges")
    big = b"x" * (3 * 2**20)
    storage.write("a.tar", tar([item for n in range(5) for item in ((f"{n}.jpg", big), (f"{n}.txt", b"t"))]))
    source = _source(storage)
    indexing = storage.statistics().bytes_read
    assert indexing < 6 * 2**20 + 2**16  # a block for each header
    source.read(3)
    assert 0 < storage.statistics().bytes_read - indexing - len(big) < 2000
    assert storage.statistics().reads < 10


def test_same_from_any_storage(folder: Path) -> None:
    memory = MemoryStorage(name="tar-same")
    for path in folder.iterdir():
        memory.write(path.name, path.read_bytes())
    assert _source(memory).fingerprint() == _source(folder).fingerprint()
    assert dict(_source(memory).read(7).fields) == expected(7)


def test_unpickled(folder: Path, tmp_path: Path) -> None:
    for settings in ({}, {"index_dir": tmp_path / "index"}):
        source = _source(folder, **settings)
        assert dict(pickle.loads(pickle.dumps(source)).read(11).fields) == expected(11)


def test_fields_by_extension(tmp_path: Path) -> None:
    members = [
        ("p/x.1.jpg", b"i"),
        ("p/x.mask.png", b"m"),
        ("p/x.JSON", b"{}"),
        ("README", b"?"),
        ("p/.hidden.jpg", b"?"),
    ]
    (tmp_path / "a.tar").write_bytes(tar([special("p", tarfile.DIRTYPE), *members]))
    sample = _source(tmp_path).read(0)
    assert len(_source(tmp_path)) == 1
    assert dict(sample.fields) == {"1.jpg": b"i", "mask": b"m", "json": b"{}"}
    chosen = _source(tmp_path, fields={"image": "png;1.jpg", "mask": "mask.png"}).read(0)
    assert dict(chosen.fields) == {"image": b"i", "mask": b"m"}


def test_leading_dot_of_names_written_by_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar([special("./", tarfile.DIRTYPE), ("./x.jpg", b"i")]))
    assert _source(tmp_path).read(0).id == "a:x"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": {"image": "jpeg"}}, r"fields.image='jpeg': no member has it; nearest: 'jpg'"),
        ({"fields": {}}, "name at least one"),
        ({"fields": {"image": "jpg;"}}, "name an extension"),
        ({"fields": {"image": "jpg", "mask": "jpg"}}, "feeds 'image' already"),
        ({"largest_member": 0}, "largest_member=0: must be at least 1"),
        ({"most_members": 0}, "most_members=0"),
        ({"shards": ()}, "name at least one"),
        ({"shards": "val-*.tar"}, "nothing like it below"),
        ({"shards": "train-{000..9999999999}.tar"}, "would be 10000000000 keys, at most"),
        ({"shards": "train-{a..z}.tar"}, "counts from one number to another"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _source(folder, **settings)


def test_keys_as_ids(folder: Path) -> None:
    source = _source(folder, ids="key")
    assert source.read(6).id == "s006"
    assert source.table().column("id").to_pylist() == [f"s{number:03d}" for number in range(13)]
    (folder / "train-003.tar").write_bytes((folder / "train-001.tar").read_bytes())
    assert len(_source(folder)) == 14
    with pytest.raises(ValueError, match=r"ids='key'.* 1 ids are there more than once, as 's005'"):
        _source(folder, ids="key")
    with pytest.raises(ValueError, match="ids='keys': 'shard' or 'key'"):
        _source(folder, ids="keys")


def test_over_http(folder: Path, tmp_path: Path) -> None:
    """A web server lists nothing: shards are named."""
    with start_http(folder) as web:
        storage = HttpStorage(base_url=web.url, allowed_hosts=("127.0.0.1",))
        source = _source(storage, shards="train-{000..002}.tar", index_dir=tmp_path / "index")
        assert [dict(source.read(index).fields) for index in range(13)] == [expected(number) for number in range(13)]
        stream = WebDatasetStream(name="toy", storage=storage, shards="train-{000..002}.tar", shuffle_buffer=3)
        assert len(list(stream.stream(epoch=0, shard=0, shards=1))) == 13
        storage.close()


def test_braces(folder: Path) -> None:
    assert len(_source(folder, shards="train-{000..001}.tar")) == 6
    assert len(_source(folder, shards=["train-00{0,2}.tar", "train-002.tar"])) == 12
    with pytest.raises(ObjectNotFoundError, match=r"train-003\.tar"):
        _source(folder, shards="train-{000..003}.tar")


@pytest.mark.parametrize(
    "shards",
    [
        "pipe:touch canary",
        "pipe:cat train-000.tar | touch canary; cat train-000.tar",
        "{pipe:touch canary,train-000.tar}",
        "gopen+exec:touch canary",
        "file:/etc/passwd",
        "https://example.org/a.tar",
        "../data/train-000.tar",
        "{..,x}/train-000.tar",
        "/etc/passwd",
    ],
)
def test_commands_urls_and_ways_out_are_no_shards(
    folder: Path, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"not a URL or a command|relative path|no key|one number to another"):
        _source(folder, shards=shards)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_damaged_shards_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, reason = HOSTILE[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.tar").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    with pytest.raises(SampleFormatError, match=reason) as caught:
        _source(tmp_path / "in", index_dir=tmp_path / "index")
    assert "bad.tar" in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "bad.tar"]


def test_wrong_values(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar([("a.jpg", b"i"), ("a.txt", b"\xff\xfe"), ("b.png", b"i"), ("b.jpg", b"i")]))
    source = _source(tmp_path)
    with pytest.raises(SampleFormatError, match=r"a\.tar#a: a\.txt is not UTF-8"):
        source.read(0)
    with pytest.raises(SampleFormatError, match=r"a\.tar#b: 'png' and 'jpg' both feed 'image'"):
        source.read(1)
    with pytest.raises(SampleFormatError, match=r"a\.tar#b: no text; it has 'png', 'jpg'"):
        _source(tmp_path, fields={"text": "txt"}).read(1)
    (tmp_path / "a.tar").write_bytes(tar([("a.jpg", b"i"), ("a.cls", b"cat")]))
    with pytest.raises(SampleFormatError, match=r"a\.cls is no number"):
        _source(tmp_path)


def test_shard_that_changes_under_a_run(folder: Path) -> None:
    source = _source(folder)
    path = folder / "train-002.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SampleFormatError, match="changed since it was indexed"):
        source.read(12)
    assert dict(source.read(0).fields) == expected(0)


def test_compressed_shards_are_for_streams(tmp_path: Path) -> None:
    write_shards(tmp_path, (2,), packed=True)
    with pytest.raises(ValueError, match="no random access: unpack it, or use WebDatasetStream"):
        _source(tmp_path, shards="*.tar.gz")


def test_without_samples(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar([("README", b"nothing")]))
    with pytest.raises(ValueError, match="1 shards without a sample"):
        _source(tmp_path)


def test_no_such_entry(folder: Path) -> None:
    for index in (-1, 13):
        with pytest.raises(IndexError, match=f"no entry {index}, there are 13"):
            _source(folder).read(index)
    with pytest.raises(RuntimeError, match="setup"):
        len(WebDatasetSource(name="toy", storage=LocalStorage(root=folder)))


def test_shards_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What webdataset writes is read here, and grouped alike by its own reader."""
    import webdataset
    import webdataset.utils
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    monkeypatch.setattr(webdataset.utils, "enforce_security", True)
    with (tmp_path / "a.tar").open("wb") as file, webdataset.TarWriter(file) as writer:
        for number in range(4):
            image = np.full((3, 3, 3), number, dtype=np.uint8)
            values = {"png": image, "cls": number, "meta.json": {"n": number}, "txt": "é"}
            writer.write({"__key__": f"dir/{number}", **values})
    with (tmp_path / "a.tar").open("rb") as file:
        theirs = list(group_by_keys({**item, "__url__": "a"} for item in tar_file_iterator(file)))
    source = _source(tmp_path)
    assert len(source) == len(theirs) == 4
    for index, other in enumerate(theirs):
        sample = source.read(index)
        assert sample.id == f"a:{other['__key__']}"
        assert sample.fields["image"] == other["png"]
        assert json.loads(sample.fields["meta.json"]) == {"n": index}
        assert (sample.fields["label"], sample.fields["caption"]) == (index, "é")
