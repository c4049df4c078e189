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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from verifiable.claims import registry
from verifiable.claims.form import Proposal
from verifiable.jaxpr.blocks import Atom, Block, Equation, Literal, Var
from verifiable.jaxpr.effects import Effect, effects_of, is_float, rounding_dtype
from verifiable.jaxpr.graph import Graph, uses

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


@dataclass(frozen=True, slots=True)
class Claimed:
    """An equation that the pass found to be a claim: the proposal, and the fact of its operands."""

    proposal: Proposal
    before: Fact


@dataclass(slots=True, eq=False)
class Forward:
    """The forward pass, which is the `View` that rules of claims have of the program.

    Attributes:
      graph: of the whole function.
      draws: random vectors of the check.
      facts: of each variable so far.
      claims: by equation.
      discontinuities: names of equations where a last-bit difference may flip a value.
    """

    graph: Graph
    draws: int
    facts: dict[Var, Fact] = field(default_factory=dict)
    claims: dict[Equation, Claimed] = field(default_factory=dict)
    discontinuities: set[str] = field(default_factory=set)

    @staticmethod
    def over(block: Block, known_inputs: int, draws: int) -> Forward:
        """The pass over a flattened function; arguments as of `partition.analyse`."""
        forward = Forward(Graph.of(block), draws)
        for i, v in enumerate(block.inputs):
            forward.facts[v] = Fact(known=i < known_inputs)
        forward._block(block, CERTAIN, claimable=True)
        return forward

    def fact(self, atom: Atom) -> Fact:
        """Fact of an atom."""
        return CERTAIN if isinstance(atom, Literal) else self.facts[atom]

    def known(self, atom: Atom) -> bool:
        """Whether a value depends on parameters only."""
        return self.fact(atom).known

    def exact(self, atom: Atom) -> bool:
        """Whether honest devices compute the same bits, unless a discontinuity flipped."""
        return self.fact(atom).exact

    def claimed(self, equation: Equation) -> bool:
        """Whether the output of an equation is committed."""
        return equation in self.claims

    def outputs_known(self, equation: Equation) -> bool:
        """Whether all outputs of an equation are known."""
        return all(self.facts[v].known for v in equation.outputs)

    def _block(self, block: Block, guard: Fact, *, claimable: bool) -> None:
        """Find the facts of a block; `guard` is the fact of the value that decides if it runs."""
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
        self.claims.pop(equation, None)
        self._replayed(equation, guard)
        if not claimable or self.outputs_known(equation):
            return
        proposal = registry.propose(equation, self)
        if proposal is not None:
            self._commit(equation, proposal, guard)

    def _replayed(self, equation: Equation, guard: Fact) -> None:
        """Facts of the outputs of an equation that the verifier computes itself."""
        inputs = [self.fact(a) for a in equation.inputs]
        joined = reduce(Fact.join, inputs, CERTAIN)
        floats = [a for a in equation.inputs if is_float(a.dtype)]
        rounded = any(not self.exact(a) for a in floats)
        flips = {Effect.DISCONTINUOUS: rounded, Effect.UNKNOWN: bool(floats)}
        rounds = {Effect.EXACT: rounded, Effect.NARROW: rounded, Effect.DISCONTINUOUS: False}
        for v, effect in zip(equation.outputs, effects_of(equation), strict=True):
            discontinuities = joined.discontinuities
            if flips.get(effect, False):
                self.discontinuities.add(equation.name)
                discontinuities |= {equation.name}
            rounding_dtypes = NOTHING
            if rounds.get(effect, bool(floats)):
                rounding_dtypes = joined.rounding_dtypes
                if effect is not Effect.EXACT:
                    own = [v] if is_float(v.dtype) else floats
                    rounding_dtypes |= {rounding_dtype(a.dtype) for a in own}
            fact = Fact(joined.known, rounding_dtypes, discontinuities, joined.loops)
            self.facts[v] = fact.under(guard)

    def _commit(self, equation: Equation, proposal: Proposal, guard: Fact) -> None:
        """Make the output of an equation a claim."""
        self.discontinuities -= proposal.covers
        far = () if proposal.far is None else (proposal.far,)
        before = reduce(Fact.join, (self.fact(a) for a in (*proposal.operands, *far)))
        self.claims[equation] = Claimed(proposal, before.under(guard))
        # Both sides go on with the committed value, which is exact unless the branch flips.
        [out] = equation.outputs
        self.facts[out] = Fact(known=False).under(guard)

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
