"""Which backend needs which: references that lead nowhere, of the wrong kind, or in a circle."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.journal import Journal, one_of

LINKS: Mapping[str, tuple[str, ...]] = {
    "text_embeds": ("text_embeds",),
    "image_embeds": ("image_embeds",),
    "conditioning_data": ("conditioning",),
    "source_dataset_id": ("image", "video"),
}
"""Keys that name other backends, with the dataset types that these must have."""


def ordered(backends: Mapping[str, Backend], *, disabled: frozenset[str], journal: Journal) -> list[str]:
    """Ids in an order in which each comes after what it needs: caches, then conditioning, then what is trained on.

    Args:
        backends: by id, without disabled ones.
        disabled: ids that are skipped.
        journal: told of missing references, wrong kinds and circles.
    """
    graph: dict[str, set[str]] = {name: set() for name in backends}
    for name, backend in backends.items():
        for key, kinds in LINKS.items():
            for target in backend.names(key):
                if _fits(backend, key, target, kinds, backends, disabled):
                    # A conditioning set names the images that name it: that is one link, not a circle.
                    mutual = key == "source_dataset_id" and name in backends[target].names("conditioning_data")
                    graph[name] |= set() if mutual else {target}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        journal.problems.append(f"backends need each other in a circle: {' -> '.join(reversed(error.args[1]))}")
        return list(backends)


def _fits(
    backend: Backend,
    key: str,
    target: str,
    kinds: tuple[str, ...],
    backends: Mapping[str, Backend],
    disabled: frozenset[str],
) -> bool:
    if target in disabled:
        backend.refuse(key, f"{target!r} is disabled")
        return False
    if target not in backends:
        others = [name for name, other in backends.items() if other.kind in kinds] or list(backends)
        backend.refuse(key, f"there is no such backend; {one_of(target, others)}")
        return False
    if backends[target].kind not in kinds:
        backend.refuse(key, f"{target!r} has dataset_type={backends[target].kind!r}, expected {' or '.join(kinds)}")
    # Of whatever kind it is, it counts for circles.
    return True
