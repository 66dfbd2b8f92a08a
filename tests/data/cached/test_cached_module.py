"""Samples out of caches: what they hold, what is read, what workers do, what a build does."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_encoders import save_clip, save_vae

from neurotrain.data import CachedDataModule, LocalDataModule, MixtureDataModule
from neurotrain.data.cache import TensorCache, draw_latent
from neurotrain.data.cached import CachedDecoder, CachedLatents, CachedTexts, CroppedPicture, NotCachedError
from neurotrain.data.cached_builds import build_caches
from neurotrain.data.decoders import ImageDecoder, ImagePreparation
from neurotrain.data.engine import Quarantine
from neurotrain.data.sources import FolderSource, SiblingText
from neurotrain.networks.encoders import DiffusersVAE, HuggingFaceTextEncoder
from neurotrain.storage import LocalStorage

COUNT = 6


class CountingStorage(LocalStorage):
    """Counts the images that are read."""

    images = 0

    def read(self, key: str, **options: Any) -> bytes:  # noqa: ANN401
        """As below, counted."""
        self.images += key.endswith(".png")
        return super().read(key, **options)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("encoders")
    return str(save_vae(folder / "vae")), str(save_clip(folder / "clip"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        stream = BytesIO()
        Image.new("RGB", (24, 20), (40 * number, 10, 200)).save(stream, "PNG")
        (folder / f"{number}.png").write_bytes(stream.getvalue())
        (folder / f"{number}.txt").write_text(f"picture {number}\na red fox\n")
    return folder


def _decoder(tmp_path: Path, encoders: tuple[str, str], **settings: Any) -> CachedDecoder:  # noqa: ANN401
    vae, clip = encoders
    cache = TensorCache(folder=tmp_path / "cache")
    latents = CachedLatents(
        cache=cache,
        encoder=settings.pop("encoder", DiffusersVAE(path=vae)),
        prepare=CroppedPicture(preparation=ImagePreparation(resolution=16)),
        store_as=settings.pop("store_as", None),
        mode=settings.pop("mode", "mean"),
    )
    texts = CachedTexts(
        cache=cache,
        encoder=HuggingFaceTextEncoder(path=clip, max_length=6),
        choice=settings.pop("choice", "first"),
        dropout=settings.pop("dropout", 0.0),
    )
    return CachedDecoder(latents=latents, texts=settings.pop("texts", texts), **settings)


def _module(
    photos: Path,
    decoder: Any,  # noqa: ANN401
    *,
    storage: LocalStorage | None = None,
    **settings: Any,  # noqa: ANN401
) -> CachedDataModule:
    source = FolderSource(name="photos", storage=storage or LocalStorage(root=photos), captions=SiblingText())
    return CachedDataModule(train=source, decoder=decoder, **{"batch_size": 3, **settings})


def _batches(module: CachedDataModule) -> list[dict[str, Any]]:
    module.setup("fit")
    found = list(module.train_dataloader())
    module.teardown("fit")
    return found


def test_a_build_then_lookups_without_reading_an_image(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    built = build_caches(_module(photos, _decoder(tmp_path, encoders)))
    assert [one.name for one in built] == ["latents of photos", "texts of photos"]
    # One caption each, as choice='first' takes it, and the empty one.
    assert [one.report.encoded for one in built] == [COUNT, COUNT + 1]
    storage = CountingStorage(root=photos)
    module = _module(photos, _decoder(tmp_path, encoders), storage=storage)
    batches = _batches(module)
    assert storage.images == 0
    assert batches[0]["latent"].shape == (3, 2, 16, 16)
    assert batches[0]["text_embedding"].shape == (3, 6, 8)
    assert batches[0]["text_attention_mask"].dtype == torch.bool
    assert batches[0]["text_pooled"].shape == (3, 8)
    expected = _expected(photos, encoders)
    for batch in batches:
        for row, name in enumerate(batch["id"]):
            torch.testing.assert_close(batch["latent"][row], expected[name])
            assert batch["caption"][row] == f"picture {name}"
    again = build_caches(_module(photos, _decoder(tmp_path, encoders)))
    assert [(one.report.encoded, one.report.present) for one in again] == [(0, COUNT), (0, COUNT + 1)]


def _expected(photos: Path, encoders: tuple[str, str]) -> dict[str, torch.Tensor]:
    source = FolderSource(name="photos", storage=LocalStorage(root=photos))
    source.setup()
    prepare, vae = CroppedPicture(preparation=ImagePreparation(resolution=16)), DiffusersVAE(path=encoders[0])
    found: dict[str, torch.Tensor] = {}
    for raw in (source.read(index) for index in range(COUNT)):
        found[raw.id] = draw_latent({name: one[0] for name, one in vae.encode(prepare(raw)[None]).items()})
    return found


def test_workers_give_the_same_batches(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    build_caches(_module(photos, _decoder(tmp_path, encoders, choice="random", dropout=0.5)))
    runs = [
        _batches(
            _module(photos, _decoder(tmp_path, encoders, choice="random", dropout=0.5, mode="sample"), num_workers=n)
        )
        for n in (0, 2)
    ]
    for left, right in zip(*runs, strict=True):
        assert (left["id"], left["caption"]) == (right["id"], right["caption"])
        assert torch.equal(left["latent"], right["latent"])
        assert torch.equal(left["text_embedding"], right["text_embedding"])
    captions = [caption for batch in runs[0] for caption in batch["caption"]]
    assert "" in captions
    assert any(captions)


def test_a_missing_build_ends_the_run_even_with_a_quarantine(
    photos: Path, encoders: tuple[str, str], tmp_path: Path
) -> None:
    for workers, on_miss in ((0, "error"), (1, "encode")):
        module = _module(
            photos,
            _decoder(tmp_path, encoders, on_miss=on_miss),
            num_workers=workers,
            quarantine=Quarantine(max_bad_share=1.0),
        )
        with pytest.raises(Exception, match="neurotrain cache build") as caught:
            _batches(module)
        module.teardown("predict")
        assert ("num_workers=0" in str(caught.value)) is (on_miss == "encode")


def test_fills_on_demand_in_the_main_process(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    decoder = _decoder(tmp_path, encoders, on_miss="encode")
    first = _batches(_module(photos, decoder))
    assert decoder.latents is not None
    assert decoder.latents.latents.statistics.encoded == COUNT
    second = _batches(_module(photos, decoder))
    assert decoder.latents.latents.statistics.encoded == COUNT
    for left, right in zip(first, second, strict=True):
        assert torch.equal(left["latent"], right["latent"])


def test_a_bad_image_is_a_bad_sample_not_a_missing_build(
    photos: Path, encoders: tuple[str, str], tmp_path: Path
) -> None:
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:40])
    built = build_caches(_module(photos, _decoder(tmp_path, encoders)), max_bad_share=0.5)
    assert [name for name, _ in built[0].report.failed] == ["photos/3"]
    module = _module(photos, _decoder(tmp_path, encoders), quarantine=Quarantine(max_bad_share=0.5))
    names = [name for batch in _batches(module) for name in batch["id"]]
    assert "3" not in names
    assert len(names) == COUNT
    assert module.summary()["statistics"]["replaced"] == 1


def test_a_changed_setting_or_file_is_a_miss(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    build_caches(_module(photos, _decoder(tmp_path, encoders)))
    with pytest.raises(Exception, match="no latent of"):
        _batches(_module(photos, _decoder(tmp_path, encoders, store_as="float16")))
    with pytest.raises(Exception, match="no latent of"):
        _batches(_module(photos, _decoder(tmp_path, encoders, encoder="another fingerprint")))
    Image.new("RGB", (24, 20)).save(photos / "0.png")
    with pytest.raises(Exception, match=r"no latent of .*0\.png"):
        _batches(_module(photos, _decoder(tmp_path, encoders)))


def test_the_image_beside_its_latent(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    build_caches(_module(photos, _decoder(tmp_path, encoders)))
    beside = ImageDecoder(preparation=ImagePreparation(resolution=16))
    storage = CountingStorage(root=photos)
    batch = _batches(_module(photos, _decoder(tmp_path, encoders, beside=beside), storage=storage))[0]
    assert storage.images == COUNT
    assert batch["image"].shape == (3, 3, 16, 16)
    assert batch["latent"].shape == (3, 2, 16, 16)


def test_ranks_share_a_build(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    parts = [
        build_caches(_module(photos, _decoder(tmp_path, encoders)), texts=False, rank=rank, world_size=2)[0].report
        for rank in (0, 1)
    ]
    assert sum(part.encoded for part in parts) == sum(part.owned for part in parts) == COUNT


def test_members_of_a_mixture_are_built(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    mixture = MixtureDataModule(sources={"photos": _module(photos, _decoder(tmp_path, encoders))}, batch_size=3)
    assert [one.report.encoded for one in build_caches(mixture)] == [COUNT, COUNT + 1]


def test_counts_hits(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    module = _module(photos, _decoder(tmp_path, encoders, on_miss="encode"))
    _batches(module)
    _batches(module)
    (part,) = module.training().parts
    counted = part.counters()
    assert counted["photos/latents_misses"] >= COUNT
    assert counted["photos/latents_hits"] >= COUNT


def test_travels_to_workers_without_an_encoder(encoders: tuple[str, str], tmp_path: Path) -> None:
    decoder = pickle.loads(pickle.dumps(_decoder(tmp_path, encoders)))
    assert decoder.latents.encodes is False
    assert decoder.texts.encodes is False


def test_refuses_what_has_no_effect(photos: Path, encoders: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="latents and texts are both None"):
        CachedDecoder()
    with pytest.raises(ValueError, match=r"latents\.encoder is a fingerprint"):
        _decoder(tmp_path, encoders, encoder="told", on_miss="encode")
    with pytest.raises(TypeError, match="CachedDataModule is for CachedDecoder"):
        _module(photos, ImageDecoder()).setup("fit")
    source = FolderSource(name="photos", storage=LocalStorage(root=photos))
    plain = LocalDataModule(train=source, decoder=ImageDecoder(), batch_size=2)
    with pytest.raises(ValueError, match="names no cache"):
        build_caches(plain)
    assert not _decoder(tmp_path, encoders, mode="sample").deterministic
    assert not _decoder(tmp_path, encoders, dropout=0.1).deterministic
    assert _decoder(tmp_path, encoders).deterministic
    assert issubclass(NotCachedError, KeyError)
