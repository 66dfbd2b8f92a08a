"""Keys and fingerprints: equal for equal things, in every process; different for different ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neurotrain.data.cache import weights_fingerprint
from neurotrain.data.cache.keys import cache_key, canonical, owner


def network(*, stride: int = 1, activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=stride), nn.BatchNorm2d(4), activation())


def test_a_key_is_the_same_on_every_machine() -> None:
    assert cache_key("latent-1", "ü").hex() == "fe8796ecaf0e169ea8eff4b8d942100e"


def test_settings_in_any_order_are_equal_and_odd_ones_are_refused() -> None:
    assert canonical({"b": 1, "a": {"d": None, "c": True}}) == canonical({"a": {"c": True, "d": None}, "b": 1})
    assert canonical({"a": 1}) != canonical({"a": 1.5})
    for value in (float("nan"), float("inf"), torch.float16, {1, 2}, object()):
        with pytest.raises(ValueError, match="size="):
            canonical({"size": value})  # pyright: ignore[reportArgumentType]


def test_owners_share_evenly() -> None:
    counts = np.bincount([owner(str(number), world_size=4) for number in range(4000)], minlength=4)
    assert counts.min() > 900
    with pytest.raises(ValueError, match="world_size=0"):
        owner("a", world_size=0)


def test_equal_networks_have_equal_fingerprints() -> None:
    assert weights_fingerprint(network()) == weights_fingerprint(network())
    assert weights_fingerprint(network()) == weights_fingerprint(network().requires_grad_(False))


def test_whatever_decides_the_output_changes_the_fingerprint() -> None:
    nudged, counted = network(), network()
    with torch.no_grad():
        next(nudged.parameters()).view(-1)[0] += 1e-6
    buffers = dict(counted.named_buffers())
    buffers["1.running_mean"] += 1
    others = {
        "weights": network(seed=1),
        "one weight": nudged,
        "a buffer": counted,
        "a stride": network(stride=2),
        "an activation": network(activation=nn.SiLU),
        "the dtype": network().half(),
    }
    prints = {name: weights_fingerprint(module) for name, module in others.items()}
    prints["the configuration"] = weights_fingerprint(network(), config={"scaling": 0.18215})
    assert len({weights_fingerprint(network()), *prints.values()}) == len(prints) + 1


def test_addresses_do_not_count() -> None:
    class Odd(nn.Linear):
        def extra_repr(self) -> str:
            return f"hook={object()}"

    def made() -> nn.Module:
        torch.manual_seed(0)
        return Odd(2, 2)

    assert weights_fingerprint(made()) == weights_fingerprint(made())
