"""What a verifier has when it reads: a program, its key, a plan; and honest messages as seeds.

Each is made when it is first asked for: after a process forked, for some compute with JAX.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import verifiable as vf
from protocols.identities import Identity
from protocols.judging import JudgedJob
from protocols.messages import Assignment, Message, RevealRequest, Upload, sign
from protocols.replicated.mismatch import AnswerMismatch, answer_leaves
from protocols.settlement import Lock, LockReport, Signer
from protocols.settlement.attempts import BrokenReport, Justification
from protocols.settlement.votes import Equivocation
from tests.helpers import committees, compilation, jobs
from tests.helpers.accusations import against
from tests.helpers.paths import ROOT
from verifiable import challenge
from verifiable import trace as traces
from verifiable.errors import VerificationError
from verifiable.generation import (
    GenerationJob,
    ModelCard,
    OpenedText,
    Sampler,
    SavedText,
    TextDraw,
    TextReceipt,
)
from verifiable.policy import Policy
from verifiable.report import Verdict
from verifiable.voting.quorum import FixedSize

ROWS, WIDTH = 8, 64
LONGEST = 8192  # bytes of a seed


def network(p: Any, x: Any) -> Any:
    """Three layers, and an integer."""
    hidden = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, p)[0]
    return {"a": hidden, "n": jnp.argmax(hidden, 1)}


@functools.cache
def run() -> SimpleNamespace:
    """A program, its parameters and key, an input, and the submission of an honest run on it."""
    compilation.optimise(on=False)
    rng = np.random.default_rng(0)
    p = (rng.standard_normal((3, WIDTH, WIDTH)) / 8).astype(np.float32)
    x = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    policy = Policy(draws=4)
    program = vf.compile(network, p, x, policy=policy, self_test=False)
    sent = jax.device_get(program.prove(p, x))
    return SimpleNamespace(
        program=program,
        key=program.setup(p, challenge.secret(bytes(range(32)))),
        params=p,
        x=x,
        sent=sent,
    )


@functools.cache
def worker() -> tuple[Ed25519PrivateKey, Identity]:
    """A registered key and its identity."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return key, Identity(public_key=key.public_key().public_bytes_raw())


def judged() -> JudgedJob:
    """The judge's own job."""
    return JudgedJob(name="own", program=run().program, params=run().params, inputs=(run().x,))


def requests() -> tuple[RevealRequest, Assignment]:
    """Orders of the registered key to itself."""
    who = worker()[1].id
    given = {"coordinator": who, "worker": who, "job": own_job().digest, "epoch": 7, "deadline": 9}
    return RevealRequest(**given), Assignment(**given)


def own_job() -> Any:
    """A job of the registered key, for the own program."""
    return replace(jobs.JOB, coordinator=worker()[1].id)


def honest() -> Iterator[bytes]:
    """Honest encodings of everything that has one."""
    yield from _settlement()
    yield from _messages()
    yield from _texts()
    yield from vectors()


def computed() -> Iterator[bytes]:
    """Honest encodings of what is about the program, which is compiled for them."""
    made = run()
    program, sent = made.program, made.sent
    committed = program.commit(sent.y, sent.trace)
    yield sent.encode()
    yield traces.encode(sent.y, sent.trace)
    yield against(program, sent).encode()
    yield against(program, sent, output=True).encode()
    yield committed.open(plan()).encode()
    yield made.key.to_bytes()
    opening = committed.open(answer_leaves(program.layout))
    reveal = sign(jobs.answer(worker()[1].id), worker()[0].sign).encode()
    yield AnswerMismatch(job=own_job(), reveal=reveal, opening=opening).encode()


@functools.cache
def plan() -> Any:
    """A plan of an audit of one layer."""
    return run().program.audit_plan(bytes(32), layers=1)


def _settlement() -> Iterator[bytes]:
    four, head = committees.FOUR, committees.HEAD
    for statement in (committees.STATEMENT, committees.ROTATION):
        yield statement.message
        yield committees.vote(four, 0, statement).encode()
        yield committees.submission(four, [0, 1, 2], statement).encode()
        prepared = committees.prepared(head, statement)
        yield prepared.encode()
        yield committees.decision(head, statement).encode()
    votes = [
        committees.vote(four, 0, s) for s in (committees.STATEMENT, committees.OTHER_STATEMENT)
    ]
    yield Equivocation.of(*votes).encode()
    yield Signer(head=head, policy=committees.POLICY).encode()
    yield Justification(reports=(), prepared=None).encode()
    yield committees.RECORDS[0].encode()
    told = head.attempt(LockReport, 2, bytes(32), locked=0)
    done = head.attempt(Lock, 1, committees.STATEMENT.digest)
    broken = (committees.vote(four, 0, told), committees.vote(four, 0, done))
    yield BrokenReport(report=broken[0], lock=broken[1]).encode()


CANDIDATES = (bytes(32), 1, None, 0, "drand", b"", (), bytes(64), Verdict.ACCEPT)
"""Values of the fields of messages: the first that a kind allows is taken."""


def kinds(base: type) -> Iterator[type[Any]]:
    """All kinds of messages."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def _messages() -> Iterator[bytes]:
    key, identity = worker()
    for message in (own_job(), *requests(), jobs.answer(identity.id)):
        yield message.encode()
        yield sign(message, key.sign).encode()
    for kind in kinds(Message):
        if "KIND" not in vars(kind):
            continue
        given = {
            name: next((value for value in CANDIDATES if allows(value)), bytes(32))
            for name, allows in kind.CHECKS.items()
        }
        with suppress(VerificationError, TypeError, ValueError):
            yield kind(**given).encode()
    run = jobs.Run.of(jobs.rules(FixedSize(bad=0.1, size=3)))
    run.round(dict.fromkeys(jobs.WORKERS[:3], jobs.TRUTH))
    run.wait()
    yield run.end.decision.encode()
    upload = Upload(
        worker=identity.id,
        job=own_job().digest,
        epoch=7,
        request=requests()[0].digest,
        size=40,
        content=bytes(32),
    )
    yield sign(upload, key.sign).encode()


def _texts() -> Iterator[bytes]:
    sampler = Sampler(temperature=0.5, top_k=3)
    card = ModelCard(
        name="tiny",
        family=bytes(32),
        parameters=bytes(32),
        stop=(1,),
        tokenizer=bytes(32),
        template="{{ text }}",
        sampler=sampler,
        published=bytes(32),
    )
    job = GenerationJob(prompt=(1, 2), limit=2, sampler=sampler, seed=bytes(32))
    receipt = TextReceipt(
        card=card.id,
        job=card.job_digest(job),
        text=bytes(32),
        previous=bytes(32),
        commitment=vf.Commitment(root=bytes(32), size=3),
    )
    yield card.encode()
    yield receipt.commitment.encode()
    yield receipt.encode()
    answer: dict[str, Any] = {"card": card, "job": job, "text": (3, 4), "receipt": receipt}
    yield SavedText(**answer, run=bytes(9)).encode()
    for rows in (None, 2):
        draw = TextDraw(seed=bytes(32), layers=1, rows=rows, positions=2)
        yield OpenedText(**answer, draw=draw, opening=bytes(9)).encode()


def vectors() -> Iterator[bytes]:
    """Every hexadecimal text of specs/vectors that is not long."""

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from strings(item)

    for path in sorted((ROOT / "specs" / "vectors").glob("*.json")):
        for text in dict.fromkeys(strings(json.loads(path.read_text()))):
            if len(text) <= 2 * LONGEST:
                try:
                    yield bytes.fromhex(text)
                except ValueError:
                    continue
