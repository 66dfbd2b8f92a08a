"""Every public signature is typed and documented."""

from __future__ import annotations

import pytest
from signature_rules import undocumented, untyped
from sources import package_modules, snippet

_DOCUMENTED = '"""A module."""\n'


def test_typed() -> None:
    assert untyped(package_modules()) == []


def test_documented() -> None:
    assert undocumented(package_modules()) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("def f(a) -> int: ...", "f leaves a untyped"),
        ("def f(a: int): ...", "f leaves return untyped"),
        ("def f(*, a) -> int: ...", "f leaves a untyped"),
        ("def f(a, /) -> int: ...", "f leaves a untyped"),
        ("def f(*args) -> int: ...", "f leaves args untyped"),
        ("def f(**kwargs) -> int: ...", "f leaves kwargs untyped"),
        ("async def f(a) -> int: ...", "f leaves a untyped"),
        ("class C:\n    def __init__(self, a) -> None: ...", "C.__init__ leaves a untyped"),
        ("class C:\n    @staticmethod\n    def f(a) -> int: ...", "C.f leaves a untyped"),
        ("class C:\n    class D:\n        def f(self): ...", "C.D.f leaves return untyped"),
        ("if True:\n    def f(a) -> int: ...", "f leaves a untyped"),
    ],
)
def test_an_untyped_signature_is_found(text: str, missing: str) -> None:
    found = untyped([snippet(text)])
    assert len(found) == 1
    assert found[0].endswith(missing)


@pytest.mark.parametrize(
    "text",
    [
        "def f(a: int, *b: int, c: str = '', **d: int) -> int: ...",
        "def _f(a): ...",
        "class _C:\n    def f(self, a): ...",
        "class C:\n    def f(self, a: int) -> None: ...\n    @classmethod\n    def g(cls) -> None: ...",
        "def f() -> None:\n    def inner(a): ...",
    ],
)
def test_a_typed_or_private_signature_passes(text: str) -> None:
    assert untyped([snippet(text)]) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x = 1", "the module"),
        (f"{_DOCUMENTED}def f() -> None: ...", "f"),
        (f"{_DOCUMENTED}class C: ...", "C"),
        (f'{_DOCUMENTED}class C:\n    """C."""\n    def f(self) -> None: ...', "C.f"),
        (f'{_DOCUMENTED}class C:\n    """C."""\n    @property\n    def f(self) -> int: ...', "C.f"),
    ],
)
def test_a_missing_docstring_is_found(text: str, name: str) -> None:
    found = undocumented([snippet(text)])
    assert len(found) == 1
    assert found[0].endswith(f"{name} has no docstring")


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{_DOCUMENTED}def _f(): ...",
        f'{_DOCUMENTED}class C:\n    """C."""\n    def __len__(self) -> int: ...',
        f"{_DOCUMENTED}@typing.overload\ndef f(a: int) -> int: ...",
    ],
)
def test_what_needs_no_docstring_passes(text: str) -> None:
    assert undocumented([snippet(text)]) == []
