from __future__ import annotations

import pytest
import torch

import neurotrain
from neurotrain.app.precision import fastest_precision


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, "32-true"), (True, False, "bf16-mixed"), (False, True, "bf16-mixed")],
)
def test_bfloat16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert fastest_precision() == expected
    config = neurotrain.compose("drive_unet", overrides=["data=synthetic_drive"])
    assert config.values["trainer"]["precision"] == expected


def test_a_typed_precision_wins() -> None:
    config = neurotrain.compose("drive_unet", overrides=["data=synthetic_drive", "trainer.precision=16-mixed"])
    assert config.values["trainer"]["precision"] == "16-mixed"
