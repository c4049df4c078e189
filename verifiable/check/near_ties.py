"""Near-ties: choices that tolerances could have decided.

An `argmax` of claimed logits is exact as a computation; the logits are not. A test lets column a of
a row move by kappa room_a, and the roundings before it by spare_a (`leeway`). So the gap between
columns a and b can be closed by a deviation of

    kappa = (gap - spare_a - spare_b) / sqrt(room_a^2 + room_b^2)   in one block (Cauchy-Schwarz),
    kappa = (gap - spare_a - spare_b) / (room_a + room_b)           in two blocks, or rows,

and a row is a near-tie if this is at most `Bound.kappa`, what passes with probability 1e-9, for one
other column. A report lists the near-ties of every `argmax`, `argmin` and `top_k` (between what is
chosen and what is not) whose operand follows from a claimed product with parameters

  - by what keeps the order of a row: casts, shifts and positive factors of whole rows (a
    temperature is taken to be positive), `tanh`, `softmax`, slices of rows; also out of a scan;
  - by any arithmetic on single elements in the same block (`glue`): biases, scales, masks, noise.
    It is evaluated for logits that are moved up and down as far as they can be, and room and spare
    are what this makes of them.

What else is chosen from is not listed, such as a `sort`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check.glue import Glue, between
from verifiable.check.leeway import LastProduct, applied, heads, inverse, leeway, moves, sigma_of
from verifiable.check.replay import Context
from verifiable.check.replays import Replays
from verifiable.check.specification import Specification
from verifiable.check.tiling import evaluate
from verifiable.claims.claim import Claim
from verifiable.claims.dot_general import DotGeneral
from verifiable.claims.freivalds import Applied
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Env, Equation, Literal, Var
from verifiable.jaxpr.graph import Graph
from verifiable.report import NearTie, Report, Verdict

TILE = 2**22  # bytes

_MOVES = frozenset(
    "convert_element_type copy dynamic_slice optimization_barrier reshape slice squeeze "
    "stop_gradient".split()
)
_RISING = frozenset("cbrt erf exp exp2 expm1 log log1p log2 logistic sqrt tanh".split())
_ALONG = frozenset({"add", "sub", "mul", "div"})
_NUMBERS = {"argmax": 1, "argmin": 1}


class Choice(NamedTuple):
    """A choice from the rows of a claim.

    Attributes:
      head: the claimed product.
      equation: that chooses.
      number: how many elements are chosen.
      largest: whether the largest are, else the smallest.
      glue: from the product to what is chosen from; None if that keeps the order of its rows.
      axis: along which is chosen.
    """

    head: LastProduct
    equation: Equation
    number: int
    largest: bool
    glue: Glue | None = None
    axis: int = -1

    @property
    def claim(self) -> int:
        """Index of the product."""
        return self.head.claim.index


class Closest(NamedTuple):
    """Of each row, what could be turned most easily; arrays (trips..., rows).

    Attributes:
      kappa: the deviation that turns it.
      chosen: a chosen column.
      other: one that is not chosen.
      rooms: how far a deviation of one sigma moves each of the two, (trips..., rows, 2).
      row: the row of the claim.
    """

    kappa: Array
    chosen: Array
    other: Array
    rooms: Array
    row: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class NearTies:
    """The near-ties of one program's runs.

    Attributes:
      program: the compiled function.
      look: evaluates a part of its check.
    """

    program: Specification
    look: Replays
    _compiled: dict[Choice, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """What is chosen from claims, in the order of the program."""
        return tuple(choices(self.program))

    def noted(self, report: Report, arguments: Any) -> Report:
        """The report with its near-ties, unless it rejects.

        Args:
          report: on a run.
          arguments: `compiled.CheckArguments` of the run.
        """
        if not self.choices or report.verdict is Verdict.REJECT:
            return report
        found = [tie for choice in self.choices for tie in self._of(choice, arguments)]
        return replace(report, near_ties=tuple(dict.fromkeys(found)))

    def closest(self, choice: Choice, arguments: Any) -> Closest:
        """What could be turned most easily of a choice, as numpy arrays."""

        def measure(claim: Claim, env: Env, context: Context) -> Closest:
            del claim
            if choice.glue is None:
                return _of_rows(choice, env, context)
            return _behind(choice, choice.glue, env, context, max(self.kappa, 1.0))

        if choice not in self._compiled:
            at = None if choice.glue is None else choice.equation
            index, beside = choice.claim, choice.head.indices
            self._compiled[choice] = self.look.measurement(index, measure, beside, at)
        return Closest(*(np.asarray(x) for x in self._compiled[choice](arguments)))

    @cached_property
    def kappa(self) -> float:
        """The deviation that passes with probability 1e-9; zero without products of floats."""
        return 0.0 if self.program.bound is None else self.program.bound.kappa()

    def _of(self, choice: Choice, arguments: Any) -> Iterator[NearTie]:
        claim, found = choice.head.claim, self.closest(choice, arguments)
        rows = found.kappa.shape[-1]
        each, chosen, other = (x.reshape(-1) for x in found[:3])
        row = found.row.reshape(-1)
        # Rows of a branch that was not taken are all zero.
        for i in np.flatnonzero((each <= self.kappa) & (chosen != other)).tolist():
            yield NearTie(
                claim=claim.name,
                trip=i // rows,
                row=int(row[i]),
                chosen=int(chosen[i]),
                other=int(other[i]),
                kappa=float(each[i]),
            )


def choices(program: Specification) -> Iterator[Choice]:
    """The choices of a program that are made from claimed products with parameters."""
    graph = Graph.of(program.function.block)
    every = list(heads(program))
    by_claim = {head.claim: head for head in every}
    for equation in program.function.block.walk():
        count = _NUMBERS.get(equation.kind, equation.params.get("k", 0))
        if equation.kind not in {*_NUMBERS, "top_k"} or not count:
            continue
        operand, largest = equation.inputs[0], equation.kind != "argmin"
        last = len(operand.shape) - 1
        axis = equation.params.get("axes", (equation.params.get("axis", last),))[0] % (last + 1)
        source = _source(operand, graph, program) if axis == last else None
        head = None if source is None else by_claim.get(source)
        plain = head is not None and head.alone and head.form.near == 0
        if plain and head is not None and operand.shape[-1] == head.form.columns:
            if head.form.columns > count:
                yield Choice(head, equation, count, largest)
            continue
        for head in every:
            block = head.block
            if block is None or equation not in block.equations:
                continue
            glue = between(block, head.claim.output, operand, program.analysis.by_equation)
            if glue is not None and operand.shape[axis] > count:
                yield Choice(head, equation, count, largest, glue, axis)


def _source(atom: Atom, graph: Graph, program: Specification) -> Claim | None:
    """The claim whose rows a value has in the same order."""
    while isinstance(atom, Var):
        equation = graph.producers.get(atom)
        if equation is None:
            return None
        claim = program.analysis.by_equation.get(equation)
        if claim is not None and claim.form.contraction is not None:
            return claim
        if equation.kind in _MOVES | _RISING:
            if atom.shape[-1:] != equation.inputs[0].shape[-1:]:
                return None  # other columns
            atom = equation.inputs[0]
        elif equation.kind == "scan":
            place = equation.outputs.index(atom)
            if place < equation.params["num_carry"]:
                return None
            atom = equation.bodies[0].outputs[place]
        elif equation.kind in _ALONG:
            first, second = equation.inputs
            if _whole_rows(second, graph) and not _negative(second):
                atom = first
            elif equation.kind not in ("add", "mul") or _negative(first):
                return None
            elif _whole_rows(first, graph):
                atom = second
            else:
                return None
        else:
            return None
    return None


def _whole_rows(atom: Atom, graph: Graph) -> bool:
    """Whether a value is the same for all columns of a row."""
    if isinstance(atom, Literal) or not atom.shape or atom.shape[-1] == 1:
        return True
    equation = graph.producers.get(atom)
    if equation is None or equation.kind != "broadcast_in_dim":
        return False
    dimensions = equation.params["broadcast_dimensions"]
    last = len(atom.shape) - 1
    return last not in dimensions or equation.inputs[0].shape[dimensions.index(last)] == 1


def _negative(atom: Atom) -> bool:
    return isinstance(atom, Literal) and bool(np.all(np.asarray(atom.value) < 0))


def _of_rows(choice: Choice, env: Env, context: Context) -> Closest:
    """The closest choices from the rows of a claim, in tiles."""
    head, form = choice.head, choice.head.form
    given, wide = context.yardstick(head.claim, env), _wide(head.claim)
    columns = inverse(head, given.projection)
    out = form.rows_of(context.claimed[choice.claim]).reshape(form.rows, form.columns)

    def tile(values: Array, moved: Array, *parts: Any) -> Closest:
        rows = values.shape[0]
        sigma = jnp.zeros((rows, 1))
        if not form.exact:
            sigma = sigma_of(_matrix(form, rows), Applied(parts[0], parts[1], top), values, given)
        each = jnp.repeat(sigma, form.width, axis=-1)[:, : form.columns]
        room, spare = (x.astype(wide) for x in (each * columns, moved[:, None] * columns))
        values = values.astype(wide) if choice.largest else -values.astype(wide)
        block = lax.iota(jnp.int32, form.columns) // form.width
        return closest(values, room, spare, block, choice.number)

    parts: list[Array] = []
    top = None
    if not form.exact:
        part = applied(head, env, given)
        top = part.top
        parts = [x.reshape(form.rows, *x.shape[x.ndim - n :]) for x, n in _shared(form, part)]
    found = evaluate.over_rows(tile, out, moves(head, env, context), *parts, tile_bytes=TILE)
    return found._replace(row=lax.iota(jnp.int32, form.rows))


def _behind(choice: Choice, glue: Glue, env: Env, context: Context, kappa: float) -> Closest:
    """The closest choices behind glue: the logits are moved, and what becomes of them compared."""
    head, form = choice.head, choice.head.form
    claimed = context.claimed[choice.claim]
    limits, wide = leeway(head, env, context), _wide(head.claim)
    each = jnp.repeat(limits.sigma, form.width, axis=-1)[:, : form.columns]
    columns = limits.inverse

    def rows(x: Array) -> Array:
        moved = jnp.moveaxis(x, choice.axis, -1)
        return moved.reshape(-1, moved.shape[-1])

    def change(by: Array) -> Array:
        by = jnp.ceil(by) if form.exact else by
        by, logits = head.as_output(by), claimed.astype(jnp.float64)
        ends = [rows(glue.moved(env, logits + way * by)).astype(wide) for way in (1, -1)]
        far = [jnp.abs(x - own) for x in ends]
        return functools.reduce(jnp.maximum, [jnp.where(jnp.isnan(x), 0, x) for x in far])

    own = rows(interpret.read(env, glue.end)).astype(wide)
    numbers = jnp.arange(head.rows * form.columns).reshape(head.rows, form.columns)
    label = rows(glue.labelled(env, head.as_output(numbers)))
    spare = change(limits.moves[:, None] * columns)
    room = jnp.zeros_like(spare) if form.exact else change(kappa * each * columns) / kappa
    room, spare = (jnp.where(label < 0, 0, x) for x in (room, spare))
    values = own if choice.largest else -own
    # Each row has tests of its own, whatever is chosen from together.
    block = label // form.columns * form.blocks + label % form.columns // form.width
    found = closest(values, room, spare, block, choice.number)
    chosen, other = (
        jnp.take_along_axis(label, x[:, None], -1)[:, 0] for x in (found.chosen, found.other)
    )
    row = jnp.where(chosen < 0, other, chosen) // form.columns
    least = jnp.where((chosen < 0) & (other < 0), jnp.inf, found.kappa)
    return Closest(least, chosen % form.columns, other % form.columns, found.rooms, row)


def _wide(claim: Claim) -> Any:
    return jnp.float64 if claim.dtype == jnp.float64 else jnp.float32


def _shared(form: DotGeneral, applied: Applied) -> list[tuple[Any, int]]:
    """The arrays of the near operand's share, and how many dimensions follow those of the rows."""
    blocks = int(form.blocks > 1)
    return [(applied.product, blocks + 1), (applied.energy, blocks)]


def _matrix(form: DotGeneral, rows: int) -> DotGeneral:
    """The contraction of some rows, as a product of two matrices."""
    inner, columns = form.contracted, form.columns
    return replace(
        form,
        near=0,
        shapes=((rows, inner), (inner, columns), (rows, columns)),
        rows=rows,
        contracting=((1,), (0,)),
        batching=((), ()),
    )


def closest(values: Array, room: Array, spare: Array, block: Array, count: int) -> Closest:
    """What is turned most easily in each row, if the `count` largest values are chosen.

    Args:
      values: (rows, columns).
      room: how far a deviation of one sigma moves each, (rows, columns).
      spare: how far the roundings before move each, (rows, columns).
      block: number of the block of each, (columns,) or (rows, columns).
      count: how many are chosen.
    """
    rows = values.shape[0]
    block = jnp.broadcast_to(block, values.shape)
    top, chosen = _largest(values, count)
    at, slack, home = (jnp.take_along_axis(x, chosen, axis=-1) for x in (room, spare, block))
    # The chosen one with the least margin, for deviations of unit size, if several are chosen.
    weakest = jnp.argmin(top - at - slack, axis=-1, keepdims=True)
    top, at, slack, home, first = (
        jnp.take_along_axis(x, weakest, axis=-1) for x in (top, at, slack, home, chosen)
    )
    together = jnp.where(block == home, jnp.sqrt(at * at + room * room), at + room)
    # With slices of these columns, XLA would sort whole rows to find the `count` largest.
    taken = jnp.zeros(values.shape, bool).at[jnp.arange(rows)[:, None], chosen].set(True)
    gap = jnp.maximum(top - values - slack - spare, 0)
    # Equal infinities, such as masked ones, cannot be told apart, and are not moved.
    kappa = jnp.where(gap > 0, gap / together, 0)
    kappa = jnp.where(taken | jnp.isnan(kappa) | jnp.isinf(values), jnp.inf, kappa)
    least = jnp.min(kappa, axis=-1, keepdims=True)
    other = _place(kappa == least)
    rooms = jnp.concatenate([at, jnp.take_along_axis(room, other, axis=-1)], axis=-1)
    return Closest(least[:, 0], first[:, 0], other[:, 0], rooms, jnp.zeros(rows, jnp.int32))


def _largest(values: Array, count: int) -> tuple[Array, Array]:
    """The largest values of each row, and their columns."""
    if count > 1:
        return lax.top_k(values, count)
    top = jnp.max(values, axis=-1, keepdims=True)  # reductions of one operand are fast on CPUs
    return top, _place(values == top)


def _place(flags: Array) -> Array:
    """Column of the first true flag of each row, (rows, 1)."""
    columns = flags.shape[-1]
    indices = jnp.where(flags, lax.iota(jnp.int32, columns), columns - 1)
    return jnp.min(indices, axis=-1, keepdims=True)
