"""The selections ``trainer=deepspeed_*``: each says what its name says."""

from __future__ import annotations

import pytest

from neurotrain.app.compose import compose
from neurotrain.app.strict import ConfigurationError

PLAIN = {"offload_optimizer": False, "offload_parameters": False}
BOTH = {"offload_optimizer": True, "offload_parameters": True}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepspeed_zero1", {"stage": 1, **PLAIN}),
        ("deepspeed_zero2", {"stage": 2, **PLAIN}),
        ("deepspeed_zero3", {"stage": 3, **PLAIN}),
        ("deepspeed_offload", {"stage": 3, **BOTH}),
        ("deepspeed_sim", {"stage": 2, **PLAIN}),
    ],
)
def test_selections(name: str, expected: dict[str, object]) -> None:
    trainer = compose("mnist_resnet", [f"trainer={name}"]).values["trainer"]
    assert trainer["strategy"].items() >= expected.items()
    on_cpu = name == "deepspeed_sim"
    assert (trainer["accelerator"], trainer["devices"]) == (("cpu", 2) if on_cpu else ("gpu", "auto"))
    assert trainer["precision"] == (None if on_cpu else "bf16-mixed")


def test_a_stage_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.strategy\.stage"):
        compose("mnist_resnet", ["trainer=deepspeed_sim", "trainer.strategy.stage=4"])
