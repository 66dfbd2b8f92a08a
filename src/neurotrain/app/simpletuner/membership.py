"""How much of each backend, how often, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.nodes import Node


def weights_of(mains: Sequence[Backend]) -> tuple[Node, bool]:
    """The strategy of mixing, and whether sources are cycled so that its shares hold.

    Equal probabilities are by size, as there: every sample equally often, times its repeats.
    """
    given = {main.name: main.number("probability", 1.0) or 0.0 for main in mains}
    for main in mains:
        if given[main.name] < 0:
            main.refuse("probability", f"{given[main.name]}: must be at least 0")
    if len(set(given.values())) == 1:
        return Node(group="data/weights", name="SizeProportional"), False
    for main in mains:
        main.note("probability", f"{given[main.name]:g}: its exact share; there it is scaled by size, until exhausted")
    return Node(group="data/weights", name="Explicit", values={"weights": given}), True


def members_of(mains: Sequence[Backend], *, cycling: bool) -> dict[str, Node]:
    """How each takes part: repeats are counted from 0 there and from 1 here, epochs from 1 there and from 0 here."""
    members: dict[str, Node] = {}
    for main in mains:
        repeats = main.whole("repeats", 0) or 0
        if repeats < 0:
            main.refuse("repeats", f"{repeats}: must be at least 0")
        values: dict[str, Any] = {"repeats": repeats + 1, "exhaustion": "cycle" if cycling else "drop"}
        if cycling and repeats:
            main.note("repeats", f"{repeats}: shares are those of probability, not of sizes times repeats")
        values |= _window(main)
        members[main.name] = Node(group="data/membership", name="Membership", values=values)
    if all("start_epoch" in node.values or "start_step" in node.values for node in members.values()):
        mains[0].refuse("start_epoch", "no backend takes part at the start: one needs start_epoch<=1 and start_step<=1")
    return members


def _window(main: Backend) -> dict[str, int]:
    first_epoch, first_step = main.whole("start_epoch", 1) or 1, main.whole("start_step", 0) or 0
    last_epoch, last_step = main.whole("end_epoch"), main.whole("end_step")
    for key, first, last in (("end_epoch", first_epoch - 1, last_epoch), ("end_step", first_step, last_step)):
        if last is not None and last <= first:
            main.refuse(key, f"{last}: it would never take part")
    values = {
        "start_epoch": first_epoch - 1,
        "stop_epoch": last_epoch,
        "start_step": first_step if first_step > 1 else 0,
        "stop_step": last_step,
    }
    return {key: value for key, value in values.items() if value}
