"""Stages of the data: what is measured, and what of it is told."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from neurotrain.data.report import Stages, forget_peak, memory, staged, told

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a stage is told by Linux only")


class Data:
    """Sets up twice, the second time within another stage."""

    def __init__(self) -> None:
        self.stages = Stages()

    @staged("index")
    def setup(self, stage: str) -> None:
        time.sleep(0.02)

    def everything(self) -> None:
        with self.stages.measured("all"):
            self.setup(stage="fit")


def test_sums_up_what_comes_again() -> None:
    data = Data()
    data.setup("fit")
    data.setup(stage="test")
    (stage,) = data.stages.as_dict().values()
    assert stage["times"] == 2
    assert 0.04 <= stage["seconds"] < 1.0
    assert stage["peak_bytes"] >= stage["rss_bytes"] > 0


def test_a_stage_within_a_stage_is_not_counted_twice() -> None:
    data = Data()
    data.everything()
    assert list(data.stages.as_dict()) == ["all"]


def test_a_stage_that_fails_is_measured() -> None:
    stages = Stages()
    with pytest.raises(ValueError, match="broken"), stages.measured("index"):
        raise ValueError("broken")
    assert stages.as_dict()["index"]["times"] == 1
    with stages.measured("memory"):
        pass
    assert list(stages.as_dict()) == ["index", "memory"]


@LINUX
def test_each_stage_has_a_peak_of_its_own() -> None:
    stages = Stages()
    with stages.measured("large"):
        large = torch.ones(64 << 20, dtype=torch.uint8)
        del large
    with stages.measured("small"):
        pass
    found = stages.as_dict()
    assert found["large"]["peak_bytes"] - found["small"]["peak_bytes"] > 32 << 20


@LINUX
def test_forgetting_keeps_what_is_there() -> None:
    forget_peak()
    now, peak = memory()
    assert peak >= now > 1 << 20


def test_tells_only_counts_that_are_not_zero() -> None:
    stages = Stages()
    stages.add("first batch", seconds=0.25)
    lines = told(
        {
            "stages": stages.as_dict(),
            "samples": {"a": 3, "b": 4},
            "counters": {"a/latents_hits": 3, "a/latents_misses": 0},
        }
    )
    assert lines[0] == "data: 7 samples (a 3, b 4)"
    assert lines[1].startswith("  first batch: 0.25 s, memory ")
    assert lines[2:] == ["  a/latents_hits: 3"]
