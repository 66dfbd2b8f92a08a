"""Clips of every kind, and of which frames they are made."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from neurotrain.data.decoders import VideoDecoder, VideoPreparation
from neurotrain.data.sources import RawSample, SampleFormatError

FRAMES = np.stack([np.full((16, 24, 3), 20 * number, np.uint8) for number in range(8)])


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def animated(form: str) -> bytes:
    stream = BytesIO()
    first, *others = (Image.fromarray(frame) for frame in FRAMES)
    lossless = {"lossless": True} if form == "WEBP" else {}
    first.save(stream, form, save_all=True, append_images=others, duration=50, **lossless)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def film(frames: NDArray[np.uint8], form: str = "mp4") -> bytes:
    import av

    stream = BytesIO()
    with av.open(stream, "w", format=form) as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt, video.bit_rate = frames.shape[2], frames.shape[1], "yuv420p", 10**7
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
    return stream.getvalue()


def raw(**fields: Any) -> RawSample:  # noqa: ANN401
    return RawSample(
        id="7", source="toy", uri="7.gif", fields={name.replace("__", "/"): v for name, v in fields.items()}
    )


def decode(decoder: VideoDecoder, seed: int = 0, **fields: Any) -> Any:  # noqa: ANN401
    return decoder(raw(**fields), torch.Generator().manual_seed(seed))


KINDS = {
    "folder": {f"video__{number:06}": png(frame) for number, frame in enumerate(FRAMES)},
    "gif": {"video": animated("GIF")},
    "webp": {"video": animated("WEBP")},
    "apng": {"video": animated("PNG")},
    "npy": {"video": npy(FRAMES)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_of_every_kind(kind: str) -> None:
    sample = decode(VideoDecoder(), **KINDS[kind])
    assert sample["video"].shape == (8, 3, 16, 24)
    assert sample["video"].dtype == torch.uint8
    assert torch.equal(sample["video"], torch.from_numpy(FRAMES).permute(0, 3, 1, 2))
    assert set(sample) == {"video", "id", "source"}


@pytest.mark.parametrize("kind", KINDS)
def test_some_frames_prepared(kind: str) -> None:
    preparation = VideoPreparation(frames=3, stride=2, clip="centre", resolution=8)
    sample = decode(VideoDecoder(preparation=preparation), **KINDS[kind])
    assert sample["video"].shape == (3, 3, 8, 8)
    assert sample["video"][:, 0, 4, 4].tolist() == [20, 60, 100]


def test_a_random_clip_is_a_function_of_its_generator() -> None:
    decoder = VideoDecoder(preparation=VideoPreparation(frames=2, clip="random", resolution=16))
    firsts = [decode(decoder, seed, **KINDS["npy"])["video"][0, 0, 0, 0].item() for seed in range(40)]
    assert firsts == [decode(decoder, seed, **KINDS["npy"])["video"][0, 0, 0, 0].item() for seed in range(40)]
    assert set(firsts) == {20 * number for number in range(7)}
    assert not decoder.deterministic


def test_captions() -> None:
    sample = decode(VideoDecoder(captions="first"), **KINDS["npy"], caption="a\nb")
    assert sample["caption"] == "a"
    with pytest.raises(SampleFormatError, match="has no caption"):
        decode(VideoDecoder(captions="first"), **KINDS["npy"])


@pytest.mark.parametrize(
    ("fields", "settings", "message"),
    [
        ({}, {}, "7.gif: has no field 'video'"),
        ({"video": b"GIF89a"}, {}, "7.gif: 6 bytes cannot be decoded"),
        ({"video": animated("GIF")[:-300]}, {}, "7.gif: "),
        ({"video": npy(FRAMES[0])}, {}, r"is uint8 \(16, 24, 3\), expected uint8 \(T, H, W, 3\)"),
        ({"video": npy(FRAMES[:0])}, {}, "has no frames"),
        ({"video": npy(FRAMES)[:-1]}, {}, "its header promises"),
        ({"video": npy(FRAMES)}, {"max_pixels": 16 * 24 * 8 - 1}, "8 frames of 384 pixels are more than 3071"),
        ({"video": animated("GIF")}, {"max_pixels": 16 * 24 * 8 - 1}, "8 frames of 384 pixels"),
        (
            {"video__000000": png(FRAMES[0]), "video__000001": png(FRAMES[0][:-1])},
            {},
            "different sizes: 24 x 15, 24 x 16",
        ),
        ({"video__000000": b"x"}, {}, r"7.gif \(video/000000\): 1 bytes cannot be decoded"),
        (KINDS["npy"], {"preparation": VideoPreparation(frames=9)}, "8 frames, frames=9 with stride=1 need 9"),
        (KINDS["npy"], {"preparation": VideoPreparation(frames=1, resolution=256)}, "24 x 16 pixels, upscale 16 above"),
    ],
)
def test_clips_that_cannot_be(fields: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SampleFormatError, match=message):
        decode(VideoDecoder(**settings), **fields)


@pytest.mark.skipif(find_spec("av") is None, reason="PyAV is not installed")
@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_films(form: str) -> None:
    data = film(FRAMES, form)
    sample = decode(VideoDecoder(), video=data)
    assert sample["video"].shape == (8, 3, 16, 24)
    # Lossy: within a few grey levels.
    assert (sample["video"].float() - torch.from_numpy(FRAMES).permute(0, 3, 1, 2)).abs().max() < 8
    preparation = VideoPreparation(frames=3, stride=2, clip="first", resolution=16)
    some = decode(VideoDecoder(preparation=preparation), video=data)
    assert some["video"].float().mean((1, 2, 3)).sub(torch.tensor([0.0, 40, 80])).abs().max() < 4
    with pytest.raises(SampleFormatError, match=r"^7.gif: "):
        decode(VideoDecoder(), video=data[: len(data) // 3])


def test_a_film_without_pyav_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("neurotrain.storage.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'decoding mp4 needs av: pip install "neurotrain\[video\]"'):
        decode(VideoDecoder(), video=b"\0\0\0\x18ftypmp42" + bytes(50))
