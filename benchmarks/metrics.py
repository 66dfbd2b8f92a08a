"""Metrics: ours against the implementations that others use, on the same inputs in one run.

Every family has a module ``metrics_<family>.py`` whose ``rows`` yields its results. Before anything is timed, both must
give the same values. Each side gets the form of the data that it takes without conversion, made beforehand.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from harness import Options, Result, main

FAMILIES = ("metrics_segmentation", "metrics_detection", "metrics_text")
"""Modules beside this one, each with ``rows(options: Options) -> Iterator[Result]``."""


def results(options: Options) -> Iterator[Result]:
    """The rows of every family."""
    torch.manual_seed(0)
    for family in FAMILIES:
        if find_spec(family) is not None:
            yield from importlib.import_module(family).rows(options)


if __name__ == "__main__":
    main(results, description="metrics: ours over the peer of the same definition")
