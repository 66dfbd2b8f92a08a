"""Rows of tables as samples."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neurotrain.data.sources import SourceError, TableSource
from neurotrain.data.sources.table_files import read_table
from neurotrain.storage import LocalStorage, MemoryStorage, Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = LocalStorage(root=tmp_path / "data")
    for key in ("x/007.png", "x/b.png", "m/007.png", "m/b.png"):
        storage.write(key, key.encode())
    return storage


ROWS = b"""path,mask,what,kind,part,weight
x/b.png,m/b.png,"A cat,
asleep.",cat,val,0.5
x/007.png,m/007.png,A fox.,fox,train,2
"""
COLUMNS = {"image": "path", "mask": "mask", "caption": "what", "label": "kind", "split": "part"}


def test_every_column_finds_its_place(storage: Storage) -> None:
    storage.write("rows.csv", ROWS)
    source = TableSource(name="toy", storage=storage, table="rows.csv", columns=COLUMNS)
    source.setup()
    assert source.table().column("id").to_pylist() == ["x/b", "x/007"]
    assert source.table().column("size").to_pylist() == [7, 9]
    assert source.class_names == ("cat", "fox")
    sample = source.read(0)
    assert sample.fields == {
        "image": b"x/b.png",
        "mask": b"m/b.png",
        "caption": "A cat, asleep.",
        "label": 0,
        "label_name": "cat",
        "split": "val",
        "weight": 0.5,
    }
    assert sample.identity == {"image": storage.stat("x/b.png").etag, "mask": storage.stat("m/b.png").etag}
    assert sample.uri == storage.uri_of("x/b.png")
    assert pickle.loads(pickle.dumps(source)).read(1) == source.read(1)


def test_ids_that_look_like_numbers_stay_text(storage: Storage) -> None:
    storage.write("rows.tsv", b"image\tname\n007.png\t01\nb.png\t02\n")
    source = TableSource(
        name="toy", storage=storage, table="rows.tsv", columns={"image": "image", "id": "name"}, folder="x"
    )
    source.setup()
    assert source.table().column("id").to_pylist() == ["01", "02"]
    assert source.read(0).fields["image"] == b"x/007.png"


def test_rows_of_one_image_are_told_apart(storage: Storage) -> None:
    storage.write("rows.jsonl", b'{"image": "x/b.png", "n": 1}\n{"image": "x/b.png", "n": 2}\n')
    source = TableSource(name="toy", storage=storage, table="rows.jsonl")
    source.setup()
    assert source.table().column("id").to_pylist() == ["x/b", "x/b#2"]
    assert [source.read(row).fields["n"] for row in range(2)] == [1, 2]


def test_a_table_elsewhere_with_lists_of_captions(storage: Storage, tmp_path: Path) -> None:
    tables = LocalStorage(root=tmp_path / "tables")
    rows = pa.table({"image": ["x/b.png", "x/007.png"], "texts": [["one", "two"], None], "label": [4, 0]})
    (tmp_path / "tables").mkdir()
    pq.write_table(rows, tmp_path / "tables" / "rows.parquet")
    columns = {"image": "image", "caption": "texts", "label": "label"}
    settings = {"name": "toy", "storage": storage, "table": "rows.parquet", "tables": tables, "columns": columns}
    with pytest.raises(SourceError, match="row 2: column 'texts' is empty"):
        TableSource(**settings).setup()
    source = TableSource(**settings, default_caption="none")
    source.setup()
    assert source.table().column("caption").to_pylist() == ["one\ntwo", "none"]
    assert source.table().column("label").to_pylist() == [4, 0]
    assert source.class_names == ()


def test_everything_that_is_missing_in_one_error(storage: Storage) -> None:
    storage.write("rows.csv", b"image,mask\nx/b.png,m/c.png\nx/d.png,m/b.png\n")
    settings = {"name": "toy", "storage": storage, "table": "rows.csv", "columns": {"image": "image", "mask": "mask"}}
    with pytest.raises(SourceError) as caught:
        TableSource(**settings).setup()
    assert str(caught.value).splitlines()[1:] == [
        f"  {storage.uri_of('x/d.png')}: missing, named in row 2",
        f"  {storage.uri_of('m/c.png')}: missing, named in row 1",
    ]
    unchecked = TableSource(**settings, verify=False)
    unchecked.setup()
    assert unchecked.table().column("size").to_pylist() == [None, None]
    with pytest.raises(OSError, match=r"m/c\.png"):
        unchecked.read(0)


def test_rows_without_a_file(storage: Storage) -> None:
    storage.write("rows.jsonl", b'{"image": "x/b.png"}\n{"other": 1}\n')
    with pytest.raises(SourceError, match="row 2: column 'image' is empty"):
        TableSource(name="toy", storage=storage, table="rows.jsonl").setup()


def test_ids_that_are_there_twice(storage: Storage) -> None:
    storage.write("rows.csv", b"image,name\nx/b.png,a\nx/007.png,a\n")
    source = TableSource(name="toy", storage=storage, table="rows.csv", columns={"image": "image", "id": "name"})
    with pytest.raises(SourceError, match="rows 1 and 2 have the id 'a'"):
        source.setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"image": "image", "captoin": "x"}}, "'captoin': no such role.*nearest: 'caption'"),
        ({"columns": {"mask": "mask"}}, "'image': is missing"),
        ({"classes": ("a",)}, r"classes=\('a',\) has no effect"),
        ({"default_caption": "x"}, "default_caption='x' has no effect"),
        ({"table": "rows.xls"}, "ending must be one of"),
    ],
)
def test_settings_that_cannot_be(storage: Storage, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableSource(**{"name": "toy", "storage": storage, "table": "rows.csv", **settings})


def test_an_absent_column_names_the_nearest(storage: Storage) -> None:
    storage.write("rows.csv", b"img,caption\nx/b.png,a\n")
    with pytest.raises(
        SourceError, match=r"columns\.image='image': no such column, of 'img', 'caption'; nearest: 'img'"
    ):
        TableSource(name="toy", storage=storage, table="rows.csv").setup()


def test_a_column_that_the_index_has_itself(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    storage.write("rows.csv", b"image,etag\nx/b.png,mine\n")
    source = TableSource(name="toy", storage=storage, table="rows.csv")
    source.setup()
    assert "column 'etag' is not kept" in caplog.text
    assert source.table().column("etag").to_pylist() == [storage.stat("x/b.png").etag]


@pytest.mark.parametrize(
    ("key", "data"),
    [("a.csv", b"a,b\n1\n"), ("a.jsonl", b"{"), ("a.parquet", b"PAR1"), ("a.csv", b""), ("a.csv", b"a,a\n1,2\n")],
)
def test_files_that_are_no_table(key: str, data: bytes) -> None:
    with pytest.raises(SourceError, match=r"^a\."):
        read_table(data, key=key)


def test_a_changed_table_or_image_is_seen(tmp_path: Path) -> None:
    storage = MemoryStorage(name="changes")
    storage.write("a.png", b"1")
    storage.write("b.png", b"12")
    sizes: list[list[int]] = []
    for rows in (b"image\na.png\n", b"image\nb.png\na.png\n"):
        storage.write("rows.csv", rows)
        source = TableSource(name="toy", storage=storage, table="rows.csv", index_dir=tmp_path)
        source.setup()
        sizes.append(source.table().column("size").to_pylist())
    assert sizes == [[1], [2, 1]]
