"""Claims of some rows: what was committed of a few indices along an axis, tested by itself.

A test looks at each row alone, so the indices of an audit can be taken out of operands and claim,
and tested as a smaller claim of the same kind, with the limit of the whole. `TABLE` lists the kinds
whose tests do not mix what lies along an axis; claims of other kinds are tested whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from verifiable.claims.cut import CutForm
from verifiable.claims.decisions.decision import Comparison, Sign
from verifiable.claims.form import Form
from verifiable.claims.lookup import Lookup
from verifiable.claims.products import slices
from verifiable.claims.products.biased import BiasedProduct
from verifiable.claims.products.dot_general import DotGeneral
from verifiable.claims.products.product import Product
from verifiable.claims.roundings.axes import LAST
from verifiable.claims.roundings.rounding import Rounding


class RowSubset(NamedTuple):
    """A claim of some indices along an axis of its output.

    Attributes:
      form: of the smaller claim.
      near: the axis of the operands along which the same indices lie.
      rows: the axes of the output over which rows are counted, in order.
    """

    form: Form
    near: int
    rows: tuple[int, ...]

    def numbers(
        self, shape: tuple[int, ...], axis: int, indices: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, Any]:
        """The rows of the smaller claim, as the whole claim counts them.

        Args:
          shape: of the whole output.
          axis: along which the indices are.
          indices: int (size,).
        """
        lengths = [shape[d] for d in self.rows]
        every = np.arange(math.prod(lengths)).reshape(lengths)
        return every.take(indices, axis=self.rows.index(axis)).reshape(-1)


Rule = Callable[[Any, tuple[int, ...], int, int], RowSubset | None]


def row_subset(form: Form, shape: tuple[int, ...], axis: int, size: int) -> RowSubset | None:
    """The claim of some indices along an axis of its output; None if it is tested whole.

    Args:
      form: of the whole claim.
      shape: of its output.
      axis: of the output.
      size: number of indices.
    """
    rule = TABLE.get(type(form))
    return None if rule is None else rule(form, shape, axis, size)


def _product(form: Product, shape: tuple[int, ...], axis: int, size: int) -> RowSubset | None:
    if not isinstance(form.maps, DotGeneral):
        return None
    found = form.maps.of_rows(axis, size)
    if found is None:
        return None
    maps, near, rows = found
    return RowSubset(replace(form, maps=maps), near, rows)


def _lookup(form: Lookup, shape: tuple[int, ...], axis: int, size: int) -> RowSubset | None:
    labels = slices.labels_of(form.choice)
    if labels is None or form.choice.kind != "gather":
        return None
    if form.choice.params["dimension_numbers"].operand_batching_dims:
        return None  # the table has these rows too
    rows = tuple(d for d, label in enumerate(labels) if not isinstance(label, int))
    if axis not in rows or not isinstance(labels[axis], str):
        return None
    near = sum(isinstance(label, str) for label in labels[:axis])
    full, place = list(form.out_layout.full), form.out_layout.dims[axis]
    count = form.out_layout.shape[0] // shape[axis] * size
    full[place] = size
    part = replace(form.out_layout, full=tuple(full), shape=(count, *form.out_layout.shape[1:]))
    return RowSubset(replace(form, out_layout=part), near, rows)


def _rounding(form: Rounding, shape: tuple[int, ...], axis: int, size: int) -> RowSubset | None:
    # Glue that is followed has the shapes of whole values.
    alone = form.origin is None and form.ways == (LAST,)
    return _elements(form, shape, axis) if alone else None


def _decision(
    form: Comparison | Sign, shape: tuple[int, ...], axis: int, size: int
) -> RowSubset | None:
    if any(origin is not None for origin in form.origins):
        return None
    part = (*shape[:axis], size, *shape[axis + 1 :])
    return _elements(replace(form, shape=part), shape, axis)


def _elements(form: Form, shape: tuple[int, ...], axis: int) -> RowSubset | None:
    """Claims of elements, whose rows are along the last axis."""
    last = len(shape) - 1
    return RowSubset(form, axis, tuple(range(last))) if axis < last else None


TABLE: Mapping[type[Form], Rule] = {
    Product: _product,
    BiasedProduct: _product,
    Lookup: _lookup,
    Rounding: _rounding,
    CutForm: _rounding,
    Comparison: _decision,
    Sign: _decision,
}
