"""Classes of ours beside those that the standard library makes of the same text."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from abc import ABC, abstractmethod
from dataclasses import FrozenInstanceError, field
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from asyncpull import dataclass as ours

if TYPE_CHECKING:
    from collections.abc import Callable


def _classes(dataclass: Callable[..., Any]) -> dict[str, Any]:
    @dataclass(frozen=True, slots=True)
    class Point:
        """A point."""

        limit: ClassVar[int] = 7

        x: int
        y: int = 0
        names: dict[str, int] = field(default_factory=dict, hash=False)
        secret: str = field(default="s", repr=False, compare=False)

        @property
        def sum(self) -> int:
            return self.x + self.y

    @dataclass(frozen=True, slots=True)
    class Deep(Point):
        z: int = 3
        y: int = 1

    @dataclass(slots=True)
    class Counter:
        step: int
        total: int = field(default=0, init=False)
        seen: list[int] = field(default_factory=list, init=False)

        def __post_init__(self) -> None:
            self.seen.append(self.step)

    @dataclass(frozen=True, slots=True, order=True)
    class Version:
        major: int
        minor: int

    @dataclass(frozen=True, slots=True, eq=False)
    class Identity:
        name: str

    @dataclass(frozen=True, slots=True)
    class Written:
        name: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Written)

        def __hash__(self) -> int:
            return 5

        def __repr__(self) -> str:
            return "written"

    class Base(ABC):
        __slots__ = ()

        @abstractmethod
        def act(self) -> int: ...

    @dataclass(frozen=True, slots=True)
    class Actor(Base):
        number: int

        def act(self) -> int:
            return self.number

    @dataclass(frozen=True, slots=True)
    class Empty:
        pass

    found = [Point, Deep, Counter, Version, Identity, Written, Actor, Empty]
    return {each.__name__: each for each in found}


OURS, THEIRS = _classes(ours.dataclass), _classes(dataclasses.dataclass)


@pytest.fixture(params=[OURS, THEIRS], ids=["ours", "standard"])
def classes(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_fields_have_their_values(classes: dict[str, Any]) -> None:
    point = classes["Point"](1, names={"a": 1})
    assert (point.x, point.y, point.names, point.secret, point.sum, point.limit) == (1, 0, {"a": 1}, "s", 1, 7)
    assert classes["Point"](1).names is not classes["Point"](1).names


def test_a_subclass_has_the_fields_of_its_base_first(classes: dict[str, Any]) -> None:
    deep = classes["Deep"](5)
    assert [each.name for each in dataclasses.fields(deep)] == ["x", "y", "names", "secret", "z"]
    assert (deep.x, deep.y, deep.z) == (5, 1, 3)
    assert isinstance(deep, classes["Point"])
    assert deep != classes["Point"](5, 1)


def test_what_is_not_given_is_made(classes: dict[str, Any]) -> None:
    first, second = classes["Counter"](2), classes["Counter"](2)
    first.total = 9
    assert (first.seen, first.total, second.total) == ([2], 9, 0)
    with pytest.raises(TypeError):
        hash(first)
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'step'"):
        classes["Counter"]()
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'total'"):
        classes["Counter"](2, total=1)


def test_equality_and_hash(classes: dict[str, Any]) -> None:
    point = classes["Point"]
    assert point(1, 2) == point(1, 2, secret="other")
    assert point(1, 2) != point(2, 1)
    assert point(1, 2) != (1, 2)
    assert hash(point(1, 2)) == hash(point(1, 2, {"a": 1}))
    assert classes["Identity"]("a") != classes["Identity"]("a")
    assert len({classes["Identity"]("a"), classes["Identity"]("a")}) == 2
    assert classes["Empty"]() == classes["Empty"]()


def test_what_a_class_writes_itself_stays(classes: dict[str, Any]) -> None:
    written = classes["Written"]
    assert written("a") == written("b")
    assert (hash(written("a")), repr(written("a"))) == (5, "written")


def test_order(classes: dict[str, Any]) -> None:
    version = classes["Version"]
    assert sorted([version(2, 0), version(1, 9)]) == [version(1, 9), version(2, 0)]
    assert version(1, 2) <= version(1, 2) < version(1, 3)
    with pytest.raises(TypeError):
        assert classes["Point"](1) < classes["Point"](2)


def test_frozen_is_frozen(classes: dict[str, Any]) -> None:
    point = classes["Point"](1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert point.x == 1
    with pytest.raises(AttributeError):
        classes["Counter"](1).other = 2


def test_how_it_is_shown(classes: dict[str, Any]) -> None:
    assert repr(classes["Point"](1)).endswith("Point(x=1, y=0, names={})")
    assert "secret" not in repr(classes["Deep"](1))
    assert classes["Point"].__doc__ == "A point."


def test_the_standard_library_takes_it_for_one_of_its_own(classes: dict[str, Any]) -> None:
    point = classes["Point"](1, 2)
    assert dataclasses.is_dataclass(type(point))
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "names": {}, "secret": "s"}
    assert dataclasses.replace(point, y=5) == classes["Point"](1, 5)
    assert copy.copy(point) == copy.deepcopy(point) == point
    match point:
        case object(x=1, y=y):
            assert y == 2
    assert classes["Counter"].__match_args__ == ("step",)


def test_the_signature_is_told(classes: dict[str, Any]) -> None:
    assert list(inspect.signature(classes["Deep"]).parameters) == ["x", "y", "names", "secret", "z"]
    assert inspect.signature(classes["Version"]).parameters["minor"].annotation == "int"


def test_an_abstract_base_stays_one(classes: dict[str, Any]) -> None:
    assert classes["Actor"](4).act() == 4


@ours.dataclass(frozen=True, slots=True)
class _Sent:
    name: str
    parts: tuple[int, ...] = field(default=(), repr=False)


def test_pickles_of_a_frozen_class() -> None:
    assert pickle.loads(pickle.dumps(_Sent("a", (1, 2)))) == _Sent("a", (1, 2))


def test_nothing_is_written_before_it_is_used() -> None:
    @ours.dataclass(frozen=True, slots=True)
    class Unused:
        x: int

    before = Unused.__init__, Unused.__repr__
    made = Unused(1)
    assert Unused.__init__ is not before[0]
    assert Unused.__repr__ is before[1]
    assert repr(made).endswith("Unused(x=1)")
    assert Unused.__repr__ is not before[1]


def test_a_subclass_that_is_no_data_class() -> None:
    @ours.dataclass(frozen=True, slots=True)
    class Base:
        x: int

    class Child(Base):
        def __init__(self, text: str) -> None:
            super().__init__(len(text))

    assert Child("abc").x == 3
    assert list(inspect.signature(Child).parameters) == ["text"]
    assert Base(3) == Base(3)
    assert Child("abc") == Child("xyz")


def test_what_it_does_not_do_is_refused() -> None:
    with pytest.raises(TypeError, match="seen: a field of this kind"):

        @ours.dataclass(slots=True)
        class _Shared:
            seen: list[int] = []  # noqa: RUF012

    with pytest.raises(TypeError, match="slots"):

        @ours.dataclass(slots=False)
        class _Open:
            x: int
