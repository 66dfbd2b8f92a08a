"""What is typed behind ``neurotrain data``: mistakes end in one clear line."""

from __future__ import annotations

import pytest

from neurotrain.app.data_commands import load_data


def test_a_name_that_is_not_there_is_told_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"^data/cifar1: there is no such configuration; did you mean 'cifar10'\?$"):
        load_data("cifar1", [])


def test_an_override_that_cannot_be_read_is_told_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size=\[3") as caught:
        load_data("drive", ["data.batch_size=[3"])
    assert "\n" not in str(caught.value)
