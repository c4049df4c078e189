"""Replicated execution: named cheats, and every interleaving, duplication and loss to the end."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.messages import (
    MAX_BALLOTS,
    MAX_VALUE,
    Decision,
    Job,
    Reason,
    Reveal,
    Signed,
    answer_digest,
)
from protocols.replicated import start, step
from protocols.replicated.state import (
    Absent,
    AskReveal,
    Audit,
    Audited,
    AwaitBeacon,
    AwaitWindow,
    Blame,
    Conclude,
    Dispatch,
    Drawn,
    Effect,
    Event,
    Phase,
    Place,
    Received,
    Record,
    Refuse,
    Rules,
    Schedule,
    State,
    Tick,
    WindowClosed,
)
from verifiable.challenge import Beacon, CommitmentLog
from verifiable.encoding import tensor_bytes, tensor_from_bytes
from verifiable.report import Verdict
from verifiable.voting import VoteOutcome
from verifiable.voting.agreement import Exact, Tolerance
from verifiable.voting.quorum import FirstToMatch, FixedSize, QuorumPolicy, Standing
from verifiable.voting.trust import Adaptive

NOW = 1_000_000
SEED = bytes(range(32))
CHAIN = Schedule(chain="drand", genesis=1000, period=3)
TRUTH, LIE = b"T" * 32, b"L" * 32
JOB = Job(
    epoch=7,
    nonce=b"\x0a" * 32,
    expiry=NOW + 100_000,
    program=b"\x01" * 32,
    parameters=b"\x02" * 32,
    input=b"\x03" * 32,
)
ELSEWHERE = dataclasses.replace(JOB, nonce=bytes(32))
LATER = dataclasses.replace(JOB, epoch=8)
WORKERS = [bytes([i]) * 32 for i in range(1, 10)]


def rules(policy: QuorumPolicy, **change: Any) -> Rules:
    given: dict[str, Any] = {
        "policy": policy,
        "agreement": Exact(),
        "decode": bytes,
        "beacon": CHAIN,
        "dispatches": 3,
        "commit_seconds": 60,
        "reveal_seconds": 10,
        "beacon_seconds": 30,
        "audit_seconds": 120,
        "window_seconds": 600,
    }
    return Rules(**(given | change))


def answer(worker: bytes, value: bytes = TRUTH, job: Job = JOB) -> Reveal:
    """What a worker answers, with a salt that is its own."""
    return Reveal(
        worker=worker,
        job=job.digest,
        epoch=job.epoch,
        salt=bytes(reversed(worker[:31])) + job.nonce[:1],
        value=value,
        trace_root=worker,
        trace_size=4,
    )


def signed(message: Any) -> Signed[Any]:
    # Authentication is `messages.receive`'s, which has tests of its own.
    return Signed(message=message, signature=bytes(64))


def beacon(state: State, value: bytes = b"v" * 32) -> Beacon:
    assert state.round is not None
    return Beacon(chain="drand", round=state.round, value=value)


@dataclass
class Run:
    """One job, driven by hand."""

    state: State
    effects: list[Effect] = field(default_factory=list)

    @classmethod
    def of(
        cls, rules: Rules, *, workers: Sequence[bytes] = WORKERS[:3], job: Job = JOB, **more: Any
    ) -> Run:
        weights = [1] * len(workers)
        state, effects = start(
            job, rules, now=NOW, workers=workers, weights=weights, seed=SEED, **more
        )
        return cls(state, list(effects))

    def do(self, event: Event) -> list[Effect]:
        self.state, effects = step(self.state, event)
        self.effects += effects
        return list(effects)

    def send(self, message: Any, *, at: int = NOW) -> list[Effect]:
        return self.do(Received(at=at, message=signed(message)))

    def wait(self) -> list[Effect]:
        return self.do(Tick(at=self.state.deadline))

    def draw(self, value: bytes = b"v" * 32) -> list[Effect]:
        return self.do(Drawn(at=self.state.now, beacon=beacon(self.state, value)))

    def audit(self, worker: bytes, verdict: Verdict) -> list[Effect]:
        return self.do(Audited(at=self.state.now, worker=worker, verdict=verdict))

    def seated(self) -> list[bytes]:
        return [seat.worker for seat in self.state.seats]

    def round(self, values: dict[bytes, bytes]) -> None:
        """These workers commit and reveal, nobody else does, and the beacon comes."""
        for worker, value in values.items():
            self.send(answer(worker, value).commit)
        while self.state.phase is Phase.COMMIT:
            self.wait()
        for worker, value in values.items():
            self.send(answer(worker, value))
        if self.state.phase is Phase.REVEAL:
            self.wait()
        self.draw()

    def all(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def end(self) -> Conclude:
        (end,) = self.all(Conclude)
        assert self.state.phase is Phase.ENDED
        assert self.state.decision == end.decision
        return end


def refused(effects: Iterable[Effect]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Refuse)]


# The way it goes.


def test_three_honest_workers_agree():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    assert sorted(effect.worker for effect in run.all(Dispatch)) == WORKERS[:3]
    for worker in WORKERS[:3]:
        assert not run.all(AskReveal)
        run.send(answer(worker).commit)
    assert sorted(effect.worker for effect in run.all(AskReveal)) == WORKERS[:3]
    for worker in WORKERS[:3]:
        run.send(answer(worker))
    (await_,) = run.all(AwaitBeacon)
    assert await_ == AwaitBeacon(chain="drand", round=CHAIN.after(NOW))
    run.draw()
    policy = run.state.rules.policy
    assert run.end.value == TRUTH
    assert run.end.decision == Decision(
        job=JOB.digest,
        epoch=7,
        outcome=VoteOutcome.ACCEPT,
        reason=Reason.AGREED,
        answer=answer_digest(TRUTH),
        group=tuple(WORKERS[:3]),
        dissenters=(),
        requested=3,
        beacon=await_.round,
        error=policy.assurance.error,
    )
    assert not run.all(Refuse) and not run.all(Audit)


def test_commits_enter_the_log_before_anything_is_revealed():
    run, log = Run.of(rules(FixedSize(bad=0.1, size=3))), CommitmentLog()
    for worker in WORKERS[:3]:
        for effect in run.send(answer(worker).commit):
            if isinstance(effect, Record):
                log.append(effect.commit.message.digest)
    places = [i for i, e in enumerate(run.effects) if isinstance(e, Record)]
    assert max(places) < min(i for i, e in enumerate(run.effects) if isinstance(e, AskReveal))
    assert log.close(chain="drand", closed_at=1).size == 3


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_the_beacon_is_the_first_round_that_nobody_knew(now: int, period: int):
    schedule = Schedule(chain="drand", genesis=5000, period=period)

    def appears(number: int) -> int:
        return 5000 + (number - 1) * period

    number = schedule.after(now)
    assert appears(number) > now
    assert number == 1 or appears(number - 1) <= now


def test_disagreement_asks_for_audits_and_they_decide():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, LIE, LIE), strict=False)))
    assert sorted(e.commit.message.worker for e in run.all(Audit)) == WORKERS[:3]
    assert all(e.reveal.message.commit == e.commit.message for e in run.all(Audit))
    assert not run.all(Conclude)
    # Two of three lie, and the one whose trace holds wins against their majority.
    run.audit(WORKERS[1], Verdict.REJECT)
    run.audit(WORKERS[2], Verdict.INDETERMINATE)
    run.audit(WORKERS[0], Verdict.ACCEPT)
    assert run.end.value == TRUTH
    assert run.end.decision.reason is Reason.AUDITED
    assert run.end.decision.error is None
    assert run.end.decision.group == (WORKERS[0],)
    assert run.end.decision.dissenters == tuple(WORKERS[1:3])
    assert [blame.reveal.message.worker for blame in run.all(Blame)] == [WORKERS[1]]


def test_dissent_is_no_blame_and_silence_in_an_audit_neither():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, TRUTH, LIE), strict=False)))
    assert run.state.phase is Phase.AUDIT
    run.wait()
    assert run.end.value == TRUTH
    assert run.end.decision.reason is Reason.AGREED
    assert run.end.decision.dissenters == (WORKERS[2],)
    assert not run.all(Blame)


def test_the_first_verdict_stands():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, TRUTH, LIE), strict=False)))
    for first, second in ((Verdict.ACCEPT, Verdict.REJECT), (Verdict.REJECT, Verdict.ACCEPT)):
        worker = WORKERS[0] if first is Verdict.ACCEPT else WORKERS[2]
        run.audit(worker, first)
        assert refused(run.audit(worker, second)) == ["not-asked"]
    assert [blame.reveal.message.worker for blame in run.all(Blame)] == [WORKERS[2]]


@pytest.mark.parametrize("value", [bytes([i]) * 16 for i in range(4)])
def test_of_several_that_are_right_the_vote_keeps_its_own(value: bytes):
    run = Run.of(metric(4), workers=WORKERS[:4])
    values = [number(x) for x in (1.0, 1.0008, 1.0016, 3.0)]
    for worker, x in zip(WORKERS, values, strict=False):
        run.send(answer(worker, x).commit)
    for worker, x in zip(WORKERS, values, strict=False):
        run.send(answer(worker, x))
    run.draw(value)
    for worker in WORKERS[:4]:
        run.audit(worker, Verdict.ACCEPT)
    assert run.end.value == number(1.0008)
    assert run.end.decision.reason is Reason.AUDITED
    assert run.end.decision.group == tuple(WORKERS[:3])


def test_a_rejected_ballot_no_longer_counts():
    # Of the two that agree one is shown wrong: what is left is no majority, and one more is asked.
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=4), workers=WORKERS[:4])
    one, two, three = run.seated()
    run.round({one: LIE, two: LIE, three: TRUTH})
    run.audit(one, Verdict.REJECT)
    run.wait()
    assert not run.all(Conclude)
    assert run.state.phase is Phase.COMMIT and run.state.requested == 3
    four = run.seated()[3]
    run.round({four: TRUTH})
    assert [e.reveal.message.worker for e in run.all(Audit)] == [
        *sorted([one, two, three]),
        four,
    ]
    run.wait()
    assert run.end.value == TRUTH
    assert run.end.decision.group == tuple(sorted([three, four]))
    assert run.end.decision.dissenters == tuple(sorted([one, two]))


def test_all_rejected_ends_without_an_answer():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (b"1" * 32, b"2" * 32, b"3" * 32), strict=False)))
    for worker in WORKERS[:3]:
        run.audit(worker, Verdict.REJECT)
    assert run.end.value is None
    assert run.end.decision.reason is Reason.NO_WORKERS
    assert len(run.all(Blame)) == 3


def test_an_undecided_vote_asks_for_what_would_settle_it():
    run = Run.of(rules(FirstToMatch(bad=0.1, matches=2)), workers=WORKERS[:3])
    assert len(run.seated()) == 2
    one, two = run.seated()
    run.round({one: TRUTH, two: LIE})
    run.wait()
    assert len(run.seated()) == 3 and run.state.requested == 3
    three = run.seated()[2]
    run.round({three: TRUTH})
    run.wait()
    assert run.end.value == TRUTH
    assert run.end.decision.group == tuple(sorted([one, three]))


def test_a_split_that_no_ballot_may_settle_is_exhausted():
    policy = FirstToMatch(bad=0.1, matches=2)
    run = Run.of(rules(policy, dispatches=9), workers=WORKERS)
    values = iter((b"1" * 32, b"2" * 32, b"3" * 32))
    while run.state.phase is not Phase.ENDED:
        waiting = [s.worker for s in run.state.seats if s.place is Place.DISPATCHED]
        run.round({worker: next(values) for worker in waiting})
        run.wait()
    assert run.end.decision.reason is Reason.EXHAUSTED
    assert run.end.decision.requested == policy.limit == 3


# Workers that drop out.


@pytest.mark.parametrize("when", ["commit", "reveal"])
def test_who_drops_out_is_replaced_and_not_blamed(when: str):
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=4), workers=WORKERS[:4])
    gone, one, two = run.seated()
    if when == "commit":
        for worker in (one, two):
            run.send(answer(worker).commit)
        run.wait()
        # Nothing was revealed yet: whoever comes in has nothing to copy.
        assert not run.all(AskReveal)
        new = run.seated()[3]
        run.send(answer(new).commit, at=run.state.now)
        for worker in (one, two, new):
            run.send(answer(worker))
        group = [one, two, new]
    else:
        for worker in (gone, one, two):
            run.send(answer(worker).commit)
        for worker in (one, two):
            run.send(answer(worker))
        run.wait()
        group = [one, two]
    run.draw()
    assert run.all(Absent) == [Absent(worker=gone, phase=Phase(when))]
    assert run.end.value == TRUTH
    assert run.end.decision.group == tuple(sorted(group))
    assert run.end.decision.requested == 3
    assert not run.all(Blame)


def test_the_job_expires_while_nobody_commits():
    job = dataclasses.replace(JOB, expiry=NOW + 30)
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=9), job=job, workers=WORKERS)
    assert run.state.deadline == job.expiry
    run.wait()
    assert run.end.decision.reason is Reason.EXPIRED
    assert not run.all(Blame)


def test_whoever_committed_in_time_may_reveal_after_the_expiry():
    job = dataclasses.replace(JOB, expiry=NOW + 30)
    run = Run.of(rules(FixedSize(bad=0.1, size=3)), job=job)
    for worker in WORKERS[:2]:
        run.send(answer(worker, job=job).commit)
    run.wait()
    for worker in WORKERS[:2]:
        run.send(answer(worker, job=job), at=job.expiry + 1)
    run.draw()
    assert run.end.value == TRUTH


def test_nobody_is_asked_after_the_expiry():
    job = dataclasses.replace(JOB, expiry=NOW + 30)
    run = Run.of(rules(FirstToMatch(bad=0.1, matches=2)), job=job)
    one, two = run.seated()
    for worker, value in ((one, TRUTH), (two, LIE)):
        run.send(answer(worker, value, job).commit)
    for worker, value in ((one, TRUTH), (two, LIE)):
        run.send(answer(worker, value, job))
    run.draw()
    run.do(Tick(at=job.expiry + 200))
    assert run.end.decision.reason is Reason.EXPIRED
    assert len(run.all(Dispatch)) == 2


def test_a_beacon_that_never_comes_ends_it():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    for worker in WORKERS[:3]:
        run.send(answer(worker).commit)
    for worker in WORKERS[:3]:
        run.send(answer(worker))
    run.wait()
    assert run.end.decision.reason is Reason.NO_BEACON
    assert run.end.value is None


def test_time_that_jumps_ends_every_phase_on_its_way():
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=9), workers=WORKERS)
    run.do(Tick(at=JOB.expiry + 10**6))
    assert run.end.decision.reason is Reason.EXPIRED
    assert not run.all(Blame)


def test_time_never_goes_back():
    run = committed()
    run.do(Tick(at=NOW + 59))
    run.do(Tick(at=NOW))
    assert run.state.now == NOW + 59
    run.do(Tick(at=NOW + 60))
    # A clock that was set back brings no deadline back.
    assert refused(run.send(answer(WORKERS[2]).commit, at=NOW)) == ["too-late"]


# Trusted workers that run alone.

ADAPTIVE = Adaptive(bad=0.1, newcomers=FirstToMatch(bad=0.1, matches=2))


def alone() -> Run:
    trust = {worker: Standing(passed=10) for worker in WORKERS[:4]}
    run = Run.of(rules(ADAPTIVE, dispatches=4), workers=WORKERS[:4], standings=trust)
    (worker,) = run.seated()
    run.round({worker: TRUTH})
    (await_,) = run.all(AwaitWindow)
    assert await_.reveal.message == answer(worker)
    assert not run.all(Conclude)
    return run


def test_a_lone_answer_waits_for_its_window():
    run = alone()
    (worker,) = run.seated()
    run.do(WindowClosed(at=run.state.now, worker=worker, cleared=True))
    assert run.end.value == TRUTH
    assert run.end.decision.group == (worker,)


@pytest.mark.parametrize("silent", [False, True], ids=["void", "unanswered"])
def test_a_void_window_starts_over_without_blame(silent: bool):
    run = alone()
    (worker,) = run.seated()
    if silent:
        run.wait()
    else:
        run.do(WindowClosed(at=run.state.now, worker=worker, cleared=False))
    assert run.state.phase is Phase.COMMIT
    others = run.seated()[1:]
    assert worker not in others
    run.round(dict.fromkeys(others, TRUTH))
    assert run.end.value == TRUTH
    assert worker not in run.end.decision.group
    assert not run.all(Blame)


def test_a_trusted_worker_cannot_close_anothers_window():
    run = alone()
    effects = run.do(WindowClosed(at=run.state.now, worker=b"\x09" * 32, cleared=True))
    assert refused(effects) == ["not-asked"]


# Named cheats: rows of the catalogue of attacks.


def committed() -> Run:
    """Three seats, of which the first two have committed."""
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    for worker in WORKERS[:2]:
        run.send(answer(worker).commit)
    return run


def revealing() -> Run:
    """All have committed, the first has revealed. The third committed to the first's commitment."""
    run = committed()
    copied = dataclasses.replace(answer(WORKERS[0]).commit, worker=WORKERS[2])
    run.send(copied)
    run.send(answer(WORKERS[0]))
    return run


def stolen() -> Reveal:
    """The first worker's answer, salt and trace under the third's name."""
    return dataclasses.replace(answer(WORKERS[0]), worker=WORKERS[2])


@dataclass(frozen=True)
class Cheat:
    name: str
    expect: str
    before: Callable[[], Run]
    message: Callable[[Run], Any]
    at: int = NOW

    def __str__(self) -> str:
        return self.name


A, B, C, D = WORKERS[:4]
CHEATS = [
    Cheat(
        "21: another's commitment, opened with its salt",
        "opening-mismatch",
        revealing,
        lambda _: stolen(),
    ),
    Cheat(
        "21: another's commitment, opened with a salt of one's own",
        "opening-mismatch",
        revealing,
        lambda _: answer(C),
    ),
    Cheat(
        "21: another's signed commit, sent again",
        "duplicate",
        committed,
        lambda _: answer(A).commit,
    ),
    Cheat("21: another's signed reveal, sent again", "duplicate", revealing, lambda _: answer(A)),
    Cheat(
        "21: a commit of an earlier job",
        "other-job",
        committed,
        lambda _: answer(C, job=ELSEWHERE).commit,
    ),
    Cheat(
        "21: a reveal of an earlier job", "other-job", revealing, lambda _: answer(B, job=ELSEWHERE)
    ),
    Cheat(
        "21: a commit of another epoch",
        "other-epoch",
        committed,
        lambda _: dataclasses.replace(answer(C).commit, epoch=8),
    ),
    Cheat(
        "21: a reveal of another epoch",
        "other-epoch",
        revealing,
        lambda _: dataclasses.replace(answer(B), epoch=8),
    ),
    Cheat(
        "21: a job of another epoch is another job",
        "other-job",
        committed,
        lambda _: answer(C, job=LATER).commit,
    ),
    Cheat(
        "21: a commitment made after an answer was seen",
        "second-commit",
        revealing,
        lambda _: dataclasses.replace(stolen(), salt=C).commit,
    ),
    Cheat("22: a worker that was not drawn", "not-seated", committed, lambda _: answer(D).commit),
    Cheat("22: a reveal of one that was not drawn", "not-seated", revealing, lambda _: answer(D)),
    Cheat(
        "23: a second vote, of another answer",
        "second-commit",
        committed,
        lambda _: answer(A, LIE).commit,
    ),
    Cheat(
        "23: a second answer, revealed",
        "duplicate",
        revealing,
        lambda _: answer(A, LIE),
    ),
    Cheat(
        "23: another answer than committed to",
        "opening-mismatch",
        revealing,
        lambda _: answer(B, LIE),
    ),
    Cheat(
        "23: a commit at the deadline",
        "too-late",
        committed,
        lambda _: answer(C).commit,
        at=NOW + 60,
    ),
    Cheat("23: a reveal at the deadline", "too-late", revealing, lambda _: answer(B), at=NOW + 10),
    Cheat("23: a reveal while others may commit", "too-early", committed, lambda _: answer(A)),
    Cheat("23: a reveal without a commit", "too-early", committed, lambda _: answer(C)),
    Cheat(
        "25: the largest answer, that opens nothing",
        "opening-mismatch",
        revealing,
        lambda _: answer(B, bytes(MAX_VALUE)),
    ),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_cheat_is_turned_away(cheat: Cheat):
    run = cheat.before()
    before = run.state
    effects = run.send(cheat.message(run), at=cheat.at)
    assert refused(effects) == [cheat.expect]
    if cheat.at == NOW:
        assert effects == run.effects[-1:]
        assert run.state == before


def test_row_21_a_copycat_gets_nothing_and_the_honest_win():
    run = revealing()
    run.send(stolen())
    run.send(answer(B))
    run.wait()
    run.draw()
    assert run.end.value == TRUTH
    assert run.end.decision.group == (A, B)
    assert run.all(Absent) == [Absent(worker=C, phase=Phase.REVEAL)]


def test_row_22_one_identity_never_holds_two_seats():
    config = rules(FixedSize(bad=0.1, size=3))
    with pytest.raises(ValueError, match="listed once"):
        start(JOB, config, now=NOW, workers=[A, B, C, A], weights=[1] * 4, seed=SEED)
    # However heavy, and whatever else is drawn.
    for weight in (1, 10**30):
        state, _ = start(
            JOB, config, now=NOW, workers=WORKERS, weights=[weight] + [1] * 8, seed=SEED
        )
        drawn = [seat.worker for seat in state.seats] + [worker for worker, _ in state.reserve]
        assert len(set(drawn)) == len(drawn) == 3
        assert weight == 1 or A in drawn


def test_row_22_identities_without_stake_are_never_drawn():
    config = rules(FixedSize(bad=0.1, size=3), dispatches=9)
    state, _ = start(JOB, config, now=NOW, workers=WORKERS, weights=[1, 1, 1, *[0] * 6], seed=SEED)
    assert sorted(seat.worker for seat in state.seats) == WORKERS[:3]
    assert not state.reserve


TOLERANCE = Tolerance(shape=(1,), dtype="float64", relative=1e-3)


def metric(size: int) -> Rules:
    def decode(data: bytes) -> Any:
        return tensor_from_bytes(data, (1,), "float64")

    return rules(FixedSize(bad=0.1, size=size), agreement=TOLERANCE, decode=decode, dispatches=size)


def number(x: float) -> bytes:
    return bytes(tensor_bytes(np.array([x])))


@pytest.mark.parametrize("values", [(1.0, 1.0008, 1.0016), (1.0, 1.0008, 3.0), (1.0, 2.0, 3.0)])
def test_row_23_arrival_order_decides_nothing(values: tuple[float, ...]):
    ends: set[tuple[Phase, bytes | None, bytes]] = set()
    for order in itertools.permutations(range(3)):
        run = Run.of(metric(3))
        sent = [answer(worker, number(x)) for worker, x in zip(WORKERS, values, strict=False)]
        for i in order:
            run.send(sent[i].commit)
        for i in reversed(order):
            run.send(sent[i])
        run.draw()
        while run.state.phase is Phase.AUDIT:
            run.wait()
        ends.add((run.state.phase, run.end.value, run.end.decision.encode()))
    assert len(ends) == 1


def test_row_23_two_of_seven_do_not_win():
    run = Run.of(metric(7), workers=WORKERS[:7])
    honest = [number(x) for x in (1.0, 2.0, 3.0, 4.0, 5.0)]
    run.round(dict(zip(WORKERS, [number(9.0)] * 2 + honest, strict=False)))
    run.wait()
    assert run.end.value is None
    # The same where nobody else answers at all.
    run = Run.of(metric(7), workers=WORKERS[:7])
    run.round(dict.fromkeys(WORKERS[:2], number(9.0)))
    assert run.end.value is None


def test_malformed_answers_are_ballots_that_agree_with_nothing():
    run = Run.of(metric(3))
    run.round(dict(zip(WORKERS, (number(1.0), number(1.0), bytes(7)), strict=False)))
    assert run.state.phase is Phase.AUDIT
    run.wait()
    assert run.end.value == number(1.0)
    assert run.end.decision.dissenters == (C,)
    # Not even an audit that passes makes one canonical.
    run = Run.of(metric(3))
    run.round(dict(zip(WORKERS, (number(float("nan")), bytes(7), b""), strict=False)))
    for worker in WORKERS[:3]:
        run.audit(worker, Verdict.ACCEPT)
    assert run.end.value is None


@pytest.mark.parametrize("where", ["commit", "reveal"])
def test_row_25_stallers_delay_and_nothing_else(where: str):
    run = Run.of(rules(FixedSize(bad=0.1, size=3), dispatches=9), workers=WORKERS)
    ticks = 0
    while run.state.phase is not Phase.ENDED:
        if where == "reveal" and run.state.phase is Phase.COMMIT:
            for seat in run.state.seats:
                if seat.place is Place.DISPATCHED:
                    run.send(answer(seat.worker).commit, at=run.state.now)
        elif run.state.phase is Phase.BEACON:
            run.draw()
        else:
            run.wait()
        ticks += 1
    assert ticks <= 3 * 9
    assert run.end.value is None
    assert run.end.decision.reason is Reason.NO_WORKERS
    assert len(run.all(Absent)) == len(run.all(Dispatch)) == 9
    assert not run.all(Blame)


def test_row_25_the_largest_legal_answer_is_one_malformed_ballot():
    run = Run.of(metric(3))
    run.round(dict(zip(WORKERS, (number(1.0), number(1.0), bytes(MAX_VALUE)), strict=False)))
    run.wait()
    assert run.end.value == number(1.0)


EVERYTHING: list[Callable[[Run], Event]] = [
    *(
        (lambda run, m=message: Received(at=run.state.now, message=signed(m)))
        for worker, value in itertools.product(WORKERS[:4], (TRUTH, LIE))
        for message in (
            answer(worker, value).commit,
            answer(worker, value),
        )
    ),
    lambda run: Tick(at=run.state.deadline),
    lambda run: Tick(at=run.state.now - 5),
    lambda run: Drawn(
        at=run.state.now,
        beacon=Beacon(chain="drand", round=run.state.round or 1, value=b"v" * 32),
    ),
    lambda run: Drawn(
        at=run.state.now,
        beacon=Beacon(chain="drand", round=(run.state.round or 1) + 1, value=b"w" * 32),
    ),
    *(
        (lambda run, w=worker, v=verdict: Audited(at=run.state.now, worker=w, verdict=v))
        for worker, verdict in itertools.product(WORKERS[:4], Verdict)
    ),
    *(
        (lambda run, w=worker, c=cleared: WindowClosed(at=run.state.now, worker=w, cleared=c))
        for worker, cleared in itertools.product(WORKERS[:2], (True, False))
    ),
]


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["fixed", "match", "adaptive"]),
    st.lists(st.sampled_from(range(len(EVERYTHING))), max_size=40),
)
def test_row_35_a_coordinator_that_was_killed_comes_to_the_same_end(kind: str, picks: list[int]):
    """Whoever replays the events that were kept has the same state and has said the same."""
    policies: dict[str, QuorumPolicy] = {
        "fixed": FixedSize(bad=0.1, size=3),
        "match": FirstToMatch(bad=0.1, matches=2),
        "adaptive": ADAPTIVE,
    }
    trust = {WORKERS[i]: Standing(passed=10) for i in range(4)}

    def fresh() -> Run:
        config = rules(policies[kind], dispatches=4)
        return Run.of(config, workers=WORKERS[:4], standings=trust)

    run, kept = fresh(), []
    for pick in picks:
        event = EVERYTHING[pick](run)
        kept.append(event)
        run.do(event)
    again = fresh()
    for event in kept:
        again.do(event)
    assert again.state == run.state
    assert again.effects == run.effects
    # Killed between receiving and recording: the worker sends again, and nothing is lost or
    # counted twice.
    doubled = fresh()
    for event in kept:
        doubled.do(event)
        state = doubled.state
        effects = doubled.do(event)
        if isinstance(event, Received):
            assert doubled.state == state
            assert all(isinstance(effect, Refuse) for effect in effects)
    assert len(run.all(Conclude)) <= 1


def test_row_35_what_was_decided_stays_decided():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    run.round(dict(zip(WORKERS, (TRUTH, TRUTH, LIE), strict=False)))
    run.wait()
    ended = run.state
    assert run.end.value == TRUTH
    for make in EVERYTHING:
        effects = run.do(make(run))
        assert all(isinstance(effect, Refuse) for effect in effects)
        assert dataclasses.replace(run.state, now=ended.now) == ended
    for worker in WORKERS[:3]:
        assert refused(run.audit(worker, Verdict.REJECT)) == ["not-asked"]


def test_only_the_round_that_was_announced_will_do():
    run = Run.of(rules(FixedSize(bad=0.1, size=3)))
    for worker in WORKERS[:3]:
        run.send(answer(worker).commit)
    for worker in WORKERS[:3]:
        run.send(answer(worker))
    number = run.state.round
    assert number is not None
    for chain, other in (("drand", number - 1), ("drand", number + 1), ("other", number)):
        grinding = Beacon(chain=chain, round=other, value=b"v" * 32)
        assert refused(run.do(Drawn(at=NOW, beacon=grinding))) == ["other-beacon"]
    run.draw()
    assert run.end.value == TRUTH


# The caller's own mistakes.


def test_jobs_that_cannot_run_are_refused():
    config = rules(FixedSize(bad=0.1, size=3))
    with pytest.raises(ValueError, match="expired"):
        start(JOB, config, now=JOB.expiry, workers=WORKERS, weights=[1] * 9, seed=SEED)
    with pytest.raises(ValueError, match="3 workers, and 2 can"):
        start(JOB, config, now=NOW, workers=WORKERS[:2], weights=[1] * 2, seed=SEED)
    with pytest.raises(ValueError, match="one weight"):
        start(JOB, config, now=NOW, workers=WORKERS, weights=[1], seed=SEED)
    with pytest.raises(ValueError, match="positive"):
        rules(FixedSize(bad=0.1, size=3), reveal_seconds=0)
    with pytest.raises(ValueError, match=f"{MAX_BALLOTS} workers"):
        rules(FixedSize(bad=0.1, size=3), dispatches=MAX_BALLOTS + 1)
    with pytest.raises(ValueError, match="period"):
        Schedule(chain="drand", genesis=0, period=0)


# Exhaustive exploration. The network holds every message that was ever sent, and delivers any of
# them at any time, any number of times or never: that is every interleaving, duplication and loss.

HONEST, LYING, SILENT, COPYING = "honest", "lying", "silent", "copying"
World = tuple[State, frozenset[Any]]


def key(world: World) -> tuple[Any, ...]:
    state, network = world
    return (
        *(state.phase, state.now, state.deadline, state.seats, len(state.reserve)),
        *(state.requested, state.round, state.beacon, state.decision, network),
    )


def at(now: int, sent: Any) -> Event:
    """A message or an event that the network holds, delivered now."""
    if isinstance(sent, Signed):
        return Received(at=now, message=sent)
    return dataclasses.replace(sent, at=now)


class Model:
    """Workers that react to what the coordinator says, each as it is.

    Where all seats are filled in one round, copycats see every message, reveals too. A worker of a
    later round that is shown an earlier answer can copy it whatever the protocol: there, reveals
    reach the coordinator only, as the specification demands.
    """

    def __init__(self, behaviours: Sequence[str], policy: QuorumPolicy):
        self.workers = WORKERS[: len(behaviours)]
        self.behaviour = dict(zip(self.workers, behaviours, strict=True))
        self.rules = rules(policy)
        self.leaks = policy.first() == len(behaviours)
        self.liars = behaviours.count(LYING)
        self.reasons: set[Reason] = set()
        self.values: set[bytes | None] = set()
        self.blamed: set[bytes] = set()

    def initial(self) -> World:
        state, effects = start(
            JOB,
            self.rules,
            now=NOW,
            workers=self.workers,
            weights=[1] * len(self.workers),
            seed=SEED,
        )
        # Messages of an earlier job lie about for whoever wants to replay them.
        old = {signed(answer(w, job=ELSEWHERE)) for w in self.workers}
        old |= {signed(answer(w, job=ELSEWHERE).commit) for w in self.workers}
        return state, self.react(frozenset(old), effects)

    def react(self, network: frozenset[Any], effects: Iterable[Effect]) -> frozenset[Any]:
        sent = set(network)
        for effect in effects:
            match effect:
                case Dispatch(worker=worker) | AskReveal(worker=worker):
                    kind = self.behaviour[worker]
                    if kind in {HONEST, LYING}:
                        reveal = answer(worker, TRUTH if kind == HONEST else LIE)
                        opens = isinstance(effect, AskReveal)
                        sent.add(signed(reveal if opens else reveal.commit))
                case AwaitBeacon(chain=chain, round=number):
                    drawn = Beacon(chain=chain, round=number, value=b"v" * 32)
                    sent.add(Drawn(at=0, beacon=drawn))
                case Audit(reveal=reveal):
                    worker = reveal.message.worker
                    right = self.behaviour[worker] == HONEST
                    verdict = Verdict.ACCEPT if right else Verdict.REJECT
                    sent.add(Audited(at=0, worker=worker, verdict=verdict))
                case _:
                    pass
        return frozenset(sent | set(self.copies(sent)))

    def copies(self, sent: set[Any]) -> Iterator[Any]:
        """All that a copycat can make of the messages that it has seen."""
        for worker, kind in self.behaviour.items():
            if kind != COPYING:
                continue
            for message in [item.message for item in sent if isinstance(item, Signed)]:
                if message.worker == worker or message.job != JOB.digest:
                    continue
                if isinstance(message, Reveal) and not self.leaks:
                    continue
                taken = dataclasses.replace(message, worker=worker)
                yield signed(taken)
                if isinstance(taken, Reveal):
                    yield signed(taken.commit)

    def check(self, before: State, after: State, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Blame(reveal=reveal):
                    assert self.behaviour[reveal.message.worker] == LYING
                    self.blamed.add(reveal.message.worker)
                case Audit(reveal=reveal):
                    assert self.behaviour[reveal.message.worker] in {HONEST, LYING}
                case Conclude(decision=decision, value=value):
                    self.conclude(decision, value)
                case _:
                    pass
        ends = sum(isinstance(effect, Conclude) for effect in effects)
        assert ends == (before.phase is not Phase.ENDED and after.phase is Phase.ENDED)
        if before.phase is Phase.ENDED:
            assert all(isinstance(effect, Refuse) for effect in effects)
            assert after.decision == before.decision
        workers = [seat.worker for seat in after.seats]
        assert len(set(workers)) == len(workers)
        for seat in after.seats:
            if self.behaviour[seat.worker] == HONEST:
                assert seat.place is not Place.VOID
            if seat.reveal is not None:
                assert self.behaviour[seat.worker] in {HONEST, LYING}
        if after.phase is not Phase.ENDED:
            assert after.deadline > after.now

    def conclude(self, decision: Decision, value: bytes | None) -> None:
        self.reasons.add(decision.reason)
        self.values.add(value)
        assert Decision.decode(decision.encode()) == decision
        if value is None:
            return
        # One that lies never wins against the others, whatever is lost; and nobody wins by silence
        # or by copying. (A policy that asks for one ballot only takes what it says.)
        majority = self.rules.policy.first() // 2 + 1
        assert value == TRUTH or (value == LIE and self.liars >= majority)
        speaks = HONEST if value == TRUTH else LYING
        assert decision.group and all(self.behaviour[w] == speaks for w in decision.group)

    def explore(self) -> int:
        """Go through every world that can be reached; returns how many there are."""
        first = self.initial()
        names: dict[tuple[Any, ...], int] = {key(first): 0}
        graph: dict[int, set[int]] = {}
        todo = [(0, first)]
        while todo:
            name, (state, network) = todo.pop()
            successors = graph.setdefault(name, set())
            events = [at(state.now, sent) for sent in network]
            events.append(Tick(at=max(state.deadline, state.now)))
            for event in events:
                after, effects = step(state, event)
                self.check(state, after, effects)
                if isinstance(event, Received):
                    # Delivered twice, it does what it did once.
                    assert step(after, event)[0] == after
                world = (after, self.react(network, effects))
                number = names.setdefault(key(world), len(names))
                if number == name:
                    continue
                if number not in graph and number not in successors:
                    todo.append((number, world))
                successors.add(number)
            # Time alone moves every world on, so that none waits for what never comes.
            assert state.phase is Phase.ENDED or successors
        # No world comes back: with the line above, every path ends.
        tuple(TopologicalSorter(graph).static_order())
        return len(graph)


KINDS = (HONEST, LYING, SILENT, COPYING)
SCENARIOS = [
    *((FixedSize(bad=0.1, size=1), who) for who in itertools.product(KINDS, repeat=1)),
    *((FixedSize(bad=0.1, size=2), who) for who in itertools.product(KINDS, repeat=2)),
    *(
        (FixedSize(bad=0.1, size=3), who)
        for who in itertools.combinations_with_replacement(KINDS, 3)
    ),
    *((FirstToMatch(bad=0.1, matches=2), who) for who in itertools.product(KINDS, repeat=3)),
]


@pytest.mark.parametrize(
    ("policy", "behaviours"),
    SCENARIOS,
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else type(x).__name__,
)
def test_every_interleaving_duplication_and_loss(policy: QuorumPolicy, behaviours: tuple[str, ...]):
    model = Model(behaviours, policy)
    assert model.explore() >= 2
    # The exploration is only worth what it reaches: all that may happen does happen.
    truths, lies = behaviours.count(HONEST), behaviours.count(LYING)
    majority = policy.first() // 2 + 1
    assert None in model.values
    assert (TRUTH in model.values) == (truths >= majority or (truths >= 1 and lies >= 1))
    assert (LIE in model.values) == (lies >= majority)
    assert (Reason.AUDITED in model.reasons) == (truths >= 1 and lies >= 1)
    assert bool(model.blamed) == (truths >= 1 and lies >= 1)
