"""Three attempts: every state of four members of one weight, as arrays instead of objects.

What a member may do depends on its own state, and on what the network justifies: a certificate of
prepares, or of reports. So all states of one member are numbered first, by `MemberBallot` itself,
and each step becomes a row of a table: the fact that it needs, and the state that follows. A world
is three such numbers, in any order and up to the names of the two choices, an epoch and a rotation.
The fourth member is faulty, with every coordinator: it signs whatever helps.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from protocols.settlement.ballots import NO_LOCK, Locked, MemberBallot
from protocols.settlement.statements import SettlementError

EPOCH, ROTATION = bytes([1]) * 32, bytes([2]) * 32
CHOICES = (EPOCH, ROTATION)
Local = tuple[MemberBallot, frozenset[tuple[str, int, int, int]]]
"""A ballot, and what was signed: step, attempt, attempt + 1 of the reported lock or 0, choice."""


class Exploration:
    """Tables of one member, and the worlds of three."""

    def __init__(self, attempts: int, rules: type[MemberBallot] = MemberBallot):
        self.attempts = attempts
        places = list(itertools.product(range(attempts), (0, 1)))
        facts: list[tuple[str, int, int]] = [("always", 0, 0)]
        facts += [("prepared", a, c) for a, c in places]
        facts += [("free", a, 0) for a in range(1, attempts)]
        facts += [("required", a, c) for a, c in places if a]
        self.fact = {name: i for i, name in enumerate(facts)}
        self.places = {place: i for i, place in enumerate(places)}
        self.number: dict[Local, int] = {}
        self.tables(rules)

    def steps(self, local: Local) -> Iterator[tuple[int, Local]]:
        """All that a member can be brought to sign: the fact that it needs, and its next state."""
        ballot, signed = local
        for a, c in self.places:
            needs = [("always", 0, 0)] if not a else [("free", a, 0), ("required", a, 0)]
            needs += [("required", a, 1)] if a else []
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
            made = ("report", a, locked, int(choice == ROTATION))
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
        self.swapped = np.zeros(self.count, np.int64)
        for local, i in self.number.items():
            for k, (need, after) in enumerate(edges[local]):
                self.needs[i, k], self.after[i, k] = need, self.number[after]
            ballot, signed = local
            for step, a, locked, c in signed:
                bit = 1 << self.places[a, c]
                if step == "prepare":
                    self.prepares[i] |= bit
                elif step == "lock":
                    self.locks[i] |= bit
                else:
                    self.reports[a, i] = 1 if not locked else 2 * locked + c
            self.last[i] = 2 * ballot.locked[0] + (ballot.locked[1] == ROTATION)
            self.swapped[i] = self.number[self.renamed(local)]

    def renamed(self, local: Local) -> Local:
        """The state with the two choices exchanged."""
        ballot, signed = local
        other = {EPOCH: ROTATION, ROTATION: EPOCH, None: None, bytes(32): bytes(32)}
        made = type(ballot)(
            attempt=ballot.attempt,
            prepared=other[ballot.prepared],
            locked=(ballot.locked[0], other[ballot.locked[1]] or b""),
        )
        return made, frozenset(
            (step, a, locked, c if step == "report" and not locked else 1 - c)
            for step, a, locked, c in signed
        )

    @functools.cached_property
    def justified(self) -> list[np.ndarray]:
        """Facts about attempt a, by three reports and the certificates of prepares before it."""
        found = [np.zeros(0)]
        for a in range(1, self.attempts):
            codes, proofs = 2 * a + 2, 1 << 2 * a
            table = np.zeros((codes, codes, codes, proofs), np.int64)
            for told in itertools.product(range(codes), repeat=3):
                for bits in range(proofs):
                    table[(*told, bits)] = self.facts_of(a, [t for t in told if t], bits)
            found.append(table)
        return found

    def facts_of(self, a: int, told: list[int], bits: int) -> int:
        """Which choices some set of these reports, with one of the faulty member, allows."""
        provable = [2 * (at + 1) + c for (at, c), i in self.places.items() if bits >> i & 1]
        facts = 0
        for size in (2, 3):
            for chosen in itertools.combinations(told, size):
                lies = [[], [1], *([p] for p in provable)]
                for lie in lies[size == 2 :]:
                    all_told = [*chosen, *lie]
                    highest = max(t // 2 for t in all_told)
                    named = {t for t in all_told if t // 2 == highest}
                    if not highest:
                        facts |= 1 << self.fact["free", a, 0]
                    elif len(named) == 1 and named <= set(provable):
                        facts |= 1 << self.fact["required", a, named.pop() % 2]
        return facts

    def facts(self, worlds: np.ndarray) -> np.ndarray:
        """Bits of the facts that hold in each world, of shape (worlds, 3)."""
        prepared = two_of_three(self.prepares[worlds])
        facts = 1 | prepared << 1
        for a in range(1, self.attempts):
            told = self.reports[a][worlds]
            before = prepared & ((1 << 2 * a) - 1)
            facts |= self.justified[a][told[:, 0], told[:, 1], told[:, 2], before]
        return facts

    def canonical(self, worlds: np.ndarray) -> np.ndarray:
        """One number for worlds that differ in the order of members or the names of choices."""
        return np.minimum(self.code(worlds), self.code(self.swapped[worlds]))

    def code(self, worlds: np.ndarray) -> np.ndarray:
        a, b, c = np.sort(worlds, axis=1).T
        return (a * self.count + b) * self.count + c

    def worlds(self, codes: np.ndarray) -> np.ndarray:
        rest, c = np.divmod(codes, self.count)
        return np.stack([*np.divmod(rest, self.count), c], axis=1)

    def reachable(self) -> Iterator[np.ndarray]:
        """Every world, in the order of the number of signatures at least needed."""
        frontier = seen = np.zeros(1, np.int64)
        while len(frontier):
            following: list[np.ndarray] = []
            for part in np.array_split(frontier, 1 + len(frontier) // 200_000):
                worlds = self.worlds(part)
                yield worlds
                facts = self.facts(worlds)
                for i in range(3):
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
        bits = two_of_three(self.locks[worlds])
        found = np.zeros(len(worlds), np.int64)
        for a in range(self.attempts):
            found |= bits >> 2 * a & 3
        return found

    def led(self, worlds: np.ndarray) -> np.ndarray:
        """Bits of the choices that the highest locks of all correct members name."""
        last = self.last[worlds]
        highest = (last // 2).max(axis=1, keepdims=True)
        named = np.where((last // 2 == highest) & (highest > 0), 1 << last % 2, 0)
        return np.bitwise_or.reduce(named, axis=1)


def two_of_three(bits: np.ndarray) -> np.ndarray:
    """Bits that two of three correct members have: with the faulty one, more than two thirds."""
    a, b, c = bits.T
    return a & b | a & c | b & c


def explored(attempts: int) -> tuple[int, int]:
    """Number of worlds, and of those with a decision; the properties hold in each."""
    made, total, decisions = Exploration(attempts), 0, 0
    for worlds in made.reachable():
        decided, led = made.decided(worlds), made.led(worlds)
        assert (decided < 3).all()  # at most one choice
        assert (led[decided > 0] == decided[decided > 0]).all()  # the choice that is led on
        total, decisions = total + len(worlds), decisions + int((decided > 0).sum())
    return total, decisions


def test_two_attempts_as_arrays():
    """As many as `test_ballots.py` finds with objects, up to the names of the choices."""
    assert explored(2) == (3_253, 1_857)


def test_three_attempts(request: pytest.FixtureRequest):
    if not request.config.option.exhaustive:
        pytest.skip("takes 15 s: --exhaustive explores three attempts")
    assert explored(3) == (700_838, 451_936)


class AnyChoice(MemberBallot):
    """Prepares any choice in a later attempt: the highest lock prescribes none."""

    __slots__ = ()

    def prepare(self, attempt: int, choice: bytes, locks: Iterable[Locked]) -> MemberBallot:
        return MemberBallot.prepare(self, attempt, choice, [NO_LOCK])


class TwoChoices(MemberBallot):
    """Prepares two choices in one attempt."""

    __slots__ = ()

    def prepare(self, attempt: int, choice: bytes, locks: Iterable[Locked]) -> MemberBallot:
        return MemberBallot.prepare(replace(self, prepared=None), attempt, choice, locks)


@pytest.mark.parametrize("rules", [AnyChoice, TwoChoices], ids=lambda r: r.__name__)
def test_the_arrays_show_what_a_missing_rule_allows(rules: type[MemberBallot]):
    """Two decisions; or a decision, and as high a lock of another choice: no attempt follows."""
    made = Exploration(2, rules)
    assert any(
        ((decided == 3) | (decided > 0) & (made.led(worlds) != decided)).any()
        for worlds in made.reachable()
        for decided in [made.decided(worlds)]
    )
