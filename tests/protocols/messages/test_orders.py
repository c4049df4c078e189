"""Who speaks for the coordinator: only the identity that the job names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from protocols.messages import (
    Assignment,
    Decision,
    InvalidSignature,
    Job,
    NotOrdered,
    Order,
    Reveal,
    RevealRequest,
    TraceRequest,
    UnknownWorker,
    disclose,
    obey,
    receive,
    sign,
)
from tests.helpers.wire import (
    ALICE,
    ALICE_ID,
    ASSIGNMENT,
    BOSS,
    BOSS_ID,
    DECISION,
    JOB,
    MALLORY,
    MALLORY_ID,
    REGISTRY,
    REQUEST,
    REVEAL,
    TRACE_REQUEST,
)
from verifiable.errors import MalformedEncoding, VerificationError

ALL: tuple[Order, ...] = (ASSIGNMENT, REQUEST, TRACE_REQUEST)


@pytest.mark.parametrize("order", ALL, ids=lambda order: order.KIND)
def test_an_order_of_the_coordinator_is_obeyed(order: Order):
    data = sign(order, BOSS.sign).encode()
    taken = obey(type(order), data, job=JOB, worker=ALICE_ID.id, coordinator=BOSS_ID)
    assert taken.message == order
    for kind in (Assignment, RevealRequest, TraceRequest):
        if kind is not type(order):
            with pytest.raises(MalformedEncoding):
                obey(kind, data, job=JOB, worker=ALICE_ID.id, coordinator=BOSS_ID)


@dataclass(frozen=True)
class Cheat:
    """What somebody sends to Alice, so that she shows her answer before others have committed."""

    name: str
    data: Callable[[], bytes]
    expect: type[VerificationError]
    match: str = "."
    job: Job = JOB

    def __str__(self) -> str:
        return self.name


def by_boss(**change: object) -> Callable[[], bytes]:
    request = dataclasses.replace(REQUEST, **change)  # pyright: ignore[reportArgumentType]
    return lambda: sign(request, BOSS.sign).encode()


def posing() -> bytes:
    """Mallory, who has a seat in the same job, under the name of its coordinator."""
    return sign(REQUEST, MALLORY.sign).encode()


def openly() -> bytes:
    return sign(dataclasses.replace(REQUEST, coordinator=MALLORY_ID.id), MALLORY.sign).encode()


def relabelled() -> bytes:
    """The coordinator's signature of the assignment, under a request."""
    return dataclasses.replace(
        sign(REQUEST, BOSS.sign), signature=BOSS.sign(ASSIGNMENT.digest)
    ).encode()


OWN_JOB = dataclasses.replace(JOB, coordinator=MALLORY_ID.id)
CHEATS = [
    Cheat("a seated worker plays coordinator", posing, InvalidSignature),
    Cheat("a seated worker asks in its own name", openly, UnknownWorker, "not registered"),
    Cheat(
        "a job that names a seated worker as its coordinator",
        openly,
        NotOrdered,
        "another coordinator",
        job=OWN_JOB,
    ),
    Cheat("the request to another worker", by_boss(worker=MALLORY_ID.id), NotOrdered, "worker"),
    Cheat("the request of another job", by_boss(job=OWN_JOB.digest), NotOrdered, "job"),
    Cheat("the request of another epoch", by_boss(epoch=8), NotOrdered, "epoch: expected 7, got 8"),
    Cheat("the assignment again", lambda: sign(ASSIGNMENT, BOSS.sign).encode(), MalformedEncoding),
    Cheat(
        "a request for the trace",
        lambda: sign(TRACE_REQUEST, BOSS.sign).encode(),
        MalformedEncoding,
    ),
    Cheat("the signature of the assignment", relabelled, InvalidSignature),
    Cheat("a request without a signature", REQUEST.encode, MalformedEncoding),
    Cheat("nothing", lambda: b"", MalformedEncoding),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_nobody_but_the_coordinator_gets_a_reveal(cheat: Cheat):
    signed: list[bytes] = []

    def signer(digest: bytes) -> bytes:
        signed.append(digest)
        return ALICE.sign(digest)

    reveal = dataclasses.replace(REVEAL, job=cheat.job.digest)
    with pytest.raises(cheat.expect, match=cheat.match):
        disclose(reveal, cheat.data(), job=cheat.job, coordinator=BOSS_ID, signer=signer)
    assert not signed


def test_the_coordinator_gets_the_reveal():
    request = sign(REQUEST, BOSS.sign).encode()
    shown = disclose(REVEAL, request, job=JOB, coordinator=BOSS_ID, signer=ALICE.sign)
    assert receive(Reveal, shown.encode(), REGISTRY).message == REVEAL


def test_a_decision_is_its_coordinators():
    data = sign(DECISION, BOSS.sign).encode()
    assert receive(Decision, data, {BOSS_ID.id: BOSS_ID}).message == DECISION
    with pytest.raises(InvalidSignature):
        receive(Decision, sign(DECISION, MALLORY.sign).encode(), {BOSS_ID.id: BOSS_ID})
    other = dataclasses.replace(DECISION, coordinator=MALLORY_ID.id)
    with pytest.raises(UnknownWorker):
        receive(Decision, sign(other, MALLORY.sign).encode(), {BOSS_ID.id: BOSS_ID})


def test_a_job_of_another_coordinator_is_another_job():
    assert OWN_JOB.digest != JOB.digest
