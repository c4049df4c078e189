"""Facts: what is known of each variable of a function before it runs, by a forward pass.

    known            it depends on parameters only, so it can be computed before any job;
    rounding_dtypes  types whose rounding it went through: with none it is *exact*, and two honest
                     devices compute the same bits, unless
    discontinuities  one of these equations flipped, because of a last-bit difference;
    loops            the replayed loops before it, which the verifier may have had to cut short.

The same pass finds what is committed: contractions whose check is cheaper than their replay,
roundings on their way into a contraction, and operands of contractions that were computed in a
narrow type. A committed value is exact again, whatever lies before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import NamedTuple

from verifiable.claims import rounding
from verifiable.claims.contraction import Contraction
from verifiable.claims.registry import contraction, contractions
from verifiable.claims.rounding import NARROW, Rounding
from verifiable.jaxpr.blocks import Atom, Block, Equation, Literal, Var
from verifiable.jaxpr.effects import Effect, effects_of, is_float, rounding_dtype

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a variable; see the module's docstring."""

    known: bool
    rounding_dtypes: frozenset[str] = NOTHING
    discontinuities: frozenset[str] = NOTHING
    loops: frozenset[str] = NOTHING

    @property
    def exact(self) -> bool:
        """Whether honest devices compute the same bits, as long as no glue flips."""
        return not self.rounding_dtypes

    def join(self, other: Fact) -> Fact:
        """What holds of a value that may be either."""
        return Fact(
            self.known and other.known,
            self.rounding_dtypes | other.rounding_dtypes,
            self.discontinuities | other.discontinuities,
            self.loops | other.loops,
        )

    def under(self, other: Fact) -> Fact:
        """What holds of a value that is computed only if `other` says so."""
        return Fact(
            self.known,
            self.rounding_dtypes,
            self.discontinuities | other.discontinuities,
            self.loops | other.loops,
        )


CERTAIN = Fact(known=True)


class _Chain(NamedTuple):
    """A rounding so far: the value that is rounded, the steps, and the equations they stand for."""

    source: Var
    steps: tuple[rounding.Step, ...]
    names: frozenset[str]


@dataclass(slots=True, eq=False)
class Forward:
    """The forward pass. `guard` is the fact of whatever decides that a block runs at all.

    `feeding` are the variables that reach a contraction, `narrow` the operands of contractions in
    narrow types, `chains` what is rounded into each variable that further steps may follow.
    """

    draws: int
    feeding: set[Var]
    narrow: set[Var]
    users: Mapping[Var, Sequence[Equation | None]]
    facts: dict[Var, Fact] = field(default_factory=dict)
    forms: dict[Equation, tuple[Contraction | Rounding, bool, Atom, Fact]] = field(
        default_factory=dict
    )
    chains: dict[Var, _Chain] = field(default_factory=dict)
    discontinuous: set[str] = field(default_factory=set)

    @staticmethod
    def over(block: Block, known_inputs: int, draws: int) -> Forward:
        """The pass over a flattened function; arguments as of `analysis.analyse`."""
        forward = Forward(draws, _feeding(block, set()), _narrow_operands(block), _users(block, {}))
        for i, v in enumerate(block.inputs):
            forward.facts[v] = Fact(known=i < known_inputs)
        forward._block(block, CERTAIN, claimable=True)
        return forward

    def fact(self, atom: Atom) -> Fact:
        """Fact of an atom."""
        return CERTAIN if isinstance(atom, Literal) else self.facts[atom]

    def is_known(self, equation: Equation) -> bool:
        """Whether all outputs of an equation are known."""
        return all(self.facts[v].known for v in equation.outputs)

    def _block(self, block: Block, guard: Fact, *, claimable: bool) -> None:
        for equation in block.equations:
            if equation.kind == "scan":
                self._scan(equation, guard, claimable=claimable)
            elif equation.kind == "cond":
                self._cond(equation, guard, claimable=claimable)
            elif equation.kind == "while":
                self._loop(equation, guard)
            else:
                self._first_order(equation, guard, claimable=claimable)

    def _first_order(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        inputs = [self.fact(a) for a in equation.inputs]
        joined = reduce(Fact.join, inputs, CERTAIN)
        self.forms.pop(equation, None)
        if claimable and not joined.known:
            claim = self._claim(equation, inputs)
            if claim is not None:
                form, far_known = claim
                self._commit(equation, (form, far_known, equation.inputs[form.near], joined), guard)
                return
            chain = self._chain(equation, inputs)
            if chain is not None and self._ends(equation):
                out = equation.outputs[0]
                form = Rounding(steps=chain.steps, source=chain.source.dtype, dtype=out.dtype)
                before = self.fact(chain.source)
                self.discontinuous -= chain.names
                self._commit(equation, (form, False, chain.source, before), guard)
                return
        floats = any(is_float(a.dtype) for a in equation.inputs)
        rounded = any(
            is_float(a.dtype) and not f.exact for a, f in zip(equation.inputs, inputs, strict=True)
        )
        for v, effect in zip(equation.outputs, effects_of(equation), strict=True):
            discontinuities = joined.discontinuities
            if (effect is Effect.DISCONTINUOUS and rounded) or (
                effect is Effect.UNKNOWN and floats
            ):
                self.discontinuous.add(equation.name)
                discontinuities |= {equation.name}
            rounding_dtypes = NOTHING
            rounds = {Effect.EXACT: rounded, Effect.NARROW: rounded, Effect.DISCONTINUOUS: False}
            if rounds.get(effect, floats):
                own = [v] if is_float(v.dtype) else equation.inputs
                rounding_dtypes = joined.rounding_dtypes
                if effect is not Effect.EXACT:
                    rounding_dtypes |= {rounding_dtype(a.dtype) for a in own if is_float(a.dtype)}
            self.facts[v] = Fact(
                joined.known, rounding_dtypes, discontinuities, joined.loops
            ).under(guard)
        if claimable and len(equation.outputs) == 1 and not joined.known:
            self._narrow_operand(equation, guard)

    def _narrow_operand(self, equation: Equation, guard: Fact) -> None:
        """Commit to what was computed in a narrow type on its way into a contraction."""
        [out] = equation.outputs
        if out in self.narrow and not self.facts[out].exact:
            form = Rounding(steps=(), source=out.dtype, dtype=out.dtype)
            self._commit(equation, (form, False, out, self.facts[out]), guard)

    def _commit(
        self,
        equation: Equation,
        claim: tuple[Contraction | Rounding, bool, Atom, Fact],
        guard: Fact,
    ) -> None:
        """Make the output of an equation a claim."""
        form, far_known, near, before = claim
        # Steps that follow round the committed value, which is exact.
        self.chains.pop(equation.outputs[0], None)
        self.forms[equation] = (form, far_known, near, before.under(guard))
        # The verifier goes on with the committed value, unless the branch flips.
        self.facts[equation.outputs[0]] = Fact(known=False).under(guard)

    def _chain(self, equation: Equation, inputs: Sequence[Fact]) -> _Chain | None:
        """The rounding that an equation is the last step of so far; None if it is none."""
        value = rounding.operand(equation)
        if not isinstance(value, Var):
            return None
        chain = self.chains.get(value)
        if chain is None:
            fact = inputs[equation.inputs.index(value)]
            starts = {Effect.DISCONTINUOUS, Effect.NARROW}.intersection(effects_of(equation))
            if fact.exact or not starts:
                return None
            chain = _Chain(value, (), NOTHING)
        steps = rounding.extend(chain.steps, equation)
        if steps is None:
            return None
        chain = _Chain(chain.source, steps, chain.names | {equation.name})
        self.chains[equation.outputs[0]] = chain
        return chain

    def _ends(self, equation: Equation) -> bool:
        """Whether a rounding that reaches a contraction has no further step."""
        out = equation.outputs[0]
        if out not in self.feeding:
            return False
        users = self.users[out]
        if len(users) != 1 or users[0] is None:
            return True
        return rounding.extend(self.chains[out].steps, users[0]) is None

    def _claim(self, equation: Equation, inputs: Sequence[Fact]) -> tuple[Contraction, bool] | None:
        if contraction(equation) is None:
            return None
        lhs, rhs = equation.inputs
        # A known operand is projected once and for all; of two unknown ones, the smaller.
        if inputs[0].known or inputs[1].known:
            near = 1 if inputs[0].known else 0
        else:
            near = 1 if lhs.size < rhs.size else 0
        far_known = inputs[1 - near].known
        form = contraction(equation, near)
        if form is None or (equation.kind != "dot_general" and not far_known):
            return None
        draws = 1 if form.exact else self.draws
        if form.check_cost(draws, far_known=far_known) >= form.work:
            return None
        return form, far_known

    def _scan(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        [body] = equation.bodies
        count = equation.params["num_carry"]
        carries = body.inputs[:count]
        for atom, v in zip(equation.inputs, body.inputs, strict=True):
            self.facts[v] = self.fact(atom)

        def turn() -> list[Fact]:
            self._block(body, guard, claimable=claimable)
            return [self.fact(a) for a in body.outputs[:count]]

        self._fixpoint(carries, turn)
        for v, inner, atom in zip(equation.outputs, carries, body.outputs, strict=False):
            self.facts[v] = self.facts[inner].join(self.fact(atom))
        for v, atom in zip(equation.outputs[count:], body.outputs[count:], strict=True):
            self.facts[v] = self.fact(atom)

    def _fixpoint(self, carries: Sequence[Var], turn: Callable[[], list[Fact]]) -> None:
        """Weaken the facts of carries until a turn of the loop no longer changes them."""
        while True:
            before = [self.facts[v] for v in carries]
            after = [f.join(g) for f, g in zip(before, turn(), strict=True)]
            if after == before:
                return
            self.facts.update(zip(carries, after, strict=True))

    def _cond(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        index = self.fact(equation.inputs[0])
        inner = guard.under(index)
        for body in equation.bodies:
            self._block(body, inner, claimable=claimable)
        known = all(self.fact(a).known for a in uses(equation))
        for i, v in enumerate(equation.outputs):
            fact = reduce(Fact.join, (self.fact(b.outputs[i]) for b in equation.bodies))
            self.facts[v] = replace(fact.under(inner), known=known)

    def _loop(self, equation: Equation, guard: Fact) -> None:
        predicate, body = equation.bodies
        known = all(self.fact(a).known for a in uses(equation))
        for atom, v in zip(equation.inputs, body.inputs, strict=True):
            self.facts[v] = self.fact(atom)

        def turn() -> list[Fact]:
            for v, carry in zip(predicate.inputs, body.inputs, strict=True):
                self.facts[v] = self.facts[carry]
            self._block(predicate, guard, claimable=False)
            inner = guard.under(self.fact(predicate.outputs[0]))
            self._block(body, inner, claimable=False)
            return [self.fact(a).under(inner) for a in body.outputs]

        self._fixpoint(body.inputs, turn)
        itself = frozenset() if known else frozenset({equation.name})
        for v, inner in zip(equation.outputs, body.inputs, strict=True):
            fact = self.facts[inner]
            self.facts[v] = Fact(
                known, fact.rounding_dtypes, fact.discontinuities, fact.loops | itself
            )


# What a narrow operand may pass through between where it is computed and a contraction.
_MOVES = frozenset(
    """
    broadcast_in_dim convert_element_type copy copy_p expand_dims reshape rev slice split squeeze
    stop_gradient transpose
    """.split()
)


def _narrow_operands(block: Block) -> set[Var]:
    """Where the operands of contractions that come from narrow types were computed."""
    producers = {v: e for e in block.walk() for v in e.outputs}
    found: set[Var] = set()
    for equation in block.walk():
        for atom in equation.inputs if equation.kind in contractions else ():
            origin = atom
            while origin in producers and producers[origin].kind in _MOVES:
                [inner] = producers[origin].inputs
                if inner.dtype.itemsize > origin.dtype.itemsize:
                    break
                origin = inner
            if isinstance(origin, Var) and origin.dtype.name in NARROW:
                found.add(origin)
    return found


def _feeding(block: Block, found: set[Var]) -> set[Var]:
    """Add the variables that reach an operand of a contraction."""

    def add(atoms: Iterable[Atom]) -> None:
        found.update(a for a in atoms if isinstance(a, Var))

    for equation in reversed(block.equations):
        reached = any(v in found for v in equation.outputs)
        if equation.kind in contractions or (reached and not equation.bodies):
            add(equation.inputs)
        elif equation.kind == "scan":
            [body] = equation.bodies
            count = equation.params["num_carry"]
            add(a for a, v in zip(body.outputs, equation.outputs, strict=True) if v in found)
            before = -1
            while len(found) > before:
                before = len(found)
                _feeding(body, found)
                add(
                    a for a, v in zip(body.outputs, body.inputs[:count], strict=False) if v in found
                )
            add(a for a, v in zip(equation.inputs, body.inputs, strict=True) if v in found)
        elif equation.kind == "cond":
            for body in equation.bodies:
                add(a for a, v in zip(body.outputs, equation.outputs, strict=True) if v in found)
                _feeding(body, found)
        elif reached or any(e.kind in contractions for b in equation.bodies for e in b.walk()):
            add(uses(equation))
    return found


def _users(
    block: Block, found: dict[Var, list[Equation | None]]
) -> dict[Var, list[Equation | None]]:
    """The equations that read each variable; None for a block that returns it."""
    for equation in block.equations:
        for atom in equation.inputs:
            if isinstance(atom, Var):
                found.setdefault(atom, []).append(equation)
        for body in equation.bodies:
            _users(body, found)
    for atom in block.outputs:
        if isinstance(atom, Var):
            found.setdefault(atom, []).append(None)
    return found


def uses(equation: Equation) -> Iterator[Atom]:
    """Atoms that an equation reads, the free variables of its bodies among them."""
    yield from equation.inputs
    for body in equation.bodies:
        own: set[Atom] = set(body.inputs)
        for inner in body.equations:
            yield from (a for a in uses(inner) if a not in own)
            own.update(inner.outputs)
        yield from (a for a in body.outputs if a not in own)
