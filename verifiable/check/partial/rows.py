"""The rows of a layer: which of its claims can be tested in some rows, and what that reads.

The rows of a layer are the indices along an axis of a carry, such as tokens or examples. Forwards
from there, values have the same rows as far as the rules of tiles (`tiling.rules`) show it: a row
may be one index along another axis, or several neighbours. A claim that has them, and whose kind
tests rows by themselves (`claims.selected_rows`), is tested in the rows of an audit alone; others
are tested whole.

Backwards from these tests, the same rules say which rows each equation needs. Where one mixes rows,
as keys and values are read in all of them, its operand is needed whole. What is left are claims and
carries that are read in some rows, and others that are read whole: the same for every draw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import jax.numpy as jnp

from verifiable.check.analysis.partition import Analysis
from verifiable.check.partial.row_test import RowTest, places
from verifiable.check.replay import replay
from verifiable.check.replay.needed import Needs, needed
from verifiable.check.replay.replay import Context, Findings
from verifiable.check.tiling import evaluate
from verifiable.check.tiling.rules import Cut, Step, step
from verifiable.claims.claim import Claim
from verifiable.claims.selected_rows import row_subset
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Block, Env, Equation, Var

Pieces = Mapping[tuple[Var, Cut], Array]


class GivenRows(NamedTuple):
    """What is given in the rows of an audit alone.

    Attributes:
      claims: what was committed, by index of the claim and where it is cut.
      inputs: values of inputs of the block.
    """

    claims: Mapping[tuple[int, Cut], Array]
    inputs: Pieces


WHOLE = GivenRows({}, {})


def reduced(block: Block, needs: Needs) -> Block:
    """The equations of a block that some claims and values need."""

    def kept(equation: Equation) -> bool:
        inside = (e for body in equation.bodies for e in body.walk())
        claims = [needs.analysis.by_equation.get(e) for e in (equation, *inside)]
        tested = any(c is not None and c.index in needs.claims for c in claims)
        return tested or any(v in needs.variables for v in equation.outputs)

    return Block(block.inputs, [e for e in block.equations if kept(e)], block.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What some pieces of a block are computed from.

    Attributes:
      steps: equations in order, with the cuts of their outputs and inputs.
      claims: those that are read in some rows, by index, and where.
      inputs: inputs of the block that are read in some rows, and where.
      pieces: values that are cut, and computed neither by a step nor by a claim.
      whole: values that are needed whole.
      needs: what these, and claims that are tested whole, need.
    """

    steps: tuple[Step, ...]
    claims: Mapping[int, frozenset[Cut]]
    inputs: Mapping[Var, frozenset[Cut]]
    pieces: frozenset[tuple[Var, Cut]]
    whole: tuple[Var, ...]
    needs: Needs


def pull(
    block: Block,
    analysis: Analysis,
    wanted: Iterable[tuple[Atom, Cut | None]],
    tests: Sequence[RowTest] = (),
    beside: Collection[int] = (),
) -> Pulled:
    """Go backwards through a block from some rows.

    Args:
      block: the block.
      analysis: of the whole function.
      wanted: values, and where they are cut; None if they are needed whole.
      tests: claims that are tested in some rows.
      beside: indices of claims that are tested whole.
    """
    pieces: dict[Var, set[Cut]] = {}
    whole: dict[Var, None] = {}
    claims: dict[int, frozenset[Cut]] = {}
    steps: list[Step] = []
    left: set[tuple[Var, Cut]] = set()
    by_claim = {t.claim.index: t for t in tests}

    def need(atoms: Iterable[tuple[Atom, Cut | None]]) -> None:
        for atom, cut in atoms:
            if isinstance(atom, Var) and cut is None:
                whole[atom] = None
            elif isinstance(atom, Var) and cut is not None:
                pieces.setdefault(atom, set()).add(cut)

    need(wanted)
    for equation in reversed(block.equations):
        claim = analysis.by_equation.get(equation)
        test = None if claim is None else by_claim.get(claim.index)
        if claim is not None and test is not None:
            need(test.reads())
            if claim.far is not None and not claim.form.projected:
                need([(claim.far, None)])
            claims[claim.index] = claims.get(claim.index, frozenset()) | {test.cut}
        for v in equation.outputs:
            cuts = sorted(pieces.pop(v, ()))
            if not cuts:
                continue
            found = _made(equation, claim, v, cuts, analysis)
            if v in whole or found is None:
                left.update((v, cut) for cut in cuts)
                if not analysis.known(equation) or v in analysis.rebuilt:
                    whole[v] = None
                continue
            if claim is not None:
                claims[claim.index] = claims.get(claim.index, frozenset()) | set(cuts)
            for made in found:
                steps.append(made)
                need(zip(made.equation.inputs, made.sources, strict=True))
    left.update((v, cut) for v, cuts in pieces.items() for cut in cuts)
    return Pulled(
        steps=tuple(reversed(steps)),
        claims=claims,
        inputs={v: frozenset(cuts) for v, cuts in pieces.items() if v in block.inputs},
        pieces=frozenset(left),
        whole=tuple(whole),
        needs=needed(block, analysis, beside, whole),
    )


def _made(
    equation: Equation, claim: Claim | None, v: Var, cuts: Sequence[Cut], analysis: Analysis
) -> list[Step] | None:
    """The steps that compute some rows of an output, none if a claim has them; None if whole."""
    if claim is not None:
        return [] if all(_reads(claim, cut) for cut in cuts) else None
    effects = bool(equation.bodies) or bool(getattr(equation.origin, "effects", None))
    if effects or analysis.known(equation):
        return None
    steps = [step(equation, v, cut) for cut in cuts]
    found = [s for s in steps if s is not None]
    return found if len(found) == len(steps) else None


def _reads(claim: Claim, cut: Cut) -> bool:
    """Whether rows of a claim's output are rows of what is committed."""
    shape = claim.output.shape
    plain = claim.form.packed(shape, claim.output.dtype) == (shape, claim.output.dtype)
    alone = len(claim.equation.outputs) == 1 and cut.axis < len(shape) - 1
    return alone and plain and row_subset(claim.form, shape, 0, 1) is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class RowPlan:
    """How a layer is tested in some rows.

    Attributes:
      body: of the scan whose iterations are layers.
      analysis: of the whole function.
      axis: of the carries, along which the rows are.
      length: rows of the layer, T.
      tests: the claims that are tested in some rows.
      beside: indices of the claims of the body that are tested whole.
      pulled: what the tests read.
    """

    body: Block = field(repr=False)
    analysis: Analysis = field(repr=False)
    axis: int
    length: int
    tests: tuple[RowTest, ...]
    beside: frozenset[int]
    pulled: Pulled = field(repr=False)

    @staticmethod
    def of(body: Block, analysis: Analysis, carries: Sequence[Var]) -> RowPlan | None:
        """The rows of the body of a scan; None if no carry shows any.

        They are along the axis of a carry in which most of the arithmetic can be tested; of
        several, the one for which least is read whole, and the first.
        """
        found: list[tuple[tuple[int, int], RowPlan]] = []
        for v in carries:
            for axis, length in enumerate(v.shape[:-1]):
                plan = RowPlan._along(body, analysis, carries, axis, length)
                work = sum(t.claim.form.work for t in plan.tests) if plan else 0
                if plan is not None and work:
                    found.append(((work, -plan._whole_bytes), plan))
        return max(found, key=lambda item: item[0])[1] if found else None

    @staticmethod
    def _along(
        body: Block, analysis: Analysis, carries: Sequence[Var], axis: int, length: int
    ) -> RowPlan | None:
        if length < 2:
            return None
        start = {v: Cut(axis) for v in carries if v.shape[axis : axis + 1] == (length,)}
        have = aligned(body, analysis, start, length)
        top = [analysis.by_equation[e] for e in body.equations if e in analysis.by_equation]
        tests = [RowTest.of(c, have[c.output]) for c in top if c.output in have]
        kept = tuple(t for t in tests if t is not None)
        beside = {c.index for c in analysis.claims_in(body)} - {t.claim.index for t in kept}
        return RowPlan(
            body=body,
            analysis=analysis,
            axis=axis,
            length=length,
            tests=kept,
            beside=frozenset(beside),
            pulled=pull(body, analysis, (), kept, beside),
        )

    @property
    def _whole_bytes(self) -> int:
        needs, claims = self.pulled.needs, self.analysis.claims_in(self.body)
        read = sum(c.output.nbytes for c in claims if c.index in needs.reads)
        return read + sum(v.nbytes for v in self.body.inputs if v in needs.variables)

    @cached_property
    def claims(self) -> Mapping[int, tuple[Cut, ...]]:
        """The claims that are read in some rows and nowhere whole, by index, and where.

        Rows along the last axis are not counted: there, leaves hold all of them.
        """
        pulled, found = self.pulled, dict[int, tuple[Cut, ...]]()
        for claim in self.analysis.claims_in(self.body):
            cuts = sorted(pulled.claims.get(claim.index, ()))
            whole = claim.index in pulled.needs.reads or claim.index in self.beside
            if cuts and not whole and _before_last(claim.output, cuts):
                found[claim.index] = tuple(cuts)
        return found

    @cached_property
    def inputs(self) -> Mapping[Var, tuple[Cut, ...]]:
        """The inputs of the block that are read so, or not at all."""
        pulled, found = self.pulled, dict[Var, tuple[Cut, ...]]()
        for v in self.body.inputs:
            cuts = sorted(pulled.inputs.get(v, ()))
            if v not in pulled.needs.variables and _before_last(v, cuts):
                found[v] = tuple(cuts)
        return found

    def check(
        self,
        context: Context,
        env: Env,
        rows: Array,
        some_rows: GivenRows = WHOLE,
        *,
        again: bool = False,
    ) -> Findings:
        """Test an iteration in some rows; a pure JAX function.

        Args:
          context: in the body, with what the key keeps bound.
          env: values by variable; this function writes to it.
          rows: int32 (r,).
          some_rows: what is given in these rows alone, in neither `env` nor `context.claimed`.
          again: whether the tests are those of a second try (`Form.retest`).
        """
        pulled = self.pulled
        whole = [v for v in pulled.whole if v not in env]
        here = replace(context, tested=self.beside)
        _, findings = replay.check(reduced(self.body, pulled.needs), here, env, whole)
        pieces = {
            at: some_rows.inputs[at] if at in some_rows.inputs else take(env[at[0]], at[1], rows)
            for at in pulled.pieces
        }

        def committed(index: int, cut: Cut) -> Array:
            own = some_rows.claims.get((index, cut))
            return take(context.claimed[index], cut, rows) if own is None else own

        for claim in self.analysis.claims_in(self.body):
            for cut in pulled.claims.get(claim.index, ()):
                if _reads(claim, cut) and (claim.output, cut) not in pieces:
                    pieces[claim.output, cut] = committed(claim.index, cut)
        for made in pulled.steps:
            v = made.equation.outputs[made.output]
            pieces[v, made.cut] = _evaluated(made, env, pieces, rows)
        for test in self.tests:
            claim, part = test.claim, test.of_rows(len(rows)).form
            given = context.yardstick(claim, env)
            if context.strategy.cheap_first and not again:
                given = part.cheapened(given)
            own = test.itself
            values = [
                _evaluated(own, env, pieces, rows)
                if own is not None and a is claim.output
                else _read(a, cut, env, pieces)
                for a, cut in test.operands()
            ]
            measure = part.retest if again else part.test
            out = committed(claim.index, test.cut)
            findings.statistics[claim.index] = measure(values, out, given)
            findings.taken[claim.index] = jnp.ones((), bool)
        return findings


def _before_last(v: Var, cuts: Iterable[Cut]) -> bool:
    return all(cut.axis < len(v.shape) - 1 for cut in cuts)


def take(value: Array, cut: Cut, rows: Array) -> Array:
    """Some rows of a value."""
    return jnp.take(value, places(cut, rows), axis=cut.axis, mode="clip")


def _read(atom: Atom, cut: Cut | None, env: Env, pieces: Pieces) -> Array:
    if isinstance(atom, Var) and cut is not None:
        return pieces[atom, cut]
    return interpret.read(env, atom)


def _evaluated(made: Step, env: Env, pieces: Pieces, rows: Array) -> Array:
    """The piece that a step computes."""
    equation, output, cut, sources = made
    values = [_read(a, c, env, pieces) for a, c in zip(equation.inputs, sources, strict=True)]
    if equation.kind == "iota" and equation.params["dimension"] == cut.axis:
        return take(interpret.apply(equation, values)[0], cut, rows)
    return evaluate.evaluate(equation, output, cut, 0, len(rows), values)


def aligned(
    block: Block, analysis: Analysis, start: Mapping[Var, Cut], length: int
) -> dict[Var, Cut]:
    """Where the values of a block have the rows that some of its inputs have.

    Args:
      block: the block.
      analysis: of the whole function.
      start: inputs, and where they have the rows.
      length: number of rows.
    """
    found = dict(start)
    for equation in block.equations:
        claim = analysis.by_equation.get(equation)
        if analysis.known(equation) or (equation.bodies and claim is None):
            continue
        for v in equation.outputs if claim is None else [claim.output]:
            best = 0
            for axis, size in enumerate(v.shape):
                cut = Cut(axis, size // length)
                score = 0 if size % length or not size else _alike(equation, claim, v, cut, found)
                if score > best:
                    best, found[v] = score, cut
    return found


def _alike(
    equation: Equation, claim: Claim | None, v: Var, cut: Cut, found: Mapping[Var, Cut]
) -> int:
    """How many inputs have the rows that a cut of an output asks of them; 0 if one has others."""
    test = None if claim is None else RowTest.of(claim, cut)
    if test is not None:
        pairs = list(test.reads())
    else:
        made = None if equation.bodies else step(equation, v, cut)
        pairs = [] if made is None else list(zip(equation.inputs, made.sources, strict=True))
    asked = [(a, c) for a, c in pairs if isinstance(a, Var) and a in found and c is not None]
    return len(asked) if all(found[a] == c for a, c in asked) else 0
