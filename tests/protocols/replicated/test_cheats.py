"""Named cheats against replicated execution, and laws that hold for all of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols.messages import MAX_VALUE, InvalidSignature, Reveal, Signed, disclose, sign
from protocols.replicated import Absent, AskReveal, Phase, Received, order, start
from tests.helpers import wire
from tests.helpers.jobs import (
    ELSEWHERE,
    JOB,
    LATER,
    LIE,
    NOW,
    SEED,
    TRUTH,
    WORKERS,
    Run,
    answer,
    committed,
    metric,
    number,
    refused,
    rules,
)
from verifiable.voting.quorum import FixedSize


def revealing() -> Run:
    """All have committed, the third to the first worker's commitment; the first has revealed."""
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
        "another's commitment, opened with the other's salt",
        "opening-mismatch",
        revealing,
        lambda _: stolen(),
    ),
    Cheat(
        "another's commitment, opened with its own salt",
        "opening-mismatch",
        revealing,
        lambda _: answer(C),
    ),
    Cheat(
        "another's signed commit, sent again",
        "duplicate",
        committed,
        lambda _: answer(A).commit,
    ),
    Cheat("another's signed reveal, sent again", "duplicate", revealing, lambda _: answer(A)),
    Cheat(
        "a commit of an earlier job",
        "other-job",
        committed,
        lambda _: answer(C, job=ELSEWHERE).commit,
    ),
    Cheat("a reveal of an earlier job", "other-job", revealing, lambda _: answer(B, job=ELSEWHERE)),
    Cheat(
        "a commit of another epoch",
        "other-epoch",
        committed,
        lambda _: dataclasses.replace(answer(C).commit, epoch=8),
    ),
    Cheat(
        "a reveal of another epoch",
        "other-epoch",
        revealing,
        lambda _: dataclasses.replace(answer(B), epoch=8),
    ),
    Cheat(
        "a job of another epoch is another job",
        "other-job",
        committed,
        lambda _: answer(C, job=LATER).commit,
    ),
    Cheat(
        "a commitment made after an answer was seen",
        "second-commit",
        revealing,
        lambda _: dataclasses.replace(stolen(), salt=C).commit,
    ),
    Cheat("a worker that was not drawn", "not-seated", committed, lambda _: answer(D).commit),
    Cheat("a reveal of a worker that was not drawn", "not-seated", revealing, lambda _: answer(D)),
    Cheat(
        "a second vote, of another answer",
        "second-commit",
        committed,
        lambda _: answer(A, LIE).commit,
    ),
    Cheat(
        "a second answer, revealed",
        "duplicate",
        revealing,
        lambda _: answer(A, LIE),
    ),
    Cheat(
        "another answer than committed to",
        "opening-mismatch",
        revealing,
        lambda _: answer(B, LIE),
    ),
    Cheat(
        "a commit at the deadline",
        "too-late",
        committed,
        lambda _: answer(C).commit,
        at=NOW + 60,
    ),
    Cheat("a reveal at the deadline", "too-late", revealing, lambda _: answer(B), at=NOW + 10),
    Cheat("a reveal while others may commit", "too-early", committed, lambda _: answer(A)),
    Cheat("a reveal without a commit", "too-early", committed, lambda _: answer(C)),
    Cheat(
        "the largest answer, which opens no commitment",
        "opening-mismatch",
        revealing,
        lambda _: answer(B, bytes(MAX_VALUE)),
    ),
]


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_cheat_is_refused(cheat: Cheat):
    run = cheat.before()
    before = run.state
    effects = run.send(cheat.message(run), at=cheat.at)
    assert refused(effects) == [cheat.expect]
    if cheat.at == NOW:
        assert effects == run.effects[-1:]
        assert run.state == before


def test_a_copycat_loses_its_seat_and_honest_workers_win():
    run = revealing()
    run.send(stolen())
    run.send(answer(B))
    run.wait()
    run.draw()
    assert run.end.value == TRUTH
    assert run.end.decision.group == (A, B)
    assert run.all(Absent) == [Absent(worker=C, phase=Phase.REVEAL)]


def test_a_seated_worker_that_plays_coordinator_gets_nothing_to_copy():
    """Mallory has a seat, and asks Alice for her reveal while commitments are open."""
    alice, mallory = wire.ALICE_ID.id, wire.MALLORY_ID.id
    run = Run.of(rules(FixedSize(bad=0.1, size=2)), workers=[alice, mallory], job=wire.JOB)
    reveal = answer(alice, job=wire.JOB)
    run.send(reveal.commit)

    def ask(key: Ed25519PrivateKey, deadline: int) -> Signed[Reveal]:
        task = AskReveal(worker=alice, deadline=deadline)
        request = sign(order(wire.JOB, task), key.sign).encode()
        return disclose(
            reveal,
            request,
            job=wire.JOB,
            coordinator=wire.BOSS_ID,
            signer=wire.ALICE.sign,
        )

    with pytest.raises(InvalidSignature):
        ask(wire.MALLORY, NOW + 5)
    # So Mallory has to commit before she sees any answer.
    run.send(answer(mallory, LIE, job=wire.JOB).commit)
    (task,) = [effect for effect in run.all(AskReveal) if effect.worker == alice]
    shown = ask(wire.BOSS, task.deadline)
    assert run.do(Received(at=NOW, message=shown)) == []
    taken = dataclasses.replace(reveal, worker=mallory)
    assert refused(run.send(taken)) == ["opening-mismatch"]
    assert refused(run.send(taken.commit)) == ["second-commit"]


def test_one_identity_never_holds_two_seats():
    config = rules(FixedSize(bad=0.1, size=3))
    with pytest.raises(ValueError, match="listed once"):
        start(JOB, config, now=NOW, workers=[A, B, C, A], weights=[1] * 4, seed=SEED)
    # Whatever its weight, and whichever workers are drawn.
    for weight in (1, 10**30):
        state, _ = start(
            JOB, config, now=NOW, workers=WORKERS, weights=[weight] + [1] * 8, seed=SEED
        )
        drawn = [seat.worker for seat in state.seats] + [worker for worker, _ in state.reserve]
        assert len(set(drawn)) == len(drawn) == 3
        assert weight == 1 or A in drawn


def test_identities_without_stake_are_never_drawn():
    config = rules(FixedSize(bad=0.1, size=3), dispatches=9)
    state, _ = start(JOB, config, now=NOW, workers=WORKERS, weights=[1, 1, 1, *[0] * 6], seed=SEED)
    assert sorted(seat.worker for seat in state.seats) == WORKERS[:3]
    assert not state.reserve


@pytest.mark.parametrize("values", [(1.0, 1.0008, 1.0016), (1.0, 1.0008, 3.0), (1.0, 2.0, 3.0)])
def test_arrival_order_decides_nothing(values: tuple[float, ...]):
    ends: set[tuple[Phase, bytes | None, bytes]] = set()
    for arrival in itertools.permutations(range(3)):
        run = Run.of(metric(3))
        sent = [answer(worker, number(x)) for worker, x in zip(WORKERS, values, strict=False)]
        for i in arrival:
            run.send(sent[i].commit)
        for i in reversed(arrival):
            run.send(sent[i])
        run.draw()
        while run.state.phase is Phase.AUDIT:
            run.wait()
        ends.add((run.state.phase, run.end.value, run.end.decision.encode()))
    assert len(ends) == 1


def test_two_of_seven_do_not_win():
    run = Run.of(metric(7), workers=WORKERS[:7])
    honest = [number(x) for x in (1.0, 2.0, 3.0, 4.0, 5.0)]
    run.round(dict(zip(WORKERS, [number(9.0)] * 2 + honest, strict=False)))
    run.wait()
    assert run.end.value is None
    # The same if no other worker answers.
    run = Run.of(metric(7), workers=WORKERS[:7])
    run.round(dict.fromkeys(WORKERS[:2], number(9.0)))
    assert run.end.value is None


def test_the_largest_legal_answer_is_one_malformed_ballot():
    run = Run.of(metric(3))
    run.round(dict(zip(WORKERS, (number(1.0), number(1.0), bytes(MAX_VALUE)), strict=False)))
    run.wait()
    assert run.end.value == number(1.0)
