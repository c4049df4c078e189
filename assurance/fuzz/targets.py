"""The targets: what reads received bytes, the laws that must hold then, and what may escape.

    decoders    every function that takes received data, as `tests/test_decoders.py` finds them
    vectors     operations of specs/vectors that take bytes, with what a device sends replaced
    journals    a record of a journal replaced, under links that are right again
    objects     any objects in place of an answer and a trace
    runs        a submission tampered with and committed to anew: verified, and audited

A target returns whether it took what it was given. `VerificationError` is a refusal; any other
error but those that a target lists is a finding.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from assurance.fuzz import contexts, sent
from protocols.journal import AUDITED, REPLICATED, Codec, Journal, JournalError, Recorded
from protocols.messages import Reveal
from protocols.replicated import Rules
from protocols.settlement import EpochStatement
from tests.helpers import committees
from tests.helpers.journals import MemoryStore
from tests.helpers.vectors import OPERATIONS
from tests.test_decoders import DECODERS
from verifiable.check.judging.receive import receive
from verifiable.generation import saved
from verifiable.report import Verdict
from verifiable.submission import Submission
from verifiable.trace import AuditOpening, Trace


@dataclass(frozen=True, slots=True)
class FuzzTarget:
    """What is fuzzed.

    Attributes:
      name: of a group and a member.
      run: takes bytes; returns whether they were accepted.
      seeds: makes honest and hostile examples, in the process that fuzzes.
      allowed: documented errors that are no `VerificationError`.
    """

    name: str
    run: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[Exception], ...] = ()


# Decoders.

ALLOWED: dict[str, tuple[type[Exception], ...]] = {
    # A signer's own memory, at a head of another contract or an earlier one; another job's judge.
    "protocols.settlement.signer.Signer.decode": (ValueError,),
    "protocols.judging.judge": (ValueError,),
    # The caller's own secrets and files.
    "verifiable.bls.keys.SecretKey.decode": (ValueError,),
    "verifiable.challenge.Challenge.from_bytes": (ValueError,),
    "verifiable.key.VerifierKey.from_bytes": (ValueError,),
}
ABSTRACT = (
    "Message.decode Order.decode Statement.decode AttemptStatement.decode errors.received_bytes"
).split()
"""Bases of several kinds, which decode nothing, and the copy that all decoders begin with."""
COMPUTING = ("program", "layout", "plan", "job")
"""Arguments for which the program is compiled."""


def arguments_of(name: str) -> dict[str, Callable[[], Any]]:
    """How to make what the caller gives a decoder beside the data, by its parameters' names."""
    settlement = name.startswith("protocols.settlement")
    made: dict[str, Callable[[], Any]] = {
        "program": lambda: contexts.run().program,
        "layout": lambda: contexts.run().program.layout,
        "plan": contexts.plan,
        "head": lambda: committees.HEAD,
        "identities": lambda: {contexts.worker()[1].id: contexts.worker()[1]},
        "coordinator": lambda: contexts.worker()[1],
        "worker": lambda: contexts.worker()[1].id,
        "request": lambda: contexts.requests()[0],
        "job": contexts.judged if name == "protocols.judging.judge" else contexts.own_job,
        "max_size": lambda: 2**16,
        "max_items": lambda: 2**10,
        "most": lambda: 64,
        "shape": lambda: (3,),
        "dtype": lambda: "float32",
        "kind": lambda: EpochStatement if settlement else Reveal,
        "magic": lambda: saved.MAGIC,
        "parts": lambda: saved.PARTS,
    }
    if name.endswith("decode_version"):
        made["kind"] = lambda: "vote"
    if name.endswith("obey"):
        made["kind"] = lambda: type(contexts.requests()[1])
    parameters = inspect.signature(DECODERS[name]).parameters.values()
    return {
        p.name: made[p.name]
        for p in parameters
        if p.name in made and (p.default is p.empty or p.name.startswith("max"))
    }


def _arguments(name: str) -> dict[str, Any]:
    return {parameter: make() for parameter, make in arguments_of(name).items()}


def _canonical(value: Any, data: bytes, again: Callable[[bytes], Any] | None = None) -> bool:
    """The law of all encodings: what was decoded has no other bytes.

    Args:
      value: what was decoded.
      data: from which bytes.
      again: decodes what moves on to a later head of the chain; that has other bytes once.
    """
    encode = getattr(value, "encode", None)
    if callable(encode) and not isinstance(value, str):
        found = encode()
        if again is not None and found != data:
            data, found = found, again(found).encode()
        assert found == data, "decoded, but it encodes to other bytes"
    return True


def _decoders() -> Iterator[FuzzTarget]:
    for name in DECODERS:
        if name.endswith(tuple(f".{base}" for base in ABSTRACT)):
            continue
        given = functools.cache(functools.partial(_arguments, name))
        takes = inspect.signature(DECODERS[name]).parameters
        about = name.endswith("VerifierKey.from_bytes") or any(p in takes for p in COMPUTING)

        def run(
            data: bytes, name: str = name, given: Any = given, moves: bool = "head" in takes
        ) -> bool:
            def decode(data: bytes) -> Any:
                return DECODERS[name](data=data, **given())

            return _canonical(decode(data), data, decode if moves else None)

        def seeds(about: bool = about) -> list[bytes]:
            return [*(contexts.computed() if about else ()), *contexts.honest()]

        yield FuzzTarget(f"decoders/{name}", run, seeds, ALLOWED.get(name, ()))


# Vectors.


def _vectors() -> Iterator[FuzzTarget]:
    for operation, fields in sent.SENT.items():
        cases = functools.cache(functools.partial(sent.cases, operation))

        run = functools.partial(_operate, operation, cases)

        def seeds(fields: tuple[str, ...] = fields, cases: Any = cases) -> list[bytes]:
            return [bytes([i]) + sent.packed(case, fields) for i, case in enumerate(cases())]

        # Cases name what the library finds, too: another value is a failed assertion of theirs.
        yield FuzzTarget(f"vectors/{operation}", run, seeds)


def _operate(operation: str, cases: Callable[[], list[dict[str, Any]]], data: bytes) -> bool:
    given = cases()[(data[0] if data else 0) % len(cases())]
    OPERATIONS[operation](given | sent.unpacked(data[1:], sent.SENT[operation], given))
    return True


# Journals.


def _records() -> Iterator[FuzzTarget]:
    from tests.protocols.journal import test_codec  # noqa: PLC0415

    given = {Rules: test_codec.RULES}
    for machine in (REPLICATED, AUDITED):
        for kind, codec in machine.codec.items():

            def run(data: bytes, codec: Codec = codec) -> bool:
                value = codec.decode(data, given, max_size=2**16)
                assert codec.encode(value) == data, "decoded, but it encodes to other bytes"
                return True

            def seeds(kind: str = kind) -> list[bytes]:
                codec = REPLICATED.codec[kind]
                return [codec.encode(value) for k, value in test_codec.VALUES if k == kind]

            yield FuzzTarget(f"journals/{machine.name} {kind}", run, seeds)
    yield FuzzTarget("journals/stream", _stream, _stream_seeds, (JournalError,))


@functools.cache
def _bodies() -> tuple[bytes, ...]:
    """Of a job that has ended."""
    from tests.protocols.journal import test_runs  # noqa: PLC0415

    journal, _ = test_runs.decided(MemoryStore())
    with journal:
        return tuple(journal.read(test_runs.STREAM)[1])


def _stream(data: bytes) -> bool:
    from tests.protocols.journal import test_runs  # noqa: PLC0415

    bodies = list(_bodies())
    at = (data[0] if data else 0) % len(bodies)
    bodies[at] = data[1:]
    with Journal(MemoryStore()) as journal:
        journal.submit(test_runs.STREAM, bodies, begin=True).result()
        Recorded.resume(journal, REPLICATED, test_runs.NAME, test_runs.RULES)
    return True


def _stream_seeds() -> list[bytes]:
    return [bytes([i]) + body for i, body in enumerate(_bodies())]


# Objects.

DTYPES = "bool int8 uint8 int32 int64 float16 float32 float64 complex64 bfloat16 object S3".split()


def _object(data: memoryview, place: list[int], depth: int = 0) -> Any:
    """Some object that bytes describe; `place` holds how far they were read."""

    def take(most: int) -> int:
        at = place[0]
        place[0] += 1
        return data[at] % most if at < len(data) else 0

    kind = take(14) if depth < 12 else take(6)
    sent = contexts.run().sent
    own = [*sent.trace.values, *sent.y.values()]
    match kind:
        case 0 | 1 | 2:
            return own[take(len(own))]
        case 3:
            name = DTYPES[take(len(DTYPES))]
            dtype = ml_dtypes.bfloat16 if name == "bfloat16" else name
            shape = tuple(take(4) for _ in range(take(4)))
            return np.full(shape, b"1" if name == "S3" else take(3), dtype)
        case 4:
            return [None, True, 3, -1.5, "text", b"bytes", np.float32("nan"), object, {1}][take(9)]
        case 5:
            array = np.array(own[take(len(own))])
            return array.reshape(-1)[: take(256)] if take(2) else array.T
        case 6 | 7 | 8:
            return [_object(data, place, depth + 1) for _ in range(take(4))]
        case 9 | 10:
            return tuple(_object(data, place, depth + 1) for _ in range(take(4)))
        case 11 | 12:
            return {"anx"[take(3)]: _object(data, place, depth + 1) for _ in range(take(4))}
        case _:
            return Trace(values=_object(data, place, depth + 1))


def _received(data: bytes) -> bool:
    program, place = contexts.run().program, [0]
    view = memoryview(data)
    y, trace = _object(view, place), _object(view, place)
    found = receive(program, y, trace)
    report = contexts.run().program.check(contexts.run().key, contexts.run().x, y=y, trace=trace)
    taken = report.verdict is Verdict.ACCEPT
    if taken:
        assert hasattr(found, "values") or type(found).__name__ == "ReceivedArrays"
        _require_honest(report.y)
    return taken


def _object_seeds() -> list[bytes]:
    count = len(contexts.run().sent.trace.values)
    honest = bytes([11, 2, 0, 0, count, 1, 0, count + 1, 13, 9, count])
    return [honest + bytes(x for i in range(count) for x in (0, i)), bytes(8), bytes(range(16))]


# Runs.


HEADERS = 168  # bytes of a submission before its arrays


def _require_honest(y: Any) -> None:
    """An accepted answer is the honest one, but for its last digits."""
    for name, value in contexts.run().sent.y.items():
        np.testing.assert_allclose(np.asarray(y[name]), value, rtol=0, atol=1e-2)


def _changed(data: bytes) -> Submission:
    """The honest submission with some bytes of its arrays replaced, and committed to anew.

    Three bytes say where and what; a device that cheats commits to what it sends.
    """
    made = contexts.run()
    encoded = bytearray(made.sent.encode())
    arrays = len(encoded) - HEADERS
    for i in range(0, len(data) - 2, 3):
        encoded[HEADERS + int.from_bytes(data[i : i + 2], "big") % arrays] = data[i + 2]
    sent = Submission.decode(bytes(encoded), made.program.layout)
    committed = made.program.commit(sent.y, sent.trace)
    return replace(sent, commitment=committed.commitment)


def _verified(data: bytes) -> bool:
    made, sent = contexts.run(), _changed(data)
    report = made.program.verify(made.key, made.x, sent, commitment=sent.commitment)
    if report.verdict is Verdict.ACCEPT:
        _require_honest(report.y)
    return report.verdict is Verdict.ACCEPT


def _audited(data: bytes) -> bool:
    """Audit a run that was tampered with, by an opening with some bytes replaced."""
    made, sent = contexts.run(), _changed(data[1:])
    plan, committed = contexts.plan(), made.program.commit(sent.y, sent.trace)
    encoded = bytearray(committed.open(plan).encode())
    if data and data[0] % 4 == 3:
        for i in range(1, len(data) - 2, 3):
            encoded[int.from_bytes(data[i : i + 2], "big") % len(encoded)] = data[i + 2]
    opening = AuditOpening.decode(bytes(encoded), plan)
    report = made.program.audit(
        made.key, made.x, plan=plan, commitment=committed.commitment, opening=opening
    )
    return report.verdict is Verdict.ACCEPT


def _run_seeds() -> list[bytes]:
    changes = [b"", b"\0\0\1", b"\0\3\x7f", b"\0\3\x7f\0\2\xc0", bytes(range(60))]
    return [*changes, *(b"\0" + change for change in changes), b"\3\0\x80\1"]


TARGETS: dict[str, FuzzTarget] = {
    target.name: target
    for target in (
        *_decoders(),
        *_vectors(),
        *_records(),
        FuzzTarget("objects/check", _received, _object_seeds),
        FuzzTarget("runs/verify", _verified, _run_seeds),
        FuzzTarget("runs/audit", _audited, _run_seeds),
    )
}
