"""From the entries of a file of data backends to one mixture."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.caching import decoder_of
from neurotrain.app.simpletuner.journal import BackendsError, Journal
from neurotrain.app.simpletuner.membership import members_of, weights_of
from neurotrain.app.simpletuner.nodes import Node
from neurotrain.app.simpletuner.preparation import is_screened, preparation_of
from neurotrain.app.simpletuner.references import ordered
from neurotrain.app.simpletuner.sources import MODULES, source_of
from neurotrain.app.simpletuner.variables import substituted

_STEERING = {"controlnet": "image", "mask": "mask", "reference_strict": "image"}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted file.

    Attributes:
        node: the mixture.
        order: ids, each after those that it needs.
        notes: what is different, or has no effect.
        variables: environment variables that a run needs, with what each holds.
    """

    node: Node
    order: tuple[str, ...]
    notes: tuple[str, ...]
    variables: Mapping[str, str]

    def __str__(self) -> str:
        """The report, for people."""
        lines = [f"backends: {', '.join(self.order)}"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"set ${name}: {holds}" for name, holds in self.variables.items()]
        return "\n".join(lines)


def convert_backends(
    entries: Sequence[Any],
    *,
    options: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Conversion:
    """Turn the entries of ``multidatabackend.json`` into a mixture of our data modules.

    Args:
        entries: what the file holds: a list of objects.
        options: of the trainer, for variables such as ``{model_family}`` and for keys that entries leave to it.
        environment: variables of the environment; None: this process's.

    Returns:
        The mixture, and what has to be said about it.

    Raises:
        BackendsError: lists everything that is wrong or has no counterpart, by backend and key.
    """
    journal = Journal()
    backends, disabled = _read(entries, options or {}, os.environ if environment is None else environment, journal)
    order = ordered(backends, disabled=disabled, journal=journal)
    mains = [backend for backend in backends.values() if backend.is_main]
    if not mains:
        journal.problems.append("there is no backend of dataset_type 'image' or 'video' to train on")
    _check_names(mains, journal)
    sources = _members(mains, backends)
    values: dict[str, Any] = {"sources": sources, "granularity": "batch", "seed": "${seed}"}
    if (size := (options or {}).get("train_batch_size")) is not None:
        values["batch_size"] = int(size)
    if mains:
        values["weights"], cycling = weights_of(mains)
        values["members"] = members_of(mains, cycling=cycling)
    _check_fields(sources, journal)
    for backend in backends.values():
        backend.finish()
    if journal.problems:
        raise BackendsError(journal.problems)
    return Conversion(
        node=Node(group="data", name="MixtureDataModule", values=values),
        order=tuple(order),
        notes=tuple(journal.notes),
        variables=journal.variables,
    )


def _read(
    entries: Sequence[Any], options: Mapping[str, str], environment: Mapping[str, str], journal: Journal
) -> tuple[dict[str, Backend], frozenset[str]]:
    backends: dict[str, Backend] = {}
    disabled: set[str] = set()
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str) or not entry["id"]:
            journal.problems.append(f"entry {number}: expected an object with an id, got {str(entry)[:60]}")
            continue
        if entry["id"] in backends or entry["id"] in disabled:
            journal.refuse(entry["id"], "id", "occurs twice")
        elif entry.get("disabled") or entry.get("disable"):
            disabled.add(entry["id"])
            journal.note(entry["id"], "disabled", "left out")
        else:
            values = substituted(entry, options=options, environment=environment, journal=journal)
            backends[entry["id"]] = Backend(values, journal=journal, options=options)
    return backends, frozenset(disabled)


def _members(mains: Sequence[Backend], backends: Mapping[str, Backend]) -> dict[str, Node]:
    evals = [backend for backend in backends.values() if backend.kind == "eval"]
    free = {id(backend): (backend, preparation_of(backend)) for backend in evals}
    members: dict[str, Node] = {}
    for main in mains:
        preparation = preparation_of(main)
        # The first evaluation set that is prepared alike: members bring one decoder for training and evaluation.
        held = next((own for own, other in free.values() if other == preparation), None)
        if held is not None:
            del free[id(held)]
        members[main.name] = _member(main, preparation, held, backends)
    for backend, _ in free.values():
        backend.refuse("dataset_type", "'eval': needs a backend to itself with the same resolution, crop and bounds")
    return members


def _member(main: Backend, preparation: Node, held: Backend | None, backends: Mapping[str, Backend]) -> Node:
    steering = [backends[name] for name in main.names("conditioning_data") if name in backends]
    kinds = {other.name: _steering(other, preparation) for other in steering}
    texts = _texts_of(main, backends)
    latents = backends.get(main.text("image_embeds") or "")
    decoder = decoder_of(main, preparation=preparation, steering=kinds, texts=texts, latents=latents)
    source = source_of(main, name=main.name, conditioning=steering)
    sized = source.name == "FolderSource"
    if preparation.values["aspect"] != "square" and not sized and main.kind == "image":
        main.refuse("crop", f"images that keep their aspects need sizes in the index, which type={main.type!r} has not")
    screened = sized and is_screened(preparation)
    values: dict[str, Any] = {"train": _screened(source, preparation) if screened else source, "decoder": decoder}
    if held is not None:
        own = source_of(held, name=held.name)
        values["validation"] = _screened(own, preparation) if screened else own
    if is_screened(preparation) and not sized:
        main.note("minimum_image_size", "images outside the bounds are found when they are decoded, and quarantined")
    if decoder.name == "CachedDecoder":
        module = "CachedDataModule"
    else:
        any_kind = screened or held is not None or source.name == "VideoSource"
        module = "SourceDataModule" if any_kind else MODULES.get(main.type, "SourceDataModule")
    return Node(group="data", name=module, values=values)


def _screened(source: Node, preparation: Node) -> Node:
    values = {"source": source, "preparation": preparation}
    return Node(group="data/source", name="ScreenedSource", values=values)


def _steering(backend: Backend, preparation: Node) -> str:
    kind = backend.choice("conditioning_type", (*_STEERING, "reference_loose"), "controlnet")
    if kind == "reference_loose":
        backend.refuse("conditioning_type", "'reference_loose': conditioning images have the size of theirs")
    own = {"resolution", "resolution_type", "crop", "crop_style", "crop_aspect", "crop_aspect_buckets"}
    if own & backend.values.keys() and preparation_of(backend).values != preparation.values:
        backend.refuse("resolution", "resolution, crop and bounds must be those of the images that it is paired with")
    for key in ("caption_strategy", "instance_prompt", "parquet", "cache_dir_vae", "image_embeds", "text_embeds"):
        if backend.has(key):
            backend.note(key, "has no effect: captions are those of the images, and this one is loaded as pixels")
        backend.option(key)
    return _STEERING.get(kind, "image")


def _texts_of(main: Backend, backends: Mapping[str, Backend]) -> Backend | None:
    named = main.text("text_embeds")
    if named is not None:
        return backends.get(named)
    stores = [backend for backend in backends.values() if backend.kind == "text_embeds"]
    usual = [backend for backend in stores if backend.flag("default")]
    if len(usual) > 1:
        usual[1].refuse("default", f"true in {', '.join(repr(one.id) for one in usual)}: in one of them only")
    if stores and not usual:
        stores[0].refuse("default", "no text_embeds backend has default=true, and some images name none")
    return usual[0] if usual else None


def _check_names(mains: Sequence[Backend], journal: Journal) -> None:
    for name, count in Counter(main.name for main in mains).items():
        if count > 1:
            ids = [main.id for main in mains if main.name == name]
            journal.problems.append(
                f"ids {ids} are one name here, {name!r}: letters, digits and _ must tell them apart"
            )


def _check_fields(sources: Mapping[str, Node], journal: Journal) -> None:
    """Samples of all members of a mixture hold the same fields."""
    found: dict[str, list[str]] = {}
    for name, member in sources.items():
        decoder: Node = member.values["decoder"]
        fields = sorted(key for key in decoder.values if key in ("latents", "texts", "beside", "conditioning"))
        found.setdefault(f"{decoder.name} with {', '.join(fields) or 'nothing else'}", []).append(name)
    if len(found) > 1:
        told = "; ".join(f"{', '.join(names)}: {what}" for what, names in found.items())
        journal.problems.append(f"samples of all backends must hold the same fields, they are: {told}")
