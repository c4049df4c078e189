"""Near-ties: choices that the tolerance of a claim could have decided.

An `argmax` of claimed logits is exact as a computation; the logits are not. A test lets block J of
row i deviate by ||D_iJ * w_J|| = kappa sigma_iJ (`freivalds`). So the gap between columns a and b
can be closed by a deviation of

    kappa = gap / (sigma_iJ sqrt(1 / w_a^2 + 1 / w_b^2))      a and b in one block (Cauchy-Schwarz),
    kappa = gap / (sigma_iJ / w_a + sigma_iI / w_b)           a in block J, b in block I,

and a row is a near-tie if this is at most `Bound.kappa`, what passes with probability 1e-9, for one
other column. A report lists the near-ties of every `argmax`, `argmin` and `top_k` (between what is
chosen and what is not) whose operand is a claimed product with parameters, or a function of it that
keeps the order of a row: casts, shifts and positive factors of whole rows (a temperature is taken
to be positive), `tanh`, `softmax`, slices of rows. What else is chosen from is not listed: sampled
noise, masks, a `sort`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check.replay import Context
from verifiable.check.second_look import SecondLook
from verifiable.check.specification import Specification
from verifiable.check.tiling import evaluate
from verifiable.claims import freivalds
from verifiable.claims.claim import Claim
from verifiable.claims.dot_general import DotGeneral
from verifiable.claims.freivalds import Applied
from verifiable.claims.product import CHOICES, CONTRACTIONS
from verifiable.errors import SteerableChoice
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Env, Literal, Var
from verifiable.jaxpr.graph import Graph
from verifiable.report import NearTie, Report, Verdict

TILE = 2**22  # bytes
COARSE = 2.0**-12  # an eps above it leaves most positions of a language model to a cheat

_MOVES = frozenset(
    "broadcast_in_dim convert_element_type copy dynamic_slice optimization_barrier reshape slice "
    "squeeze stop_gradient transpose".split()
)
_RISING = frozenset("cbrt erf exp exp2 expm1 log log1p logistic sqrt tanh".split())
_ALONG = frozenset({"add", "sub", "mul", "div"})


class Choice(NamedTuple):
    """A choice from the rows of a claim.

    Attributes:
      claim: index of the claim.
      number: how many elements are chosen.
      largest: whether the largest are, else the smallest.
    """

    claim: int
    number: int
    largest: bool


class Closest(NamedTuple):
    """Of each row, what could be turned most easily; arrays (trips..., rows).

    Attributes:
      kappa: the deviation that turns it.
      chosen: a chosen column.
      other: one that is not chosen.
      rooms: how far a deviation of one sigma moves each of the two, (trips..., rows, 2).
    """

    kappa: Array
    chosen: Array
    other: Array
    rooms: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class NearTies:
    """The near-ties of one program's runs.

    Attributes:
      program: the compiled function.
      look: evaluates a part of its check.
    """

    program: Specification
    look: SecondLook
    _compiled: dict[Choice, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """What is chosen from claims, in the order of the program."""
        return tuple(dict.fromkeys(_choices(self.program)))

    def noted(self, report: Report, arguments: Any) -> Report:
        """The report with its near-ties, unless it rejects.

        Args:
          report: on a run.
          arguments: `compiled.CheckArguments` of the run.
        """
        bound = self.program.bound
        if not self.choices or bound is None or report.verdict is Verdict.REJECT:
            return report
        kappa = bound.kappa()
        found = [tie for choice in self.choices for tie in self._of(choice, arguments, kappa)]
        return replace(report, near_ties=tuple(found))

    def closest(self, choice: Choice, arguments: Any) -> Closest:
        """What could be turned most easily of a choice, as numpy arrays."""

        def measure(claim: Claim, env: Env, context: Context) -> Closest:
            return _closest(choice, claim, env, context)

        if choice not in self._compiled:
            self._compiled[choice] = self.look.measurement(choice.claim, measure)
        return Closest(*(np.asarray(x) for x in self._compiled[choice](arguments)))

    def _of(self, choice: Choice, arguments: Any, kappa: float) -> Iterator[NearTie]:
        claim, found = self.program.claims[choice.claim], self.closest(choice, arguments)
        rows = found.kappa.shape[-1]
        each, chosen, other = (x.reshape(-1) for x in found[:3])
        # Rows of a branch that was not taken are all zero.
        for i in np.flatnonzero((each <= kappa) & (chosen != other)).tolist():
            yield NearTie(
                claim=claim.name,
                trip=i // rows,
                row=i % rows,
                chosen=int(chosen[i]),
                other=int(other[i]),
                kappa=float(each[i]),
            )


def warn_of_steerable_choices(program: Specification) -> None:
    """Warn if a choice is made from a wide claim whose tolerance decides most of its rows."""
    graph = Graph.of(program.function.block)
    reaching = graph.reaching(CHOICES, CONTRACTIONS)
    for claim in program.claims:
        product = claim.form.contraction
        if product is None or product.blocks == 1 or claim.output not in reaching:
            continue
        eps = program.tolerances[claim.name]
        if eps > COARSE:
            warnings.warn(
                f"a choice is made from {claim.name}, {claim.dtype.name}[{product.columns}] with "
                f"tolerance {eps:.2g}, which can turn most choices from {product.columns} columns: "
                "compute it in float32 (preferred_element_type=jnp.float32, and the operands "
                "rounded just before)",
                SteerableChoice,
                stacklevel=3,
            )


def _choices(program: Specification) -> Iterator[Choice]:
    block = program.function.block
    graph = Graph.of(block)
    for equation in block.walk():
        kinds = {"argmax": 1, "argmin": 1, "top_k": equation.params.get("k", 0)}
        count = kinds.get(equation.kind, 0)
        if not count:
            continue
        [operand, *_] = equation.inputs
        claim = _source(operand, graph, program)
        axis = equation.params.get("axes", (len(operand.shape) - 1,))[0]
        form = None if claim is None else claim.form.contraction
        if claim is None or not isinstance(form, DotGeneral) or not claim.form.projected:
            continue
        if form.batch == 1 and not form.exact and operand.shape[axis] == form.columns > count:
            yield Choice(claim.index, count, equation.kind != "argmin")


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
            elif equation.kind in ("add", "mul") and _whole_rows(first, graph):
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


def _closest(choice: Choice, claim: Claim, env: Env, context: Context) -> Closest:
    """The closest choices of a claim: a `Measure` of `check.operands`."""
    form: Any = claim.form.contraction
    given, wide = context.yardstick(claim, env), _wide(claim)
    applied = freivalds.apply(form, interpret.read(env, claim.near), given.projection)
    inverse = (1 / given.projection.weights).reshape(form.columns).astype(wide)
    unit = 1.0 if applied.top is None else applied.top * given.projection.scale

    def tile(values: Array, product: Array, energy: Array) -> Closest:
        some = _matrix(form, values.shape[0])
        part = Applied(product, energy, applied.top)
        _, _, sigma, _ = freivalds.deviations(
            some, part, given.projection, values, given.vectors, given.eps
        )
        sigma = (sigma * unit).reshape(-1, form.blocks).astype(wide)
        values = values.astype(wide) if choice.largest else -values.astype(wide)
        return closest(values, sigma, inverse, choice.number, form.width)

    out = form.rows_of(context.claimed[claim.index]).reshape(form.rows, form.columns)
    parts: Any = [x.reshape(form.rows, *x.shape[x.ndim - n :]) for x, n in _shared(form, applied)]
    return evaluate.over_rows(tile, out, *parts, tile_bytes=TILE)


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


def closest(values: Array, sigma: Array, inverse: Array, count: int, width: int) -> Closest:
    """What is turned most easily in each row, if the `count` largest values are chosen.

    Args:
      values: (rows, columns).
      sigma: of each block, (rows, blocks).
      inverse: 1 / w, (columns,).
      count: how many are chosen.
      width: columns of a block.
    """
    rows, columns = values.shape
    block = lax.iota(jnp.int32, columns) // width
    each = jnp.broadcast_to(sigma[:, :, None], (*sigma.shape, width)).reshape(rows, -1)
    room = each[:, :columns] * inverse
    top, chosen = _largest(values, count)
    at = jnp.take_along_axis(room, chosen, axis=-1)
    # The chosen one with the least margin, for deviations of unit size, if several are chosen.
    weakest = jnp.argmin(top - at, axis=-1, keepdims=True)
    top, at, first = (jnp.take_along_axis(x, weakest, axis=-1) for x in (top, at, chosen))
    together = jnp.where(block == first // width, jnp.sqrt(at * at + room * room), at + room)
    column = lax.iota(jnp.int32, columns)
    taken = functools.reduce(jnp.logical_or, [column == chosen[:, i : i + 1] for i in range(count)])
    kappa = jnp.where(taken | (together <= 0), jnp.inf, (top - values) / together)
    least = jnp.min(kappa, axis=-1, keepdims=True)
    other = _place(kappa == least)
    rooms = jnp.concatenate([at, jnp.take_along_axis(room, other, axis=-1)], axis=-1)
    return Closest(least[:, 0], first[:, 0], other[:, 0], rooms)


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
