"""No swallowed exception, no probing for attributes, no ``**kwargs`` passed through."""

from __future__ import annotations

import pytest
from pattern_rules import pattern_violations
from sources import other_modules, package_modules, snippet


def test_patterns() -> None:
    assert pattern_violations([*package_modules(), *other_modules("train.py", "benchmarks")]) == []


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    f()\nexcept ValueError:\n    pass",
        "try:\n    f()\nexcept (KeyError, ValueError) as error:\n    ...",
        "try:\n    f()\nexcept* ValueError:\n    pass",
        "try:\n    f()\nexcept ValueError:\n    'nothing'",
        "try:\n    f()\nexcept:\n    raise",
        "with contextlib.suppress(Exception):\n    f()",
        "with suppress(OSError, BaseException):\n    f()",
        "def g(x):\n    return hasattr(x, 'y')",
        "getattr(x, 'y', None)",
        "def f(**kwargs):\n    return g(**kwargs)",
        "class C:\n    def __init__(self, *, a, **options):\n        super().__init__(a=a, **options)",
    ],
)
def test_a_bad_pattern_is_found(text: str) -> None:
    assert len(pattern_violations([snippet(text)])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    f()\nexcept ValueError:\n    raise KeyError from None",
        "try:\n    f()\nexcept ValueError:\n    x = None",
        "with contextlib.suppress(FileNotFoundError):\n    f()",
        "getattr(module, name)",
        "def f(**names: int):\n    return sorted(names)",
        "f(**{'a': 1})",
        "def f(g: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:\n    return g(*args, **kwargs)",
    ],
)
def test_a_good_pattern_passes(text: str) -> None:
    assert pattern_violations([snippet(text)]) == []
