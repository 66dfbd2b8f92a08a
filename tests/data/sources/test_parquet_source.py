"""Parquet: columns, filters, random access, corrupted files, and the real CIFAR-10."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from neurotrain.data.sources import ParquetSource, SampleFormatError
from neurotrain.storage import LocalStorage, MemoryStorage, ObjectNotFoundError, Storage, TruncatedError

ROWS, GROUP = 30, 4


def _rows(first: int, count: int = ROWS) -> pa.Table:
    numbers = range(first, first + count)
    images = [
        {"bytes": bytes([number]) * (1 + number % 7), "path": f"class{number % 3}/{number}.png"} for number in numbers
    ]
    columns = {
        "img": pa.array(images, type=pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "label": [number % 3 for number in numbers],
        "text": [f"größe {number}" for number in numbers],
        "score": [number / 2 for number in numbers],
        "tags": [["a"]] * count,
    }
    return pa.table(columns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        pq.write_table(_rows(number * ROWS), tmp_path / f"part-{number}.parquet", row_group_size=GROUP)
    return tmp_path


def _source(folder: Path | Storage, **settings: object) -> ParquetSource:
    storage = folder if isinstance(folder, Storage) else LocalStorage(root=folder)
    source = ParquetSource(name="toy", storage=storage, **settings)  # pyright: ignore[reportArgumentType]
    source.setup()
    return source


def _expected(number: int) -> dict[str, object]:
    image = bytes([number]) * (1 + number % 7)
    return {"image": image, "caption": f"größe {number}", "label": number % 3}


def _zero(path: Path, *, group: int, column: str) -> None:
    """Overwrite one column of one row group with zeros."""
    metadata = pq.read_metadata(path).row_group(group)
    (chunk,) = (c for c in map(metadata.column, range(metadata.num_columns)) if c.path_in_schema == column)
    start, size = chunk.dictionary_page_offset or chunk.data_page_offset, chunk.total_compressed_size
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(size) + data[start + size :])


@pytest.mark.parametrize("mapped", [False, True])
def test_every_row_at_random(folder: Path, tmp_path: Path, mapped: bool) -> None:
    source = _source(folder, decoded_dir=tmp_path / "decoded" if mapped else None)
    order = np.random.default_rng(0).permutation(len(source))
    assert len(source) == 2 * ROWS
    for index in order.tolist():
        sample = source.read(index)
        assert dict(sample.fields) == _expected(index)
        assert sample.id == f"part-{index // ROWS}:{index % ROWS}"
        assert sample.uri == f"file://{folder}/part-{index // ROWS}.parquet#{index % ROWS}"
    assert len(list(tmp_path.glob("decoded/*.arrow"))) == (16 if mapped else 0)


def test_second_run_maps_what_the_first_decoded(folder: Path, tmp_path: Path) -> None:
    decoded = tmp_path / "decoded"
    _source(folder, decoded_dir=decoded).read(0)
    (made,) = decoded.glob("*.arrow")
    before = made.stat().st_mtime_ns
    assert _source(folder, decoded_dir=decoded).read(1).fields["label"] == 1
    made.write_bytes(made.read_bytes()[:40])  # cut by somebody: made anew
    assert _source(folder, decoded_dir=decoded).read(1).fields["label"] == 1
    assert made.stat().st_mtime_ns != before


def test_cache_is_bounded_and_keeps_what_is_used(folder: Path) -> None:
    with pytest.warns(UserWarning, match="give decoded_dir"):
        source = _source(folder, cache_bytes=300)
    for index in [0, 59, 1, 58, *range(60)]:
        assert source.read(index).fields["label"] == index % 3
    held = source._decoded._held
    assert 1 <= len(held) < 16
    assert sum(item.bytes for item in held.values()) <= 300


def test_same_rows_from_any_storage(folder: Path) -> None:
    memory = MemoryStorage(name="parquet-rows")
    for path in folder.glob("*.parquet"):
        memory.write(path.name, path.read_bytes())
    here, there = _source(folder), _source(memory)
    assert here.fingerprint() == there.fingerprint()
    for index in range(0, 60, 7):
        assert dict(here.read(index).fields) == dict(there.read(index).fields)
        assert here.read(index).identity == there.read(index).identity


def test_only_needed_columns_are_read(folder: Path) -> None:
    memory = MemoryStorage(name="parquet-columns")
    big = _rows(0).append_column("big", [[b"x" * 2**20] * ROWS])
    buffer = BytesIO()
    pq.write_table(big, buffer, row_group_size=GROUP, compression="none", use_dictionary=False)
    memory.write("a.parquet", buffer.getvalue())
    source = _source(memory, columns={"label": "label"})
    footers = memory.statistics().bytes_read
    assert footers < 2**17
    assert [source.read(index).fields["label"] for index in range(ROWS)] == [index % 3 for index in range(ROWS)]
    assert memory.statistics().bytes_read - footers < 10 * 2**20  # 30 MiB lie there; a read fetches at least a block


def test_filters(folder: Path) -> None:
    source = _source(
        folder, filters=[("label", "in", (1, 2)), ("score", ">=", 10), ("img.path", "!=", "class1/22.png")]
    )
    kept = [number for number in range(20, 60) if number % 3 and number != 22]
    assert [source.read(index).fields["caption"] for index in range(len(source))] == [f"größe {n}" for n in kept]
    assert source.table().column("label").to_pylist() == [number % 3 for number in kept]
    assert source.fingerprint() != _source(folder).fingerprint()


def test_row_groups_that_cannot_match_are_not_read(folder: Path) -> None:
    source = _source(folder, filters=[("score", "<", 2.0)])
    assert len(source) == 4
    _zero(folder / "part-1.parquet", group=0, column="score")
    assert len(_source(folder, filters=[("score", "<", 2.0)])) == 4
    with pytest.raises(SampleFormatError, match=r"part-1\.parquet: .* corrupted"):
        _source(folder, filters=[("score", "<", 17.0)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": {"image": "img.byte"}}, r"columns.image='img.byte': no such column; nearest: 'img.bytes'"),
        ({"columns": {"image": "image"}}, r"nearest: 'img'"),
        ({"columns": {"label": "tags"}}, r"a column of type list<.*> is no field"),
        ({"columns": {}}, "name at least one"),
        ({"filters": [("labl", "==", 1)]}, r"filters\[0\]='labl': no such column; nearest: 'label'"),
        ({"filters": [("label", "=", 1)]}, "operator '=' is not one of '=='"),
        ({"filters": [("label", "==", "one")]}, "'one' is not comparable with 'label' of type int64"),
        ({"filters": [("label", "in", 1)]}, "'in' takes a sequence"),
        ({"filters": [("img", "==", 1)]}, "bytes are not compared"),
        ({"filters": [("label", "==", 7)]}, "none of 60 rows meets them"),
        ({"table_columns": ["scor"]}, "nearest: 'score'"),
        ({"files": "*.pq"}, r"files='\*.pq': nothing like it"),
        ({"files": ()}, r"files=\(\): name at least one"),
        ({"cache_bytes": 0}, "cache_bytes=0"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _source(folder, **settings)


def test_file_of_another_schema(folder: Path) -> None:
    changed = _rows(0).set_column(1, "label", [[str(n) for n in range(ROWS)]])
    pq.write_table(changed, folder / "part-2.parquet")
    with pytest.raises(ValueError, match=r"part-2\.parquet: 'label' is string, but int64 in file"):
        _source(folder)
    pq.write_table(_rows(0).drop_columns("label"), folder / "part-2.parquet")
    with pytest.raises(ValueError, match=r"part-2.parquet='label': no such column|part-2.parquet.*no such column"):
        _source(folder)


def test_image_is_named_where_several_could_be(tmp_path: Path) -> None:
    pq.write_table(pa.table({"left": [b"a"], "right": [b"b"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="'left', 'right' could be the image: name it"):
        _source(tmp_path)
    assert dict(_source(tmp_path, columns={"image": "right"}).read(0).fields) == {"image": b"b"}


def test_ids_of_the_user(folder: Path) -> None:
    source = _source(folder, id_column="text", filters=[("score", ">", 5)])
    assert source.read(0).id == "größe 11"
    assert source.table().column("id").to_pylist() == [source.read(index).id for index in range(len(source))]
    assert _source(folder, id_column="img.path").read(3).id == "class0/3.png"
    with pytest.raises(ValueError, match="id_column='label': 3 ids are there more than once, as 0"):
        _source(folder, id_column="label")
    with pytest.raises(ValueError, match="ids are texts or whole numbers"):
        _source(folder, id_column="score")
    with pytest.raises(ValueError, match="id_column='txt': no such column; nearest: 'text'"):
        _source(folder, id_column="txt")


@pytest.mark.parametrize("damage", ["cut", "footer", "length", "empty", "text"])
def test_corrupted_file_is_named(folder: Path, damage: str) -> None:
    path = folder / "part-1.parquet"
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    broken = {
        "cut": data[:-100],
        "footer": data[:-footer] + bytes(50) + data[50 - footer :],
        "length": data[:-8] + b"\xff\xff\xff\x7f" + data[-4:],
        "empty": b"",
        "text": b"<html>not found, sorry</html>",
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(SampleFormatError, match=r"part-1\.parquet"):
        _source(folder)


def test_corrupted_row_group_costs_its_rows_only(folder: Path) -> None:
    _zero(folder / "part-0.parquet", group=1, column="img.bytes")
    source = _source(folder)
    for index in (GROUP, GROUP + 1, GROUP):
        with pytest.raises(SampleFormatError, match=r"part-0\.parquet: row group 1 is corrupted"):
            source.read(index)
    assert source.read(0).fields["label"] == 0
    assert source.read(2 * GROUP).fields["label"] == 2 * GROUP % 3


def test_null_and_broken_text(tmp_path: Path) -> None:
    caption = pa.array([b"fine", b"\xff\xfe", b"x"]).view(pa.string())
    pq.write_table(pa.table({"image": [b"a", b"b", None], "caption": caption}), tmp_path / "a.parquet")
    source = _source(tmp_path)
    assert source.read(0).fields["caption"] == "fine"
    with pytest.raises(SampleFormatError, match=r"a\.parquet#1: 'caption' is no valid UTF-8"):
        source.read(1)
    with pytest.raises(SampleFormatError, match=r"a\.parquet#2: 'image' is null"):
        source.read(2)


def test_types_of_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": pa.array([b"a", b"b"], type=pa.large_binary()),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "flag": [True, False],
            "small": pa.array([1, 255], type=pa.uint8()),
            "real": pa.array([0.5, 2.0], type=pa.float32()),
            "with.dot": ["p", "q"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    names = ["image", "kind", "flag", "small", "real", "with.dot"]
    sample = _source(tmp_path, columns={name: name for name in names}).read(1)
    assert list(sample.fields.values()) == [b"b", "y", 0, 255, 2.0, "q"]
    assert [type(value) for value in sample.fields.values()] == [bytes, str, int, int, float, str]


def test_no_such_entry(folder: Path) -> None:
    source = _source(folder)
    for index in (-1, 60):
        with pytest.raises(IndexError, match=f"no entry {index}, there are 60"):
            source.read(index)


def test_before_setup(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="setup"):
        len(ParquetSource(name="toy", storage=LocalStorage(root=folder)))


def test_vanished_file(folder: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"part-9\.parquet"):
        _source(folder, files=["part-9.parquet"])


def _labels(source: ParquetSource) -> list[object]:
    return [source.read(index).fields["label"] for index in (0, 59, 31)]


def test_in_a_forked_worker_and_unpickled(folder: Path) -> None:
    source = _source(folder)
    source.read(3)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(_labels, source).result(timeout=60) == [0, 2, 1]
    pickled = pickle.dumps(source)
    assert len(pickled) < 50_000
    assert _labels(pickle.loads(pickled)) == [0, 2, 1]


def test_table_and_names_of_classes(folder: Path) -> None:
    source = _source(folder, table_columns=["score"])
    table = source.table()
    assert table.column_names == ["id", "row_group", "caption", "label", "score"]
    assert table.num_rows == 60
    assert table.slice(33, 1).to_pylist() == [
        {"id": "part-1:3", "row_group": 8, "caption": "größe 33", "label": 0, "score": 16.5}
    ]
    assert source.class_names() == ("class0", "class1", "class2")


def test_names_of_classes_as_datasets_notes_them(tmp_path: Path) -> None:
    table = pa.table({"image": [b"a"], "label": [1]})
    note = b'{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    pq.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "a.parquet")
    assert _source(tmp_path).class_names() == ("cat", "dog")
    pq.write_table(table.replace_schema_metadata({"huggingface": b"[1]"}), tmp_path / "a.parquet")
    assert _source(tmp_path).class_names() is None


def test_truncated_answer_is_not_taken_for_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStorage(name="parquet-truncated")
    memory.write("a.parquet", (folder / "part-0.parquet").read_bytes())
    source = _source(memory)
    whole: Callable[..., bytes] = memory.read
    monkeypatch.setattr(
        memory, "read", lambda key, *, start=0, length=None: whole(key, start=start, length=length)[:50]
    )
    with pytest.raises(TruncatedError, match=r"a\.parquet"):
        source.read(0)
    monkeypatch.undo()
    assert source.read(0).fields["label"] == 0  # a passing fault is not remembered


def test_cifar10_as_it_is(shared_data: Path) -> None:
    source = ParquetSource(name="cifar10", storage=LocalStorage(root=shared_data / "CIFAR10"), files="train-*.parquet")
    source.setup()
    assert len(source) == 50_000
    assert source.class_names() == (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    labels = source.table().column("label").to_numpy()
    assert np.bincount(labels).tolist() == [5_000] * 10
    for index in (0, 12_345, 49_999):
        sample = source.read(index)
        assert sample.fields["label"] == labels[index]
        assert isinstance(sample.fields["image"], bytes)
        assert Image.open(BytesIO(sample.fields["image"])).size == (32, 32)
