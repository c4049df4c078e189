"""Three attempts: every state of small committees, as arrays instead of objects.

What a member may do depends on its own state, and on what the network justifies: a certificate of
prepares, or of reports. So all states of one member are numbered first, by `MemberBallot` itself,
and each step becomes a row of a table: the fact that it needs, and the state that follows. A world
is one such number for each correct member, up to the order of members of one weight and the names
of the choices. One more member is faulty, with every coordinator: it signs whatever helps.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.settlement.ballots import NO_LOCK, Locked, MemberBallot
from protocols.settlement.statements import SettlementError
from tests.helpers.rule_breakers import ForgetsLocks

CHOICES = tuple(bytes([i]) * 32 for i in (1, 2, 3))
"""A statement of the epoch, a rotation, and another statement."""
Local = tuple[MemberBallot, frozenset[tuple[str, int, int, int]]]
"""A ballot, and what was signed: step, attempt, attempt + 1 of the reported lock or 0, choice."""


class Exploration:
    """Tables of one member, and the worlds of all correct ones."""

    def __init__(
        self,
        attempts: int,
        rules: type[MemberBallot] = MemberBallot,
        *,
        choices: int = 2,
        correct: tuple[int, ...] = (1, 1, 1),
        faulty: int = 1,
    ):
        """Weights of the correct members, of which equal ones stand together, and of the faulty."""
        self.attempts, self.choices, self.correct, self.faulty = attempts, choices, correct, faulty
        places = list(itertools.product(range(attempts), range(choices)))
        facts: list[tuple[str, int, int]] = [("always", 0, 0)]
        facts += [("prepared", a, c) for a, c in places]
        facts += [("free", a, 0) for a in range(1, attempts)]
        facts += [("required", a, c) for a, c in places if a]
        self.fact = {name: i for i, name in enumerate(facts)}
        self.places = {place: i for i, place in enumerate(places)}
        self.number: dict[Local, int] = {}
        self.tables(rules)

    def quorum(self, members: Iterable[int], *, faulty: bool) -> bool:
        """Whether these correct members, and the faulty one or not, have more than two thirds."""
        weight = sum(self.correct[i] for i in members) + self.faulty * faulty
        return 3 * weight > 2 * (sum(self.correct) + self.faulty)

    @functools.cached_property
    def subsets(self) -> list[tuple[int, ...]]:
        everyone = range(len(self.correct))
        return [x for k in everyone for x in itertools.combinations(everyone, k + 1)]

    def certified(self, bits: np.ndarray) -> np.ndarray:
        """Bits that a quorum has, with the faulty member: `bits` has a column for each member."""
        found = np.zeros(len(bits), np.int64)
        for members in self.subsets:
            if self.quorum(members, faulty=True):
                found |= np.bitwise_and.reduce(bits[:, members], axis=1)
        return found

    def steps(self, local: Local) -> Iterator[tuple[int, Local]]:
        """All that a member can be brought to sign: the fact that it needs, and its next state."""
        ballot, signed = local
        for a, c in self.places:
            needs = [("always", 0, 0)]
            if a:
                needs = [("free", a, 0), *(("required", a, x) for x in range(self.choices))]
            for need in needs:
                locks = [(1, CHOICES[need[2]])] if need[0] == "required" else [NO_LOCK]
                yield from self.tried(
                    need,
                    lambda a=a, c=c, x=locks: ballot.prepare(a, CHOICES[c], x),
                    signed,
                    ("prepare", a, 0, c),
                )
            yield from self.tried(
                ("prepared", a, c),
                lambda a=a, c=c: ballot.lock(a, CHOICES[c]),
                signed,
                ("lock", a, 0, c),
            )
        for a in range(1, self.attempts):
            locked, choice = ballot.locked
            made = ("report", a, locked, CHOICES.index(choice) if locked else 0)
            yield from self.tried(("always", 0, 0), lambda a=a: ballot.report(a), signed, made)

    def tried(
        self,
        need: tuple[str, int, int],
        rule: Callable[[], MemberBallot],
        signed: frozenset[tuple[str, int, int, int]],
        made: tuple[str, int, int, int],
    ) -> Iterator[tuple[int, Local]]:
        try:
            yield self.fact[need], (rule(), signed | {made})
        except SettlementError:
            return

    def tables(self, rules: type[MemberBallot]) -> None:
        start: Local = (rules(), frozenset())
        self.number[start], stack, edges = 0, [start], {}
        while stack:
            local = stack.pop()
            edges[local] = list(self.steps(local))
            for _, after in edges[local]:
                if after not in self.number:
                    self.number[after] = len(self.number)
                    stack.append(after)
        self.count = len(self.number)
        most = max(map(len, edges.values()))
        self.needs = np.zeros((self.count, most), np.int64)
        self.after = np.tile(np.arange(self.count)[:, None], (1, most))
        self.prepares, self.locks = (np.zeros(self.count, np.int64) for _ in range(2))
        self.reports = np.zeros((self.attempts, self.count), np.int64)
        self.last = np.zeros(self.count, np.int64)
        self.swapped = np.zeros((math.factorial(self.choices), self.count), np.int64)
        for local, i in self.number.items():
            for k, (need, after) in enumerate(edges[local]):
                self.needs[i, k], self.after[i, k] = need, self.number[after]
            ballot, signed = local
            locked_by = ballot.locked[1]
            for step, a, locked, c in signed:
                bit = 1 << self.places[a, c]
                if step == "prepare":
                    self.prepares[i] |= bit
                elif step == "lock":
                    self.locks[i] |= bit
                else:
                    self.reports[a, i] = self.told(locked, c)
            self.last[i] = self.told(ballot.locked[0], [bytes(32), *CHOICES].index(locked_by) - 1)
            for k, order in enumerate(itertools.permutations(range(self.choices))):
                self.swapped[k, i] = self.number[self.renamed(local, order)]

    def told(self, locked: int, choice: int) -> int:
        """A lock as a number: attempt + 1 and choice, above 0; 1 for none."""
        return 2 + self.choices * (locked - 1) + choice if locked else 1

    def renamed(self, local: Local, order: tuple[int, ...]) -> Local:
        """The state with the choices in another order."""
        ballot, signed = local
        other: dict[bytes | None, bytes | None] = {None: None, bytes(32): bytes(32)}
        other |= {CHOICES[i]: CHOICES[j] for i, j in enumerate(order)}
        made = type(ballot)(
            attempt=ballot.attempt,
            prepared=other[ballot.prepared],
            locked=(ballot.locked[0], other[ballot.locked[1]] or b""),
        )
        return made, frozenset(
            (step, a, locked, c if step == "report" and not locked else order[c])
            for step, a, locked, c in signed
        )

    @functools.cached_property
    def justified(self) -> list[np.ndarray]:
        """Facts about attempt a, by the reports and the certificates of prepares before it."""
        found, members = [np.zeros(0)], len(self.correct)
        for a in range(1, self.attempts):
            codes, proofs = self.choices * a + 2, 1 << self.choices * a
            table = np.zeros((codes,) * members + (proofs,), np.int64)
            for told in itertools.product(range(codes), repeat=members):
                for bits in range(proofs):
                    table[(*told, bits)] = self.facts_of(a, told, bits)
            found.append(table)
        return found

    def facts_of(self, a: int, told: tuple[int, ...], bits: int) -> int:
        """Which choices some set of these reports, with one of the faulty member, allows."""
        provable = [self.told(at + 1, c) for (at, c), i in self.places.items() if bits >> i & 1]
        facts = 0
        for members in self.subsets:
            if not all(told[i] for i in members):
                continue
            for lie in ([], [1], *([p] for p in provable)):
                if self.quorum(members, faulty=bool(lie)):
                    facts |= self.allowed(a, [*(told[i] for i in members), *lie], provable)
        return facts

    def allowed(self, a: int, told: list[int], provable: list[int]) -> int:
        """What these reports justify: the highest lock must be one, with its prepares."""
        highest = max((t - 2) // self.choices for t in told)
        named = {t for t in told if (t - 2) // self.choices == highest}
        if highest < 0:
            return 1 << self.fact["free", a, 0]
        if len(named) == 1 and named <= {*provable}:
            return 1 << self.fact["required", a, (named.pop() - 2) % self.choices]
        return 0

    def facts(self, worlds: np.ndarray) -> np.ndarray:
        """Bits of the facts that hold in each world, a row of `worlds`."""
        prepared = self.certified(self.prepares[worlds])
        facts = 1 | prepared << 1
        for a in range(1, self.attempts):
            told = self.reports[a][worlds]
            before = prepared & ((1 << self.choices * a) - 1)
            facts |= self.justified[a][(*told.T, before)]
        return facts

    def canonical(self, worlds: np.ndarray) -> np.ndarray:
        """One number for worlds that differ in the order of members or the names of choices."""
        return np.minimum.reduce([self.code(renamed[worlds]) for renamed in self.swapped])

    def code(self, worlds: np.ndarray) -> np.ndarray:
        number, at = np.zeros(len(worlds), np.int64), 0
        for _, group in itertools.groupby(self.correct):
            size = len([*group])
            for column in np.sort(worlds[:, at : at + size], axis=1).T:
                number = number * self.count + column
            at += size
        return number

    def worlds(self, codes: np.ndarray) -> np.ndarray:
        columns: list[np.ndarray] = []
        for _ in self.correct:
            codes, column = np.divmod(codes, self.count)
            columns.append(column)
        return np.stack(columns[::-1], axis=1)

    def reachable(self) -> Iterator[np.ndarray]:
        """Every world, in the order of the number of signatures at least needed."""
        frontier = seen = np.zeros(1, np.int64)
        while len(frontier):
            following: list[np.ndarray] = []
            for part in np.array_split(frontier, 1 + len(frontier) // 200_000):
                worlds = self.worlds(part)
                yield worlds
                facts = self.facts(worlds)
                for i in range(len(self.correct)):
                    own = worlds[:, i]
                    holds = facts[:, None] >> self.needs[own] & 1
                    at, k = np.nonzero(holds & (self.after[own] != own[:, None]))
                    after = worlds[at]
                    after[:, i] = self.after[own[at], k]
                    following.append(np.unique(self.canonical(after)))
            new = np.unique(np.concatenate(following))
            at = np.searchsorted(seen, new)
            frontier = new[seen[np.minimum(at, len(seen) - 1)] != new]
            seen = np.union1d(seen, frontier)

    def decided(self, worlds: np.ndarray) -> np.ndarray:
        """Bit c: choice c has a certificate of locks in some attempt."""
        bits = self.certified(self.locks[worlds])
        found = np.zeros(len(worlds), np.int64)
        for a in range(self.attempts):
            found |= bits >> self.choices * a & ((1 << self.choices) - 1)
        return found

    def led(self, worlds: np.ndarray) -> np.ndarray:
        """Bits of the choices that the highest locks of all correct members name."""
        last = self.last[worlds] - 2
        highest = (last // self.choices).max(axis=1, keepdims=True)
        named = (last // self.choices == highest) & (highest >= 0)
        return np.bitwise_or.reduce(np.where(named, 1 << last % self.choices, 0), axis=1)


def explored(attempts: int, **setting: Any) -> tuple[int, int]:
    """Number of worlds, and of those with a decision; the properties hold in each."""
    made, total, decisions = Exploration(attempts, **setting), 0, 0
    for worlds in made.reachable():
        decided, led = made.decided(worlds), made.led(worlds)
        assert not (decided & (decided - 1)).any()  # at most one choice
        assert not (led & (led - 1)).any()  # an attempt follows
        assert (led[decided > 0] == decided[decided > 0]).all()  # the choice that is led on
        total, decisions = total + len(worlds), decisions + int((decided > 0).sum())
    return total, decisions


@pytest.mark.parametrize(
    ("setting", "states"),
    [
        # As many as `test_ballots.py` finds with objects, up to the names of the choices.
        ({}, (3_253, 1_857)),
        ({"correct": (2, 1, 1)}, (4_350, 1_788)),
        ({"choices": 3}, (4_849, 2_531)),
        ({"choices": 3, "correct": (3, 2), "faulty": 2}, (694, 380)),
    ],
    ids=str,
)
def test_two_attempts_as_arrays(setting: dict[str, Any], states: tuple[int, int]):
    assert explored(2, **setting) == states


@pytest.mark.parametrize(
    ("setting", "states"),
    [
        ({}, (700_838, 451_936)),
        ({"correct": (2, 1, 1)}, (640_212, 307_122)),
        ({"correct": (3, 2), "faulty": 2}, (20_312, 12_624)),
        ({"choices": 3, "correct": (3, 2), "faulty": 2}, (37_980, 21_688)),
    ],
    ids=str,
)
def test_three_attempts(
    setting: dict[str, Any], states: tuple[int, int], request: pytest.FixtureRequest
):
    if not request.config.option.exhaustive:
        pytest.skip("takes up to 15 s: --exhaustive explores three attempts")
    assert explored(3, **setting) == states


class TwoChoices(MemberBallot):
    """Prepares two choices in one attempt."""

    __slots__ = ()

    def prepare(self, attempt: int, choice: bytes, locks: Iterable[Locked]) -> MemberBallot:
        return MemberBallot.prepare(replace(self, prepared=None), attempt, choice, locks)


@pytest.mark.parametrize("rules", [ForgetsLocks, TwoChoices], ids=lambda r: r.__name__)
def test_the_arrays_show_what_a_missing_rule_allows(rules: type[MemberBallot]):
    """Two decisions; or a decision, and as high a lock of another choice: no attempt follows."""
    made = Exploration(2, rules)
    assert any(
        ((decided == 3) | (decided > 0) & (made.led(worlds) != decided)).any()
        for worlds in made.reachable()
        for decided in [made.decided(worlds)]
    )
