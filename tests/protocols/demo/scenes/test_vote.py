"""The demo's vote: the outcome of every worker, in every seating, and what an audit tests."""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import pytest

from protocols.demo import devices, models, roles
from protocols.demo.cheats.computations import another_model, with_params
from protocols.demo.cheats.submissions import nan_output
from protocols.demo.models.precision import PRECISIONS
from protocols.demo.scenes import vote
from protocols.demo.scenes.scene import Progress, prepare
from protocols.messages import Reason, Reveal
from verifiable import challenge
from verifiable.encoding import tensor_bytes
from verifiable.key import VerifierKey
from verifiable.submission import Submission
from verifiable.voting import VoteOutcome

SEED = bytes(range(32))


@functools.cache
def job() -> devices.DemoJob:
    return prepare(models.small_transformer(0, width=32, layers=1), ["a", "the cat"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_honest_answers_agree_at_every_precision(precision: str):
    """Answers are float32 at every precision, but further apart where the model rounds coarser."""
    model = models.in_precision(models.small_transformer(0, width=64, layers=1), precision)
    voters = seven(voter("op by op", devices.op_by_op))
    summary = end(vote.play(prepare(model, ["a", "the cat"]), voters=voters, seed=SEED))
    assert [o.outcome for o in summary.outcomes] == ["agreed"] * 7
    assert summary.audits == 0


@functools.cache
def played(seed: bytes = SEED) -> tuple[vote.VoteSceneEvent, ...]:
    return tuple(vote.play(job(), seed=seed))


def end(events) -> vote.VoteSummary:
    *_, last = events
    assert isinstance(last, vote.VoteSummary)
    return last


def voter(name: str, run, role: str = "honest") -> roles.Voter:
    return roles.Voter(device=devices.Device(name, role == "honest", run), role=role, did="")


def seven(*special: roles.Voter) -> list[roles.Voter]:
    filler = [voter(f"filler {i}", devices.jitted) for i in range(7 - len(special))]
    return [*special, *filler]


@pytest.mark.parametrize("seed", [bytes([i]) * 32 for i in range(4)])
def test_every_worker_gets_the_right_outcome_in_every_seating(seed: bytes):
    """A copycat of commit and reveal has no ballot; colluders on one wrong answer are blamed."""
    summary = end(played(seed))
    assert summary.right
    decided = (summary.decision.outcome, summary.decision.reason)
    assert decided == (VoteOutcome.ACCEPT, Reason.AUDITED)
    assert {o.voter.device.name: (o.outcome, o.reason) for o in summary.outcomes} == {
        "Ada": ("agreed", "ok"),
        "Ben": ("agreed", "ok"),
        "Cleo": ("agreed", "ok"),
        "Dov": ("agreed", "ok"),
        "Eve": ("blamed", "claim-mismatch"),
        "Fay": ("blamed", "claim-mismatch"),
        "Gus": ("no ballot", "opening-mismatch"),
    }
    honest = {o.worker for o in summary.outcomes if o.voter.device.honest}
    assert set(summary.decision.group) == honest
    assert summary.audits == 6


def test_steps_count_up_to_their_total_and_outcomes_come_before_the_summary():
    steps = [e for e in played() if isinstance(e, Progress)]
    assert [s.done for s in steps] == list(range(len(steps)))
    # The copycat has no ballot, so it is not audited.
    assert {s.total for s in steps} == {len(steps) + 1}
    assert end(played()).outcomes == tuple(e for e in played() if isinstance(e, vote.WorkerOutcome))


def test_where_all_agree_nothing_is_audited():
    summary = end(vote.play(job(), voters=seven(), seed=SEED))
    assert summary.right
    assert summary.decision.reason is Reason.AGREED
    assert summary.decision.error == vote.POLICY.assurance.error
    assert summary.audits == 0
    assert {o.reason for o in summary.outcomes} == {"ok"}


def test_five_colluders_lose_to_one_who_opens_an_honest_trace():
    other = with_params(another_model)
    colluders = [voter(f"colluder {i}", other, "colluder") for i in range(5)]
    summary = end(vote.play(job(), voters=seven(*colluders), seed=SEED))
    assert summary.right
    assert [o.outcome for o in summary.outcomes] == ["blamed"] * 5 + ["agreed"] * 2


@pytest.mark.parametrize("role", ["honest", "colluder"])
def test_a_wrong_end_is_told_from_a_right_one(role: str):
    """An honest worker that is blamed, and a cheat that does not cheat."""
    run = nan_output if role == "honest" else devices.jitted
    summary = end(vote.play(job(), voters=seven(voter("wrong", run, role)), seed=SEED))
    assert not summary.right
    assert [o.voter.device.name for o in summary.outcomes if not o.right] == ["wrong"]
    assert summary.honest_answer


def test_no_outcomes_and_a_wrong_answer_are_never_right():
    assert not dataclasses.replace(end(played()), outcomes=()).right
    assert not dataclasses.replace(end(played()), honest_answer=False).right


# What an audit tests.


def opened(submission: Submission) -> Reveal:
    return Reveal(
        worker=bytes(32),
        job=bytes(32),
        epoch=1,
        salt=bytes(32),
        value=bytes(tensor_bytes(submission.y)),
        trace_root=submission.commitment.root,
        trace_size=submission.commitment.size,
    )


def audited(reveal: Reveal, submission: Submission) -> tuple[str, str, bool]:
    found = vote.audit(job(), key(), reveal, submission)
    return found.verdict, found.reason, found.convicted


@functools.cache
def key() -> VerifierKey:
    return job().program.setup(job().model.params, challenge.secret(SEED))


def test_an_honest_trace_passes():
    sent = job().run()
    assert audited(opened(sent), sent) == ("accept", "ok", False)


def test_an_answer_other_than_the_one_in_the_trace_is_rejected():
    sent = job().run()
    other = dataclasses.replace(opened(sent), value=bytes(tensor_bytes(jnp.zeros_like(sent.y))))
    assert audited(other, sent) == ("reject", "answer-mismatch", True)


@pytest.mark.parametrize("change", [{"trace_root": bytes(32)}, {"trace_size": 1}], ids=str)
def test_a_trace_other_than_the_committed_one_is_rejected_and_convicts_nobody(change):
    """The cheat is a worker that hands in another trace than its own ballot's."""
    sent = job().run()
    assert audited(dataclasses.replace(opened(sent), **change), sent) == (
        "reject",
        "commitment-mismatch",
        False,
    )


def test_a_wrong_claim_is_rejected_and_convicts():
    cheat = with_params(another_model)(job())
    assert audited(opened(cheat), cheat) == ("reject", "lookup-mismatch", True)


def test_a_rejection_that_no_judge_repeats_blames_nobody(monkeypatch):
    """A coordinator whose random test fails an honest run: the run is not paid, and that is all."""
    monkeypatch.setattr(vote, "convicts", lambda *_: False)
    summary = end(vote.play(job(), seed=SEED))
    rejected = {o.voter.device.name for o in summary.outcomes if o.outcome == "rejected"}
    assert rejected == {"Eve", "Fay"}
    assert not [o for o in summary.outcomes if o.outcome == "blamed"]
    assert summary.right


def test_the_key_follows_from_the_closed_log_and_a_later_beacon(monkeypatch):
    """Nothing that the audit uses exists before the last commitment."""
    made = []
    public = challenge.public

    def spy(log, beacon, **ids):
        made.append((log, beacon))
        return public(log, beacon, **ids)

    monkeypatch.setattr(challenge, "public", spy)
    summary = end(vote.play(job(), seed=SEED))
    ((log, beacon),) = made
    assert log.size == 7
    assert beacon.round > log.closed_at
    assert beacon.round == summary.decision.beacon
