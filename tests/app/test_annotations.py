"""Plain values against annotations, and their conversion."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import pytest
import torch

from neurotrain.app.annotations import MISSING, conform, convert, describe, mismatches

T = TypeVar("T")
Pixels = NewType("Pixels", int)


class Color(Enum):
    RED = "r"
    GREEN = "g"


class Network:
    def __call__(self, x: float) -> float:
        return x


class UNet(Network):
    pass


class Loss:
    pass


class Box(Generic[T]):
    pass


class HasStep(Protocol):
    def step(self) -> None: ...


@typing.runtime_checkable
class HasRun(Protocol):
    def run(self) -> None: ...


class Runner:
    def run(self) -> None: ...


class Limits(TypedDict):
    low: int
    high: typing.NotRequired[int]


@dataclass(frozen=True, kw_only=True)
class Paths:
    data: Path = Path("data")
    sizes: tuple[int, ...]
    label: str = field(default="x", init=False)


def make_network() -> Network:
    return UNet()


def make_either() -> Network | None:
    return None


def make_unknown():  # noqa: ANN201 - the point
    return None


def make_number() -> int:
    return 3


TARGETS: dict[str, object] = {
    value.__name__: value
    for value in (Network, UNet, Loss, Box, Runner, make_network, make_either, make_unknown, make_number)
}


def fit(value: object, annotation: object) -> str | None:
    return conform(value, annotation, target_of=TARGETS.get)


def node(name: str, *, is_partial: bool = False) -> dict[str, object]:
    return {"_target_": name, **({"_partial_": True} if is_partial else {})}


FITS = [
    (3, int),
    (3, float),
    (2.5, float),
    (float("nan"), float),
    (True, bool),
    ("x", str),
    (None, None),
    (None, Optional[int]),  # noqa: UP045 - the old spelling too
    (3, Union[int, str]),  # noqa: UP007 - the old spelling too
    ("runs", Path),
    ("runs", os.PathLike),
    (Path("runs"), Path),
    ("fast", Literal["fast", "full"]),
    (16, Literal[16, "16"]),
    (None, Literal["fast"] | None),
    ([1, 2, 3], tuple[int, ...]),
    ([], tuple[int, ...]),
    ([1, "a"], tuple[int, str]),
    ([1, "a"], tuple),
    ((1, 2), tuple[int, int]),
    ((1, 2), Sequence[int]),
    ([1, 2.5], Sequence[float]),
    ([1], list[int]),
    ([1], typing.List[int]),  # noqa: UP006 - the old spelling too
    (["a"], Iterable[str]),
    (["a", "b"], frozenset[str]),
    ({"a": 1}, Mapping[str, float]),
    ({"a": 1}, dict),
    ({"RED": 1}, dict[Color, int]),
    ("RED", Color),
    (Color.RED, Color),
    (5, Pixels),
    (5, Annotated[int, "voxels"]),
    (object(), object),
    ({"a": [1]}, Any),
    ("x", T),
    (["x", 1], list[T]),
    ("x", "Unresolved"),
    ({"low": 1}, Limits),
    ({"low": 1, "high": 2}, Limits),
    ({"sizes": [1, 2]}, Paths),
    (3, typing.SupportsFloat),
    (MISSING, int),
    ([MISSING, 1], tuple[int, ...]),
    # built objects
    (UNet(), Network),
    ([UNet()], Sequence[Network]),
    (UNet(), Callable[[float], float]),
    (make_network, Callable),
    (Box(), Box[int]),
    (Runner(), HasRun),
    (Runner, type[Runner]),
]


def _named(value: object) -> str:
    """A name that is the same in every process: without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.mark.parametrize(("value", "annotation"), FITS, ids=_named)
def test_value_fits(value: object, annotation: object) -> None:
    assert conform(value, annotation) is None


REFUSALS = [
    ("3", int, "expected int, got str '3'"),
    (True, int, "expected int, got bool True"),
    (True, float, "expected float, got bool True"),
    (3.0, int, "expected int, got float 3.0"),
    (1, bool, "expected bool, got int 1"),
    ("true", bool, "expected bool, got str 'true'"),
    ("1e-3", float, "expected float, got str '1e-3'"),
    (3, str, "expected str, got int 3"),
    (None, int, "expected int, got None"),
    (3, None, "expected None, got int 3"),
    ("3", int | None, "expected int or None, got str '3'"),
    ([1], int | str | None, "expected int, str or None, got list of length 1 [1]"),
    (3, Path, "expected Path, got int 3"),
    ("fats", Literal["fast", "full"], "expected one of 'fast', 'full', got 'fats'; did you mean 'fast'?"),
    ("fats", Literal["fast"] | None, "expected one of 'fast' or None, got 'fats'; did you mean 'fast'?"),
    (True, Literal[1, 0], "expected one of 1, 0, got bool True"),
    ("16", Literal[16], "expected one of 16, got '16'; did you mean '16'?"),
    ([1, "2", 3], tuple[int, ...], "1: expected int, got str '2'"),
    ([1, 2, 3], tuple[int, int], "expected tuple[int, int], got list of length 3 [1, 2, 3]"),
    (3, tuple[int, ...], "expected tuple[int, ...], got int 3"),
    ("abc", Sequence[str], "expected Sequence[str], got str 'abc'"),
    ({"a": 1}, Iterable[str], "expected Iterable[str], got dict {'a': 1}"),
    ((1,), list[int], "expected list[int], got tuple of length 1 (1,)"),
    ([[1], [2, "x"]], list[list[int]], "1.1: expected int, got str 'x'"),
    ([1, 1], set[int], "expected set[int], got list of length 2 [1, 1]"),
    ({"a": {"b": "x"}}, Mapping[str, Mapping[str, int]], "a.b: expected int, got str 'x'"),
    ({1: 1}, dict[str, int], "1: expected str, got int 1"),
    ([1], dict[str, int], "expected dict[str, int], got list of length 1 [1]"),
    (["x"], list[int] | None, "0: expected int, got str 'x'"),
    ("RAD", Color, "expected one of RED, GREEN, got 'RAD'; did you mean 'RED'?"),
    ("r", Color, "expected one of RED, GREEN, got 'r'"),
    ("5", Pixels, "expected int, got str '5'"),
    ("5", Annotated[int, "voxels"], "expected int, got str '5'"),
    ({"depth": 3}, Network, "expected Network, got dict {'depth': 3}; a node needs `_target_`"),
    ("unet", Network, "expected Network, got str 'unet'"),
    (Loss(), Network, "expected Network, got Loss"),
    ("print", Callable[..., Any], "expected Callable[..., Any], got str 'print'"),
    (3, HasStep, "expected HasStep, got int 3"),
    ({"low": "x"}, Limits, "low: expected int, got str 'x'"),
    ({"low": 1, "hgih": 1}, Limits, "hgih: unknown key 'hgih' of Limits; did you mean 'high'?"),
    ({}, Limits, "low: missing: Limits requires it, int"),
    ({"sizes": ["a"]}, Paths, "sizes.0: expected int, got str 'a'"),
    ({"sizes": [1], "label": "y"}, Paths, "label: unknown key 'label' of Paths"),
]


@pytest.mark.parametrize(("value", "annotation", "reason"), REFUSALS, ids=_named)
def test_value_is_refused(value: object, annotation: object, reason: str) -> None:
    found = conform(value, annotation)
    assert found is not None
    assert found == reason or (isinstance(value, Loss) and found.startswith(reason))


def test_every_element_is_reported() -> None:
    found = mismatches({"a": [1, "x", None], "b": [2.5]}, dict[str, list[int]])
    assert [path for path, _ in found] == [("a", "1"), ("a", "2"), ("b", "0")]


NODE_FITS = [
    (node("UNet"), Network),
    (node("UNet"), Network | None),
    (node("UNet"), Any),
    (node("UNet"), Loss | Network),
    (node("make_network"), Network),
    (node("make_either"), Network),
    (node("make_unknown"), Network),
    (node("make_number"), float),
    (node("make_number"), Literal[3]),
    (node("Elsewhere"), Network),
    (node("Box"), Box[int]),
    (node("Loss"), HasStep),
    (node("Runner"), HasRun),
    (node("UNet"), Callable[[float], float]),
    (node("UNet", is_partial=True), Callable[..., Network]),
    (node("UNet", is_partial=True), Callable),
    (node("make_network", is_partial=True), Callable[[], Network]),
    (node("UNet", is_partial=True), Callable[..., T]),
    ([node("UNet"), node("make_network")], Sequence[Network]),
    ({"a": node("UNet"), "b": None}, dict[str, Network | None]),
]


@pytest.mark.parametrize(("value", "annotation"), NODE_FITS, ids=_named)
def test_node_fits(value: object, annotation: object) -> None:
    assert fit(value, annotation) is None


NODE_REFUSALS = [
    (node("Loss"), Network, "expected Network, got a node of 'Loss'"),
    (node("Loss"), int | None, "expected int or None, got a node of 'Loss'"),
    (node("Loss"), Literal["a"], "expected one of 'a', got a node of 'Loss'"),
    (node("Loss"), HasRun, "expected HasRun, got a node of 'Loss'"),
    (node("Loss"), Limits, "expected Limits, got a node of 'Loss'"),
    (node("make_network"), UNet, "expected UNet, got a node of 'make_network'"),
    (node("make_number"), bool, "expected bool, got a node of 'make_number'"),
    (
        node("UNet", is_partial=True),
        Network,
        "expected Network, got a partial of 'UNet'; remove `_partial_: true`",
    ),
    (
        node("Loss"),
        Callable[..., Loss],
        "expected Callable[..., Loss], got a node of 'Loss'; set `_partial_: true`",
    ),
    (
        node("Loss", is_partial=True),
        Callable[..., Network],
        "expected Callable[..., Network], got a partial of 'Loss'",
    ),
    ([node("UNet"), node("Loss")], list[Network], "1: expected Network, got a node of 'Loss'"),
]


@pytest.mark.parametrize(("value", "annotation", "reason"), NODE_REFUSALS, ids=_named)
def test_node_is_refused(value: object, annotation: object, reason: str) -> None:
    assert fit(value, annotation) == reason


def same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


CONVERSIONS = [
    ([1, 2], tuple[int, ...], (1, 2)),
    ([1, "a"], tuple[int, str], (1, "a")),
    ([[1, 2], [3]], tuple[tuple[int, ...], ...], ((1, 2), (3,))),
    ([1, 2], list[int], [1, 2]),
    ([1, 2], Sequence[int], (1, 2)),
    ([1, 2], Iterable[int], [1, 2]),
    ([1, 2], Any, [1, 2]),
    (["a"], frozenset[str], frozenset({"a"})),
    (["a"], set[str], {"a"}),
    ("runs", Path, Path("runs")),
    ("runs", Path | None, Path("runs")),
    ("runs", str | Path, "runs"),
    ("runs", os.PathLike, Path("runs")),
    (["a"], Sequence[Path], (Path("a"),)),
    ("RED", Color, Color.RED),
    ("RED", Color | None, Color.RED),
    ({"RED": [1]}, dict[Color, tuple[int, ...]], {Color.RED: (1,)}),
    ({"a": [1]}, Mapping[str, Sequence[int]], {"a": (1,)}),
    (1, float, 1.0),
    (1, float | None, 1.0),
    (1, int | float, 1),
    (1, float | int, 1),
    (1.5, int | float, 1.5),
    (True, bool | float, True),
    (1, Literal[1] | float, 1),
    ([1, 2], int | tuple[int, int], (1, 2)),
    ([1, 2], tuple[float, ...] | list[int], [1, 2]),
    (["a"], Path | Sequence[Path], (Path("a"),)),
    (None, tuple[int, ...] | None, None),
    ({"low": 1}, Limits, {"low": 1}),
    (5, Pixels, 5),
    ("x", "Unresolved", "x"),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), CONVERSIONS, ids=_named)
def test_conversion(value: object, annotation: object, expected: object) -> None:
    converted = convert(value, annotation)
    assert same(converted, expected)
    if isinstance(converted, (tuple, list)):
        assert all(same(left, right) for left, right in zip(converted, typing.cast("Any", expected), strict=True))


def test_mapping_becomes_the_dataclass() -> None:
    assert convert({"data": "d", "sizes": [1]}, Paths | None) == Paths(data=Path("d"), sizes=(1,))


def test_nodes_and_objects_stay_as_they_are() -> None:
    network, tensor, pending = UNet(), torch.zeros(2), node("UNet")
    assert convert(network, Network) is network
    assert convert(tensor, float | torch.Tensor) is tensor
    assert convert(pending, Network) is pending
    built = convert([network], Sequence[Network])
    assert isinstance(built, tuple)
    assert built[0] is network


def test_conversion_never_shares_a_container() -> None:
    values = {"a": [1]}
    converted = typing.cast("dict[str, list[int]]", convert(values, Any))
    assert converted == values
    assert converted is not values
    assert converted["a"] is not values["a"]


def test_descriptions() -> None:
    assert describe(Callable[[int], str]) == "Callable[[int], str]"
    assert describe(dict[str, int | None]) == "dict[str, int | None]"
    assert describe(Literal["a"], None) == "one of 'a' or None"
