"""Clips: files, and folders of frames."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from neurotrain.data.sources import InstancePrompt, SampleFormatError, SiblingText, SourceError, VideoSource
from neurotrain.storage import LocalStorage, Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return LocalStorage(root=tmp_path)


def png(width: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (width, 4)).save(stream, "PNG")
    return stream.getvalue()


def test_each_file_a_clip(storage: Storage) -> None:
    for key in ("run/a.gif", "run/b.gif", "walk/a.gif", "walk/readme.md"):
        storage.write(key, key.encode())
    source = VideoSource(name="toy", storage=storage, video="{label}/{id}.gif", captions=InstancePrompt(text="x"))
    source.setup()
    assert source.class_names == ("run", "walk")
    sample = source.read(2)
    assert (sample.id, sample.fields["video"], sample.fields["label"]) == ("walk/a", b"walk/a.gif", 1)


def test_each_folder_a_clip(storage: Storage, tmp_path: Path) -> None:
    frames = ["frame_10.png", "frame_9.png", "frame_100.png", "Thumbs.db"]
    for clip, width in (("b", 8), ("a", 6)):
        for name in frames:
            storage.write(f"clips/{clip}/{name}", png(width) + name.encode())
        storage.write(f"clips/{clip}.txt", f"clip {clip}".encode())
    source = VideoSource(
        name="toy",
        storage=storage,
        video="clips/{id}/{frame}{ext}",
        captions=SiblingText(),
        dimensions=True,
        index_dir=tmp_path / "index",
    )
    source.setup()
    table = source.table().select(["id", "frames", "width", "height", "caption"])
    assert table.to_pylist() == [
        {"id": "a", "frames": 3, "width": 6, "height": 4, "caption": "clip a"},
        {"id": "b", "frames": 3, "width": 8, "height": 4, "caption": "clip b"},
    ]
    sample = pickle.loads(pickle.dumps(source)).read(0)
    assert list(sample.fields) == ["video/000000", "video/000001", "video/000002", "caption"]
    names = [value[-len("frame_100.png") :] for value in list(sample.fields.values())[:3]]
    assert [name.rpartition(b"frame_")[2] for name in names] == [b"9.png", b"10.png", b"100.png"]
    assert sample.uri == storage.uri_of("clips/a/frame_9.png")
    first = sample.identity["video"]
    storage.write("clips/a/frame_10.png", png(6) + b"frame_10.pn.")
    again = VideoSource(name="toy", storage=storage, video="clips/{id}/{frame}{ext}")
    again.setup()
    assert again.read(0).identity["video"] != first
    storage.write("clips/a/frame_10.png", b"short")
    with pytest.raises(SampleFormatError, match=r"clips/a/frame_10\.png: has 5 bytes"):
        again.read(0)


def test_settings_that_cannot_be(storage: Storage) -> None:
    with pytest.raises(ValueError, match=r"\{frame\} belongs into the file's name"):
        VideoSource(name="toy", storage=storage, video="{frame}/{id}.png")
    with pytest.raises(SourceError, match=r"\{split\} is not in video"):
        VideoSource(name="toy", storage=storage, captions=SiblingText(pattern="{split}/{id}.txt"))
    with pytest.raises(SourceError, match="no object fits video"):
        VideoSource(name="toy", storage=storage).setup()
