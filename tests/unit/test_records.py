"""Record, the stand-in for dataclasses: frozen, equal by value, hashable, readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexe.records import Record


class Point(Record):
    x: int
    y: int = 0


class Named(Point):
    name: str = "here"


class Other(Record):
    x: int
    y: int = 0


@given(st.integers(), st.integers())
def test_values(x: int, y: int) -> None:
    point = Point(x, y)
    assert (point.x, point.y) == (x, y)
    assert point == Point(x=x, y=y) == Point(x, y=y)
    assert hash(point) == hash(Point(x, y))
    assert point.as_dict() == {"x": x, "y": y}
    assert point.replace() == point
    assert point.replace(y=5) == Point(x, 5)
    assert (point == Point(x, y + 1)) is False
    assert repr(point) == f"Point(x={x}, y={y})"


def test_kinds_are_told_apart() -> None:
    assert Point(1) != Other(1)
    assert Point(1) != Named(1)
    assert len({Point(1), Point(1, 0), Point(2)}) == 2


def test_inherited_fields_come_first() -> None:
    assert Named(1, 2, "there").as_dict() == {"x": 1, "y": 2, "name": "there"}
    assert Named(1) == Named(1, 0, "here")
    match Named(1, 2):
        case Named(x, y, name):
            assert (x, y, name) == (1, 2, "here")


def test_frozen() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="replace"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del point.x
    assert point == Point(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Point(),  # type: ignore[call-arg]
        lambda: Point(1, 2, 3),  # type: ignore[call-arg]
        lambda: Point(1, x=2),  # type: ignore[misc]
        lambda: Point(1, z=2),  # type: ignore[call-arg]
        lambda: Point(1).replace(z=2),
    ],
)
def test_wrong_fields(make: object) -> None:
    assert callable(make)
    with pytest.raises(TypeError, match="Point"):
        make()
