"""Bytes of a protocol's values, from their types: no protocol writes a codec of its own.

    Codec.of(Event)      a union of frozen dataclasses; so for states and effects

A dataclass becomes an array of its name and its fields, a wire message its own encoding, a signed
message kind, message and signature, an enumeration its value, an optional value null or itself; a
mapping or a set the array of its items in the order of their encodings. All of it is the
project's deterministic CBOR (`verifiable.encoding`), and `decode` accepts only what `encode`
writes. Constructors check every value again.

What a process is given anew at each start, such as rules with functions, has no bytes: fields of
such a type are null in the encoding, and `decode` takes the value. Fields that a constructor
computes are left out.

`schema` describes names, fields and types. A stream holds its hash, so bytes are never read with
other types than they were written with.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final, NamedTuple, cast

from protocols.journal.store import MAX_ITEMS
from protocols.messages import Message, Signed
from verifiable import encoding
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding

_PLAIN: Final = (bool, int, float, bytes, str)


class _Form(NamedTuple):
    """How values of one type are encoded.

    Attributes:
      schema: the type, in words.
      accepts: whether a value, or the wire form of one, is of this type.
      wire: the plain form of a value.
      value: a value of its plain form and of what is given.
    """

    schema: str
    accepts: Callable[[Any], bool]
    wire: Callable[[Any], Any]
    value: Callable[[Any, Mapping[type, Any]], Any]
    reads: Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Encodes and decodes the values of one type.

    Attributes:
      schema: names, fields and types of all that a value may hold.
      fingerprint: 32-byte hash of the schema.
    """

    schema: str
    fingerprint: bytes
    _form: _Form

    @classmethod
    def of(cls, kind: Any, *, given: tuple[type, ...] = ()) -> Codec:
        """The codec of a type.

        Args:
          kind: a frozen dataclass, or a union of some.
          given: types of the values that have no bytes and that `decode` is given.

        Raises:
          TypeError: a field has a type that has no bytes.
        """
        parts: dict[str, str] = {}
        form = _Forms(given, parts).of(kind)
        schema = "\n".join([form.schema, *(f"{name}: {parts[name]}" for name in sorted(parts))])
        return cls(
            schema=schema, fingerprint=tagged_hash("journal schema", schema.encode()), _form=form
        )

    def wire(self, value: Any) -> Any:
        """The plain form of a value, to be encoded by `verifiable.encoding`.

        Raises:
          TypeError: the value, or a part of it, is of another type.
        """
        return self._form.wire(value)

    def value(self, wire: Any, given: Mapping[type, Any] | None = None) -> Any:
        """The value of a plain form.

        Args:
          wire: decoded by `verifiable.encoding`.
          given: a value for each of the types that have no bytes.

        Raises:
          MalformedEncoding: it is the form of no value.
        """
        try:
            value = self._form.value(wire, given or {})
            again = self._form.wire(value)
        except (TypeError, ValueError, KeyError) as error:
            raise MalformedEncoding(f"expected {self._form.schema}: {error}") from error
        if encoding.encode(again) != encoding.encode(wire):
            raise MalformedEncoding(f"expected {self._form.schema} in its one encoding")
        return value

    def encode(self, value: Any) -> bytes:
        """The one encoding of a value."""
        return encoding.encode(self.wire(value))

    def decode(
        self,
        data: bytes | bytearray | memoryview,
        given: Mapping[type, Any] | None = None,
        *,
        max_size: int,
    ) -> Any:
        """The value of an encoding.

        Raises:
          MalformedEncoding: too long, not canonical, or the encoding of no value.
        """
        wire = encoding.decode(data, max_size=max_size, max_items=MAX_ITEMS)
        return self.value(wire, given)


class _Forms:
    """Finds the form of a type, and of all types inside it."""

    def __init__(self, given: tuple[type, ...], parts: dict[str, str]):
        self._given, self._parts = given, parts
        self._found: dict[type, _Form] = {}

    def of(self, kind: Any) -> _Form:
        """The form of a type."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in {typing.Union, types.UnionType}:
            return self._union([self.of(a) for a in arguments])
        if origin is Signed:
            return self._signed(*arguments)
        if origin is tuple:
            return self._tuple(arguments)
        if origin is frozenset:
            return self._collection("set", self.of(*arguments), frozenset)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            pair = self._tuple(arguments)
            return self._collection("map", pair, dict, lambda value: tuple(value.items()))
        kind = kind if origin is None else origin
        if kind is type(None):
            return _Form(
                "null",
                _is_null,
                lambda value: _checked(value, _is_null(value)),
                lambda wire, given: None,
                _is_null,
            )
        if kind in _PLAIN:
            return _plain(kind)
        if kind in self._given:
            return _given(kind)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return _enumeration(kind)
        if isinstance(kind, type) and issubclass(kind, Message):
            return self._message(kind)
        if is_dataclass(kind):
            return self._dataclass(cast("type", kind))
        raise TypeError(f"values of the type {kind!r} have no bytes: name it among those given")

    def _union(self, forms: list[_Form]) -> _Form:
        """One of several types, which the wire form tells apart."""

        def wire(value: Any) -> Any:
            return _only([form for form in forms if form.accepts(value)]).wire(value)

        def value(wire: Any, given: Mapping[type, Any]) -> Any:
            return _only([form for form in forms if form.reads(wire)]).value(wire, given)

        return _Form(
            " / ".join(form.schema for form in forms),
            lambda value: any(form.accepts(value) for form in forms),
            wire,
            value,
            lambda wire: any(form.reads(wire) for form in forms),
        )

    def _tuple(self, arguments: tuple[Any, ...]) -> _Form:
        if arguments[-1] is Ellipsis:
            return self._collection("array", self.of(arguments[0]), tuple)
        forms = [self.of(a) for a in arguments]

        def wire(value: Any) -> Any:
            _checked(value, type(value) is tuple)
            return [form.wire(x) for form, x in zip(forms, value, strict=True)]

        def value(wire: Any, given: Mapping[type, Any]) -> Any:
            return tuple(form.value(x, given) for form, x in zip(forms, wire, strict=True))

        schema = f"[{', '.join(form.schema for form in forms)}]"
        return _Form(schema, lambda v: type(v) is tuple, wire, value, _is_list)

    def _collection(
        self,
        name: str,
        item: _Form,
        make: Callable[[Any], Any],
        items: Callable[[Any], Any] = tuple,
    ) -> _Form:
        """An array in its own order, or a set or mapping in the order of its encodings."""

        def wire(value: Any) -> Any:
            found = [item.wire(x) for x in items(value)]
            return found if name == "array" else sorted(found, key=encoding.encode)

        def value(wire: Any, given: Mapping[type, Any]) -> Any:
            return make(item.value(x, given) for x in wire)

        accepts: Callable[[Any], bool] = {
            "array": lambda v: type(v) is tuple,
            "set": lambda v: type(v) is frozenset,
            "map": lambda v: isinstance(v, Mapping),
        }[name]
        return _Form(
            f"{name} of {item.schema}",
            accepts,
            lambda v: wire(_checked(v, accepts(v))),
            value,
            _is_list,
        )

    def _message(self, kind: type[Message]) -> _Form:
        """A wire message: the bytes of its own encoding."""
        return _Form(
            f"message {kind.KIND}",
            lambda v: type(v) is kind,
            lambda v: _checked(v, type(v) is kind).encode(),
            lambda wire, given: kind.decode(wire),
            lambda wire: type(wire) is bytes,
        )

    def _signed(self, argument: Any) -> _Form:
        """A signed message. It was authenticated before it was recorded."""
        message = self.of(argument)
        name = argument.KIND

        def accepts(value: Any) -> bool:
            return type(value) is Signed and message.accepts(value.message)

        def wire(value: Any) -> Any:
            _checked(value, accepts(value))
            return ["signed", name, message.wire(value.message), value.signature]

        def value(wire: Any, given: Mapping[type, Any]) -> Any:
            _, _, data, signature = wire
            _checked(signature, type(signature) is bytes and len(signature) == 64)
            return Signed(message=message.value(data, given), signature=signature)

        return _Form(
            f"signed {name}",
            accepts,
            wire,
            value,
            lambda w: _is_list(w) and w[:2] == ["signed", name],
        )

    def _dataclass(self, kind: type) -> _Form:
        """An array of the name of the class and of its fields."""
        if kind in self._found:
            return self._found[kind]
        name = kind.__name__
        hints = typing.get_type_hints(kind)
        forms = {f.name: self.of(hints[f.name]) for f in fields(kind) if f.init}
        if name in self._parts:
            raise TypeError(f"two types are named {name}: their encodings could not be told apart")
        self._parts[name] = ", ".join(f"{n} {form.schema}" for n, form in forms.items())

        def wire(value: Any) -> Any:
            _checked(value, type(value) is kind)
            return [name, *(form.wire(getattr(value, n)) for n, form in forms.items())]

        def value(wire: Any, given: Mapping[type, Any]) -> Any:
            return kind(
                **{
                    n: form.value(x, given)
                    for (n, form), x in zip(forms.items(), wire[1:], strict=True)
                }
            )

        def reads(wire: Any) -> bool:
            return _is_list(wire) and wire[:1] == [name]

        self._found[kind] = _Form(name, lambda v: type(v) is kind, wire, value, reads)
        return self._found[kind]


def _plain(kind: type) -> _Form:
    def accepts(value: Any) -> bool:
        return type(value) is kind

    def wire(value: Any) -> Any:
        return _checked(value, accepts(value))

    return _Form(kind.__name__, accepts, wire, lambda form, given: wire(form), accepts)


def _given(kind: type) -> _Form:
    def accepts(value: Any) -> bool:
        return isinstance(value, kind)

    def wire(value: Any) -> None:
        _checked(value, accepts(value))

    return _Form(f"given {kind.__name__}", accepts, wire, lambda wire, given: given[kind], _is_null)


def _enumeration(kind: type[enum.Enum]) -> _Form:
    values = [member.value for member in kind]

    def accepts(value: Any) -> bool:
        return type(value) is kind

    return _Form(
        f"{kind.__name__} of {', '.join(map(repr, values))}",
        accepts,
        lambda value: _checked(value, accepts(value)).value,
        lambda wire, given: kind(wire),
        lambda wire: wire in values,
    )


def _only(found: list[_Form]) -> _Form:
    """The one form of those that were found."""
    match found:
        case [only]:
            return only
        case _:
            raise TypeError("a value of none of these types, or of several")


def _checked(value: Any, holds: bool) -> Any:
    if not holds:
        raise TypeError(f"a value of a wrong type: {type(value).__name__}")
    return value


def _is_null(value: Any) -> bool:
    return value is None


def _is_list(wire: Any) -> bool:
    return type(wire) is list
