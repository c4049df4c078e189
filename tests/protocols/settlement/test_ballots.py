"""Every way in which a faulty coordinator and a faulty member can use the members' rules.

The members of a small committee run `MemberBallot` itself; the network is all that was ever signed.
A faulty coordinator delivers any of it in any order and proposes different choices to different
members; a faulty member signs everything that its signature allows. Two properties hold in every
state that can be reached: at most one choice is decided, and a correct coordinator then leads the
correct members to a decision, which is the one made before if there was one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import pytest

from protocols.settlement.ballots import MAX_STEP, NO_LOCK, Locked, MemberBallot, required_choice
from protocols.settlement.statements import SettlementError
from tests.helpers.rule_breakers import ForgetsLocks

EPOCH, OTHER, ROTATION = (bytes([i]) * 32 for i in (1, 2, 3))
"""Two statements of the next epoch, and a rotation: what follows is one of them."""

Signed: TypeAlias = frozenset[tuple[str, int, int, bytes]]
"""What a member has signed: step, attempt, attempt + 1 of the reported lock or 0, choice."""
Member: TypeAlias = tuple[MemberBallot, Signed]
World: TypeAlias = tuple[Member, ...]


@dataclass(frozen=True)
class Setting:
    """Weights of the correct members, weight of the faulty one, choices, and number of attempts."""

    correct: tuple[int, ...]
    faulty: int
    choices: tuple[bytes, ...]
    attempts: int
    rules: type[MemberBallot] = MemberBallot

    @property
    def total(self) -> int:
        return sum(self.correct) + self.faulty

    def quorum(self, members: Iterable[int]) -> bool:
        """Whether these correct members and the faulty one have more than two thirds."""
        weight = self.faulty + sum(self.correct[i] for i in members)
        return 3 * weight > 2 * self.total

    def supported(self, world: World, step: str, attempt: int, choice: bytes) -> bool:
        return self.quorum(
            i for i, (_, signed) in enumerate(world) if (step, attempt, 0, choice) in signed
        )

    def decided(self, world: World) -> frozenset[bytes]:
        return frozenset(
            choice
            for attempt in range(self.attempts)
            for choice in self.choices
            if self.supported(world, "lock", attempt, choice)
        )

    def justifications(self, world: World, attempt: int) -> Iterator[list[Locked]]:
        """Locks of every set of reports that justifies an attempt."""
        reports = {
            i: (locked, choice)
            for i, (_, signed) in enumerate(world)
            for step, at, locked, choice in signed
            if step == "report" and at == attempt
        }
        provable = [
            (at + 1, choice)
            for at in range(attempt)
            for choice in self.choices
            if self.supported(world, "prepare", at, choice)
        ]
        # The faulty member sends none, or reports no lock or any that the prepares allow.
        lies = [[], [NO_LOCK], *([lock] for lock in provable)]
        for size in range(len(reports) + 1):
            for members in itertools.combinations(reports, size):
                for lie in lies:
                    told = [*(reports[i] for i in members), *lie]
                    if self.justifies(told, members, lie, provable):
                        yield told

    def justifies(
        self,
        told: list[Locked],
        members: Iterable[int],
        lie: list[Locked],
        provable: list[Locked],
    ) -> bool:
        """More than two thirds report, and the highest lock is one, with its prepares."""
        weight = sum(self.correct[i] for i in members) + self.faulty * len(lie)
        highest = {lock for lock in told if lock[0] == max(told)[0]}
        return 3 * weight > 2 * self.total and (
            highest == {NO_LOCK} or (len(highest) == 1 and highest <= {*provable})
        )

    def moves(self, world: World) -> Iterator[tuple[int, Member]]:
        """Everything that a correct member can be brought to sign."""
        found = [
            {required_choice(locks) for locks in self.justifications(world, a)} if a else {None}
            for a in range(self.attempts)
        ]
        for i, (ballot, signed) in enumerate(world):
            for attempt in range(self.attempts):
                for choice in self.choices:
                    for required in found[attempt]:
                        locks = [NO_LOCK] if required is None else [(1, required)]
                        yield from self.tried(
                            i,
                            signed,
                            ("prepare", attempt, 0, choice),
                            lambda b=ballot, a=attempt, c=choice, x=locks: b.prepare(a, c, x),
                        )
                    if self.supported(world, "prepare", attempt, choice):
                        yield from self.tried(
                            i,
                            signed,
                            ("lock", attempt, 0, choice),
                            lambda b=ballot, a=attempt, c=choice: b.lock(a, c),
                        )
                yield from self.tried(
                    i,
                    signed,
                    ("report", attempt, *ballot.locked),
                    lambda b=ballot, a=attempt: b.report(a),
                )

    def tried(
        self,
        i: int,
        signed: Signed,
        made: tuple[str, int, int, bytes],
        rule: Callable[[], MemberBallot],
    ) -> Iterator[tuple[int, Member]]:
        """The member after it has signed, if its rules allow it."""
        try:
            yield i, (rule(), signed | {made})
        except SettlementError:
            return

    def reachable(self) -> Iterator[World]:
        """Every state, up to the order of members of one weight and the names of choices."""
        start: World = tuple((self.rules(), frozenset()) for _ in self.correct)
        seen, stack = {self.canonical(start)}, [start]
        while stack:
            world = stack.pop()
            yield world
            for i, member in self.moves(world):
                following = self.canonical((*world[:i], member, *world[i + 1 :]))
                if following not in seen:
                    seen.add(following)
                    stack.append(following)

    def canonical(self, world: World) -> World:
        alike = len(set(self.correct)) == 1
        return tuple(sorted(world, key=hash)) if alike else world

    def led(self, world: World) -> bytes | None:
        """What is decided once a correct coordinator leads an attempt with the correct members.

        None if their reports justify none: the highest lock is on two choices.
        """
        attempt = 1 + max(ballot.attempt for ballot, _ in world)
        ballots = [ballot.report(attempt) for ballot, _ in world]
        locks = [ballot.locked for ballot in ballots]
        if len({lock for lock in locks if lock[0] == max(locks)[0]}) > 1:
            return None
        choice = required_choice(locks) or self.choices[0]
        for ballot in ballots:
            ballot.prepare(attempt, choice, locks).lock(attempt, choice).sign(choice)
        return choice


def conflicts(setting: Setting) -> Iterator[World]:
    """States in which two choices are decided."""
    return (world for world in setting.reachable() if len(setting.decided(world)) > 1)


SETTINGS = {
    "four of one weight": Setting((1, 1, 1), 1, (EPOCH, ROTATION), 2),
    "weights, the faulty one a third": Setting((3, 2, 1), 3, (EPOCH, ROTATION), 2),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_place_has_one_decision_and_never_freezes(name: str):
    setting, states, decisions = SETTINGS[name], 0, set[bytes]()
    alive = setting.quorum(range(len(setting.correct))) and (
        3 * sum(setting.correct) > 2 * setting.total
    )
    for world in setting.reachable():
        decided = setting.decided(world)
        assert len(decided) <= 1
        if alive:
            assert setting.led(world) in (decided or setting.choices)
        states, decisions = states + 1, decisions | decided
    assert states > 1000
    assert decisions == set(setting.choices)


def test_two_epochs_and_a_rotation(request: pytest.FixtureRequest):
    if not request.config.option.exhaustive:
        pytest.skip("takes 5 s: --exhaustive explores three choices")
    setting = Setting((1, 1, 1), 1, (EPOCH, OTHER, ROTATION), 2)
    assert all(len(setting.decided(world)) <= 1 for world in setting.reachable())


class StaysInItsAttempt(MemberBallot):
    """Locks in attempts that its report has ended."""

    __slots__ = ()

    def report(self, attempt: int) -> MemberBallot:
        MemberBallot.report(self, attempt)
        return self


class PreparesTwice(MemberBallot):
    """Prepares two choices in one attempt."""

    __slots__ = ()

    def prepare(self, attempt: int, choice: bytes, locks: Iterable[Locked]) -> MemberBallot:
        return MemberBallot.prepare(replace(self, prepared=None), attempt, choice, locks)


class ReportsNoLock(MemberBallot):
    """Forgets its lock when it reports, as a member that did not store it."""

    __slots__ = ()

    def lock(self, attempt: int, choice: bytes) -> MemberBallot:
        return replace(MemberBallot.lock(self, attempt, choice), locked=NO_LOCK)


@pytest.mark.parametrize(
    "rules", [ForgetsLocks, StaysInItsAttempt, ReportsNoLock], ids=lambda r: r.__name__
)
def test_without_one_rule_two_choices_are_decided(rules: type[MemberBallot]):
    setting = Setting((1, 1, 1), 1, (EPOCH, ROTATION), 2, rules)
    assert next(conflicts(setting), None) is not None


def test_members_that_prepare_twice_freeze_the_place():
    """Two choices are locked in one attempt, and no reports of the correct justify another."""
    setting = Setting((1, 1, 1), 1, (EPOCH, ROTATION), 1, PreparesTwice)
    assert any(setting.led(world) is None for world in setting.reachable())


def test_with_more_than_a_third_faulty_two_choices_are_decided():
    """The bound is tight: two thirds of the weight are not enough."""
    assert next(conflicts(Setting((1, 1), 2, (EPOCH, ROTATION), 1)), None) is not None


REFUSED: dict[str, tuple[str, Callable[[MemberBallot], MemberBallot]]] = {
    "an attempt that is over": (
        "other-attempt",
        lambda b: b.report(2).prepare(1, EPOCH, [NO_LOCK]),
    ),
    "a lock in an attempt that is over": ("other-attempt", lambda b: b.report(2).lock(1, EPOCH)),
    "another choice in one attempt": (
        "already-signed",
        lambda b: b.prepare(0, EPOCH, ()).prepare(0, OTHER, ()),
    ),
    "another choice than the highest lock's": (
        "other-choice",
        lambda b: b.prepare(3, OTHER, [NO_LOCK, (1, OTHER), (2, EPOCH)]),
    ),
    "two locks in one attempt": ("already-signed", lambda b: b.lock(0, EPOCH).lock(0, OTHER)),
    "a report that its own lock would contradict": (
        "other-attempt",
        lambda b: b.lock(1, EPOCH).report(1),
    ),
    "a report of the first attempt": ("other-attempt", lambda b: b.report(0)),
    "numbers used up": ("other-attempt", lambda b: b.report(MAX_STEP + 1)),
    "two signatures": ("already-signed", lambda b: b.sign(EPOCH).sign(ROTATION)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_member_refuses(name: str):
    expected, rule = REFUSED[name]
    with pytest.raises(SettlementError) as raised:
        rule(MemberBallot())
    assert raised.value.reason == expected


def test_an_attempt_is_raised_by_1024_at_most():
    raised = MemberBallot().report(1024)
    assert raised.report(2048).attempt == 2048
    for ballot, attempt in ((MemberBallot(), 1025), (raised, 2049)):
        with pytest.raises(SettlementError, match="attempt"):
            ballot.report(attempt)


def test_repeated_requests_get_the_same_answers():
    """Messages are lost: the same request again leaves the ballot as it is."""
    ballot = MemberBallot().report(1).prepare(1, EPOCH, [NO_LOCK])
    assert ballot.report(1) == ballot.prepare(1, EPOCH, [NO_LOCK]) == ballot
    locked = ballot.lock(1, EPOCH)
    assert locked.lock(1, EPOCH) == locked
    assert locked.sign(EPOCH).sign(EPOCH) == locked.sign(EPOCH)
    assert MemberBallot().report(MAX_STEP).attempt == MAX_STEP == 1024
