"""How fast votes are decided and messages are taken, on one core.

A job's ballots are new arrays each time, so that nothing is remembered between decisions. Messages
are parsed and validated from bytes; "signed" adds the look-up of the worker and its signature.
"Refused" messages are reveals of a megabyte, hostile in their value, that a registered worker
signed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.harness import Row
from protocols.identities import Identity
from protocols.messages import (
    MAX_VALUE,
    Commit,
    Decision,
    Job,
    Message,
    Reason,
    Reveal,
    receive,
    sign,
)
from verifiable import encoding
from verifiable.encoding import tagged_hash
from verifiable.errors import MalformedEncoding
from verifiable.voting import Ballot, VoteOutcome, decide
from verifiable.voting.agreement import Exact, Tolerance
from verifiable.voting.quorum import FixedSize

CLAIM = (
    "1,000 jobs of 5 ballots of 1,000 floats are decided in at most 0.5 s, 100,000 digest votes in "
    "a second, 20,000 messages are parsed in a second, 4,000 with their signatures, and a hostile "
    "reveal of 1 MiB is refused in 20 ms"
)
POLICY = FixedSize(bad=0.1, size=5)
BEACON = bytes(16)


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes a tenth of the jobs and messages."""
    scale = 10 if quick else 1
    yield from _floats(1000 // scale)
    yield from _digests(20_000 // scale)
    yield from _messages(20_000 // scale)
    yield from _refusals()


def _best(work: Callable[[], object], repeats: int = 3) -> float:
    """Least seconds of some calls: what else the machine does only ever adds."""
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _floats(jobs: int) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64", "float16"):
        agreement = Tolerance.usual(shape=(1000,), dtype=dtype)
        base = rng.standard_normal((jobs, 1, 1000))
        noise = rng.standard_normal((jobs, 5, 1000)) * agreement.relative / 10
        values = (base * (1 + noise)).astype(dtype)
        values[::3, 0] = rng.standard_normal((len(values[::3]), 1000))  # one of five is a cheat's
        votes = [[Ballot(bytes([i]) * 32, value) for i, value in enumerate(job)] for job in values]

        def work(votes: list[list[Ballot]] = votes, agreement: Tolerance = agreement) -> None:
            for ballots in votes:
                decision = decide(
                    ballots, agreement=agreement, policy=POLICY, requested=5, beacon=BEACON
                )
                assert decision.outcome is VoteOutcome.ACCEPT

        seconds = _best(work) * 1000 / jobs
        bar = "<= 0.5" if dtype == "float32" else None
        yield Row(f"1,000 jobs, 5 x 1,000 {dtype}", "seconds", seconds, "s", bar)


def _digests(jobs: int) -> Iterator[Row]:
    """Votes are ballots: a job of five is five of them."""
    right, wrong = os.urandom(32), os.urandom(32)
    cases = {"all agree": [right] * 5, "one of five dissents": [right] * 4 + [wrong]}
    agreement = Exact()
    for name, values in cases.items():
        ballots = [Ballot(bytes([i]) * 32, value) for i, value in enumerate(values)]

        def work(ballots: list[Ballot] = ballots) -> None:
            for _ in range(jobs):
                decide(ballots, agreement=agreement, policy=POLICY, requested=5, beacon=BEACON)

        seconds = _best(work)
        bar = ">= 100000"
        yield Row(f"digest votes, {name}", "votes a second", 5 * jobs / seconds, "1/s", bar)


def _messages(count: int) -> Iterator[Row]:
    key = Ed25519PrivateKey.generate()
    identity = Identity(public_key=key.public_key().public_bytes_raw())
    job = Job(
        coordinator=bytes(32),
        epoch=1,
        nonce=os.urandom(32),
        expiry=2_000_000_000,
        program=os.urandom(32),
        parameters=os.urandom(32),
        input=os.urandom(32),
    )
    reveal = Reveal.fresh(
        worker=identity.id, job=job, value=os.urandom(4000), trace_root=bytes(32), trace_size=100
    )
    workers = sorted(os.urandom(32) for _ in range(5))
    decision = Decision(
        coordinator=bytes(32),
        job=job.digest,
        epoch=1,
        outcome=VoteOutcome.ACCEPT,
        reason=Reason.AGREED,
        answer=bytes(32),
        group=tuple(workers[:4]),
        dissenters=tuple(workers[4:]),
        requested=5,
        beacon=7,
        error=0.01,
    )
    messages: dict[str, Message] = {
        "job": job,
        "commit": reveal.commit,
        "reveal, 4,000 bytes": reveal,
        "decision of 5": decision,
    }
    for name, message in messages.items():
        kind_, data = type(message), message.encode()

        def parse(kind: type[Message] = kind_, data: bytes = data) -> None:
            for _ in range(count):
                kind.decode(data)

        rate = count / _best(parse)
        yield Row(f"parsed: {name}", "messages a second", rate, "1/s", ">= 20000")
    registered = {identity.id: identity}
    for kind, message in ((Commit, reveal.commit), (Reveal, reveal)):
        signed = sign(message, key.sign).encode()  # pyright: ignore[reportArgumentType]

        def take(kind: type = kind, signed: bytes = signed) -> None:
            for _ in range(count // 10):
                receive(kind, signed, registered)

        rate = count / 10 / _best(take)
        case = f"signed: {kind.KIND}"
        yield Row(case, "messages a second", rate, "1/s", ">= 4000")


def _refusals() -> Iterator[Row]:
    """A signed reveal whose value was replaced by as many bytes as its kind allows."""
    key = Ed25519PrivateKey.generate()
    identity = Identity(public_key=key.public_key().public_bytes_raw())
    honest = Reveal(
        worker=identity.id,
        job=bytes(32),
        epoch=1,
        salt=bytes(32),
        value=bytes(MAX_VALUE),
        trace_root=bytes(32),
        trace_size=100,
    )
    size = MAX_VALUE.to_bytes(4, "big")
    empty_trace = encoding.encode(honest.trace_root) + b"\x00"
    hostile = {
        "an array of empty maps": (b"\x9a", b"\xa0"),
        "an array of empty texts": (b"\x9a", b"\x60"),
        "nested arrays": (b"\x81\x81\x81\x81\x81", b"\x81"),
        "text that is not Unicode": (b"\x7a", b"\xff"),
        "bytes, with a trace of size 0": (b"\x5a", b"\x00"),
    }
    for name, (head, filler) in hostile.items():
        before, _, after = honest.encode().partition(b"\x5a" + size + honest.value)
        tail = empty_trace if "size 0" in name else after
        body = before + head + size + filler * MAX_VALUE + tail
        data = body + b"\x58\x40" + key.sign(tagged_hash(Reveal.TAG, body))

        def refuse(data: bytes = data) -> None:
            try:
                receive(Reveal, data, {identity.id: identity})
            except MalformedEncoding:
                return
            raise AssertionError("a hostile reveal was taken")

        yield Row(f"refused: {name}", "milliseconds", 1e3 * _best(refuse), "ms", "<= 20")
