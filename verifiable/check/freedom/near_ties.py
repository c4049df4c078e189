"""Near-ties: choices that tolerances could have decided.

An `argmax` of claimed logits is exact as a computation; the logits are not. A test lets column a of
a row move by kappa room_a, and the roundings before it by spare_a (`leeway`). So the gap between
columns a and b can be closed by a deviation of

    kappa = (gap - spare_a - spare_b) / sqrt(room_a^2 + room_b^2)   in one block (Cauchy-Schwarz),
    kappa = (gap - spare_a - spare_b) / (room_a + room_b)           in two blocks, or rows,

and a row is a near-tie if this is at most `Bound.kappa`, what passes with probability 1e-9, for one
other column. A report lists the near-ties of every `argmax`, `argmin` and `top_k` (between what is
chosen and what is not, and by its own name, where the order of what is chosen is returned, between
neighbours in it) whose operand follows from a claimed product with parameters

  - by what keeps the order of a row: casts, shifts and positive factors of whole rows (a
    temperature is taken to be positive), `tanh`, `softmax`, slices of rows; also out of a scan;
  - by any arithmetic on single elements in the same block (`elementwise`): biases, scales, masks,
    noise. It is evaluated for logits that are moved up and down as far as they can be, and room and
    spare are what this makes of them.

What else is chosen from claims, such as by a `sort`, from several products, or in another block, is
replayed with how far it may be moved (`several_products`). What cannot be followed is `unlisted`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check.freedom.closest import Closest, apart, closest, neighbours, untouched
from verifiable.check.freedom.elementwise import Glue
from verifiable.check.freedom.leeway import applied, inverse, leeway, moves, sigma_of
from verifiable.check.freedom.one_product import Choice, choices
from verifiable.check.freedom.several_products import FollowedTies
from verifiable.check.freedom.steering import steering
from verifiable.check.replay.on_demand import Replays
from verifiable.check.replay.replay import Context
from verifiable.check.specification import Specification
from verifiable.check.tiling import evaluate
from verifiable.claims.claim import Claim
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.claims.products.freivalds import Applied
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env
from verifiable.report import NearTie, Report, Verdict

TILE = 2**22  # bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class NearTies:
    """The near-ties of one program's runs.

    Attributes:
      program: the compiled function.
      look: evaluates a part of its check.
    """

    program: Specification
    look: Replays
    _compiled: dict[tuple[Choice, float | None], Any] = field(default_factory=dict, repr=False)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """What is chosen from the rows of one claim, in the order of the program."""
        return tuple(choices(self.program))

    @cached_property
    def followed(self) -> FollowedTies:
        """The other choices that can be followed."""
        made = steering(self.program)
        return FollowedTies(
            program=self.program, key=self.look.key, steering=made, kappa=self.kappa
        )

    def noted(self, report: Report, arguments: Any, *, whole: bool = True) -> Report:
        """The report with its near-ties, unless it rejects, and with what has none listed.

        Args:
          report: on a run.
          arguments: `compiled.CheckArguments` of the run.
          whole: whether all claims are given; else only rows of one claim are looked at.
        """
        made = steering(self.program)
        left = [*made.unlisted.items()]
        left += [] if whole else [(c.name, "it is not audited") for c in made.followed]
        report = replace(report, unlisted=tuple(f"{name}: {why}" for name, why in left))
        if report.verdict is Verdict.REJECT:
            return report
        every = (*self.choices, *made.orders)
        found = [tie for choice in every for tie in self._of(choice, arguments)]
        found += self.followed.of(arguments) if whole else []
        return replace(report, near_ties=tuple(dict.fromkeys(found)))

    def closest(self, choice: Choice, arguments: Any, *, within: float | None = None) -> Closest:
        """What could be turned most easily of a choice, as numpy arrays.

        Args:
          choice: one of `choices`, or an order of `steering`.
          arguments: `compiled.CheckArguments` of the run.
          within: if given, a row that needs a larger deviation may have any that is larger, and
            no columns: most rows are then only compared with a bound.
        """
        kappa = max(self.kappa, 1.0)

        def measure(claim: Claim, env: Env, context: Context) -> Closest:
            del claim
            if choice.glue is None:
                return _of_rows(choice, env, context, kappa, within)
            return _behind(choice, choice.glue, env, context, kappa)

        if (choice, within) not in self._compiled:
            at = None if choice.glue is None else choice.equation
            index, beside = choice.claim, choice.head.indices
            made = self.look.measurement(index, measure, beside, at)
            self._compiled[choice, within] = made
        return Closest(*(np.asarray(x) for x in self._compiled[choice, within](arguments)))

    @cached_property
    def kappa(self) -> float:
        """The deviation that passes with probability 1e-9; zero without products of floats."""
        return 0.0 if self.program.bound is None else self.program.bound.kappa()

    def _of(self, choice: Choice, arguments: Any) -> Iterator[NearTie]:
        claim = choice.head.claim
        found = self.closest(choice, arguments, within=self.kappa)
        rows = found.kappa.shape[-1]
        each, chosen, other = (x.reshape(-1) for x in found[:3])
        row = found.row.reshape(-1)
        # Rows of a branch that was not taken are all zero.
        for i in np.flatnonzero((each <= self.kappa) & (chosen != other)).tolist():
            yield NearTie(
                claim=choice.equation.name if choice.ordered else claim.name,
                trip=i // rows,
                row=int(row[i]),
                chosen=int(chosen[i]),
                other=int(other[i]),
                kappa=float(each[i]),
                choice=choice.equation.name,
            )


def _of_rows(
    choice: Choice, env: Env, context: Context, kappa: float, within: float | None
) -> Closest:
    """The closest choices from the rows of a claim, in tiles; see `NearTies.closest`."""
    head, form = choice.head, choice.head.form
    given, wide = context.yardstick(head.claim, env), _wide(head.claim)
    columns = inverse(head, given.projection)
    widest = jnp.max(columns)
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
        if choice.ordered:
            return neighbours(values, room, spare, block, choice.number)
        look = functools.partial(closest, values, room, spare, block, choice.number, kappa)
        if within is None or choice.number > 1:
            return look()
        far, spread = ((x * widest).astype(wide) for x in (jnp.max(sigma, axis=-1), moved))
        return lax.cond(jnp.all(apart(values, far, spread, within)), lambda: untouched(look), look)

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
    found = closest(values, room, spare, block, choice.number, kappa)
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
