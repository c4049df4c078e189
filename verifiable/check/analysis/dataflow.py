"""A forward pass over a function that finds its claims, and seven facts about each variable:

    known            it depends on parameters only, so it can be computed before any job;
    rounding_dtypes  types that it was rounded to since it was last exact; if there are none, it is
                     *exact*: honest devices compute the same bits, unless
    narrow_sums      the longest sums in narrow types since it was last exact (`jaxpr.sums`);
    discontinuities  one of these equations flipped because of a last-bit difference;
    sources          inputs of the function that an exact float was moved from;
    flushable        comparisons of exact floats before it, which flip where these are subnormal
                     (`subnormal`);
    loops            replayed loops before it, which the verifier may cut short.

`claims.registry` decides which equations are claims. A claimed value is exact again: verifier and
device both go on with the committed bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from verifiable.check.analysis.subnormal import may_flush
from verifiable.claims import registry
from verifiable.claims.decisions import conditions, trips
from verifiable.claims.form import Proposal
from verifiable.jaxpr import indices, integers
from verifiable.jaxpr.blocks import Atom, Block, Equation, Literal, Var
from verifiable.jaxpr.effects import (
    Effect,
    effects_of,
    is_float,
    keys_of,
    precision,
    rounding_dtype,
)
from verifiable.jaxpr.graph import Graph, uses
from verifiable.jaxpr.nan_tests import asks_only
from verifiable.jaxpr.precisions import algorithm
from verifiable.jaxpr.sums import after_trips, narrow_sums
from verifiable.policy import NarrowSum

NOTHING: frozenset[str] = frozenset()
LONG = 64  # iterations of a loop whose number is not known: of more, a second look decides


@dataclass(frozen=True, slots=True)
class Fact:
    """The facts about one variable; see the module's docstring."""

    known: bool
    rounding_dtypes: frozenset[str] = NOTHING
    narrow_sums: frozenset[NarrowSum] = frozenset()
    discontinuities: frozenset[str] = NOTHING
    sources: frozenset[Var] = frozenset()
    flushable: frozenset[str] = NOTHING
    loops: frozenset[str] = NOTHING

    @property
    def exact(self) -> bool:
        """Whether honest devices compute the same bits, unless a discontinuity flips."""
        return not self.rounding_dtypes

    def join(self, other: Fact) -> Fact:
        """Least upper bound: the facts about a value that is computed by either of two paths."""
        return Fact(
            self.known and other.known,
            self.rounding_dtypes | other.rounding_dtypes,
            self.narrow_sums | other.narrow_sums,
            self.discontinuities | other.discontinuities,
            self.sources | other.sources,
            self.flushable | other.flushable,
            self.loops | other.loops,
        )

    def under(self, other: Fact) -> Fact:
        """The facts about a value that is computed only if the value of `other` says so."""
        return replace(
            self,
            discontinuities=self.discontinuities | other.discontinuities,
            flushable=self.flushable | other.flushable,
            loops=self.loops | other.loops,
        )


CERTAIN = Fact(known=True)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim that the pass found: the accepted proposal, and the facts about its operands."""

    proposal: Proposal
    before: Fact


@dataclass(slots=True, eq=False)
class Forward:
    """The forward pass, and the `View` of the program that rules of claims are given.

    Attributes:
      graph: of the whole function.
      draws: random vectors of the check.
      facts: about each variable that was passed.
      claims: by equation.
      discontinuities: names of equations where a last-bit difference may flip a value.
      bounds: of values for which floats are exact; see `jaxpr.integers`.
      multiples: of floats that are whole numbers of any size, times a power of two; see there.
      flushable: by name of a comparison of exact floats, the inputs that these were moved from.
      covered: comparisons that the trips of a loop alone depend on (`decisions.conditions`).
    """

    graph: Graph
    draws: int
    facts: dict[Var, Fact] = field(default_factory=dict)
    claims: dict[Equation, Claimed] = field(default_factory=dict)
    discontinuities: set[str] = field(default_factory=set)
    bounds: dict[Var, integers.FixedPoint | None] = field(default_factory=dict)
    multiples: dict[Var, int | None] = field(default_factory=dict)
    flushable: dict[str, frozenset[Var]] = field(default_factory=dict)
    covered: set[Equation] = field(default_factory=set)

    @staticmethod
    def over(block: Block, known_inputs: int, draws: int) -> Forward:
        """The pass over a flattened function; arguments as of `partition.analyse`."""
        forward = Forward(Graph.of(block), draws)
        for i, v in enumerate(block.inputs):
            sources = frozenset({v}) if may_flush(v.dtype) else frozenset()
            forward.facts[v] = Fact(known=i < known_inputs, sources=sources)
        forward._block(block, CERTAIN, claimable=True)
        return forward

    def fact(self, atom: Atom) -> Fact:
        """Facts about an atom."""
        return CERTAIN if isinstance(atom, Literal) else self.facts[atom]

    def bound(self, atom: Atom) -> integers.FixedPoint | None:
        """The bound of a value for which floats are exact; see `jaxpr.integers`."""
        known = self.bounds.get(atom) if isinstance(atom, Var) else None
        return integers.of_type(atom) if known is None else known

    def multiple(self, atom: Atom) -> int | None:
        """The s for which a value is a multiple of 2^-s; see `jaxpr.integers.multiple`."""
        bound = self.bound(atom)
        found = self.multiples.get(atom) if isinstance(atom, Var) else None
        return found if bound is None else bound.scale

    def known(self, atom: Atom) -> bool:
        """Whether a value depends on parameters only."""
        return self.fact(atom).known

    def exact(self, atom: Atom) -> bool:
        """Whether honest devices compute the same bits, unless a discontinuity flips."""
        return self.fact(atom).exact

    def claimed(self, equation: Equation) -> bool:
        """Whether an equation is a claim."""
        return equation in self.claims

    def outputs_known(self, equation: Equation) -> bool:
        """Whether all outputs of an equation are known."""
        return all(self.facts[v].known for v in equation.outputs)

    def _block(self, block: Block, guard: Fact, *, claimable: bool) -> None:
        """Pass over a block; `guard` has the facts about the value that decides if it runs."""
        for equation in block.equations:
            if equation.kind == "scan":
                self._scan(equation, guard, claimable=claimable)
            elif equation.kind == "cond":
                self._cond(equation, guard, claimable=claimable)
            elif equation.kind == "while":
                self._loop(equation, guard, claimable=claimable)
            else:
                self._first_order(equation, guard, claimable=claimable)

    def _first_order(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        self.claims.pop(equation, None)
        self._replayed(equation, guard)
        if not claimable or asks_only(equation, self.graph.producers):
            return
        proposal = registry.propose(equation, self)
        if proposal is None:
            return
        # A device computes known values itself. It commits to one only where it may honestly differ
        # from the coordinator's by more than rounding.
        jumps, table = proposal.covers & self.discontinuities, proposal.form.is_table
        if jumps or table or not self.outputs_known(equation):
            self._commit(equation, proposal, guard)

    def _replayed(self, equation: Equation, guard: Fact) -> None:
        """Facts about the outputs of an equation that the verifier replays."""
        if equation.kind == "sort" and self._permutes(equation):
            self._permuted(equation, guard)
            return
        inputs = [self.fact(a) for a in equation.inputs]
        joined = reduce(Fact.join, inputs, CERTAIN)
        floats = [a for a in equation.inputs if is_float(a.dtype)]
        rounded = any(not self.exact(a) for a in floats)
        moves = Effect.EXACT, Effect.NARROW, Effect.UNDEFINED
        effects = effects_of(equation)
        if asks_only(equation, self.graph.producers) or (
            equation.kind == "scatter" and indices.distinct(equation, self.graph.producers)
        ):
            effects = (Effect.EXACT,)
        for v, effect in zip(equation.outputs, effects, strict=True):
            bound = integers.of_output(equation, v, self.bound, self.graph.producers)
            self.bounds[v] = bound
            multiple = self.multiples[v] = integers.multiple(equation, v, self.multiple)
            arithmetic = bool(floats) or is_float(v.dtype)
            flips = {
                Effect.DISCONTINUOUS: rounded,
                Effect.UNDEFINED: True,
                Effect.UNKNOWN: arithmetic,
            }
            rounds = dict.fromkeys(moves, rounded) | {Effect.DISCONTINUOUS: False}
            # Numbers that the type holds are exact, whatever the arithmetic.
            held = bound is not None or multiple is not None
            rounds[Effect.CONTINUOUS] = arithmetic and (rounded or not held)
            discontinuities = joined.discontinuities
            flips_here = flips.get(effect, False) and equation not in self.covered
            if flips_here and v in self.graph.readers:
                self.discontinuities.add(equation.name)
                discontinuities |= {equation.name}
            fact = replace(joined, discontinuities=discontinuities)
            if rounded or effect not in moves or not is_float(v.dtype):
                fact = replace(fact, sources=frozenset())
            if joined.sources and effect is Effect.DISCONTINUOUS and not rounded:
                self.flushable[equation.name] = joined.sources
                fact = replace(fact, flushable=fact.flushable | {equation.name})
            if not rounds.get(effect, arithmetic):
                fact = replace(fact, rounding_dtypes=NOTHING, narrow_sums=frozenset())
            elif effect not in (Effect.EXACT, Effect.UNDEFINED):
                own = [v] if is_float(v.dtype) else floats
                types = {precision(equation) or rounding_dtype(a.dtype) for a in own}
                types |= algorithm(equation).operands
                fact = replace(
                    fact,
                    rounding_dtypes=fact.rounding_dtypes | types,
                    narrow_sums=narrow_sums(equation, [f.narrow_sums for f in inputs]),
                )
            self.facts[v] = fact.under(guard)

    def _permutes(self, equation: Equation) -> bool:
        """Whether a sort moves its operands alike on every honest device."""
        exact = all(self.exact(a) for a in keys_of(equation))
        return exact and Effect.UNDEFINED not in effects_of(equation)

    def _permuted(self, equation: Equation, guard: Fact) -> None:
        """Facts about the outputs of a sort whose keys are exact."""
        keys = reduce(Fact.join, (self.fact(a) for a in keys_of(equation)))
        if keys.sources:
            self.flushable[equation.name] = keys.sources
            keys = replace(keys, flushable=keys.flushable | {equation.name})
        known = all(self.known(a) for a in equation.inputs)
        for v, atom in zip(equation.outputs, equation.inputs, strict=True):
            self.facts[v] = replace(self.fact(atom).under(keys), known=known).under(guard)
            self.bounds[v] = self.bound(atom)

    def _commit(self, equation: Equation, proposal: Proposal, guard: Fact) -> None:
        """Make an equation a claim."""
        self.discontinuities -= proposal.covers
        far = () if proposal.far is None else (proposal.far,)
        before = reduce(Fact.join, (self.fact(a) for a in (*proposal.operands, *far)))
        self.claims[equation] = Claimed(proposal, before.under(guard))
        if proposal.absorbs is not None:
            self.claims.pop(proposal.absorbs)
        # The committed value is exact; which branch commits to it still depends on the guard.
        for v, source in zip(equation.outputs, proposal.form.moved_from, strict=True):
            moved = CERTAIN if source is None else self.fact(equation.inputs[source])
            if proposal.form.copies is not None:
                copied = self.fact(equation.inputs[proposal.form.copies])
                moved = replace(moved, sources=copied.sources)
            self.facts[v] = replace(moved, known=False).under(guard)
            self.bounds[v] = None if source is None else self.bound(equation.inputs[source])
            self.multiples[v] = integers.multiple(equation, v, self.multiple)

    def _scan(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        [body] = equation.bodies
        count = equation.params["num_carry"]
        carries = body.inputs[:count]
        for atom, v in zip(equation.inputs, body.inputs, strict=True):
            self.facts[v] = self.fact(atom)

        def turn() -> list[Fact]:
            self._block(body, guard, claimable=claimable)
            return [self.fact(a) for a in body.outputs[:count]]

        self._fixpoint(carries, turn, equation.params["length"])
        for v, inner, atom in zip(equation.outputs, carries, body.outputs, strict=False):
            self.facts[v] = self.facts[inner].join(self.fact(atom))
        for v, atom in zip(equation.outputs[count:], body.outputs[count:], strict=True):
            self.facts[v] = self.fact(atom)

    def _fixpoint(self, carries: Sequence[Var], turn: Callable[[], list[Fact]], trips: int) -> None:
        """Weaken the facts about carries until an iteration no longer changes them.

        Sums that grow with every iteration are as long as they are after all of them.
        """
        growing = False
        while True:
            before = [self.facts[v] for v in carries]
            after = [f.join(g) for f, g in zip(before, turn(), strict=True)]
            if after == before:
                return
            pairs = list(zip(before, after, strict=True))
            alike = all(replace(f, narrow_sums=g.narrow_sums) == g for f, g in pairs)
            if alike and growing:
                sums = [after_trips(f.narrow_sums, g.narrow_sums, trips) for f, g in pairs]
                after = [replace(f, narrow_sums=n) for f, n in zip(after, sums, strict=True)]
            self.facts.update(zip(carries, after, strict=True))
            if alike and growing:
                turn()
                return
            growing = alike

    def _cond(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        index = self.fact(equation.inputs[0])
        inner = guard.under(index)
        for body in equation.bodies:
            self._block(body, inner, claimable=claimable)
        known = all(self.fact(a).known for a in uses(equation))
        for i, v in enumerate(equation.outputs):
            fact = reduce(Fact.join, (self.fact(b.outputs[i]) for b in equation.bodies))
            self.facts[v] = replace(fact.under(inner), known=known)

    def _loop(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        predicate, body = equation.bodies
        self.claims.pop(equation, None)
        followed = conditions.follow(equation, self.graph) if claimable else None
        self.covered.update(() if followed is None else followed.covered)
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

        self._fixpoint(body.inputs, turn, LONG)
        itself = frozenset() if known else frozenset({equation.name})
        for v, inner in zip(equation.outputs, body.inputs, strict=True):
            fact = self.facts[inner]
            self.facts[v] = replace(fact, known=known, loops=fact.loops | itself)
        proposal = None if followed is None else trips.propose(followed, self)
        if followed is not None and proposal is not None:
            self._commit_loop(equation, proposal, followed, guard)

    def _commit_loop(
        self, equation: Equation, proposal: Proposal, followed: conditions.Reached, guard: Fact
    ) -> None:
        """Make the trips of a loop a claim."""
        condition = self.fact(equation.bodies[0].outputs[0]).under(guard)
        operands = (a for e in followed.comparisons for a in e.inputs)
        before = reduce(Fact.join, map(self.fact, operands), condition)
        # Sums that grow with every trip would make the slack as large as what is compared.
        before = replace(before, narrow_sums=frozenset())
        self.claims[equation] = Claimed(proposal, before.under(condition))
        for i, v in enumerate(equation.outputs):
            # A flag that is read later is the verifier's own.
            own = {e.name for e in followed.read.get(i, ())} & proposal.covers
            self.discontinuities |= own
            fact = self.facts[v]
            discontinuities = fact.discontinuities | own
            loops = fact.loops | {equation.name}
            self.facts[v] = replace(fact, known=False, discontinuities=discontinuities, loops=loops)
