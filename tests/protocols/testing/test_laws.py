"""The bound of audits by chance, the strategies of messages, and what a fleet refuses."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import verifiable as vf
from protocols.audited import AnswerReceipt, TraceReceipt
from protocols.messages import Commit, Job, Reveal
from protocols.testing import Delivery, LawBroken, fleet, laws
from protocols.testing import strategies as pst
from verifiable.challenge import Beacon
from verifiable.voting.decide import Ballot


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 20))
def test_the_tail_is_that_of_the_binomial_distribution(plays: int, paid: int, twentieths: int):
    paid, p = min(paid, plays), Fraction(twentieths, 20)
    exact = sum(math.comb(plays, i) * p**i * (1 - p) ** (plays - i) for i in range(paid, plays + 1))
    assert laws.tail(paid, plays, float(p)) == pytest.approx(float(exact), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("wrong", [(-1, 3, 0.5), (4, 3, 0.5), (0, 0, 0.5), (1, 3, 1.5)])
def test_no_plays_have_no_tail(wrong: tuple[int, int, float]):
    with pytest.raises(ValueError, match="no such plays"):
        laws.tail(*wrong)


def test_one_payment_is_too_many_where_none_is_stated():
    laws.require_rate(0, 100, most=0.0, error=1e-6)
    with pytest.raises(LawBroken, match="paid-too-often: 1 of 100") as broken:
        laws.require_rate(1, 100, most=0.0, error=1e-6)
    assert broken.value.law == laws.PAID_TOO_OFTEN


def test_a_rate_that_is_kept_passes_and_one_that_is_not_fails():
    laws.require_rate(55, 100, most=0.5, error=1e-6)
    with pytest.raises(LawBroken):
        laws.require_rate(80, 100, most=0.5, error=1e-6)


@given(pst.jobs(), st.data())
def test_messages_survive_their_bytes(job: Job, data: st.DataObject):
    assert Job.decode(job.encode()) == job
    for kind, strategy in (
        (Commit, pst.commits(job)),
        (Reveal, pst.reveals(job)),
        (AnswerReceipt, pst.answer_receipts(job)),
        (AnswerReceipt, pst.answer_receipts()),
    ):
        message: Any = data.draw(strategy)
        assert kind.decode(message.encode()) == message
    receipt = data.draw(pst.answer_receipts(job))
    traced = data.draw(pst.trace_receipts(receipt))
    assert TraceReceipt.decode(traced.encode()).receipt == receipt.digest


@given(pst.ballots(st.integers(), fewest=2), pst.beacons(after=7))
def test_ballots_are_of_different_workers_and_rounds_come_later(
    ballots: list[Ballot], beacon: Beacon
):
    assert len({ballot.worker for ballot in ballots}) == len(ballots) >= 2
    assert beacon.round > 7


@given(pst.deliveries())
def test_messages_take_a_second_at_least(delivery: Delivery):
    assert delivery.delay >= 1


def test_what_cannot_be_played_is_refused():
    with pytest.raises(ValueError, match="at least 1 second"):
        Delivery(delay=0)
    program = vf.compile(lambda w, x: x @ w, jnp.ones((8, 8)), jnp.ones((2, 8)))
    with pytest.raises(ValueError, match="the inputs of a job"):
        fleet(program, jnp.ones((8, 8)))
