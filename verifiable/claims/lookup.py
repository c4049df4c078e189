"""Lookups as claims: rows of a parameter table T, gathered by computed indices.

The device commits to the rows C that it gathered. bits(.) reads each row as n words of at most 16
bits. Draw g uniform in F_p^n, p = 2^61 - 1, after C is committed. The key holds the fingerprint
F = bits(T) g mod p in place of T, 8 bytes a row and draw, and row i is accepted iff

    bits(C_i) g = F[index_i]  (mod p).

It is Freivalds' test of C = onehot(index) T on bits: the words of a wrong row differ from those of
the right one by less than p, so it passes for at most one in p values of one entry of g, with
probability at most 1/p a draw. Nothing is rounded, so there is no tolerance: a row that differs in
one bit is wrong. -0, subnormal numbers that devices may flush, and every NaN are mapped to one
value each before, in table and claim: a cheat may choose the sign of a zero. Rows that stand for an
index beyond the table are compared with the filling itself (`slices`); where devices may choose
what they are, a wrong one decides nothing.

T must be the same on all devices: parameters that are only moved, widened, or computed exactly. A
row is committed in the type that its elements had before they were widened. Only whole rows are
looked up, and no matrices that a product picks (`gathered`); otherwise the key keeps T, and also
where that takes fewer bytes (`saves`).

T is public, so whoever sees F can solve for g: F is as secret as the challenge.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import GatherScatterMode

from verifiable.claims.extremes import subnormal
from verifiable.claims.form import Form, Proposal, View, Yardstick
from verifiable.claims.products import slices
from verifiable.claims.products.chosen import Arrangement, layout
from verifiable.claims.products.freivalds import Projection
from verifiable.claims.statistic import Deviation, Statistic, deviation, first
from verifiable.field import F61, Field
from verifiable.jaxpr.blocks import Array, Atom, Equation, Var
from verifiable.jaxpr.effects import FLOAT8, FLOATS, SPREADS, is_float

KINDS = slices.KINDS
WORD = 16
"""Bits of a word."""
COPIES = 4
"""A byte of a trace, sent and hashed for each run, counts as this many bytes of a key."""

_ROWS = 4096  # that are fingerprinted at once
_TYPES = FLOATS | FLOAT8 | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_MOVES = SPREADS | {"stop_gradient", "transpose"}


def saves(rows: int, row_bytes: int, gathered: int) -> bool:
    """Whether a lookup takes fewer bytes than its table: what it adds to every trace counts more.

    Small tables (positions, types of tokens, buckets of distances) are kept.

    Args:
      rows: of the table.
      row_bytes: of a row, in the type that is committed.
      gathered: rows that one run gathers.
    """
    return rows * (row_bytes - 8) > COPIES * gathered * row_bytes


def bits_of(x: Array) -> Array:
    """The bits of each element, with one value each for zero and NaN, as unsigned integers.

    Numbers that devices may flush to zero count as zero.
    """
    integer = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    if not is_float(x.dtype):
        return x.astype(integer)
    none = np.asarray(np.nan, x.dtype).view(integer)
    bits = lax.bitcast_convert_type(x, integer)
    bits = jnp.where((x == 0) | (subnormal(x) > 0), integer.type(0), bits)
    return jnp.where(jnp.isnan(x), none, bits)


def words_of(dtype: Any) -> int:
    """Number of words of an element."""
    return -(-8 * np.dtype(dtype).itemsize // WORD)


def fingerprints(x: Array, g: Array, field: Field = F61) -> Array:
    """`bits(x) g mod p`; runs under `jax.enable_x64`.

    Args:
      x: (rows, width).
      g: residues, (width * words, draws), the words of an element side by side.
      field: of the residues.

    Returns:
      Residues, (rows, draws).
    """
    if len(x) > _ROWS:  # in float64, the words are four to eight times as large as the table
        return lax.map(lambda row: fingerprints(row[None], g, field)[0], x, batch_size=_ROWS)
    bits, count, word = bits_of(x), words_of(x.dtype), jnp.dtype(f"uint{WORD}")
    words = [
        (bits >> bits.dtype.type(WORD * i)).astype(word).astype(jnp.float64) for i in range(count)
    ]

    def fold(limbs: Array) -> Array:
        parts = limbs.reshape(x.shape[1], count, limbs.shape[-1])
        return sum((w @ parts[:, i] for i, w in enumerate(words)), jnp.zeros(()))

    return field.apply_linear(fold, g, magnitude=int(jnp.iinfo(word).max), terms=len(g))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Form):
    """The form of a lookup; its operands are the indices, its far operand is the table.

    Attributes:
      choice: the `gather` or `dynamic_slice`.
      stored: type that is committed; elements were widened from it.
      table_layout: of the table, as (rows, width).
      out_layout: of the output, as (places, width).
    """

    mismatch: ClassVar[str] = "lookup-mismatch"
    barrier: ClassVar[bool] = False

    choice: Equation
    stored: np.dtype[Any]
    table_layout: Arrangement
    out_layout: Arrangement

    @property
    def projected(self) -> bool:
        """The table depends on parameters only."""
        return True

    @property
    def projects(self) -> Hashable:
        """The table by rows, and its type."""
        return self.table_layout, self.stored.name

    @property
    def vectors(self) -> str:
        """A set of residues for each number of words."""
        words = self.table_layout.shape[1] * words_of(self.stored)
        return f"exact/lookup/{words}"

    @property
    def copies(self) -> int:
        """The output holds elements of the table."""
        return 0

    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """None: every device looks up the same bits."""
        del rounding_dtypes
        return frozenset()

    def row_width(self, shape: tuple[int, ...]) -> int:
        """A row is tested as one."""
        del shape
        return 1

    def packed(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The output, in the type before it was widened."""
        del dtype
        return shape, self.stored

    def pack(self, out: Array) -> Array:
        """The output in that type, which holds every element."""
        return out.astype(self.stored)

    def unpack(self, claim: Array) -> Array:
        """The rows, widened; numbers that devices may flush are flushed, so none can be chosen."""
        if claim.dtype.name in FLOATS:
            claim = jnp.where(subnormal(claim) > 0, 0 * claim, claim)
        [out] = self.choice.outputs
        return claim.astype(out.dtype)

    def project(self, far: Array, yardstick: Yardstick) -> Projection:
        """The fingerprint of each row of the table."""
        table = self.table_layout.of(jnp.asarray(far)).astype(self.stored)
        return Projection(fingerprints(table, jnp.asarray(yardstick.vectors)))

    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test gathered rows; runs under `jax.enable_x64`.

        Args:
          operands: the indices, as the verifier replayed them.
          claim: what was committed.
          yardstick: with the fingerprints and their vectors.

        Returns:
          `worst` is zero or infinity; `row` counts over the places of the indices.
        """
        wrong, defined = self._wrong(operands, claim, yardstick)
        failed, true = wrong & defined, jnp.ones((), bool)
        return Statistic(
            worst=jnp.where(jnp.any(failed), jnp.inf, 0.0).astype(jnp.float64),
            row=jnp.minimum(first(failed), len(failed) - 1),
            passed=~jnp.any(failed),
            finite_claim=true,
            in_range=true,
            finite_operands=true,
            defined=~jnp.any(wrong & ~defined),
        )

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """Infinity for each wrong row; NaN is expected where devices may choose."""
        return _apart(*self._wrong(operands, claim, yardstick))

    def deviate_exactly(
        self,
        equation: Equation,
        operands: list[Array],
        far: Array | None,
        claim: Array,
        eps: float,
    ) -> Deviation:
        """The same, by the rows of the table themselves."""
        del equation, eps
        table = self.table_layout.of(jnp.asarray(far)).astype(self.stored)
        number, inside = self._picked(operands)
        rows, claimed = table[number], self.out_layout.of(claim)
        wrong = jnp.any(bits_of(rows) != bits_of(claimed), axis=-1)
        return _apart(self._filled(wrong, claimed, inside), inside | self._settled)

    def _wrong(
        self, operands: list[Array], claim: Array, yardstick: Yardstick
    ) -> tuple[Array, Array]:
        """Which rows are wrong, and of which every device has the same; (places,)."""
        number, inside = self._picked(operands)
        claimed, held = self.out_layout.of(claim), yardstick.projection.image
        found = fingerprints(claimed, jnp.asarray(yardstick.vectors))
        wrong = jnp.any(found != held[number], axis=-1)
        return self._filled(wrong, claimed, inside), inside | self._settled

    def _picked(self, operands: list[Array]) -> tuple[Array, Array]:
        number, inside = slices.picked(self.choice, operands)
        return number.reshape(-1), inside.reshape(-1)

    def _filled(self, wrong: Array, claimed: Array, inside: Array) -> Array:
        """Which rows are wrong, those of the filling among them."""
        value = slices.filling(self.choice)
        if value is None:
            return wrong
        filling = jnp.asarray(value, self.stored)
        differs = jnp.any(bits_of(claimed) != bits_of(filling), axis=-1)
        return jnp.where(inside, wrong, differs)

    @property
    def _settled(self) -> bool:
        """Whether an index beyond the table stands for the same on every device."""
        return slices.mode_of(self.choice) != GatherScatterMode.PROMISE_IN_BOUNDS


def _apart(wrong: Array, defined: Array) -> Deviation:
    zero = jnp.zeros(wrong.shape)
    distance = jnp.where(wrong, jnp.inf, 0.0)
    return deviation(jnp.where(defined, 0.0, jnp.nan), distance, distance, zero, zero + 1)


def propose(equation: Equation, view: View) -> Proposal | None:
    """Claim the rows that are looked up in a known table of parameters; see `form.Rule`."""
    [table, *indices], [out] = equation.inputs, equation.outputs
    if not (isinstance(table, Var) and view.known(table) and view.exact(table)):
        return None
    labels = slices.labels_of(equation)
    if labels is None or not out.size or table.dtype.name not in _TYPES | {"bool"}:
        return None
    chosen, width = slices.stacked(equation), [d for d in labels if isinstance(d, int)]
    if sum(table.shape[d] > 1 for d in width) > 1 and _multiplied(out, view):
        return None
    dims = [d if isinstance(d, int) else ("place", i) for i, d in enumerate(labels)]
    sizes = dict(enumerate(table.shape)) | dict(zip(dims, out.shape, strict=True))
    places = [d for d in dims if d not in width]
    table_layout = layout(range(len(table.shape)), (chosen, width), sizes)
    out_layout = layout(dims, (places, width), sizes)
    stored = _stored(table, slices.filling(equation), view)
    row_bytes = math.prod(table.shape[d] for d in width) * stored.itemsize
    rows = table_layout.shape[0] * view.graph.trips[table]
    if not saves(rows, row_bytes, out_layout.shape[0] * view.graph.trips[out]):
        return None
    form = Lookup(choice=equation, stored=stored, table_layout=table_layout, out_layout=out_layout)
    return Proposal(form=form, operands=tuple(indices), far=table)


def _multiplied(atom: Var, view: View) -> bool:
    """Whether a value is only moved on its way into a product."""
    readers: Sequence[Equation | None] = view.graph.readers.get(atom, ())
    return any(
        e.kind in ("dot_general", "ragged_dot_general")
        or (
            e.kind in _MOVES | {"convert_element_type"}
            and any(_multiplied(moved, view) for moved in e.outputs)
        )
        for e in readers
        if e is not None
    )


def _stored(table: Atom, filling: float | int | None, view: View) -> np.dtype[Any]:
    """The type that the elements of a table had before they were widened, and moved."""
    equation = view.graph.producers.get(table) if isinstance(table, Var) else None
    if equation is None or equation.kind not in _MOVES | {"convert_element_type"}:
        return table.dtype
    [before, *_] = equation.inputs
    if equation.kind == "convert_element_type" and not _widens(before.dtype, table.dtype):
        return table.dtype
    found = _stored(before, filling, view)
    return found if _holds(found, filling) else table.dtype


def _holds(dtype: np.dtype[Any], filling: float | None) -> bool:
    """Whether a type has the value that fills rows, if there is one."""
    if filling is None or math.isnan(filling):
        return True
    with np.errstate(all="ignore"):
        value = np.asarray(filling)  # A number would take the type that it is compared with.
        return bool(value.astype(dtype) == value)


def _widens(before: np.dtype[Any], after: np.dtype[Any]) -> bool:
    """Whether a cast keeps every number, and NaN."""
    if before.name not in _TYPES or is_float(before) != is_float(after):
        return False
    if not is_float(before):
        return bool(np.can_cast(before, after))
    low, high = jnp.finfo(before), jnp.finfo(after)
    return bool(low.nmant <= high.nmant and low.maxexp <= high.maxexp and low.minexp >= high.minexp)
