"""At most 450 lines a file and 50 a function; modules are named for what they hide."""

from __future__ import annotations

import pytest
from size_rules import file_violations, function_violations, name_violations
from sources import Module, other_modules, package_modules, snippet


@pytest.fixture(scope="module")
def written() -> list[Module]:
    return [*package_modules(), *other_modules("train.py", "benchmarks")]


def test_files(written: list[Module]) -> None:
    assert file_violations(written) == []


def test_functions(written: list[Module]) -> None:
    assert function_violations(written) == []


def test_names(written: list[Module]) -> None:
    assert name_violations(written) == []


def test_tests_keep_the_limits_too() -> None:
    tests = other_modules("tests")
    assert file_violations(tests) + function_violations(tests) == []


def test_a_long_file_is_found() -> None:
    assert file_violations([snippet("x = 1\n" * 450)]) == []
    assert len(file_violations([snippet("x = 1\n" * 451)])) == 1


@pytest.mark.parametrize("head", ["def f():", "async def f():", "class C:\n  def f(self):", "def g():\n  def f():"])
def test_a_long_function_is_found(head: str) -> None:
    first, _, rest = head.rpartition("def f")
    body = "".join("    x = 1\n" for _ in range(49))
    allowed, refused = (snippet(f"{first}def f{rest}\n{body}{more}") for more in ("", "    y = 1\n"))
    names = {line.split()[1] for line in function_violations([refused])}
    assert "f" in names
    assert "f" not in {line.split()[1] for line in function_violations([allowed])}


@pytest.mark.parametrize("name", ["neurotrain.utils", "neurotrain.data.helpers", "neurotrain.common.x", "io_utils"])
def test_an_empty_name_is_found(name: str) -> None:
    assert len(name_violations([snippet("x = 1", name)])) == 1
    assert name_violations([snippet("x = 1", "neurotrain.data.commonality")]) == []
