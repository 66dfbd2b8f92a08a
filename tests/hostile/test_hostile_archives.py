"""Shards, tables and names that lead out of their folder, run a command or never end."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from canaries import Canary

from neurotrain.app.simpletuner import convert_file
from neurotrain.data.convert import convert
from neurotrain.data.sources import (
    FolderSource,
    ParquetSource,
    SampleFormatError,
    Source,
    SourceError,
    TableSource,
    WebDatasetSource,
    WebDatasetStream,
)
from neurotrain.data.sources.parquet_groups import decode_parquet
from neurotrain.data.sources.parquet_pages import page_header
from neurotrain.storage import LocalStorage, StorageError, open_storage


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", data: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


SHARDS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "out by dots": (lambda out: tar(member("../fired.jpg", data=b"x")), "leads out"),
    "absolute": (lambda out: tar(member(f"{out}/fired.jpg", data=b"x")), "leads out"),
    "a link, then a file through it": (
        lambda out: tar(member("a.jpg", tarfile.SYMTYPE, str(out)), member("a.jpg/fired.jpg", data=b"x")),
        "a symbolic link",
    ),
    "a hard link": (lambda out: tar(member("a.jpg", tarfile.LNKTYPE, "/etc/passwd")), "a hard link"),
    "a device": (lambda out: tar(member("a.jpg", tarfile.BLKTYPE)), "a device"),
    "a pipe": (lambda out: tar(member("a.jpg", tarfile.FIFOTYPE)), "a named pipe"),
    "a pickle": (lambda out: tar(member("a.pyd", data=b"cos\nsystem\n(S'true'\ntR.")), "is a pickle"),
    "a pickle in capitals": (lambda out: tar(member("a.PICKLE", data=b"x")), "is a pickle"),
    "a checkpoint": (lambda out: tar(member("a.pth", data=b"x")), "is a pickle"),
    "too large a member": (lambda out: tar(member("a.jpg", data=bytes(2**21))), "at most 1048576: raise"),
    "too many members": (lambda out: tar(*(member(f"{n}.jpg") for n in range(20))), "more than 16 members"),
}  # fmt: skip


def first_of(source: Source) -> object:
    source.setup()
    return source.read(0)


LIMITS = {"largest_member": 2**20, "most_members": 16}


@pytest.mark.parametrize("layout", ["folder", "huggingface", "webdataset"])
@pytest.mark.parametrize("name", SHARDS)
def test_shards_that_are_converted(name: str, layout: str, tmp_path: Path, canary: Canary) -> None:
    make, reason = SHARDS[name]
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "hostile.tar").write_bytes(make(canary.path.parent))
    before = sorted(tmp_path.rglob("*"))
    shards = WebDatasetSource(name="x", storage=LocalStorage(root=source), **LIMITS)  # type: ignore[arg-type]
    with pytest.raises(SampleFormatError, match=rf"hostile\.tar.*{reason}"):
        convert(shards, layout=layout, target=str(target))
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path not in before] == []
    assert list(canary.path.parent.iterdir()) == []


def test_a_compressed_shard_that_never_ends(tmp_path: Path) -> None:
    """Members that nobody wants are passed over, yet unpacked: their sum is bounded."""
    members = [member(f"s.unwanted{n}", data=bytes(2**20)) for n in range(12)]
    (tmp_path / "hostile.tar.gz").write_bytes(gzip.compress(tar(*members, member("s.jpg", data=b"x")), 9))
    assert (tmp_path / "hostile.tar.gz").stat().st_size < 2**15
    storage = LocalStorage(root=tmp_path)

    def stream(**limits: int) -> WebDatasetStream:
        return WebDatasetStream(
            name="x", storage=storage, shards="*.tar.gz", fields={"image": "jpg"}, shuffle_buffer=1, **limits
        )

    shard = list(stream(largest_shard=2**24)._read_shard(0, 0))
    assert [sample.fields for sample in shard] == [{"image": b"x"}]
    with pytest.raises(SampleFormatError, match=r"hostile\.tar\.gz: .*more than 4194304 bytes: raise largest_shard"):
        list(stream(largest_shard=2**22)._read_shard(0, 0))


COMMANDS = ["pipe:{command}", "pipe:{command} |", "|{command}", "file:///etc/passwd", "../*.tar", "/etc/*.tar",
            "gs://bucket/a.tar", "simplecache::http://127.0.0.1/a.tar"]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["indexed", "streamed", "parquet"])
def test_commands_for_names(kind: str, name: str, tmp_path: Path, canary: Canary) -> None:
    storage, named = LocalStorage(root=tmp_path), name.format(command=canary.command)
    find: dict[str, Callable[[], object]] = {
        "indexed": WebDatasetSource(name="x", storage=storage, shards=named).setup,
        "streamed": WebDatasetStream(name="x", storage=storage, shards=named).shard_count,
        "parquet": ParquetSource(name="x", storage=storage, files=named).setup,
    }
    with pytest.raises((ValueError, StorageError)):
        find[kind]()


@pytest.mark.parametrize("uri", ["pipe:touch x", "pipe://touch x", "shell://x", "simplecache::file:///etc", "git://x"])
def test_storages_of_other_kinds(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, StorageError)):
        open_storage(uri).read("a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["../secret.png", "/etc/passwd", "a/../../secret.png", "pipe:cat secret", "a\0b"])
def test_rows_that_lead_out(key: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    inside = tmp_path / "in"
    inside.mkdir()
    pq.write_table(pa.table({"image": [key]}), inside / "rows.parquet")
    storage = LocalStorage(root=inside)
    with pytest.raises((ValueError, StorageError)) as refused:
        first_of(TableSource(name="x", storage=storage, table="rows.parquet", tables=storage))
    assert "secret" not in str(refused.value).replace(key, "")


def test_links_in_a_folder_that_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises((ValueError, StorageError)) as refused:
        first_of(FolderSource(name="x", storage=LocalStorage(root=inside)))
    assert "a.png" in str(refused.value) or "in" in str(refused.value)


def test_a_footer_that_claims_more_than_there_is(tmp_path: Path) -> None:
    """One value of 1 MiB, told a hundred thousand times by a dictionary: some kilobytes that decode to 100 GB."""
    value = bytes(2**20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array([value]))
    pq.write_table(pa.table({"image": column}), tmp_path / "hostile.parquet", store_schema=False)
    assert (tmp_path / "hostile.parquet").stat().st_size < 2**20
    source = ParquetSource(name="x", storage=LocalStorage(root=tmp_path), largest_group=2**25)
    source.setup()
    with pytest.raises(SampleFormatError, match=r"hostile\.parquet: row group 0 .*largest_group"):
        source.read(0)


def varint(value: int, length: int | None = None) -> bytes:
    """A number as Thrift writes it, in as many bytes as are asked for."""
    rest, found = value << 1, []
    while rest > 0x7F or (length is not None and len(found) < length - 1):
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*found, rest])


def lying(path: Path, was: int, told: int, *, in_footer: bool) -> None:
    """Rewrite a number in the footer, or in the header of the first page."""
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    pages, rest = data[:footer], data[footer:]
    true = varint(was)
    false = varint(told, len(true))
    assert len(false) == len(true)
    assert true in (rest if in_footer else pages)
    path.write_bytes(pages + rest.replace(true, false) if in_footer else pages.replace(true, false, 1) + rest)


def large_page(folder: Path) -> int:
    """A page of 8 MiB in a kilobyte; what it says it unpacks to."""
    table = pa.table({"image": [bytes(2**23)]})
    settings: dict[str, object] = {"use_dictionary": False, "store_schema": False, "write_statistics": False}
    pq.write_table(table, folder / "hostile.parquet", compression="zstd", **settings)
    assert (folder / "hostile.parquet").stat().st_size < 2**12
    return page_header((folder / "hostile.parquet").read_bytes()[4:])[1]


def parquet(folder: Path, **settings: int) -> ParquetSource:
    return ParquetSource(name="x", storage=LocalStorage(root=folder), columns={"image": "image"}, **settings)


def test_a_page_that_is_larger_than_the_footer_says(tmp_path: Path) -> None:
    large_page(tmp_path)
    chunk = pq.read_metadata(tmp_path / "hostile.parquet").row_group(0).column(0)
    lying(tmp_path / "hostile.parquet", chunk.total_uncompressed_size, 99, in_footer=True)
    tracemalloc.start()
    pool = pa.total_allocated_bytes()
    with pytest.raises(SampleFormatError, match=r"hostile\.parquet: row group 0: the pages of 'image'.*largest_group"):
        first_of(parquet(tmp_path, largest_group=2**20))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    assert pa.total_allocated_bytes() - pool < 2**20
    tracemalloc.stop()
    assert first_of(parquet(tmp_path, largest_group=2**24)) is not None


def test_a_page_that_claims_more_than_it_has(tmp_path: Path) -> None:
    lying(tmp_path / "hostile.parquet", large_page(tmp_path), 2**26 - 1, in_footer=False)
    with pytest.raises(SampleFormatError, match=r"hostile\.parquet: row group 0: the pages of 'image'.*largest_group"):
        first_of(parquet(tmp_path, largest_group=2**25))
    with pytest.raises(SampleFormatError, match=r"hostile\.parquet: row group 0 is corrupted"):
        first_of(parquet(tmp_path))


def test_rows_that_only_the_footer_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.table({"image": [b"x"] * 1000, "label": list(range(1000))})
    pq.write_table(rows, tmp_path / "hostile.parquet", store_schema=False, use_dictionary=False)
    lying(tmp_path / "hostile.parquet", 1000, 8000, in_footer=True)
    with pytest.raises(SampleFormatError, match=r"hostile\.parquet: row group"):
        first_of(parquet(tmp_path))
    monkeypatch.setattr("neurotrain.data.sources.parquet_footer._MOST_ROWS", 5000)
    with pytest.raises(SampleFormatError, match=r"hostile\.parquet: its footer claims 8000 rows, at most 5000"):
        first_of(parquet(tmp_path))


def test_a_table_that_decodes_to_more_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = pa.array(["x" * 2**20])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), value)
    pq.write_table(pa.table({"image": column}), tmp_path / "rows.parquet", store_schema=False)
    monkeypatch.setattr(decode_parquet, "__kwdefaults__", {"largest": 2**24})
    storage = LocalStorage(root=tmp_path)
    with pytest.raises((SourceError, SampleFormatError), match=r"rows\.parquet.* decodes to more than 16777216 bytes"):
        first_of(TableSource(name="x", storage=storage, table="rows.parquet", tables=storage))


def test_python_objects_in_a_file_of_backends(tmp_path: Path, canary: Canary) -> None:
    path = tmp_path / "multidatabackend.json"
    path.write_text(f'!!python/object/apply:os.system ["{canary.command}"]')
    with pytest.raises(ValueError, match=r"multidatabackend\.json"):
        convert_file(path, name="x", experiment=False, options={})
