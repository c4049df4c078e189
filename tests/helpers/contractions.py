"""Contractions of random layout, and what they mean as plain matrix products.

`dense` is the oracle: it finds A (batch, rows, contracted), B (batch, contracted, columns) and
C (batch, rows, columns) from the definition of the primitive, in numpy, and never from the code
under test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st
from jax import lax

from verifiable.claims.contraction import Contraction
from verifiable.claims.products.product import contraction
from verifiable.jaxpr import from_jax
from verifiable.jaxpr.blocks import Equation

Array = np.ndarray
Dense = tuple[Array, Array, Array]

DRAWS = 3


def equation_of(product: Callable[..., Any], *operands: Any) -> Equation:
    """The one equation of a function of arrays or of shapes."""
    with jax.enable_x64(True):
        function, _ = from_jax.trace(product, *(from_jax.shape_dtype(x) for x in operands))
    [equation] = function.block.equations
    return equation


def contraction_of(
    product: Callable[..., Any], *operands: Any, near: int = 0
) -> Contraction | None:
    """The form of a function that is a single product."""
    return contraction(equation_of(product, *operands), near)


def matrix_form(
    rows: int, contracted: int, columns: int, dtypes: Sequence[Any] = ("float64",) * 3
) -> Contraction:
    """`A @ B` of the given sizes; types of A, B and C."""
    lhs, rhs, out = (np.dtype(d) for d in dtypes)

    def product(a: Any, b: Any) -> Any:
        return lax.dot_general(a, b, (((1,), (0,)), ((), ())), preferred_element_type=out)

    shapes = ((rows, contracted), lhs), ((contracted, columns), rhs)
    form = contraction_of(product, *(jax.ShapeDtypeStruct(*s) for s in shapes))
    assert form is not None
    return form


def conv(dims: int = 2, **parameters: Any) -> Any:
    """The equation of a small convolution of 4 images and 4 features."""
    spatial = (5,) * dims
    groups = parameters.get("feature_group_count", 1)
    operands = np.zeros((4, 4, *spatial)), np.zeros((8, 4 // groups, *(2,) * dims))

    def product(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(x, kernel, (1,) * dims, "VALID", **parameters)

    return equation_of(product, *operands)


@dataclass(frozen=True, kw_only=True)
class DotCase:
    """A `dot_general`: sizes of its groups of dimensions, and where these stand in the operands.

    `lhs` and `rhs` list for each axis the group it belongs to and its place in that group, such
    as `("batch", 0)`.
    """

    sizes: dict[str, tuple[int, ...]]
    lhs: tuple[tuple[str, int], ...]
    rhs: tuple[tuple[str, int], ...]
    near: int

    def shape(self, side: int) -> tuple[int, ...]:
        return tuple(self.sizes[group][i] for group, i in (self.lhs, self.rhs)[side])

    def axes(self, side: int, group: str) -> tuple[int, ...]:
        """Axes of a group, in the order of the group."""
        labels = (self.lhs, self.rhs)[side]
        return tuple(labels.index((group, i)) for i in range(len(self.sizes[group])))

    def free(self, side: int) -> tuple[int, ...]:
        """Free axes, in the operand's own order, which is that of the output."""
        group = ("left", "right")[side]
        return tuple(i for i, (g, _) in enumerate((self.lhs, self.rhs)[side]) if g == group)

    def product(self, dtype: Any = None) -> Callable[[Any, Any], Any]:
        contracting = tuple(self.axes(side, "contracted") for side in (0, 1))
        batching = tuple(self.axes(side, "batch") for side in (0, 1))

        def run(a: Any, b: Any) -> Any:
            return lax.dot_general(
                a, b, (contracting, batching), precision="highest", preferred_element_type=dtype
            )

        return run

    def dense(self, lhs: Array, rhs: Array, out: Array) -> Dense:
        """A, B and C, with the operand `near` as A."""
        operands = (lhs, rhs)
        near, far = self.near, 1 - self.near
        batch = math.prod(self.sizes["batch"])
        contracted = math.prod(self.sizes["contracted"])
        rows = math.prod(self.shape(near)[d] for d in self.free(near))
        columns = math.prod(self.shape(far)[d] for d in self.free(far))
        order = (*self.axes(near, "batch"), *self.free(near), *self.axes(near, "contracted"))
        a = operands[near].transpose(order).reshape(batch, rows, contracted)
        order = (*self.axes(far, "batch"), *self.axes(far, "contracted"), *self.free(far))
        b = operands[far].transpose(order).reshape(batch, contracted, columns)
        if near == 0:
            return a, b, out.reshape(batch, rows, columns)
        return a, b, out.reshape(batch, columns, rows).transpose(0, 2, 1)

    def far_from_dense(self, b: Array) -> Array:
        """The far operand whose dense form is `b`."""
        far = 1 - self.near
        order = (*self.axes(far, "batch"), *self.axes(far, "contracted"), *self.free(far))
        return b.reshape([self.shape(far)[d] for d in order]).transpose(np.argsort(order))

    def projected(self, image: Array) -> Array:
        """What `project` returns as (batch, contracted, draws)."""
        sizes = math.prod(self.sizes["batch"]), math.prod(self.sizes["contracted"])
        return image.reshape(*sizes, image.shape[-1])

    def unprojected(self, image: Array) -> Array:
        """The inverse of `projected`."""
        sizes = (*self.sizes["batch"], *self.sizes["contracted"])
        return image.reshape(*sizes, image.shape[-1])


@st.composite
def dot_cases(draw: st.DrawFn, max_side: int = 3) -> DotCase:
    """`dot_general` with batch, contracting and free dimensions, each up to two, in any order."""
    sides = st.lists(st.integers(1, max_side), max_size=2).map(tuple)
    sizes = {group: draw(sides) for group in ("batch", "contracted", "left", "right")}

    def labels(*groups: str) -> tuple[tuple[str, int], ...]:
        every = [(group, i) for group in groups for i in range(len(sizes[group]))]
        return tuple(draw(st.permutations(every)))

    return DotCase(
        sizes=sizes,
        lhs=labels("batch", "contracted", "left"),
        rhs=labels("batch", "contracted", "right"),
        near=draw(st.integers(0, 1)),
    )


@dataclass(frozen=True, kw_only=True)
class ConvCase:
    """A `conv_general_dilated`; the specs say where batch or output features, features, and the
    spatial dimensions stand."""

    batch: int
    groups: int
    inputs: int  # a group
    columns: int  # output features a group
    extent: tuple[int, ...]
    taps: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    specs: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    near: int = 0

    def shape(self, side: int) -> tuple[int, ...]:
        sizes = (
            (self.batch, self.groups * self.inputs, *self.extent),
            (self.groups * self.columns, self.inputs, *self.taps),
        )[side]
        spec = self.specs[side]
        return tuple(sizes[spec.index(d)] for d in range(len(spec)))

    @property
    def positions(self) -> tuple[int, ...]:
        """Spatial shape of the output."""
        found: list[int] = []
        for i, n in enumerate(self.extent):
            length = (n - 1) * self.lhs_dilation[i] + 1 + sum(self.padding[i])
            window = (self.taps[i] - 1) * self.rhs_dilation[i] + 1
            found.append(max(length - window, -1) // self.strides[i] + 1)
        return tuple(found)

    def product(self, dtype: Any = None) -> Callable[[Any, Any], Any]:
        def run(x: Any, kernel: Any) -> Any:
            return lax.conv_general_dilated(
                x,
                kernel,
                self.strides,
                self.padding,
                self.lhs_dilation,
                self.rhs_dilation,
                dimension_numbers=lax.ConvDimensionNumbers(*self.specs),
                feature_group_count=self.groups,
                precision="highest",
                preferred_element_type=dtype,
            )

        return run

    def source(self, axis: int, position: int, tap: int) -> int | None:
        """Where a tap reads the input along one axis; None in padding and between elements."""
        index = position * self.strides[axis] + tap * self.rhs_dilation[axis]
        index -= self.padding[axis][0]
        step = self.lhs_dilation[axis]
        if index % step or not 0 <= index // step < self.extent[axis]:
            return None
        return index // step

    def dense(self, lhs: Array, rhs: Array, out: Array) -> Dense:
        """A over groups, with a row for each image and output position."""
        x = lhs.transpose(self.specs[0]).reshape(self.batch, self.groups, self.inputs, *self.extent)
        taps = list(itertools.product(*map(range, self.taps)))
        positions = list(itertools.product(*map(range, self.positions)))
        a = np.zeros((self.groups, self.batch, len(positions), len(taps), self.inputs), lhs.dtype)
        for (p, position), (t, tap) in itertools.product(enumerate(positions), enumerate(taps)):
            where = [
                self.source(i, *pair) for i, pair in enumerate(zip(position, tap, strict=True))
            ]
            if None not in where:
                a[:, :, p, t] = x[:, :, :, *where].transpose(1, 0, 2)
        b = rhs.transpose(self.specs[1]).reshape(self.groups, self.columns, self.inputs, len(taps))
        c = out.transpose(self.specs[2]).reshape(self.batch, self.groups, self.columns, -1)
        return (
            a.reshape(self.groups, self.batch * len(positions), len(taps) * self.inputs),
            b.transpose(0, 3, 2, 1).reshape(self.groups, len(taps) * self.inputs, self.columns),
            c.transpose(1, 0, 3, 2).reshape(self.groups, -1, self.columns),
        )

    def far_from_dense(self, b: Array) -> Array:
        """The kernel whose dense form is `b`."""
        kernel = b.reshape(self.groups, math.prod(self.taps), self.inputs, self.columns)
        kernel = kernel.transpose(0, 3, 2, 1)
        moved = kernel.reshape(self.groups * self.columns, self.inputs, *self.taps)
        return moved.transpose(np.argsort(self.specs[1]))

    def projected(self, image: Array) -> Array:
        """What `project` returns, (taps, groups, inputs, draws), as (batch, contracted, draws)."""
        return image.transpose(1, 0, 2, 3).reshape(self.groups, -1, image.shape[-1])

    def unprojected(self, image: Array) -> Array:
        """The inverse of `projected`."""
        shaped = image.reshape(self.groups, -1, self.inputs, image.shape[-1])
        return shaped.transpose(1, 0, 2, 3)


@st.composite
def conv_cases(draw: st.DrawFn) -> ConvCase:
    """Convolutions in one to three dimensions with everything that the primitive offers."""
    dims = draw(st.integers(1, 3))

    def each(strategy: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        return tuple(draw(strategy) for _ in range(dims))

    case = ConvCase(
        batch=draw(st.integers(1, 2)),
        groups=draw(st.integers(1, 3)),
        inputs=draw(st.integers(1, 2)),
        columns=draw(st.integers(1, 3)),
        extent=each(st.integers(3, 5)),
        taps=each(st.integers(1, 3)),
        strides=each(st.integers(1, 3)),
        padding=each(st.tuples(st.integers(-1, 2), st.integers(-1, 2))),
        lhs_dilation=each(st.integers(1, 3)),
        rhs_dilation=each(st.integers(1, 2)),
        specs=tuple(tuple(draw(st.permutations(range(dims + 2)))) for _ in range(3)),  # type: ignore[arg-type]
    )
    # An output without positions is no claim.
    padding = tuple(
        (low, high + (0 if n else 5))
        for (low, high), n in zip(case.padding, case.positions, strict=True)
    )
    return ConvCase(**{**vars(case), "padding": padding})


Case = DotCase | ConvCase


def form_of(case: Case, dtype: Any = np.float64) -> Any:
    shapes = [jax.ShapeDtypeStruct(case.shape(side), dtype) for side in (0, 1)]
    return contraction_of(case.product(), *shapes, near=case.near)


def assert_close(got: Any, want: np.ndarray) -> None:
    """Equal to 1e-12 of the largest element, with equal shapes."""
    assert got.shape == want.shape
    assert np.max(np.abs(got - want), initial=0) <= 1e-12 * np.max(np.abs(want), initial=1e-300)


def check_maps(case: Case, seed: int) -> None:
    """Hold the linear maps of a contraction to its dense form."""
    rng = np.random.default_rng(seed)
    form = form_of(case)
    lhs, rhs = (rng.standard_normal(case.shape(side)) for side in (0, 1))
    near, far = ((lhs, rhs), (rhs, lhs))[case.near]
    g = rng.standard_normal((form.columns, DRAWS))
    values = rng.standard_normal((form.batch, form.contracted, 1))
    weights = rng.standard_normal((form.batch, form.columns))

    def maps(lhs: Any, rhs: Any, near: Any, far: Any) -> dict[str, Any]:
        out = case.product()(lhs, rhs)
        projected = form.project(far, g)
        return {
            "out": out,
            "projected": projected,
            "applied": form.apply(near, projected),
            "folded": form.fold(out, g),
            "near_sums": form.near_sums(near, case.unprojected(values)),
            "out_sums": form.out_sums(out),
            "column_sums": form.column_sums(far),
            "scaled_far": form.scale_far(far, weights),
            "scaled_out": form.scale_out(out, weights),
        }

    with jax.enable_x64(True):
        got = jax.tree.map(np.asarray, jax.jit(maps)(lhs, rhs, near, far))
    a, b, c = case.dense(lhs, rhs, got["out"])
    assert (form.batch, form.rows, form.contracted, form.columns) == (*a.shape, c.shape[2])
    assert_close(c, a @ b)  # the oracle itself
    assert_close(case.projected(got["projected"]), b @ g)
    # The identity that the whole check stands on, with the layout that the two sides share.
    assert got["applied"].shape == got["folded"].shape == (*got["out_sums"].shape, DRAWS)
    assert_close(got["applied"], got["folded"])
    assert_close(got["applied"].reshape(a.shape[0], a.shape[1], DRAWS), a @ (b @ g))
    assert_close(got["near_sums"].reshape(a.shape[:2]), (a @ values)[..., 0])
    assert got["near_sums"].shape == got["out_sums"].shape
    assert_close(got["out_sums"].reshape(a.shape[:2]), c.sum(-1))
    assert_close(got["column_sums"], b.sum(1))
    assert_close(got["scaled_far"], case.far_from_dense(b * weights[:, None]))
    assert_close(case.dense(lhs, rhs, got["scaled_out"])[2], c * weights[:, None])
