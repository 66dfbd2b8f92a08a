"""NIfTI: exactly into the canonical frame and back, and nothing allocated for what a header only claims."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from neurotrain.data.datasets import DatasetError
from neurotrain.data.volumes import nifti, read_geometry, read_image, read_labels, write_labels

CODES = ["RAS", "LPS", "PIR", "SLA", "IPL"]


def affine_of(codes: str, *, oblique: float = 0.1) -> np.ndarray:
    """Axes as ``codes`` say, of 0.9, 1.3 and 2.5 mm, turned a little."""
    turn = np.array(
        [[np.cos(oblique), -np.sin(oblique), 0], [np.sin(oblique), np.cos(oblique), 0], [0, 0, 1]], np.float64
    )
    affine = np.eye(4)
    for axis, code in enumerate(codes):
        canonical = ("RL".find(code) >= 0, "AP".find(code) >= 0, "SI".find(code) >= 0).index(True)
        sign = 1 if code in "RAS" else -1
        affine[:3, axis] = sign * turn[:, canonical] * (0.9, 1.3, 2.5)[axis]
    affine[:3, 3] = (12.5, -80.25, 33.0)
    return affine


def save(path: Path, voxels: np.ndarray, affine: np.ndarray, kind: type = nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(voxels, affine), path)
    return path


@pytest.mark.parametrize("codes", CODES)
def test_the_canonical_frame_is_nibabels_and_the_way_back_is_exact(codes: str, tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", voxels, affine_of(codes))
    image, geometry = read_image(path)
    expected = nibabel.as_closest_canonical(nibabel.load(path))
    assert np.array_equal(image, expected.get_fdata(dtype=np.float32))
    assert geometry.size == expected.shape
    assert geometry.spacing == pytest.approx(nibabel.affines.voxel_sizes(expected.affine).tolist())
    assert np.array_equal(geometry.from_canonical(image), voxels)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(("q", "s"), [(1, 1), (1, 0), (0, 2), (0, 0)])
def test_written_labels_reload_with_the_very_affine_and_codes(q: int, s: int, kind: type, tmp_path: Path) -> None:
    image = kind(np.zeros((4, 5, 6), np.int16), affine_of("PIR"))
    image.set_qform(affine_of("PIR") if q else None, q)
    image.set_sform(affine_of("PIR") if s else None, s)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "image.nii.gz")
    like = nibabel.load(tmp_path / "image.nii.gz")
    labels = np.random.default_rng(1).integers(0, 14, read_geometry(tmp_path / "image.nii.gz").size, np.uint8)
    write_labels(tmp_path / "labels.nii.gz", labels, like=tmp_path / "image.nii.gz")
    found = nibabel.load(tmp_path / "labels.nii.gz")
    assert type(found) is kind
    assert np.array_equal(found.affine, like.affine)
    for form in ("get_qform", "get_sform"):
        ours, theirs = (getattr(one.header, form)(coded=True) for one in (found, like))
        assert ours[1] == theirs[1]
        assert (ours[0] is None and theirs[0] is None) or np.array_equal(ours[0], theirs[0])
    assert found.header.get_xyzt_units() == like.header.get_xyzt_units()
    assert found.get_data_dtype() == np.uint8
    again, geometry = read_labels(tmp_path / "labels.nii.gz")
    assert np.array_equal(again, labels)
    assert geometry == read_geometry(tmp_path / "image.nii.gz")


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, path)
    # nibabel stores the given numbers so that reading gives them again.
    assert np.array_equal(read_image(path)[0], nibabel.load(path).get_fdata(dtype=np.float32))


def header(**fields: object) -> bytes:
    made = nibabel.Nifti1Header()
    made.set_data_shape((4, 4, 4))
    made.set_sform(np.eye(4), 1)
    made["vox_offset"] = 352
    for name, value in fields.items():
        made[name] = value
    return made.binaryblock + bytes(4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no NIfTI file"),
        (b"\x89PNG" + bytes(1000), "is no NIfTI file"),
        (header()[:200], "is no NIfTI file"),
        (header(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "at most 1073741824 are read"),
        (header(dim=[3, 4, -4, 4, 1, 1, 1, 1]), "expected one volume"),
        (header(dim=[4, 4, 4, 4, 3, 1, 1, 1]), "expected one volume"),
        (header(dim=[2, 4, 4, 1, 1, 1, 1, 1]), "expected one volume"),
        (header(vox_offset=1e9), "claims voxels from byte"),
        (header(vox_offset=0), "claims voxels from byte"),
        (header(datatype=128, bitpix=24), "expected real numbers"),
        (header(srow_x=[0, 0, 0, 0]), "no usable position"),
        (header(srow_x=[np.nan, 0, 0, 0]), "no usable position"),
        (header(), "cannot be read"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_lies_costs_nothing_but_an_error(
    content: bytes, message: str, packed: bool, tmp_path: Path
) -> None:
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content) if packed and content else content)
    with pytest.raises(DatasetError, match=message):
        read_image(path)


def test_torn_archives_and_bad_voxels_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)), np.eye(4)).read_bytes()
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="torn"):
        read_image(torn)
    hollow = save(tmp_path / "b.nii", np.full((2, 2, 2), np.nan, np.float32), np.eye(4))
    with pytest.raises(DatasetError, match="8 of 8 voxels"):
        read_image(hollow)
    for value in (0.5, -1.0, 256.0):
        odd = save(tmp_path / "c.nii", np.full((2, 2, 2), value, np.float32), np.eye(4))
        with pytest.raises(DatasetError, match=f"holds {value}"):
            read_labels(odd)


def test_labels_of_another_size_are_not_written(tmp_path: Path) -> None:
    like = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), np.eye(4))
    with pytest.raises(ValueError, match="do not lie over"):
        write_labels(tmp_path / "b.nii", np.zeros((2, 3, 5), np.uint8), like=like)


def test_the_limit_is_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), np.eye(4))
    monkeypatch.setattr(nifti, "MAX_VOXELS", 24)
    read_geometry(path)
    monkeypatch.setattr(nifti, "MAX_VOXELS", 23)
    with pytest.raises(DatasetError, match="at most 23"):
        read_geometry(path)
