"""A frozen record: plain data with named fields, equality and a readable repr.

Why not ``dataclasses``: importing it costs 12 ms (it pulls in ``inspect`` and
``re``), which is more than the whole of ``hexe run`` may take over the start of
the interpreter. ``typing.NamedTuple`` costs 7 ms. This module costs 0.1 ms, and
type checkers see ordinary frozen dataclasses through ``dataclass_transform``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """Stand in at run time for the marker that only type checkers read."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """Base class of frozen data: annotate the fields in order, give defaults as class attributes.

    >>> class Point(Record):
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(1, 0), Point(1).replace(y=5)
    (Point(x=1, y=0), True, Point(x=1, y=5))
    >>> Point(1).x = 2
    Traceback (most recent call last):
      ...
    AttributeError: Point is frozen: make a changed copy with replace(x=...)
    """

    if not TYPE_CHECKING:
        _fields = ()
        __match_args__ = ()

    def __init_subclass__(cls) -> None:
        if TYPE_CHECKING:
            return
        own = cls.__dict__.get("__annotations__", {})
        inherited = cls._fields
        cls._fields = inherited + tuple(name for name in own if name not in inherited)
        cls.__match_args__ = cls._fields

    if not TYPE_CHECKING:

        def __init__(self, *args, **named):
            fields = self._fields
            values = self.__dict__
            values.update(zip(fields, args))
            if len(args) == len(fields) and not named:
                return
            cls = type(self)
            if len(args) > len(fields):
                raise TypeError(f"{cls.__name__} takes {len(fields)} fields, got {len(args)}")
            for name in named:
                if name not in fields or name in values:
                    raise TypeError(f"{cls.__name__} has no field {name!r}, or it is given twice")
            values.update(named)
            if len(values) != len(fields):
                for name in fields:
                    if name not in values:
                        try:
                            values[name] = getattr(cls, name)
                        except AttributeError:
                            raise TypeError(f"{cls.__name__} needs the field {name!r}") from None

    else:
        _fields: ClassVar[tuple[str, ...]]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: make a changed copy with replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self._fields)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({shown})"

    def replace(self, **changes: Any) -> Self:
        """A copy in which the named fields have new values. Raises TypeError for an unknown field."""
        values = {name: getattr(self, name) for name in self._fields}
        for name in changes:
            if name not in values:
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
        values.update(changes)
        return type(self)(**values)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, in order, not recursive."""
        return {name: getattr(self, name) for name in self._fields}
