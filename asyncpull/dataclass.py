"""The data classes of this package: those of the standard library, but that methods are written when first used.

``dataclasses`` writes and compiles six methods of a frozen class as it is defined. A pull defines two hundred classes
and makes objects of eighty, so a third of the time of its imports went there. Here the definition makes the slots and
no more. ``__init__`` is written when the first object is made; what compares and hashes takes tuples of the fields; the
rest, which most classes never need, is borrowed from twins in the standard library, made when they are first asked for.
Objects are the same, down to ``replace``, ``asdict``, pickles and ``match``; type checkers see nothing but the standard
library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from copy import copy
    from dataclasses import MISSING, Field, FrozenInstanceError, field, make_dataclass
    from functools import cached_property
    from operator import attrgetter

    _ORDER: Final = ("__lt__", "__le__", "__gt__", "__ge__")

    def dataclass(*, slots: bool, frozen: bool = False, eq: bool = True, order: bool = False) -> Any:
        """As ``dataclasses.dataclass`` with these options, always with slots."""
        if not slots:
            raise TypeError("a class without slots is made by dataclasses.dataclass")
        return lambda cls: _define(cls, {"frozen": frozen, "eq": eq, "order": order})

    class _Definition:
        """What a class was defined with; as its ``__dataclass_fields__`` it gives those of the twin."""

        def __init__(self, fields: dict[str, Field[Any]], options: dict[str, bool]) -> None:
            self.fields, self._options = fields, options
            self.cls: type

        def __get__(self, instance: object, owner: type) -> dict[str, Field[Any]]:
            return self._known

        @cached_property
        def twin(self) -> type:
            """A class of the standard library that is the same."""
            return self._new_twin(**self._options)

        @cached_property
        def _known(self) -> dict[str, Field[Any]]:
            """The fields as the standard library marks them; a twin without methods costs a quarter of another."""
            return self._new_twin(init=False, repr=False, eq=False).__dataclass_fields__

        def _new_twin(self, **options: bool) -> type:
            return make_dataclass(
                self.cls.__name__, [(n, each.type, copy(each)) for n, each in self.fields.items()], **options
            )

        def borrowed(self, name: str) -> Any:
            """A method that puts the one of the twin in its own place."""

            def method(instance: object, *arguments: object) -> Any:
                actual = getattr(self.twin, name)
                setattr(self.cls, name, actual)
                return actual(instance, *arguments)

            return method

        def new_init(self) -> Any:
            """A method that puts the written one in its own place."""

            def __init__(instance: object, *arguments: object, **named: object) -> None:
                self.cls.__init__ = actual = self.write_init()
                actual(instance, *arguments, **named)

            return __init__

        def write_init(self) -> Any:
            """Write ``__init__``, which sets the slots of a frozen class themselves: nothing forbids that."""
            scope: dict[str, Any] = {"_missing": MISSING}
            parameters, lines = ["self"], []
            for name, each in self.fields.items():
                scope[f"_set_{name}"] = getattr(self.cls, name).__set__
                scope[f"_default_{name}"], scope[f"_factory_{name}"] = each.default, each.default_factory
                value, makes = name, each.default_factory is not MISSING
                if not each.init:
                    value = f"_factory_{name}()" if makes else f"_default_{name}"
                elif makes:
                    parameters.append(f"{name}=_missing")
                    value = f"_factory_{name}() if {name} is _missing else {name}"
                else:
                    parameters.append(name if each.default is MISSING else f"{name}=_default_{name}")
                if each.init or makes or each.default is not MISSING:
                    frozen = self._options["frozen"]
                    lines.append(f" _set_{name}(self, {value})" if frozen else f" self.{name} = {value}")
            if hasattr(self.cls, "__post_init__"):
                lines.append(" self.__post_init__()")
            exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(lines or [" pass"]), scope)
            init = scope["__init__"]
            init.__qualname__ = f"{self.cls.__qualname__}.__init__"
            return init

    class _Signature:
        """The signature of a class, as ``inspect`` and ``help`` ask for it."""

        def __init__(self, definition: _Definition) -> None:
            self._definition = definition

        def __get__(self, instance: object, owner: type) -> Any:
            from inspect import signature  # slow to import, and seldom wanted

            if owner is not self._definition.cls:
                raise AttributeError("__signature__")
            return signature(self._definition.twin)

    def _define(cls: type, options: dict[str, bool]) -> type:
        """Return a class like ``cls`` that has slots, and methods that write themselves."""
        namespace = dict(cls.__dict__)
        inherited: dict[str, Field[Any]] = {}
        for base in cls.__mro__[:0:-1]:
            if isinstance(known := base.__dict__.get("__dataclass_fields__"), _Definition):
                inherited |= known.fields
        own = {
            name: _field(name, kind, namespace)
            for name, kind in cls.__annotations__.items()
            if not kind.startswith("ClassVar")
        }
        fields = inherited | own
        definition = _Definition(fields, options)
        for name in (*own, "__dict__", "__weakref__"):
            namespace.pop(name, None)
        namespace["__slots__"] = tuple(name for name in own if name not in inherited)
        namespace["__dataclass_fields__"] = definition
        namespace["__signature__"] = _Signature(definition)
        written = {"__init__": definition.new_init(), "__repr__": definition.borrowed("__repr__")}
        written["__match_args__"] = tuple(name for name, each in fields.items() if each.init)
        if options["eq"]:
            written["__eq__"] = _equality([name for name, each in fields.items() if each.compare])
            counting = [name for name, each in fields.items() if (each.compare if each.hash is None else each.hash)]
            written["__hash__"] = _hashing(counting) if options["frozen"] else None
        if options["order"]:
            written |= {name: definition.borrowed(name) for name in _ORDER}
        if options["frozen"]:
            written |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
            written["__getstate__"] = lambda instance: [getattr(instance, name) for name in fields]
            written["__setstate__"] = _restore
        if options["eq"] and "__eq__" in namespace and namespace.get("__hash__", 0) is None:
            del namespace["__hash__"]  # Python's own None, for a class that defines equality
        definition.cls = type(cls)(cls.__name__, cls.__bases__, written | namespace)
        return definition.cls

    def _field(name: str, kind: str, namespace: dict[str, Any]) -> Field[Any]:
        default = namespace.get(name, MISSING)
        found = default if isinstance(default, Field) else field(default=default)
        if found.kw_only is True or kind.startswith("InitVar") or type(found.default).__hash__ is None:
            raise TypeError(f"{name}: a field of this kind is made by dataclasses.dataclass")
        found.name, found.type = name, kind
        return found

    def _tuple_of(names: list[str]) -> Any:
        """A function that makes a tuple of those attributes of an object."""
        if len(names) > 1:
            return attrgetter(*names)
        return lambda instance: tuple(getattr(instance, name) for name in names)

    def _equality(names: list[str]) -> Any:
        key = _tuple_of(names)

        def __eq__(instance: object, other: object) -> Any:
            return key(instance) == key(other) if other.__class__ is instance.__class__ else NotImplemented

        return __eq__

    def _hashing(names: list[str]) -> Any:
        key = _tuple_of(names)

        def __hash__(instance: object) -> int:
            return hash(key(instance))

        return __hash__

    def _restore(instance: Any, state: list[object]) -> None:
        for name, value in zip(type(instance).__dict__["__dataclass_fields__"].fields, state, strict=True):
            object.__setattr__(instance, name, value)

    def _refuse_to_set(instance: object, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_to_delete(instance: object, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")
