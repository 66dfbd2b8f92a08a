"""Conditions are parsed, never run."""

from __future__ import annotations

import pytest

from neurotrain.app.runs.conditions import parse
from neurotrain.app.runs.errors import RunsError

VALUES = {
    "test/dice": 0.8,
    "seed": 1,
    "model.network.depth": 4,
    "name": "drive unet",
    "flag": True,
    "none": None,
    "nan": float("nan"),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("test/dice > 0.7", True),
        ("test/dice>0.8", False),
        ("test/dice >= 8e-1", True),
        ("seed = 1 and test/dice < 0.5", False),
        ("seed = 2 or seed == 1 and test/dice > 0.7", True),
        ("(seed = 2 or seed = 1) and test/dice < 0.7", False),
        ("not seed = 2", True),
        ("not not seed = 2", False),
        ("seed != 2", True),
        ("seed = 1.0", True),
        ("flag = true", True),
        ("flag = 1", False),
        ("flag > 0", False),
        ("none = null", True),
        ("none < 1", False),
        ("nan < 1", False),
        ("nan = nan", True),
        ('name = "drive unet"', True),
        ("name ~ unet", True),
        ("name > 1", False),
        ("name < 'e'", True),
        ("absent = 1", False),
        ("not absent = 1", True),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    assert parse(text).holds(VALUES) is holds


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "a name such as test/dice at the end"),
        ("seed", "one of > >= < <= = != ~ at the end"),
        ("seed >", "a value at the end"),
        ("seed > 1 seed", "and, or, or the end at character 10"),
        ("(seed > 1", "a closing bracket at the end"),
        ("seed > 'a", "from character 7 on"),
        ("> 1", "a name such as test/dice at character 1"),
        ("seed ( 1", "one of > >= < <= = != ~ at character 6"),
        ("__import__('os').system('true')", "at character 11"),
        ("(" * 99 + "seed=1" + ")" * 99, "brackets"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, where: str) -> None:
    with pytest.raises(RunsError) as refused:
        parse(text)
    assert where in str(refused.value)
