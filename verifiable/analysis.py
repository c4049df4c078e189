"""What a compiled program knows before it runs: facts, claims, and the split of the check.

A forward pass gives each variable a `Fact`:

    known    it depends on parameters only, so it can be computed before any job;
    grains   types whose rounding it went through: with none it is *exact*, and two honest devices
             compute the same bits, unless
    glue     one of these discontinuous equations flipped, because of a last-bit difference;
    loops    the replayed loops before it, which the verifier may have had to cut short.

A contraction with an operand that is not known becomes a `Claim` if testing it is cheaper than
replaying it; so does a rounding on its way into a contraction, and an operand of one that was
computed in a narrow type. A claim's output is committed, so it is exact again, whatever lies before
it.

The split is a partial evaluation: known equations run once, in `setup`, and what crosses over is
the verifier key. Every scan body is a `Frame` of its own, whose part of the key is stacked over
the iterations; what does not depend on the iteration belongs to an enclosing frame. A known value
that the check needs is either kept in the key or, where that is smaller, rebuilt from what is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from verifiable import rounding
from verifiable.claims import (
    REBUILT,
    Contraction,
    contraction,
    contractions,
    effect_on_rounding,
    grain,
    is_float,
    work,
)
from verifiable.interpreter import Atom, Block, Equation, Literal, Var
from verifiable.rounding import NARROW, Rounding

NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a variable; see the module's docstring."""

    known: bool
    grains: frozenset[str] = NOTHING
    glue: frozenset[str] = NOTHING
    loops: frozenset[str] = NOTHING

    @property
    def exact(self) -> bool:
        """Whether honest devices compute the same bits, as long as no glue flips."""
        return not self.grains

    def join(self, other: Fact) -> Fact:
        """What holds of a value that may be either."""
        return Fact(
            self.known and other.known,
            self.grains | other.grains,
            self.glue | other.glue,
            self.loops | other.loops,
        )

    def under(self, other: Fact) -> Fact:
        """What holds of a value that is computed only if `other` says so."""
        return Fact(self.known, self.grains, self.glue | other.glue, self.loops | other.loops)


_CERTAIN = Fact(known=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Claim:
    """A contraction or rounding whose output is committed and tested.

    Attributes:
      index: position in the trace.
      name: where it stands in the user's program.
      primitive: of the equation: `dot_general` or `conv_general_dilated` for a contraction.
      form: the contraction as linear maps, or the rounding as a chain of steps.
      trips: lengths of the scans around it; leading dimensions of the committed array.
      group: index of the first claim under the outermost of these scans; its own without any.
      shape: shape of the committed array.
      dtype: type of the committed array.
      far_known: whether the projected operand depends on parameters only.
      grains: types whose rounding its operands went through since they were last exact.
      glue: names of discontinuous equations before its operands.
      loops: names of replayed loops before its operands.
      near: the operand that is applied; the value that is rounded.
      far: the operand that is projected; of a rounding, the same as `near`.
      turned: the transpose that alone reads the output, if that is how it is used.
    """

    index: int
    name: str
    primitive: str
    form: Contraction | Rounding
    trips: tuple[int, ...]
    group: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    far_known: bool
    grains: frozenset[str]
    glue: frozenset[str]
    loops: frozenset[str]
    near: Atom
    far: Atom
    turned: Equation | None = None

    @property
    def contraction(self) -> Contraction | None:
        """The form of a contraction; None for a rounding."""
        return None if isinstance(self.form, Rounding) else self.form

    @property
    def vectors(self) -> str | None:
        """Name of the set of random vectors that test it; a rounding is tested without."""
        form = self.contraction
        return None if form is None else form.vectors(far_known=self.far_known)

    @property
    def eps_types(self) -> frozenset[str]:
        """Types whose rounding an honest device's deviation goes through; none for integers."""
        if isinstance(self.form, Rounding):
            return self.grains
        return NOTHING if self.form.exact else self.grains | {grain(self.dtype)}

    @property
    def tests(self) -> int:
        """Rows tested, over all trips."""
        return self.form.tests * math.prod(self.trips)

    @property
    def work(self) -> int:
        """Operations of the products, over all trips."""
        return self.form.work * math.prod(self.trips)


@dataclass(slots=True, eq=False)
class Frame:
    """The known part of the outermost block, or of a scan's body.

    Attributes:
      steps: known equations to evaluate, and partly known scans, in order.
      children: frames of the partly known scans.
      kept: variables whose values go into the key.
      projected: claims whose projection goes into the key.
    """

    depth: int = 0
    steps: list[Equation] = field(default_factory=list)
    children: dict[Equation, Frame] = field(default_factory=dict)
    kept: list[Var] = field(default_factory=list)
    projected: list[Claim] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """The result.

    Attributes:
      facts: of every variable.
      claims: by equation, in the order of the trace.
      frame: the known part.
      rebuilt: known variables that the check computes again.
      loops: replayed `while` equations that no other loop holds.
      discontinuous: names of equations where a last-bit difference may flip a value.
      checked: operations of claimed contractions.
      replayed: operations that the check replays.
    """

    facts: dict[Var, Fact]
    claims: dict[Equation, Claim]
    frame: Frame
    rebuilt: set[Var]
    loops: set[Equation]
    discontinuous: tuple[str, ...]
    checked: int
    replayed: int

    def fact(self, atom: Atom) -> Fact:
        """Fact of an atom."""
        return _CERTAIN if isinstance(atom, Literal) else self.facts[atom]

    def known(self, equation: Equation) -> bool:
        """Whether all outputs of an equation are known."""
        return all(self.facts[v].known for v in equation.outputs)

    def claims_in(self, block: Block) -> list[Claim]:
        """Claims of a block and of all that it holds."""
        return [self.claims[e] for e in block.walk() if e in self.claims]

    def loops_in(self, block: Block) -> list[Equation]:
        """The replayed loops of a block and of all that it holds."""
        return [e for e in block.walk() if e in self.loops]


def analyse(block: Block, known_inputs: int, draws: int) -> Analysis:
    """Analyse a flattened function.

    Args:
      block: its outermost block.
      known_inputs: how many of its leading inputs are constants or parameters.
      draws: random vectors that the check will use, which decide what is worth testing.
    """
    forward = _Forward(draws, _feeding(block, set()), _narrow_operands(block), _users(block, {}))
    for i, v in enumerate(block.inputs):
        forward.facts[v] = Fact(known=i < known_inputs)
    forward.block(block, _CERTAIN, claimable=True)
    claims = dict(_number(block, forward, ()))
    split = _Split(forward.facts, claims)
    frame = Frame()
    split.build(block, frame)
    split.demand_block(block)
    split.demand(block.outputs)
    checked = sum(c.work for c in claims.values())
    loops = [e for e in block.walk() if e.kind == "while" and not forward.is_known(e)]
    inside = {e for loop in loops for body in loop.bodies for e in body.walk()}
    return Analysis(
        facts=forward.facts,
        claims=claims,
        frame=frame,
        rebuilt=split.rebuilt,
        loops={e for e in loops if e not in inside},
        discontinuous=tuple(sorted(forward.discontinuous)),
        checked=checked,
        replayed=_replayed(block, forward, claims, 1),
    )


class _Chain(NamedTuple):
    """A rounding so far: the value that is rounded, the steps, and the equations they stand for."""

    source: Var
    steps: tuple[rounding.Step, ...]
    names: frozenset[str]


@dataclass(slots=True, eq=False)
class _Forward:
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

    def fact(self, atom: Atom) -> Fact:
        return _CERTAIN if isinstance(atom, Literal) else self.facts[atom]

    def is_known(self, equation: Equation) -> bool:
        return all(self.facts[v].known for v in equation.outputs)

    def block(self, block: Block, guard: Fact, *, claimable: bool) -> None:
        for equation in block.equations:
            if equation.kind == "scan":
                self.scan(equation, guard, claimable=claimable)
            elif equation.kind == "cond":
                self.cond(equation, guard, claimable=claimable)
            elif equation.kind == "while":
                self.loop(equation, guard)
            else:
                self.first_order(equation, guard, claimable=claimable)

    def first_order(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        inputs = [self.fact(a) for a in equation.inputs]
        joined = reduce(Fact.join, inputs, _CERTAIN)
        self.forms.pop(equation, None)
        if claimable and not joined.known:
            claim = self.claim(equation, inputs)
            if claim is not None:
                form, far_known = claim
                self.commit(equation, (form, far_known, equation.inputs[form.near], joined), guard)
                return
            chain = self.chain(equation, inputs)
            if chain is not None and self.ends(equation):
                out = equation.outputs[0]
                form = Rounding(steps=chain.steps, source=chain.source.dtype, dtype=out.dtype)
                before = self.fact(chain.source)
                self.discontinuous -= chain.names
                self.commit(equation, (form, False, chain.source, before), guard)
                return
        floats = any(is_float(a.dtype) for a in equation.inputs)
        rounded = any(
            is_float(a.dtype) and not f.exact for a, f in zip(equation.inputs, inputs, strict=True)
        )
        for v, effect in zip(equation.outputs, effect_on_rounding(equation), strict=True):
            glue = joined.glue
            if (effect == "step" and rounded) or (effect == "unknown" and floats):
                self.discontinuous.add(equation.name)
                glue |= {equation.name}
            grains = NOTHING
            if {"exact": rounded, "narrow": rounded, "step": False}.get(effect, floats):
                own = [v] if is_float(v.dtype) else equation.inputs
                grains = joined.grains
                if effect != "exact":
                    grains |= {grain(a.dtype) for a in own if is_float(a.dtype)}
            self.facts[v] = Fact(joined.known, grains, glue, joined.loops).under(guard)
        if claimable and len(equation.outputs) == 1 and not joined.known:
            self.narrow_operand(equation, guard)

    def narrow_operand(self, equation: Equation, guard: Fact) -> None:
        """Commit to what was computed in a narrow type on its way into a contraction."""
        [out] = equation.outputs
        if out in self.narrow and not self.facts[out].exact:
            form = Rounding(steps=(), source=out.dtype, dtype=out.dtype)
            self.commit(equation, (form, False, out, self.facts[out]), guard)

    def commit(
        self,
        equation: Equation,
        claim: tuple[Contraction | Rounding, bool, Atom, Fact],
        guard: Fact,
    ) -> None:
        """Make the output of an equation a claim."""
        form, far_known, near, before = claim
        self.forms[equation] = (form, far_known, near, before.under(guard))
        # The verifier goes on with the committed value, unless the branch flips.
        self.facts[equation.outputs[0]] = Fact(known=False).under(guard)

    def chain(self, equation: Equation, inputs: Sequence[Fact]) -> _Chain | None:
        """The rounding that an equation is the last step of so far; None if it is none."""
        value = rounding.operand(equation)
        if not isinstance(value, Var):
            return None
        chain = self.chains.get(value)
        if chain is None:
            fact = inputs[equation.inputs.index(value)]
            if fact.exact or not {"step", "narrow"}.intersection(effect_on_rounding(equation)):
                return None
            chain = _Chain(value, (), NOTHING)
        steps = rounding.extend(chain.steps, equation)
        if steps is None:
            return None
        chain = _Chain(chain.source, steps, chain.names | {equation.name})
        self.chains[equation.outputs[0]] = chain
        return chain

    def ends(self, equation: Equation) -> bool:
        """Whether a rounding that reaches a contraction has no further step."""
        out = equation.outputs[0]
        if out not in self.feeding:
            return False
        users = self.users[out]
        if len(users) != 1 or users[0] is None:
            return True
        return rounding.extend(self.chains[out].steps, users[0]) is None

    def claim(self, equation: Equation, inputs: Sequence[Fact]) -> tuple[Contraction, bool] | None:
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

    def scan(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        [body] = equation.bodies
        count = equation.params["num_carry"]
        carries = body.inputs[:count]
        for atom, v in zip(equation.inputs, body.inputs, strict=True):
            self.facts[v] = self.fact(atom)

        def turn() -> list[Fact]:
            self.block(body, guard, claimable=claimable)
            return [self.fact(a) for a in body.outputs[:count]]

        self.fixpoint(carries, turn)
        for v, inner, atom in zip(equation.outputs, carries, body.outputs, strict=False):
            self.facts[v] = self.facts[inner].join(self.fact(atom))
        for v, atom in zip(equation.outputs[count:], body.outputs[count:], strict=True):
            self.facts[v] = self.fact(atom)

    def fixpoint(self, carries: Sequence[Var], turn: Callable[[], list[Fact]]) -> None:
        """Weaken the facts of carries until a turn of the loop no longer changes them."""
        while True:
            before = [self.facts[v] for v in carries]
            after = [f.join(g) for f, g in zip(before, turn(), strict=True)]
            if after == before:
                return
            self.facts.update(zip(carries, after, strict=True))

    def cond(self, equation: Equation, guard: Fact, *, claimable: bool) -> None:
        index = self.fact(equation.inputs[0])
        inner = guard.under(index)
        for body in equation.bodies:
            self.block(body, inner, claimable=claimable)
        known = all(self.fact(a).known for a in uses(equation))
        for i, v in enumerate(equation.outputs):
            fact = reduce(Fact.join, (self.fact(b.outputs[i]) for b in equation.bodies))
            self.facts[v] = replace(fact.under(inner), known=known)

    def loop(self, equation: Equation, guard: Fact) -> None:
        predicate, body = equation.bodies
        known = all(self.fact(a).known for a in uses(equation))
        for atom, v in zip(equation.inputs, body.inputs, strict=True):
            self.facts[v] = self.fact(atom)

        def turn() -> list[Fact]:
            for v, carry in zip(predicate.inputs, body.inputs, strict=True):
                self.facts[v] = self.facts[carry]
            self.block(predicate, guard, claimable=False)
            inner = guard.under(self.fact(predicate.outputs[0]))
            self.block(body, inner, claimable=False)
            return [self.fact(a).under(inner) for a in body.outputs]

        self.fixpoint(body.inputs, turn)
        itself = frozenset() if known else frozenset({equation.name})
        for v, inner in zip(equation.outputs, body.inputs, strict=True):
            fact = self.facts[inner]
            self.facts[v] = Fact(known, fact.grains, fact.glue, fact.loops | itself)


def _number(
    block: Block,
    forward: _Forward,
    trips: tuple[int, ...],
    start: int = 0,
    group: int | None = None,
) -> Iterator[tuple[Equation, Claim]]:
    for equation in block.equations:
        if equation in forward.forms:
            form, far_known, near, before = forward.forms[equation]
            out = equation.outputs[0]
            yield (
                equation,
                Claim(
                    index=start,
                    name=equation.name,
                    primitive=equation.kind,
                    form=form,
                    trips=trips,
                    group=start if group is None else group,
                    shape=trips + out.shape,
                    dtype=out.dtype,
                    far_known=far_known,
                    grains=before.grains,
                    glue=before.glue,
                    loops=before.loops,
                    near=near,
                    far=near if isinstance(form, Rounding) else equation.inputs[form.far],
                    turned=_turned(forward.users.get(out, ())),
                ),
            )
            start += 1
        inner, around = trips, group
        if equation.kind == "scan":
            inner = (*trips, equation.params["length"])
            around = start if group is None else group
        for body in equation.bodies:
            for item in _number(body, forward, inner, start, around):
                yield item
                start += 1


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


def _turned(users: Sequence[Equation | None]) -> Equation | None:
    only = users[0] if len(users) == 1 else None
    return only if only is not None and only.kind == "transpose" else None


def uses(equation: Equation) -> Iterator[Atom]:
    """Atoms that an equation reads, the free variables of its bodies among them."""
    yield from equation.inputs
    for body in equation.bodies:
        own: set[Atom] = set(body.inputs)
        for inner in body.equations:
            yield from (a for a in uses(inner) if a not in own)
            own.update(inner.outputs)
        yield from (a for a in body.outputs if a not in own)


def _replayed(block: Block, forward: _Forward, claims: Mapping[Equation, Claim], trips: int) -> int:
    """Operations that the check replays; a `while` counts one trip."""
    total = 0
    for equation in block.equations:
        claim = claims.get(equation)
        if claim is not None and claim.contraction is not None:
            continue
        if equation.outputs and forward.is_known(equation):
            continue
        if equation.bodies:
            inner = trips * equation.params.get("length", 1)
            total += sum(_replayed(b, forward, claims, inner) for b in equation.bodies)
        else:
            total += trips * work(equation)
    return total


@dataclass(slots=True, eq=False)
class _Split:
    facts: dict[Var, Fact]
    claims: dict[Equation, Claim]
    home: dict[Var, Frame] = field(default_factory=dict)
    producer: dict[Var, Equation] = field(default_factory=dict)
    rebuilt: set[Var] = field(default_factory=set)
    kept: set[Var] = field(default_factory=set)
    dependent: dict[Var, bool] = field(default_factory=dict)
    root: Frame | None = None

    def known(self, atom: Atom) -> bool:
        return isinstance(atom, Literal) or self.facts[atom].known

    def build(self, block: Block, frame: Frame) -> None:
        """Give each known equation to the innermost frame that it depends on."""
        if self.root is None:
            self.root = frame
            for v in block.inputs:
                self.home[v] = frame
        for equation in block.equations:
            if equation.outputs and all(self.facts[v].known for v in equation.outputs):
                home = self.deepest(uses(equation))
                home.steps.append(equation)
                for v in equation.outputs:
                    self.home[v] = home
                    self.producer[v] = equation
            elif equation.kind == "scan":
                child = Frame(frame.depth + 1)
                [body] = equation.bodies
                for v in body.inputs:
                    self.home[v] = child
                self.build(body, child)
                frame.children[equation] = child
                frame.steps.append(equation)
                for v in equation.outputs:
                    self.home[v] = frame
            elif equation.kind == "cond":
                for body in equation.bodies:
                    self.build(body, frame)
            elif equation in self.claims and self.claims[equation].far_known:
                claim = self.claims[equation]
                self.deepest((claim.far,)).projected.append(claim)

    def deepest(self, atoms: Iterable[Atom]) -> Frame:
        if self.root is None:
            raise AssertionError("build starts at the outermost block")
        frames = [self.home[a] for a in atoms if isinstance(a, Var)]
        return max(frames, key=lambda f: f.depth, default=self.root)

    def demand_block(self, block: Block) -> None:
        """Find the known values that the check of a block needs."""
        for equation in block.equations:
            if equation.outputs and all(self.facts[v].known for v in equation.outputs):
                continue
            if equation.kind == "scan":
                self.demand_scan(equation)
            elif equation.kind == "cond":
                self.demand(equation.inputs)
                for body in equation.bodies:
                    self.demand_block(body)
                    self.demand(body.outputs)
            elif equation.kind == "while":
                self.demand(uses(equation))
            elif equation in self.claims:
                claim = self.claims[equation]
                if claim.near is equation.outputs[0]:
                    self.demand(equation.inputs)
                else:
                    self.demand((claim.near,) if claim.far_known else (claim.near, claim.far))
            else:
                self.demand(equation.inputs)

    def demand_scan(self, equation: Equation) -> None:
        [body] = equation.bodies
        count = equation.params["num_carry"]
        for i, (atom, v) in enumerate(zip(equation.inputs, body.inputs, strict=True)):
            if not self.facts[v].known:
                self.demand((atom,))
                if i < count:
                    self.demand((body.outputs[i],))
        self.demand_block(body)

    def demand(self, atoms: Iterable[Atom]) -> None:
        for atom in atoms:
            if isinstance(atom, Literal) or not self.known(atom):
                continue
            if atom in self.rebuilt or atom in self.kept:
                continue
            equation = self.producer.get(atom)
            if equation is not None and self.worth_rebuilding(atom, equation):
                self.rebuilt.update(equation.outputs)
                self.demand(equation.inputs)
            else:
                self.kept.add(atom)
                self.home[atom].kept.append(atom)

    def worth_rebuilding(self, var: Var, equation: Equation) -> bool:
        if equation.bodies or equation.kind not in REBUILT:
            return False
        if not any(self.from_parameters(a) for a in equation.inputs):
            return True
        inputs = {a for a in equation.inputs if isinstance(a, Var) and self.from_parameters(a)}
        return sum(v.nbytes for v in inputs - self.kept) < var.nbytes

    def from_parameters(self, atom: Atom) -> bool:
        """Whether a known value depends on parameters, or cannot be rebuilt for another reason."""
        if isinstance(atom, Literal):
            return False
        if atom not in self.dependent:
            equation = self.producer.get(atom)
            leaf = equation is None or bool(equation.bodies) or equation.kind not in REBUILT
            inputs = () if equation is None else equation.inputs
            self.dependent[atom] = leaf or any(self.from_parameters(a) for a in inputs)
        return self.dependent[atom]
