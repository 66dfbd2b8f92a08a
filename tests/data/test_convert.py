"""Conversion: every layout is read back by its source, byte for byte; nothing is overwritten, nothing half written."""

from __future__ import annotations

import csv
import filecmp
import json
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from servers import CREDENTIALS, FolderServer, MotoServer, start_http, start_moto

from neurotrain.data.convert import LAYOUTS, convert
from neurotrain.data.datasets import Drive, ImageMaskFolder, SegmentationDataset
from neurotrain.data.sources import (
    FolderSource,
    HuggingFaceSource,
    ParquetSource,
    SampleFormatError,
    SiblingText,
    Source,
    UrlTableSource,
    WebDatasetSource,
)
from neurotrain.storage import LocalStorage, MemoryStorage, S3Storage, Storage, StorageError, UrlStorage

BASE = "https://example.org/data"


@pytest.fixture
def pairs(tmp_path: Path) -> ImageMaskFolder:
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 2)):
        for number in range(count):
            name = f"{split}.{number}"
            for part, ending, shape in (("images", "jpg", (6, 5, 3)), ("masks", "png", (6, 5))):
                path = tmp_path / "pairs" / split / part / f"{name}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 2, shape) * 255
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return ImageMaskFolder(root=tmp_path / "pairs")


@pytest.fixture
def table(tmp_path: Path) -> ParquetSource:
    """A source with labels, captions, another file and a number."""
    count = 9
    rows = {
        "image": [b"\xff\xd8\xff" + bytes([number]) * number for number in range(count)],
        "conditioning/depth": [b"\x93NUMPY" + bytes([number]) for number in range(count)],
        "label": [number % 3 for number in range(count)],
        "caption": [f'größe "{number}",\nzwei' for number in range(count)],
        "weight": [number / 3 for number in range(count)],
    }
    note = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    whole = pa.table(rows).replace_schema_metadata({"huggingface": json.dumps(note)})
    (tmp_path / "given").mkdir()
    pq.write_table(whole, tmp_path / "given" / "part.parquet")
    columns = {name: name for name in rows}
    return ParquetSource(name="given", storage=LocalStorage(root=tmp_path / "given"), columns=columns)


def _settings(layout: str) -> dict[str, Any]:
    return {"layout": layout, **({"base_url": BASE} if layout == "table" else {})}


def _ready(source: Source) -> Source:
    source.setup()
    return source


def _files(source: Source) -> list[dict[str, bytes]]:
    samples = [source.read(index) for index in range(len(source))]
    return [{name: value for name, value in sample.fields.items() if isinstance(value, bytes)} for sample in samples]


def _expected(data: SegmentationDataset, split: Any, fields: Mapping[str, str]) -> list[dict[str, bytes]]:  # noqa: ANN401
    return [
        {field: getattr(record, part).read_bytes() for field, part in fields.items()} for record in data.records(split)
    ]


def _read_back(layout: str, storage: Storage, split: str, fields: Mapping[str, str]) -> Source:
    """The source of a layout, for one split."""
    names = {"image": "images", "mask": "masks"}
    if layout == "folder":
        patterns = {field: f"{split}/{names.get(field, field)}" for field in fields}
        return _ready(FolderSource(name="x", storage=storage, **patterns))
    if layout == "huggingface":
        columns = {field: field for field in fields}
        return _ready(ParquetSource(name="x", storage=storage, files=f"data/{split}-*.parquet", columns=columns))
    endings = {"image": "tif;jpg", "mask": "mask.gif;mask.png", "valid": "valid.gif"}
    chosen = {field: endings[field] for field in fields}
    return _ready(WebDatasetSource(name="x", storage=storage, shards=f"{split}-*.tar", fields=chosen))


@pytest.mark.parametrize("layout", ["folder", "huggingface", "webdataset"])
def test_a_dataset_is_read_back_byte_for_byte(layout: str, pairs: ImageMaskFolder, tmp_path: Path) -> None:
    report = convert(pairs, target=tmp_path / "out", **_settings(layout))
    assert report.samples == {"train": 5, "test": 2}
    fields = {"image": "image", "mask": "mask"}
    for split in ("train", "test"):
        source = _read_back(layout, LocalStorage(root=tmp_path / "out"), split, fields)
        assert _files(source) == _expected(pairs, split, fields)


def test_table_of_addresses(pairs: ImageMaskFolder, tmp_path: Path) -> None:
    convert(pairs, target=tmp_path / "out", **_settings("table"))
    rows = list(csv.DictReader(StringIO((tmp_path / "out/table.csv").read_text())))
    assert list(rows[0]) == ["id", "split", "image", "mask", "sha256"]
    assert [row["split"] for row in rows] == ["train"] * 5 + ["test"] * 2
    records = [record for split in ("train", "test") for record in pairs.records(split)]
    for row, record in zip(rows, records, strict=True):
        assert row["id"] == record.id
        path = tmp_path / "out" / unquote(row["image"].removeprefix(f"{BASE}/"))
        assert filecmp.cmp(path, record.image, shallow=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_twice_the_same_bytes(layout: str, pairs: ImageMaskFolder, table: ParquetSource, tmp_path: Path) -> None:
    for number, data in enumerate((pairs, table)):
        folders = [tmp_path / f"{number}-{name}" for name in "ab"]
        reports = [convert(data, target=folder, **_settings(layout)) for folder in folders]
        assert reports[0].digest == reports[1].digest
        files = [sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) for folder in folders]
        assert files[0] == files[1]
        assert len(files[0]) == reports[0].files
        match, mismatch, errors = filecmp.cmpfiles(*folders, [str(name) for name in files[0]], shallow=False)
        assert (len(match), mismatch, errors) == (reports[0].files, [], [])


def test_digest_is_of_the_samples_not_of_the_layout(table: ParquetSource, tmp_path: Path) -> None:
    reports = [convert(table, target=tmp_path / layout, **_settings(layout)) for layout in LAYOUTS]
    assert len({report.digest for report in reports}) == 1
    manifest = json.loads((tmp_path / "folder" / "conversion.json").read_text())
    assert manifest["digest"] == reports[0].digest
    assert len(manifest["files"]) == reports[0].files - 1


def test_labels_captions_and_values_of_a_source(table: ParquetSource, tmp_path: Path) -> None:
    given = [table.read(index) for index in range(len(_ready(table)))]
    convert(table, layout="huggingface", target=tmp_path / "hf", splits=["val"], shard_bytes=30)
    columns = {name: name for name in given[0].fields}
    parquet = HuggingFaceSource(name="x", path=str(tmp_path / "hf"), split="val", columns=columns, id_column="id")
    parquet.setup()
    assert len(list((tmp_path / "hf" / "data").iterdir())) > 1
    assert [parquet.read(index).fields for index in range(9)] == [sample.fields for sample in given]
    assert [parquet.read(index).id for index in range(9)] == [sample.id for sample in given]
    assert parquet.class_names() == ("a", "b", "c")
    usual = _ready(HuggingFaceSource(name="x", path=str(tmp_path / "hf"))).read(4).fields
    assert usual == {name: value for name, value in given[4].fields.items() if name != "weight"}

    convert(table, layout="webdataset", target=tmp_path / "wds", shard_bytes=30)
    shards = _ready(WebDatasetSource(name="x", storage=LocalStorage(root=tmp_path / "wds")))
    for index, sample in enumerate(given):
        fields = dict(shards.read(index).fields)
        values = json.loads(fields.pop("json"))
        assert values == {"id": sample.id, **{k: v for k, v in sample.fields.items() if not isinstance(v, bytes)}}
        assert fields == {name: value for name, value in sample.fields.items() if name != "weight"}
    assert shards.table().column("label").to_pylist() == [number % 3 for number in range(9)]

    convert(table, layout="folder", target=tmp_path / "folder")
    patterns: dict[str, Any] = {"image": "train/images", "conditioning": {"depth": "train/conditioning/depth/{id}.npy"}}
    folder = FolderSource(name="x", storage=LocalStorage(root=tmp_path / "folder"), captions=SiblingText(), **patterns)
    folder.setup()
    read = {str(sample.fields["caption"]): sample.fields for sample in map(folder.read, range(9))}
    assert sorted(read) == sorted(str(sample.fields["caption"]) for sample in given)
    assert read[str(given[7].fields["caption"])]["conditioning/depth"] == given[7].fields["conditioning/depth"]


def test_from_one_layout_to_another_and_back(pairs: ImageMaskFolder, tmp_path: Path) -> None:
    convert(pairs, layout="webdataset", target=tmp_path / "a", splits=["train"])
    shards = WebDatasetSource(
        name="a", storage=LocalStorage(root=tmp_path / "a"), fields={"image": "jpg", "mask": "mask.png"}
    )
    convert(shards, layout="huggingface", target=tmp_path / "b")
    fields = {"image": "image", "mask": "mask"}
    parquet = _read_back("huggingface", LocalStorage(root=tmp_path / "b"), "train", fields)
    convert(parquet, layout="folder", target=tmp_path / "c")
    last = _read_back("folder", LocalStorage(root=tmp_path / "c"), "train", fields)
    assert _files(last) == _expected(pairs, "train", fields)


def test_webdataset_reads_the_shards(pairs: ImageMaskFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import webdataset.utils
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    monkeypatch.setattr(webdataset.utils, "enforce_security", True)
    convert(pairs, layout="webdataset", target=tmp_path / "out")
    with (tmp_path / "out/train-000000.tar").open("rb") as file:
        found = list(group_by_keys({**item, "__url__": "x"} for item in tar_file_iterator(file)))
    expected = _expected(pairs, "train", {"jpg": "image", "mask.png": "mask"})
    assert [{name: sample[name] for name in ("jpg", "mask.png")} for sample in found] == expected


def test_datasets_reads_the_parquet(table: ParquetSource, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    convert(table, layout="huggingface", target=tmp_path / "out")
    stream = datasets.load_dataset_builder("parquet", data_files=[str(next((tmp_path / "out/data").iterdir()))])
    assert stream.as_streaming_dataset(split="train").decode(False).features["label"].names == ["a", "b", "c"]
    features = stream.as_streaming_dataset(split="train").features
    assert isinstance(features["image"], datasets.Image)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_overwritten(layout: str, pairs: ImageMaskFolder, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()  # an empty folder is nothing
    convert(pairs, target=target, **_settings(layout))
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="lies there already, nothing is overwritten"):
        convert(pairs, target=str(target), **_settings(layout))
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    memory = MemoryStorage(name=f"occupied-{layout}")
    memory.write("deep/a.txt", b"mine")
    with pytest.raises(ValueError, match=r"'deep/a\.txt' lies there already"):
        convert(pairs, target=memory, **_settings(layout))
    assert [item.key for item in memory.list()] == ["deep/a.txt"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bad_sample_leaves_nothing_behind(layout: str, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    images = [{"image": b"\xff\xd8\xff", "label": 1}, {"image": None, "label": 1}]
    pq.write_table(pa.Table.from_pylist(images), tmp_path / "given" / "a.parquet")
    source = ParquetSource(name="given", storage=LocalStorage(root=tmp_path / "given"))
    with pytest.raises(SampleFormatError, match=r"a\.parquet#1: 'image' is null"):
        convert(source, target=tmp_path / "out", **_settings(layout))
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_a_failed_upload_leaves_nothing_behind(pairs: ImageMaskFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStorage(name="failing")
    write = memory.write

    def fail(key: str, data: bytes | Path) -> Any:  # noqa: ANN401
        if key.startswith("train/masks"):
            raise StorageError(memory.uri_of(key), "no space left")
        return write(key, data)

    monkeypatch.setattr(memory, "write", fail)
    with pytest.raises(StorageError, match="no space left"):
        convert(pairs, layout="folder", target=memory)
    assert list(memory.list()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "webdatset"}, "layout='webdatset' is not one of 'folder', 'table'"),
        ({"layout": "table"}, "base_url=None: layout 'table' needs it"),
        ({"layout": "folder", "base_url": BASE}, "no other has a use for it"),
        ({"layout": "table", "base_url": "file:///data"}, "expected an address like 'https://host.org/folder'"),
        ({"layout": "table", "base_url": "https://me:secret@host.org/x"}, "would put the credentials into the table"),
        ({"layout": "folder", "shard_bytes": 5}, "layout 'folder' has no shards"),
        ({"layout": "webdataset", "shard_bytes": 0}, "shard_bytes=0: at least 1"),
        ({"layout": "folder", "splits": ["tran"]}, "split='tran': .* nearest: 'train'"),
    ],
)
def test_settings_that_do_not_fit(
    pairs: ImageMaskFolder, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        convert(pairs, target=tmp_path / "out", **settings)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_ids_that_lead_elsewhere_become_names(tmp_path: Path) -> None:
    """Keys of a hostile source name files inside the target only, and two never the same one."""
    ids = ["../../canary:0", "/etc/passwd", "a/b", "a.b", "a-b", "..", "-rf", "x" * 300]

    class Hostile(ParquetSource):
        def read(self, index: int) -> Any:  # noqa: ANN401
            import dataclasses

            return dataclasses.replace(super().read(index), id=ids[index])

    (tmp_path / "given").mkdir()
    pq.write_table(pa.table({"image": [b"GIF8"] * len(ids)}), tmp_path / "given" / "a.parquet")
    for layout in LAYOUTS:
        source = Hostile(name="given", storage=LocalStorage(root=tmp_path / "given"))
        report = convert(source, target=tmp_path / "deep" / "er" / layout, **_settings(layout))
        assert report.samples == {"train": len(ids)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "given"]
    assert len(list((tmp_path / "deep/er/folder/train/images").iterdir())) == len(ids)


def test_split_names_cannot_lead_elsewhere(table: ParquetSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split '\.\./x' cannot name a file"):
        convert(table, layout="folder", target=tmp_path / "out", splits=["../x"])
    with pytest.raises(ValueError, match="tells no splits: give the one that it is"):
        convert(table, layout="folder", target=tmp_path / "out", splits=["train", "test"])


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with start_moto() as server:
        yield server


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderServer]:
    with start_http(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.mark.parametrize("layout", ["folder", "huggingface", "webdataset"])
def test_to_a_bucket_and_back(layout: str, pairs: ImageMaskFolder, moto: MotoServer) -> None:
    storage = S3Storage(bucket=moto.make_bucket(layout), prefix="deep/er", endpoint_url=moto.url, **CREDENTIALS)
    report = convert(pairs, target=storage, **_settings(layout))
    assert [item.key for item in storage.list()].count("conversion.json") == 1
    assert len(list(storage.list())) == report.files
    fields = {"image": "image", "mask": "mask"}
    assert _files(_read_back(layout, storage, "train", fields)) == _expected(pairs, "train", fields)
    with pytest.raises(ValueError, match="lies there already"):
        convert(pairs, target=storage, **_settings(layout))
    storage.close()


def test_table_over_http(pairs: ImageMaskFolder, web: FolderServer, tmp_path: Path) -> None:
    convert(pairs, layout="table", target=web.folder / "pairs", base_url=f"{web.url}/pairs")
    source = UrlTableSource(
        name="web",
        web=UrlStorage(allowed_hosts=("127.0.0.1",)),
        table="table.csv",
        tables=LocalStorage(root=web.folder / "pairs"),
        cache_dir=tmp_path / "cache",
        columns={"id": "id", "image": "image", "mask": "mask", "split": "split"},
        sha256="sha256",
    )
    source.setup()
    fields = {"image": "image", "mask": "mask"}
    assert _files(source) == _expected(pairs, "train", fields) + _expected(pairs, "test", fields)


@pytest.mark.parametrize("layout", ["folder", "huggingface", "webdataset"])
def test_drive(layout: str, shared_data: Path, tmp_path: Path) -> None:
    drive = Drive(root=shared_data / "DRIVE")
    report = convert(drive, target=tmp_path / "out", **_settings(layout), splits=["train"])
    assert report.samples == {"train": 20}
    fields = {"image": "image", "mask": "mask", "valid": "valid"}
    source = _read_back(layout, LocalStorage(root=tmp_path / "out"), "train", fields)
    assert _files(source) == _expected(drive, "train", fields)
