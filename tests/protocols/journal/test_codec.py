"""Every value of a protocol has one encoding, and nothing else decodes."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any, Literal, NewType

import pytest

from protocols.journal import REPLICATED, Codec, JournalCorrupt
from protocols.journal.log import entry_of
from protocols.messages import Commit, Decision, Reveal, Signed
from protocols.replicated import Audited, Drawn, Received, Rules, State, Tick, WindowClosed
from tests.helpers.jobs import JOB, NOW, TRUTH, WORKERS, Run, answer, rules, signed
from verifiable import encoding
from verifiable.challenge import Beacon
from verifiable.errors import MalformedEncoding
from verifiable.report import Verdict
from verifiable.voting.quorum import FixedSize

RULES = rules(FixedSize(bad=0.1, size=3))
GIVEN = {Rules: RULES}


def _run() -> Run:
    """A job that ended with an audit."""
    run = Run.of(RULES)
    run.round({WORKERS[0]: TRUTH, WORKERS[1]: b"L" * 32, WORKERS[2]: TRUTH})
    run.audit(WORKERS[1], Verdict.REJECT, convicted=True)
    run.wait()
    return run


RUN = _run()
EVENTS = [
    Tick(at=NOW),
    Received(at=NOW, message=signed(answer(WORKERS[0]).commit)),
    Received(at=NOW, message=signed(answer(WORKERS[0], b"x" * 1000))),
    Drawn(at=NOW, beacon=Beacon(chain="drand", round=3, value=bytes(32))),
    Audited(at=NOW, worker=WORKERS[0], verdict=Verdict.REJECT, convicted=True),
    WindowClosed(at=NOW, worker=WORKERS[0], cleared=False),
]
VALUES = [
    *(("event", event) for event in EVENTS),
    *(("effect", effect) for effect in RUN.effects),
    ("state", RUN.state),
    ("state", Run.of(RULES).state),
]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_values_come_back(number: int):
    kind, value = VALUES[number]
    codec = REPLICATED.codec[kind]
    data = codec.encode(value)
    assert codec.decode(data, GIVEN, max_size=len(data)) == value
    assert encoding.encode(encoding.decode(data, max_size=len(data))) == data


def test_all_kinds_of_effects_were_tried():
    tried = {type(effect).__name__ for effect in RUN.effects}
    assert tried >= {"Dispatch", "Record", "AskReveal", "AwaitBeacon", "Audit", "Blame", "Conclude"}


def test_the_bytes_of_version_1_stay():
    """A change of a state, event or effect is a new version of the machine: raise it, then this."""
    assert REPLICATED.version == 1
    assert (
        REPLICATED.fingerprint.hex()
        == "e4570ce6707d4b692e55493cb81171e9c626285815d73575fd0670d7bbcf84b3"
    )


DATA = REPLICATED.codec["event"].encode(EVENTS[1])
WIRE = encoding.decode(DATA, max_size=len(DATA))


def _with(path: list[int], value: Any) -> Any:
    """The plain form of an event with another value at a place."""
    wire = encoding.decode(DATA, max_size=len(DATA))
    place = wire
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return wire


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "cut": DATA[:-1],
    "more follows": DATA + b"\x00",
    "a longer head": b"\x98\x03" + DATA[1:],
    "another kind": encoding.encode(_with([0], "Unheard")),
    "no field": encoding.encode(WIRE[:-1]),
    "one field more": encoding.encode([*WIRE, 0]),
    "a text for a number": encoding.encode(_with([1], "1")),
    "true for a number": encoding.encode(_with([1], True)),
    "a float for a number": encoding.encode(_with([1], 1.0)),
    "another kind of message": encoding.encode(_with([2, 1], "reveal")),
    "an unknown kind of message": encoding.encode(_with([2, 1], "job")),
    "a message that does not decode": encoding.encode(_with([2, 2], b"")),
    "a message of another version": encoding.encode(
        _with([2, 2], WIRE[2][2].replace(b"\x66commit\x01", b"\x66commit\x02"))
    ),
    "a short signature": encoding.encode(_with([2, 3], bytes(63))),
    "a long signature": encoding.encode(_with([2, 3], bytes(65))),
    "a text for a signature": encoding.encode(_with([2, 3], "x" * 64)),
    "a map": encoding.encode({"at": 1}),
    "no array": encoding.encode(1),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_nothing_else_decodes(case: str):
    with pytest.raises(MalformedEncoding):
        REPLICATED.codec["event"].decode(MALFORMED[case], GIVEN, max_size=1000)


def test_size_is_bounded_before_anything_is_read():
    with pytest.raises(MalformedEncoding, match="allowed"):
        REPLICATED.codec["event"].decode(DATA, GIVEN, max_size=len(DATA) - 1)


def test_items_are_bounded_before_anything_is_read():
    """131,072 items, and one more: of a value, and of an entry."""
    for count, refused in ((2**17, False), (2**17 + 1, True)):
        data = encoding.encode([None] * (count - 1))
        with pytest.raises(MalformedEncoding) as caught:
            REPLICATED.codec["event"].decode(data, GIVEN, max_size=len(data))
        assert ("items allowed" in str(caught.value)) is refused
    assert len(entry_of("a", encoding.encode([None] * (2**17 - 1)))) == 2**17 - 1
    with pytest.raises(JournalCorrupt, match="131072 items allowed"):
        entry_of("a", encoding.encode([None] * 2**17))


def test_constructors_check_again():
    """No rejection, and yet a conviction: `Audited` refuses it."""
    wire = ["Audited", NOW, WORKERS[0], "accept", True]
    with pytest.raises(MalformedEncoding, match="only a rejection"):
        REPLICATED.codec["event"].decode(encoding.encode(wire), max_size=1000)


def test_what_is_given_is_not_recorded():
    data = REPLICATED.codec["state"].encode(RUN.state)
    other = replace(RULES, dispatches=2)
    found: State = REPLICATED.codec["state"].decode(data, {Rules: other}, max_size=len(data))
    assert found == replace(RUN.state, rules=other)
    with pytest.raises(MalformedEncoding):
        REPLICATED.codec["state"].decode(data, {}, max_size=len(data))


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part of `Outer`."""

    size: float
    computed: int = field(init=False, compare=False, default=3)


@dataclass(frozen=True, kw_only=True)
class Outer:
    """All types of fields that no value of `replicated` has."""

    map: Mapping[int, Inner]
    set: frozenset[bytes]
    pair: tuple[int, Colour]
    either: Inner | tuple[int, ...] | None
    fixed: tuple[int, bytes] | None
    colour: Colour | None
    commit: Commit | None
    only: Signed[Commit]


COMMIT, REVEAL = answer(WORKERS[0]).commit, answer(WORKERS[0])
OUTER = Outer(
    map={3: Inner(size=0.5), 1: Inner(size=-0.0)},
    set=frozenset({b"b", b"aa", b""}),
    pair=(7, Colour.RED),
    either=(1, 2),
    fixed=(1, b"x"),
    colour=Colour.RED,
    commit=COMMIT,
    only=signed(COMMIT),
)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"either": None, "fixed": None, "colour": None, "commit": None},
        {"map": {}, "set": frozenset(), "either": ()},
    ],
)
def test_values_of_all_types_come_back(change: dict[str, Any]):
    codec, value = Codec.of(Outer), replace(OUTER, **change)
    assert codec.decode(codec.encode(value), max_size=1000) == value


ODD: list[Any] = [None, 0, True, 1.5, b"", b"x", "", [], [[]], [0], [0, 0], ["Inner"], {}, {"a": 1}]


def test_whatever_stands_in_a_place_is_refused_in_words_or_comes_back():
    codec, refused = Codec.of(Outer), 0
    for place, odd in itertools.product(range(len(fields(Outer)) + 1), ODD):
        wire = codec.wire(OUTER)
        wire[place] = odd
        data = encoding.encode(wire)
        try:
            assert codec.encode(codec.decode(data, max_size=1000)) == data
        except MalformedEncoding as error:
            refused += 1
            assert "expected" in str(error)
    assert refused > 100


def test_sets_and_mappings_have_one_order():
    codec = Codec.of(Outer)
    data = codec.encode(OUTER)
    assert codec.decode(data, max_size=1000) == OUTER
    assert data == codec.encode(replace(OUTER, map=dict(reversed(OUTER.map.items()))))
    wire = encoding.decode(data, max_size=1000)
    for place in (1, 2):
        turned = [*wire[:place], wire[place][::-1], *wire[place + 1 :]]
        with pytest.raises(MalformedEncoding, match="one encoding"):
            codec.decode(encoding.encode(turned), max_size=1000)
        doubled = [*wire[:place], [*wire[place], wire[place][-1]], *wire[place + 1 :]]
        with pytest.raises(MalformedEncoding, match="one encoding"):
            codec.decode(encoding.encode(doubled), max_size=1000)


@pytest.mark.parametrize(
    "value",
    [
        replace(OUTER, pair=(7,)),
        replace(OUTER, pair=[7, Colour.RED]),
        replace(OUTER, set={b""}),
        replace(OUTER, either=[1, 2]),
        replace(OUTER, map=[(1, Inner(size=0.5))]),
        replace(OUTER, fixed=[1, b"x"]),
        replace(OUTER, colour=1),
        replace(OUTER, commit=REVEAL),
        replace(OUTER, only=COMMIT),
        replace(OUTER, only=signed(REVEAL)),
        JOB,
        None,
    ],
)
def test_values_of_other_types_have_no_bytes(value: Any):
    with pytest.raises((TypeError, ValueError)):
        Codec.of(Outer).encode(value)


@pytest.mark.parametrize("kind", [Any, Callable[[], int], Literal[1], NewType("Number", int), ...])
def test_types_without_bytes_are_refused_at_once(kind: Any):
    inside = make_dataclass("Inside", [("value", kind)], frozen=True)
    with pytest.raises(TypeError, match="no bytes"):
        Codec.of(inside)


def test_what_is_given_must_be_of_its_type():
    @dataclass(frozen=True)
    class Holder:
        rules: Rules

    codec = Codec.of(Holder, given=(Rules,))
    assert codec.encode(Holder(RULES)) == encoding.encode(["Holder", None])
    with pytest.raises(TypeError, match="wrong type: Job"):
        codec.encode(Holder(JOB))  # type: ignore[arg-type]


def test_a_field_of_no_value_has_none():
    empty = make_dataclass("Empty", [("nothing", None)], frozen=True)
    codec = Codec.of(empty)
    assert codec.decode(codec.encode(empty(None)), max_size=100) == empty(None)
    with pytest.raises(TypeError, match="wrong type: int"):
        codec.encode(empty(5))
    with pytest.raises(MalformedEncoding, match="one encoding"):
        codec.decode(encoding.encode(["Empty", 5]), max_size=100)


def test_types_that_look_alike_are_refused():
    """Of one name, or of one form: a decoder could not tell them apart."""
    other = make_dataclass("Inner", [("size", int)], frozen=True)
    both = make_dataclass("Both", [("one", Inner), ("two", other)], frozen=True)
    with pytest.raises(TypeError, match="two types are named Inner"):
        Codec.of(both)
    alike = make_dataclass("Alike", [("value", tuple[int, ...] | frozenset[int])], frozen=True)
    codec = Codec.of(alike)
    with pytest.raises(MalformedEncoding, match="of several"):
        codec.decode(codec.encode(alike((1,))), max_size=100)


def test_a_state_needs_what_is_given():
    with pytest.raises(TypeError, match="no bytes"):
        Codec.of(State)
    assert {Commit, Reveal, Decision} and Codec.of(State, given=(Rules,)).schema
