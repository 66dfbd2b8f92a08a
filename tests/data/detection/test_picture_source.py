"""Pictures to predict, by path and by URI."""

from __future__ import annotations

from pathlib import Path

import coco_files
import pytest

from neurotrain.data.pictures import PictureSource
from neurotrain.data.sources import SourceError
from neurotrain.storage import MemoryStorage, StorageError

PNG = coco_files.picture([], 0)


@pytest.fixture(scope="module")
def stored() -> str:
    storage = MemoryStorage(name="pictures-to-predict")
    for key in ("a.png", "b.JPG", "notes.txt", ".hidden.png", "old/c.png", "old/older/d 1.png", "old/older/a.png"):
        storage.write(key, PNG)
    return "memory://pictures-to-predict"


def _ids(location: str) -> list[str]:
    source = PictureSource(location=location)
    source.setup()
    assert all(source.read(index).fields["image"] == PNG for index in range(len(source)))
    return source.table()["id"].to_pylist()


@pytest.mark.parametrize(
    ("suffix", "wanted"),
    [
        ("", ["a", "b"]),
        ("/*.png", ["a"]),
        ("/old*/*", ["c"]),
        ("/old*/**/*.png", ["a", "c", "d 1"]),
        ("/[ab].*", ["a", "b"]),
        ("/a.png", ["a"]),
    ],
)
def test_folders_globs_and_single_images_of_a_storage(stored: str, suffix: str, wanted: list[str]) -> None:
    assert _ids(stored + suffix) == wanted


def test_what_is_not_there_or_twice_is_told(stored: str) -> None:
    with pytest.raises(SourceError, match="there is no image"):
        _ids(f"{stored}/*.tif")
    with pytest.raises(SourceError, match=r"older/a.png: would be predicted as 'a', and so would .*/a.png"):
        _ids(f"{stored}/**/*.png")
    with pytest.raises(StorageError, match=r"none.png"):
        _ids(f"{stored}/none.png")
    with pytest.raises(ValueError, match="unknown scheme 's4'"):
        _ids("s4://bucket/*.png")


def test_paths_and_a_fingerprint_that_tells_them_apart(tmp_path: Path) -> None:
    for name in ("x.png", "y.png"):
        (tmp_path / name).write_bytes(PNG)
    assert _ids(str(tmp_path)) == _ids(f"{tmp_path}/*.png") == ["x", "y"]
    assert _ids(f"{tmp_path}/y.png") == ["y"]
    sources = [PictureSource(location=f"{tmp_path}{suffix}") for suffix in ("", "/x.png", "/y.png")]
    for source in sources:
        source.setup()
    assert len({source.fingerprint() for source in sources}) == 3
