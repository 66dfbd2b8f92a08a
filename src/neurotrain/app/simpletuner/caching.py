"""Latents and text embeddings of a backend: where they are kept, and how samples get them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.nodes import Node

VAE, TEXT_ENCODER = "NEUROTRAIN_VAE", "NEUROTRAIN_TEXT_ENCODER"
_FOLDERS = "${paths.data_dir}/cache"


def decoder_of(
    backend: Backend, *, preparation: Node, steering: Mapping[str, str], texts: Backend | None, latents: Backend | None
) -> Node:
    """What makes samples of a backend's entries.

    Args:
        backend: whose entries.
        preparation: of its images or clips.
        steering: kind of each conditioning image by name.
        texts: where embeddings of captions are kept; None: captions stay texts.
        latents: where latents are kept; None: where the backend itself says.
    """
    plain = _plain(backend, preparation, steering, captions=texts is None)
    wanted = _latents(backend, preparation, latents) if texts is not None else None
    if texts is None:
        _without_texts(backend)
        return plain
    values: dict[str, Any] = {"texts": _texts(backend, texts)}
    if wanted is not None:
        values["latents"] = wanted
    if wanted is None or steering:
        values["beside"] = plain
        if wanted is not None:
            backend.note("conditioning_data", "conditioning images stay pixels, beside the image that has a latent")
    if backend.flag("vae_cache_ondemand") or texts.flag("text_cache_ondemand"):
        values["on_miss"] = "encode"
        backend.note("vae_cache_ondemand", "takes effect with num_workers=0; otherwise build the cache first")
    return Node(group="data/decoder", name="CachedDecoder", values=values)


def _plain(backend: Backend, preparation: Node, steering: Mapping[str, str], *, captions: bool) -> Node:
    values: dict[str, Any] = {"preparation": preparation}
    if backend.kind == "video":
        return Node(
            group="data/decoder", name="VideoDecoder", values={**values, **({"captions": "random"} if captions else {})}
        )
    if steering:
        values["conditioning"] = dict(steering)
    return Node(group="data/decoder", name="ImageTextDecoder" if captions else "ImageDecoder", values=values)


def _without_texts(backend: Backend) -> None:
    for key in ("cache_dir_vae", "image_embeds"):
        if backend.text(key) is not None:
            backend.note(key, "has no effect: there is no text_embeds backend, so captions and images stay as they are")
    backend.flag("vae_cache_ondemand")
    backend.flag("vae_cache_disable")


def _latents(backend: Backend, preparation: Node, store: Backend | None) -> Node | None:
    folder = backend.text("cache_dir_vae")
    if backend.flag("vae_cache_disable"):
        backend.note("vae_cache_disable", "images are encoded in training: their pixels are in the samples")
        return None
    if backend.kind == "video":
        if folder is not None or store is not None:
            backend.note("cache_dir_vae", "latents of clips are not cached: frames are decoded")
        return None
    if preparation.values.get("crop") == "random":
        if folder is not None or store is not None:
            backend.note(
                "cache_dir_vae", "random crops are not cached, one key would stand for many: pixels are loaded"
            )
        return None
    if store is not None:
        folder = _folder(store, store.text("cache_dir") or folder)
    if folder is None:
        backend.note("cache_dir_vae", "not given: images are not cached, their pixels are in the samples")
        return None
    encoder = backend.journal.environment(VAE, "folder of the autoencoder, as save_pretrained writes it")
    values = {
        "cache": _cache(folder),
        "encoder": Node(group="data/encoder", name="DiffusersVAE", values={"path": encoder}),
        "prepare": Node(group="data/latent_preparation", name="CroppedPicture", values={"preparation": preparation}),
    }
    return Node(group="data/latents", name="CachedLatents", values=values)


def _texts(backend: Backend, store: Backend) -> Node:
    encoder = backend.journal.environment(TEXT_ENCODER, "folder of the text encoder, as save_pretrained writes it")
    values: dict[str, Any] = {
        "cache": _cache(_folder(store, store.text("cache_dir"))),
        "encoder": Node(group="data/encoder", name="HuggingFaceTextEncoder", values={"path": encoder}),
    }
    size = store.whole("text_encoder_batch_size")
    if size is not None:
        values["batch_size"] = size
    return Node(group="data/texts", name="CachedTexts", values=values)


def _folder(store: Backend, given: str | None) -> str:
    """A cache's folder; caches lie on a local disk, wherever the file puts them."""
    if store.type == "aws":
        folder = f"{_FOLDERS}/{store.name}"
        store.note("type", f"'aws': caches lie on a local disk, this one in {folder}")
        for key in list(store.values):
            if key.startswith("aws_"):
                store.option(key)
        return folder
    if given is None:
        given = f"{_FOLDERS}/{store.name}"
        store.note("cache_dir", f"not given: {given}")
    return given


def _cache(folder: str) -> Node:
    return Node(group="data/cache", name="TensorCache", values={"folder": folder})
