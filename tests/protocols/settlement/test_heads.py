"""Two consecutive heads together: a verifier without a chain sees one submission of each place.

The members of `test_ballots.py`, of one weight, decide at the head (term 0, epoch 0) between the
epoch and a rotation, and again at the head that follows. A faulty coordinator chooses when the
chain takes a submission and when each member sees it, so members stand at different heads. A faulty
member is in both committees and signs everything. One attempt at each head: later ones are explored
in `test_ballots.py`, and what is signed at one head counts at no other.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest

from protocols.settlement.ballots import MemberBallot
from protocols.settlement.statements import Lock, LockReport, Prepare, SettlementError, Statement
from protocols.settlement.submission import Head, require_next, require_open, require_term
from tests.helpers.committees import FOUR, HEAD, NEXT, STATEMENT

Place = tuple[int, int]
"""Term and number of the next epoch."""


class Choice(NamedTuple):
    """An epoch or a rotation of a term, and which one: a root, or an incoming committee."""

    kind: str
    term: int
    epoch: int
    content: str

    @property
    def digest(self) -> bytes:
        return repr(self).encode()


FIRST, EPOCH_NEXT, TERM_NEXT = (0, 0), (0, 1), (1, 0)
CHOICES: dict[Place, tuple[Choice, ...]] = {
    FIRST: (Choice("epoch", 0, 0, "root"), Choice("rotation", 0, 0, "B")),
    # A rotation names no epoch: the term can hand over to B or C. (Epoch 1 contradicts nothing.)
    EPOCH_NEXT: (Choice("rotation", 0, 0, "B"), Choice("rotation", 0, 0, "C")),
    TERM_NEXT: (Choice("epoch", 1, 0, "other root"), Choice("rotation", 1, 0, "C")),
}
Made = tuple[str, Place, Choice]


@dataclass(frozen=True, eq=False)
class View:
    """A member: the head that it sees, its ballot there, and everything that it ever signed."""

    at: Place
    ballot: MemberBallot
    signed: frozenset[Made]
    number: int


NUMBERS = itertools.count()


@functools.cache
def view_of(at: Place, ballot: MemberBallot, signed: frozenset[Made]) -> View:
    """The one object of a view, so that worlds are compared by identity."""
    return View(at, ballot, signed, next(NUMBERS))


@functools.cache
def signed(view: View, step: str, choice: Choice) -> View | None:
    """The member after a step, if its ballot allows it."""
    ballot, digest = view.ballot, choice.digest
    try:
        match step:
            case "prepare":
                after = ballot.prepare(0, digest, ())
            case "lock":
                after = ballot.lock(0, digest)
            case _:
                after = ballot.sign(digest)
    except SettlementError:
        return None
    return view_of(view.at, after, view.signed | {(step, view.at, choice)})


class Chain:
    """The rules; each broken one is a subclass.

    A world is the second head, once the chain has one, and three correct members.
    """

    def supported(self, views: tuple[View, ...], step: str, place: Place, choice: Choice) -> bool:
        """Whether two correct members and the faulty one signed this at this head."""
        return sum((step, place, choice) in view.signed for view in views) >= 2

    def following(self, view: View, second: Place | None) -> Iterator[View]:
        """The member sees the chain's last submission."""
        if second is not None and view.at == FIRST:
            yield view_of(second, MemberBallot(), view.signed)

    def valid(self, views: tuple[View, ...]) -> set[Choice]:
        """Statements with valid submissions: no head is named, only what the statement names."""
        made = [{c for step, _, c in view.signed if step == "sign"} for view in views]
        return {c for a, b in itertools.combinations(made, 2) for c in a & b}

    def moves(self, view: View, views: tuple[View, ...]) -> Iterator[View]:
        """Everything that a member can be brought to sign."""
        for choice in CHOICES[view.at]:
            for step, needs in (("prepare", None), ("lock", "prepare"), ("sign", "lock")):
                if needs is None or self.supported(views, needs, view.at, choice):
                    after = signed(view, step, choice)
                    if after is not None:
                        yield after

    def worlds(self) -> Iterator[tuple[View, ...]]:
        """The members in every state that can be reached, up to their order."""
        start: tuple[Place | None, tuple[View, ...]] = (
            None,
            (view_of(FIRST, MemberBallot(), frozenset()),) * 3,
        )
        seen, stack = {start}, [start]
        while stack:
            second, views = stack.pop()
            yield views
            after = [
                (second, (*views[:i], moved, *views[i + 1 :]))
                for i, view in enumerate(views)
                for moved in (*self.moves(view, views), *self.following(view, second))
            ]
            if second is None:
                kinds = {"epoch": EPOCH_NEXT, "rotation": TERM_NEXT}
                taken = self.valid(views) & {*CHOICES[FIRST]}
                after += [(kinds[choice.kind], views) for choice in taken]
            for place, members in after:
                world = (place, tuple(sorted(members, key=lambda view: view.number)))
                if world not in seen:
                    seen.add(world)
                    stack.append(world)


def contradict(found: set[Choice]) -> bool:
    """Two roots of one epoch, in one term or two; or two successors of one term, or of one head."""
    return any(
        (a.kind == b.kind == "epoch" and a.epoch == b.epoch)
        or (a.kind == b.kind == "rotation" and a.term == b.term)
        for a, b in itertools.combinations(found, 2)
    )


def test_two_heads_have_one_submission_of_each_place():
    paths: set[frozenset[Choice]] = set()
    states = 0
    for views in Chain().worlds():
        found = Chain().valid(views)
        assert not contradict(found)
        paths.add(frozenset(found))
        states += 1
    assert states > 1000
    # One step or two, in every way that the choices allow.
    both = {frozenset({CHOICES[FIRST][0], c}) for c in CHOICES[EPOCH_NEXT]}
    both |= {frozenset({CHOICES[FIRST][1], c}) for c in CHOICES[TERM_NEXT]}
    assert paths == {frozenset(), *(frozenset({c}) for c in CHOICES[FIRST]), *both}


class WordsWithoutHead(Chain):
    """What members sign names no head, so it counts at the other one too."""

    def supported(self, views: tuple[View, ...], step: str, place: Place, choice: Choice) -> bool:
        return sum(any(m[::2] == (step, choice) for m in v.signed) for v in views) >= 2


class GoesBack(Chain):
    """A member returns to an earlier head, whose ballot it has forgotten."""

    def following(self, view: View, second: Place | None) -> Iterator[View]:
        yield from super().following(view, second)
        if view.at != FIRST:
            yield view_of(FIRST, MemberBallot(), view.signed)


@pytest.mark.parametrize("rules", [WordsWithoutHead, GoesBack], ids=lambda r: r.__name__)
def test_heads_are_independent_only_by_words_and_memory(rules: type[Chain]):
    assert any(contradict(rules().valid(views)) for views in rules().worlds())


ELSEWHERE_HEADS = {
    "the next epoch": replace(HEAD, epoch=1, root=STATEMENT.root),
    "the next term": replace(HEAD, sequence=1),
    "another committee": replace(HEAD, committee=NEXT),
}


@pytest.mark.parametrize("name", ELSEWHERE_HEADS)
def test_what_is_signed_at_one_head_is_refused_at_every_other(name: str):
    """The words of all kinds but a rotation name the head; those of a rotation its committee."""
    other = ELSEWHERE_HEADS[name]
    for here, there in ((HEAD, other), (other, HEAD)):
        stated: list[tuple[Statement, Callable[[Any, Head], None]]] = [
            (here.attempt(Prepare, 0, b"c" * 32), require_open),
            (here.attempt(Lock, 0, b"c" * 32), require_open),
            (here.attempt(LockReport, 1, b"c" * 32, locked=1), require_open),
            (here.statement(root=b"r" * 32, size=1, policy=b"p" * 32), require_next),
        ]
        if (here.committee, here.sequence) != (there.committee, there.sequence):
            stated.append((here.rotation(FOUR), lambda s, head: require_term(s, head, FOUR)))
        for statement, require in stated:
            require(statement, here)
            with pytest.raises(SettlementError):
                require(statement, there)
