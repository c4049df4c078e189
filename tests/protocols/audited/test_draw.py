"""The draws: what they bind, who can verify them, and what two workers that disagree are shown."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from protocols.audited import (
    AnswerReceipt,
    AskOpening,
    AskTrace,
    AuditNotice,
    DisputeFinding,
    JobResult,
    NotDrawn,
    OpeningRequest,
    Outcome,
    TraceReceipt,
    job_seed,
    order,
    require_drawn,
    unit_seed,
)
from protocols.messages import NotOrdered, obey, sign
from tests.helpers.jobs import WORKERS, signed
from tests.helpers.wire import ALICE_ID, BOSS, BOSS_ID, JOB, MALLORY_ID
from verifiable.challenge import Beacon, ClosedLog, CommitmentLog, LogPlace
from verifiable.errors import VerificationError

BEACON = Beacon(chain="drand", round=43, value=bytes(32))
LOG = ClosedLog(root=bytes(32), size=3, chain="drand", closed_at=42)
RECEIPT = AnswerReceipt(worker=ALICE_ID.id, job=JOB.digest, epoch=JOB.epoch, answer=b"\x08" * 32)
TRACE = TraceReceipt(
    worker=ALICE_ID.id,
    job=JOB.digest,
    epoch=JOB.epoch,
    receipt=RECEIPT.digest,
    trace_root=b"\x09" * 32,
    trace_size=9,
)


def logged(*digests: bytes, closed_at: int = 42) -> tuple[ClosedLog, list[LogPlace]]:
    log = CommitmentLog()
    for digest in digests:
        log.append(digest)
    return log.close(chain="drand", closed_at=closed_at), log.places(digests)


@pytest.mark.parametrize("seed_of", [job_seed, unit_seed])
def test_a_seed_binds_log_beacon_job_and_worker(seed_of: Any):
    zero, one = bytes(32), b"\1" * 32
    seeds = {
        seed_of(log, beacon, job=job, worker=worker)
        for log, beacon, job, worker in [
            (LOG, BEACON, zero, zero),
            (LOG, BEACON, zero, one),
            (LOG, BEACON, one, zero),
            (LOG, replace(BEACON, value=one), zero, zero),
            (LOG, replace(BEACON, round=44), zero, zero),
            (LOG, replace(BEACON, chain="other"), zero, zero),
            (replace(LOG, root=one), BEACON, zero, zero),
            (replace(LOG, size=4), BEACON, zero, zero),
        ]
    }
    assert len(seeds) == 8
    assert job_seed(LOG, BEACON, job=zero, worker=zero) not in {
        unit_seed(LOG, BEACON, job=zero, worker=zero)
    }


def test_a_draw_that_the_coordinator_chose_is_found_out():
    others = [bytes([i]) * 32 for i in range(5)]
    log, places = logged(*others[:3], TRACE.digest, *others[3:])
    seed = unit_seed(log, BEACON, job=TRACE.job, worker=TRACE.worker)
    good: dict[str, Any] = {"log": log, "place": places[3], "beacon": BEACON}
    require_drawn(seed, TRACE, **good)
    # After the round is known, the same receipts in another order, with a seed that suits.
    turned, moved = logged(TRACE.digest, *others)
    chosen = unit_seed(turned, BEACON, job=TRACE.job, worker=TRACE.worker)
    assert chosen != seed
    require_drawn(chosen, TRACE, log=turned, place=moved[0], beacon=BEACON)
    left_out, _ = logged(*others, bytes([9]) * 32)
    attempts: dict[str, tuple[bytes, Any, dict[str, Any]]] = {
        "a seed of another order, against the root that was announced": (chosen, TRACE, good),
        "a place in another order": (seed, TRACE, good | {"place": moved[0]}),
        "a log without the receipt": (seed, TRACE, good | {"log": left_out}),
        "another receipt": (seed, replace(TRACE, trace_root=bytes(32)), good),
        "a later round": (seed, TRACE, good | {"beacon": replace(BEACON, round=44)}),
        "a round from before the log was closed": (
            seed,
            TRACE,
            good | {"beacon": replace(BEACON, round=42)},
        ),
        "another beacon": (seed, TRACE, good | {"beacon": replace(BEACON, chain="other")}),
        "another value": (seed, TRACE, good | {"beacon": replace(BEACON, value=b"\1" * 32)}),
        "another index": (seed, TRACE, good | {"place": replace(places[3], index=2)}),
        "no proof": (seed, TRACE, good | {"place": replace(places[3], proof=())}),
    }
    for name, (given, receipt, change) in attempts.items():
        with pytest.raises(VerificationError):
            require_drawn(given, receipt, **change)
            pytest.fail(name)
    with pytest.raises(NotDrawn, match="draw"):
        require_drawn(chosen, TRACE, **good)


def test_places_are_of_a_closed_log_alone():
    log = CommitmentLog()
    log.append(TRACE.digest)
    with pytest.raises(ValueError, match="open"):
        log.places([TRACE.digest])
    closed = log.close(chain="drand", closed_at=1)
    [place] = log.places([TRACE.digest])
    place.verify(TRACE.digest, closed)
    with pytest.raises(ValueError, match="does not hold"):
        log.places([bytes(32)])


def test_orders_are_the_coordinators_for_one_worker_and_job():
    notice = order(JOB, AskTrace(receipt=signed(RECEIPT), deadline=9))
    asked = AskOpening(
        receipt=signed(RECEIPT),
        trace=signed(TRACE),
        seed=bytes(32),
        layers=None,
        rows=None,
        deadline=9,
    )
    request = order(JOB, asked)
    assert (request.seed, request.layers, request.rows) == (bytes(32), None, None)
    for message in (notice, request, order(JOB, replace(asked, layers=2, rows=8))):
        kind: Any = type(message)
        data = sign(message, BOSS.sign).encode()
        about: dict[str, Any] = {"job": JOB, "coordinator": BOSS_ID}
        assert obey(kind, data, worker=ALICE_ID.id, **about).message == message
        with pytest.raises(NotOrdered):
            obey(kind, data, worker=MALLORY_ID.id, **about)
        other: Any = OpeningRequest if kind is AuditNotice else AuditNotice
        with pytest.raises(VerificationError):
            obey(other, data, worker=ALICE_ID.id, **about)


def results(*outcomes: Outcome) -> list[JobResult]:
    given = zip(WORKERS, outcomes, strict=False)
    return [JobResult(worker=w, job=JOB.digest, outcome=o, reason="") for w, o in given]


def test_a_dispute_says_who_is_wrong_all_or_none():
    right, wrong, silent = Outcome.PASSED, Outcome.REJECTED, Outcome.SILENT
    a, b, c = WORKERS[:3]
    one = DisputeFinding.of(results(right, wrong))
    assert (one.wrong, one.right, one.open) == ((b,), (a,), ())
    assert str(one) == f"wrong {b.hex()[:16]}; right {a.hex()[:16]}"
    assert str(DisputeFinding.of(results(wrong, wrong))) == "all are wrong"
    none = DisputeFinding.of(results(right, right))
    assert not none.wrong and str(none) == "none is wrong: the answers differ by rounding"
    # Silence shows nothing: neither that one is wrong, nor that none is.
    unknown = DisputeFinding.of(results(right, silent, wrong))
    assert (unknown.wrong, unknown.right, unknown.open) == ((c,), (a,), (b,))
    for outcomes in itertools.product((right, wrong, silent), repeat=2):
        text, found = str(DisputeFinding.of(results(*outcomes))), list(outcomes)
        assert (text == "all are wrong") == (found == [wrong, wrong])
        assert text.startswith("none is wrong") == (found == [right, right])
        assert ("nothing shown of" in text) == (silent in found)


def test_a_dispute_needs_audits_of_one_job():
    right = results(Outcome.PASSED, Outcome.PASSED)
    for given in (
        right[:1],
        [right[0], right[0]],
        [right[0], replace(right[1], job=bytes(32))],
        results(Outcome.PASSED, Outcome.UNAUDITED),
    ):
        with pytest.raises(ValueError, match="dispute"):
            DisputeFinding.of(given)
