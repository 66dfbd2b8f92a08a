"""Captions of folders, from everywhere they may come."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neurotrain.data.sources import (
    Captions,
    CaptionTable,
    CocoCaptions,
    FileNameCaption,
    FolderSource,
    InstancePrompt,
    SiblingText,
    SourceError,
)
from neurotrain.storage import LocalStorage, Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = LocalStorage(root=tmp_path)
    storage.write("photos/red_fox-1.jpg", b"1")
    storage.write("photos/cat.png", b"2")
    return storage


def captions_of(storage: Storage, captions: Captions, image: str = "photos") -> dict[str, str]:
    source = FolderSource(name="toy", storage=storage, image=image, captions=captions)
    source.setup()
    table = source.table()
    found = dict(zip(table.column("id").to_pylist(), table.column("caption").to_pylist(), strict=True))
    assert all(source.read(row).fields["caption"] == text for row, text in enumerate(found.values()))
    assert set(source.read(0).fields) == {"image", "caption"}
    return found


def test_file_names(storage: Storage) -> None:
    assert captions_of(storage, FileNameCaption()) == {"red_fox-1": "red fox 1", "cat": "cat"}
    assert captions_of(storage, FileNameCaption(separators="_"))["red_fox-1"] == "red fox-1"


def test_one_prompt(storage: Storage) -> None:
    assert captions_of(storage, InstancePrompt(text="a sks fox")) == {"red_fox-1": "a sks fox", "cat": "a sks fox"}
    with pytest.raises(ValueError, match="must not be blank"):
        InstancePrompt(text=" ")


def test_texts_beside_the_images(storage: Storage) -> None:
    storage.write("photos/red_fox-1.txt", "\ufeffA fox.\r\n\r\n  Füchse. \n".encode())
    storage.write("photos/cat.txt", b"A cat.")
    assert captions_of(storage, SiblingText()) == {"red_fox-1": "A fox.\nFüchse.", "cat": "A cat."}
    assert captions_of(storage, SiblingText(), image="photos/{id}.png") == {"cat": "A cat."}


def test_texts_in_another_folder(storage: Storage) -> None:
    storage.write("texts/cat.txt", b"A cat.")
    with pytest.raises(SourceError, match=r"photos/red_fox-1\.jpg: has no caption, and captions\.default is None"):
        captions_of(storage, SiblingText(pattern="texts"))
    found = captions_of(storage, SiblingText(pattern="texts/{id}.txt", default="something"))
    assert found == {"red_fox-1": "something", "cat": "A cat."}


def test_texts_that_are_no_text(storage: Storage) -> None:
    storage.write("photos/red_fox-1.txt", b"\xff\xfe")
    storage.write("photos/cat.txt", b"A cat.")
    with pytest.raises(SourceError, match=r"red_fox-1\.txt: is not UTF-8 \(invalid start byte at byte 0\)"):
        captions_of(storage, SiblingText())


ROWS = [{"image": "cat.png", "caption": "A cat."}, {"image": "red_fox-1.jpg", "caption": "A\nfox, red."}]


def written(ending: str, tmp_path: Path) -> bytes:
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x")
        return (tmp_path / "x").read_bytes()
    if ending == "jsonl":
        return "\n".join(json.dumps(row) for row in ROWS).encode()
    mark = "," if ending == "csv" else "\t"
    lines = [mark.join(("image", "caption"))] + [mark.join((row["image"], f'"{row["caption"]}"')) for row in ROWS]
    return "\n".join(lines).encode()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_tables(storage: Storage, tmp_path: Path, ending: str) -> None:
    storage.write(f"captions.{ending}", written(ending, tmp_path))
    found = captions_of(storage, CaptionTable(table=f"captions.{ending}"))
    assert found == {"cat": "A cat.", "red_fox-1": "A fox, red."}


@pytest.mark.parametrize(
    ("match", "names"),
    [
        ("id", ("cat", "red_fox-1")),
        ("key", ("photos/cat.png", "photos/red_fox-1.jpg")),
        ("name", ("cat.png", "red_fox-1.jpg")),
        ("stem", ("cat", "red_fox-1")),
    ],
)
def test_ways_to_name_an_image(storage: Storage, match: str, names: tuple[str, str]) -> None:
    storage.write("t.csv", f"file,text\n{names[0]},one\n{names[1]},two\n{names[1]},three\nother,four\n".encode())
    table = CaptionTable(table="t.csv", image="file", caption="text", match=match)
    assert captions_of(storage, table) == {"cat": "one", "red_fox-1": "two\nthree"}


def test_a_table_that_does_not_fit(storage: Storage) -> None:
    storage.write("t.csv", b"file,text\ncat.png,one\n")
    with pytest.raises(
        SourceError, match=r"columns\.caption='txt': no such column, of 'file', 'text'; nearest: 'text'"
    ):
        captions_of(storage, CaptionTable(table="t.csv", image="file", caption="txt"))
    table = CaptionTable(table="t.csv", image="file", caption="text", match="id", default="x")
    with pytest.raises(SourceError, match=r"names none of the images by their id: it has 'cat\.png', they are 'cat'"):
        captions_of(storage, table)
    with pytest.raises(SourceError, match="has no caption"):
        captions_of(storage, CaptionTable(table="t.csv", image="file", caption="text"))
    with pytest.raises(ValueError, match="ending must be one of"):
        CaptionTable(table="t.xlsx")
    with pytest.raises(ValueError, match="match='path'"):
        CaptionTable(table="t.csv", match="path")


def test_a_changed_table_is_seen(storage: Storage, tmp_path: Path) -> None:
    for text in ("one", "two"):
        storage.write("t.csv", f"image,caption\ncat.png,{text}\nred_fox-1.jpg,x\n".encode())
        source = FolderSource(
            name="toy", storage=storage, image="photos", captions=CaptionTable(table="t.csv"), index_dir=tmp_path / "i"
        )
        source.setup()
        assert source.read(0).fields["caption"] == text


def test_coco_as_it_lies(shared_data: Path) -> None:
    source = FolderSource(
        name="coco",
        storage=LocalStorage(root=shared_data / "COCO-MINI"),
        image="train2017",
        captions=CocoCaptions(annotations="annotations/captions_train2017.json"),
        dimensions=True,
    )
    source.setup()
    assert len(source) == 80
    content = json.loads((shared_data / "COCO-MINI/annotations/captions_train2017.json").read_bytes())
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in content["images"]}
    for row in source.table().to_pylist():
        assert (row["width"], row["height"]) == sizes[f"{row['id']}.jpg"]
    image = next(image for image in content["images"] if image["file_name"] == f"{source.read(7).id}.jpg")
    texts = [entry["caption"] for entry in content["annotations"] if entry["image_id"] == image["id"]]
    assert source.read(7).fields["caption"] == "\n".join(" ".join(text.split()) for text in texts)


def test_no_coco_file(storage: Storage) -> None:
    storage.write("c.json", b'{"images": []}')
    with pytest.raises(SourceError, match=r"no file of COCO captions \(KeyError: 'annotations'\)"):
        captions_of(storage, CocoCaptions(annotations="c.json"))
