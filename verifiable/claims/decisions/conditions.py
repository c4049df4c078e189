"""The condition of a loop as a number: how far it is from being turned round.

A comparison of floats that devices round apart has the margin

    r = +-|a - b| / (slack(a) + slack(b)),

positive iff it is true (`decision`). What all devices decide alike is true or false for certain,
with a margin of plus or minus infinity. Boolean functions of such margins are those of fuzzy logic:

    not r = -r,    r and s = min(r, s),    r or s = max(r, s),

so that a condition is true for some operands within their slack iff its margin is at least -1, and
false for some iff it is at most 1. A comparison of NaN is not decided: its margin is any number,
and that of what follows from it lies in an interval that may be shorter.

Each margin is that of one comparison, the one that *decides*, or of what is certain. Its distance
+-|a - b| and its slack go along with it: a second look must know how far rounding moves the
operands, which their ratio does not say where a is much larger than b.

A condition is followed from the result of the loop's predicate back through boolean functions and
moves, also through *flags*: booleans that the body computes for the next trip, such as `done`. A
comparison is *covered* if nothing else reads it, or what follows from it. Numbers that are 0 or 1
because they follow from booleans count as booleans.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.claims.decisions import decision
from verifiable.claims.decisions.decision import DecisionForm
from verifiable.claims.form import View
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation, Literal, Var
from verifiable.jaxpr.effects import FLOATS
from verifiable.jaxpr.graph import Graph, uses
from verifiable.jaxpr.nan_tests import asks_only


class Margin(NamedTuple):
    """A margin, with that of which it is the ratio; float64 arrays of one shape.

    Attributes:
      ratio: the margin itself.
      value: distance from a tie, positive iff true; plus or minus one if it is certain.
      slack: how far an honest device's may be from it; zero if it is certain.
    """

    ratio: Array
    value: Array
    slack: Array


Interval = tuple[Margin, Margin]  # the least and the largest margin

_MOVES = frozenset(
    "broadcast_in_dim concatenate copy copy_p expand_dims reshape rev slice squeeze stack transpose"
    "".split()
)
# Of numbers that are 0 or 1, such a number.
_KEPT = _MOVES | frozenset(
    "and convert_element_type max min mul or reduce_and reduce_max reduce_min reduce_or select_n"
    " xor".split()
)
_LOGIC = _KEPT | frozenset("eq ge gt le lt ne not".split())


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """What a condition follows from, as far as it is boolean.

    Attributes:
      loop: the `while`.
      comparisons: of floats, with whether each is covered.
      logic: boolean functions and moves.
      flags: positions among the carries.
      read: of the flags, those that something reads after the loop, with the comparisons that
        they follow from.
    """

    loop: Equation
    comparisons: Mapping[Equation, bool]
    logic: frozenset[Equation]
    flags: tuple[int, ...]
    read: Mapping[int, frozenset[Equation]]

    @property
    def covered(self) -> frozenset[Equation]:
        """The comparisons that the number of trips alone depends on."""
        return frozenset(e for e, alone in self.comparisons.items() if alone)


def follow(loop: Equation, graph: Graph) -> Reached:
    """What the condition of a `while` follows from."""
    search = _ConditionSearch(loop, graph)
    search.visit(loop.bodies[0].outputs[0])
    reached = {e: search.reached(e.outputs[0]) for e in search.comparisons}
    read = {
        j: frozenset(e for e, (flags, _) in reached.items() if j in flags)
        for j in search.flags
        if graph.readers.get(loop.outputs[j])
    }
    return Reached(
        loop=loop,
        comparisons={e: alone for e, (_, alone) in reached.items()},
        logic=frozenset(search.logic),
        flags=tuple(sorted(search.flags)),
        read=read,
    )


@dataclass(slots=True, eq=False)
class _ConditionSearch:
    loop: Equation
    graph: Graph
    comparisons: dict[Equation, None] = field(default_factory=dict)
    logic: set[Equation] = field(default_factory=set)
    flags: set[int] = field(default_factory=set)
    seen: set[Var] = field(default_factory=set)

    def visit(self, atom: Atom) -> None:
        if isinstance(atom, Literal) or atom in self.seen or not self.are_booleans((atom,)):
            return
        self.seen.add(atom)
        place = self.place(atom)
        if place is not None:
            self.flags.add(place)
            predicate, body = self.loop.bodies
            for other in (predicate.inputs[place], body.inputs[place], body.outputs[place]):
                self.visit(other)
            return
        equation = self.graph.producers.get(atom)
        if equation is None or not any(equation in b.equations for b in self.loop.bodies):
            return
        if self.of_booleans(equation):
            self.logic.add(equation)
            for a in equation.inputs:
                self.visit(a)
        elif equation.inputs[0].dtype.name in FLOATS and equation.kind in decision.KINDS:
            self.comparisons[equation] = None

    def place(self, atom: Var) -> int | None:
        """Where the loop carries a value, if it does."""
        return next((b.inputs.index(atom) for b in self.loop.bodies if atom in b.inputs), None)

    def of_booleans(self, equation: Equation) -> bool:
        """Whether an equation is a boolean function of its inputs."""
        if equation.kind == "select_n" and equation.inputs[0].dtype != np.bool_:
            return False  # of more than two cases
        return equation.kind in _LOGIC and self.are_booleans(equation.inputs)

    def are_booleans(self, atoms: Sequence[Atom]) -> bool:
        """Whether values are booleans, or numbers that are 0 or 1 as they follow from booleans."""
        pending, seen = list(atoms), set[Atom]()
        while pending:
            atom = pending.pop()
            if atom.dtype == np.bool_ or atom in seen:
                continue
            seen.add(atom)  # a flag may follow from itself
            if isinstance(atom, Literal):
                if not np.isin(atom.value, (0, 1)):
                    return False
                continue
            place = self.place(atom)
            equation = self.graph.producers.get(atom)
            if place is not None:
                pending += [self.loop.inputs[place], self.loop.bodies[1].outputs[place]]
            elif equation is not None and equation.kind in _KEPT:
                pending += equation.inputs
            else:
                return False
        return True

    def reached(self, variable: Var) -> tuple[set[int], bool]:
        """The flags that a value flows into, and whether all readers belong to the condition."""
        predicate, body = self.loop.bodies
        pending, found, flags, alone = [variable], {variable}, set[int](), True
        while pending:
            value = pending.pop()
            follows: list[Var] = []
            for reader in self.graph.readers.get(value, ()):
                if reader is not None and reader in self.logic:
                    follows += reader.outputs
                alone &= reader is None or reader in self.logic
            for place, atom in enumerate(body.outputs):
                if atom is value and place in self.flags:
                    flags.add(place)
                    follows += [predicate.inputs[place], body.inputs[place]]
                alone &= atom is not value or place in self.flags
            pending += [v for v in follows if v not in found]
            found.update(follows)
        return flags, alone


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What the margin of a condition is computed from.

    Attributes:
      followed: the condition.
      comparisons: the forms of those that devices round apart, and the operands of their tests.
    """

    followed: Reached
    comparisons: Mapping[Equation, tuple[DecisionForm, tuple[Atom, ...]]]

    @staticmethod
    def of(followed: Reached, view: View) -> Condition:
        """The condition of a loop whose variables the view knows."""
        found: dict[Equation, tuple[DecisionForm, tuple[Atom, ...]]] = {}
        for equation in followed.comparisons:
            asks = asks_only(equation, view.graph.producers)
            proposal = None if asks else decision.propose(equation, view)
            if proposal is not None and isinstance(proposal.form, DecisionForm):
                found[equation] = proposal.form, proposal.operands
        return Condition(followed, found)

    @property
    def reads(self) -> tuple[Atom, ...]:
        """Atoms outside of the loop that a replay with margins reads."""
        loop = self.followed.loop
        own = {v for body in loop.bodies for v in body.inputs}
        own.update(v for body in loop.bodies for e in body.walk() for v in e.outputs)
        own.update(
            v for body in loop.bodies for e in body.walk() for b in e.bodies for v in b.inputs
        )
        read = (a for _, operands in self.comparisons.values() for a in operands if a not in own)
        return tuple(dict.fromkeys((*uses(loop), *read)))

    def initial(self, carry: Sequence[Array]) -> list[Interval]:
        """The margins of the flags before the first trip."""
        return [_certain(carry[j]) for j in self.followed.flags]

    def asked(self, env: Env, flags: Sequence[Interval], eps: float) -> Interval:
        """The margin of the predicate, whose block was evaluated in `env`."""
        predicate = self.followed.loop.bodies[0]
        return self._through(predicate, env, flags, eps)(predicate.outputs[0])

    def turned(self, env: Env, flags: Sequence[Interval], eps: float) -> list[Interval]:
        """The margins of the flags after a trip, whose block was evaluated in `env`."""
        body = self.followed.loop.bodies[1]
        found = self._through(body, env, flags, eps)
        return [found(body.outputs[j]) for j in self.followed.flags]

    def _through(
        self, block: Block, env: Env, flags: Sequence[Interval], eps: float
    ) -> Callable[[Atom], Interval]:
        places = zip(self.followed.flags, flags, strict=True)
        known: dict[Atom, Interval] = {block.inputs[j]: found for j, found in places}

        def of(atom: Atom) -> Interval:
            return known[atom] if atom in known else _certain(interpret.read(env, atom))

        for equation in block.equations:
            if equation in self.comparisons:
                form, operands = self.comparisons[equation]
                values = interpret.read_all(env, operands)
                known[equation.outputs[0]] = _compared(equation, form, values, eps)
            elif equation in self.followed.logic:
                known[equation.outputs[0]] = _combined(equation, list(map(of, equation.inputs)))
        return of


def certain(value: Array) -> Margin:
    """The margin of what all devices decide alike."""
    sign = jnp.where(jnp.asarray(value, bool), 1.0, -1.0).astype(jnp.float64)
    return Margin(sign * jnp.inf, sign, jnp.zeros_like(sign))


def turned_round(a: Margin) -> Margin:
    """The margin of a negation."""
    return Margin(-a.ratio, -a.value, a.slack)


def chosen(which: Array, a: Margin, b: Margin) -> Margin:
    """Elements of `a` where a boolean is true, else of `b`."""
    return Margin(*(jnp.where(which, x, y) for x, y in zip(a, b, strict=True)))


def least(a: Margin, b: Margin) -> Margin:
    """The smaller margin of each element."""
    return chosen(a.ratio <= b.ratio, a, b)


def _certain(value: Array) -> Interval:
    return certain(value), certain(value)


def _compared(
    equation: Equation, form: DecisionForm, operands: list[Array], eps: float
) -> Interval:
    """The margin of a comparison, compiled also where the loop goes op by op, as its tests are."""
    with jax.disable_jit(False):
        return _measured(form, equation.outputs[0].shape, eps, operands)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _measured(
    form: DecisionForm, shape: tuple[int, ...], eps: float, operands: list[Array]
) -> Interval:
    found = form.margins(operands, eps)
    value, slack = (
        jnp.broadcast_to(x.astype(jnp.float64), found.value.shape).reshape(shape)
        for x in (found.value, found.slack)
    )
    none, most = jnp.isnan(value), np.finfo(np.float64).max
    margin = Margin(jnp.clip(value / slack, -most, most), value, slack)
    low, high = certain(jnp.zeros(shape, bool)), certain(jnp.ones(shape, bool))
    return chosen(none, low, margin), chosen(none, high, margin)


def _combined(equation: Equation, given: Sequence[Interval]) -> Interval:
    """The margin of a boolean function."""
    kind, params = equation.kind, equation.params
    if kind in _OF_TWO:
        return _OF_TWO[kind](*given)
    if kind == "not":
        return _not(given[0])
    if kind == "convert_element_type":
        return given[0]
    if kind == "select_n":
        which, false, true = given
        return _or(_and(_not(which), false), _and(which, true))
    if kind.startswith("reduce_"):
        every = kind in ("reduce_and", "reduce_min")
        if 0 in equation.inputs[0].shape:
            return _certain(jnp.full(equation.outputs[0].shape, every))
        if every:
            return _all(given[0], params["axes"])
        return _not(_all(_not(given[0]), params["axes"]))
    low, high = (
        Margin(*(interpret.apply(equation, list(part))[0] for part in zip(*side, strict=True)))
        for side in zip(*given, strict=True)
    )
    return low, high


def _not(a: Interval) -> Interval:
    return turned_round(a[1]), turned_round(a[0])


def _and(a: Interval, b: Interval) -> Interval:
    return least(a[0], b[0]), least(a[1], b[1])


def _or(a: Interval, b: Interval) -> Interval:
    return _not(_and(_not(a), _not(b)))


def _xor(a: Interval, b: Interval) -> Interval:
    return _or(_and(a, _not(b)), _and(_not(a), b))


_OF_TWO: Mapping[str, Callable[[Interval, Interval], Interval]] = {
    "and": _and,
    "min": _and,
    "mul": _and,
    "or": _or,
    "max": _or,
    "xor": _xor,
    "ne": _xor,
    "eq": lambda a, b: _not(_xor(a, b)),
    "gt": lambda a, b: _and(a, _not(b)),
    "lt": lambda a, b: _and(_not(a), b),
    "ge": lambda a, b: _or(a, _not(b)),
    "le": lambda a, b: _or(_not(a), b),
}


def _all(a: Interval, axes: Sequence[int]) -> Interval:
    """The smallest margin over some axes."""

    def smallest(side: Margin) -> Margin:
        axis = tuple(axes)
        ratio = jnp.min(side.ratio, axis=axis, keepdims=True)
        decides = side.ratio == ratio
        value, slack = (
            jnp.min(x, axis=axis, initial=np.inf, where=decides) for x in (side.value, side.slack)
        )
        return Margin(jnp.squeeze(ratio, axis), value, slack)

    return smallest(a[0]), smallest(a[1])
