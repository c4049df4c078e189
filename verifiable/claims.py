"""The rule table: which primitives become claims, and what rounding does in all the others.

A contraction `C = A B` is a claim: its output is committed and tested instead of recomputed. One
operand, `far`, is projected on random vectors over its free dimensions; the other, `near`, is
applied to the projection:

    out(C, G) = near(A, far(B, G))        for every G of shape (columns, draws)

The three maps are linear, so they serve floats (weighted Gaussian G) and integers (G uniform mod
p) alike. `dot_general` and `conv_general_dilated` both have this form; a new kind of claim is a
new entry in `contractions`.

Everything else is glue, which the verifier replays. For a value that two honest devices compute
with different rounding, an equation is either *exact* (it moves or selects values), *continuous*
(a small difference stays small), *narrow* (a cast to fewer digits: a difference becomes one in the
last of these), a *step* (`round`, comparisons, `argmax`, casts to integers: a difference in the
last bit may flip the result) or *unknown*: what no table names may round, and may be
discontinuous. (`is_finite` is a comparison with the largest number, which no honest value comes
close to.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.interpreter import Array, Equation

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})

EXACT = frozenset(
    """
    abs and broadcast_in_dim clamp clz concatenate copy copy_p cummax cummin device_put
    dynamic_slice dynamic_update_slice expand_dims gather imag iota is_finite max min neg not
    opt_barrier optimization_barrier or pad real reduce_and reduce_max reduce_min reduce_or
    reduce_window_max reduce_window_min reduce_xor reshape rev scatter select_n slice split squeeze
    stack stop_gradient tile transpose unstack xor
    """.split()
)

CONTINUOUS = frozenset(
    """
    acos acosh add add_any asin asinh atan atanh bessel_i0e bessel_i1e cbrt cholesky complex
    conj conv_general_dilated cos cosh cumlogsumexp cumprod cumsum digamma div dot_general erf
    erf_inv erfc exp exp2 expm1 fft integer_pow lgamma log log1p logistic mul pow
    ragged_dot_general reduce_prod reduce_sum reduce_window_sum regularized_incomplete_beta
    rsqrt scatter-add scatter_add scatter-mul scatter_mul sin sinh sqrt square sub tan tanh
    triangular_solve
    """.split()
)

# Discontinuous, but what they return is exact.
STEPS = frozenset(
    """
    argmax argmin ceil convert_element_type eq floor ge gt le lt ne reduce_precision round sign sort
    top_k
    """.split()
)

# Cheap enough to compute again from smaller inputs rather than to keep the result in a key.
REBUILT = (EXACT | CONTINUOUS) - frozenset(
    """
    cholesky conv_general_dilated dot_general fft gather ragged_dot_general scatter scatter-add
    scatter-mul scatter_add scatter_mul sort triangular_solve
    """.split()
) | frozenset(
    """
    convert_element_type eq floor ge gt le lt ne random_bits random_fold_in random_seed
    random_split random_unwrap random_wrap rem round shift_left shift_right_arithmetic
    shift_right_logical sign threefry2x32
    """.split()
)


def is_float(dtype: Any) -> bool:
    """Whether a type is a real or complex floating-point type."""
    return jnp.issubdtype(dtype, np.inexact)


def grain(dtype: Any) -> str:
    """The type whose rounding a value of a floating-point type goes through: its component's."""
    return str(jnp.finfo(dtype).dtype.name)


def effect_on_rounding(equation: Equation) -> tuple[str, ...]:
    """`exact`, `continuous`, `narrow`, `step` or `unknown`, for each output."""
    kind, outputs = equation.kind, equation.outputs
    if kind == "convert_element_type":
        effect = _conversion(equation.inputs[0].dtype, outputs[0].dtype)
    elif kind == "top_k":
        return ("exact", "step")
    elif kind in EXACT or (kind == "sort" and len(outputs) == 1):
        effect = "exact"
    elif kind in CONTINUOUS:
        effect = "continuous"
    else:
        effect = "step" if kind in STEPS else "unknown"
    return (effect,) * len(outputs)


def _conversion(source: np.dtype[Any], target: np.dtype[Any]) -> str:
    if not is_float(source):
        return "exact"
    if not is_float(target):
        return "step"
    from_, to = jnp.finfo(source), jnp.finfo(target)
    widens = to.nmant >= from_.nmant and to.maxexp >= from_.maxexp and to.minexp <= from_.minexp
    if widens:
        return "exact"
    return "narrow" if np.dtype(target).name in FLOATS else "step"


def work(equation: Equation) -> int:
    """Arithmetic operations of a first-order equation: 2mnk for a contraction, else its size."""
    form = contraction(equation)
    if form is not None:
        return form.work
    moves = equation.kind in EXACT and equation.kind not in ("max", "min", "reduce_max")
    return 0 if moves else max(v.size for v in (*equation.inputs, *equation.outputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contraction(ABC):
    """`C = A B` as the three linear maps of the module's docstring.

    Attributes:
      near: index (0 or 1) of the operand that is applied; the other, `far`, is projected.
      shapes: shapes of the operands and of the output.
      dtypes: types of the operands and of the output.
      batch: number of independent products.
      rows: number of rows of one product; a row is what one test decides on.
      contracted: length of the sums.
      columns: length of a row.
    """

    near: int
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[np.dtype[Any], np.dtype[Any], np.dtype[Any]]
    batch: int
    rows: int
    contracted: int
    columns: int

    @property
    def far(self) -> int:
        """Index of the operand that is projected."""
        return 1 - self.near

    @property
    def tests(self) -> int:
        """Number of rows tested."""
        return self.batch * self.rows

    @property
    def work(self) -> int:
        """Arithmetic operations of the product itself."""
        return 2 * self.batch * self.rows * self.contracted * self.columns

    @property
    def exact(self) -> bool:
        """Whether it is an integer product."""
        return not is_float(self.dtypes[2])

    @property
    def eps_types(self) -> frozenset[str]:
        """Types whose rounding the product of given operands goes through; none for integers."""
        return frozenset() if self.exact else frozenset(d.name for d in self.dtypes)

    @property
    def magnitude(self) -> int:
        """Largest magnitude that an integer accumulator can reach, from the operands' types."""
        return self.contracted * extent(self.dtypes[0]) * extent(self.dtypes[1])

    def vectors(self, *, far_known: bool) -> str:
        """Name of the set of random vectors to use: one set a size serves all of its kind.

        Parameters and activations have separate sets, since only the latter vary with the job.
        """
        source = "parameters" if far_known else "activations"
        return f"{'exact' if self.exact else 'float'}/{source}/{self.columns}"

    @abstractmethod
    def project(self, far: Array, vectors: Array) -> Array:
        """`B G`: far operand, (columns, draws) -> (batch..., contracted..., draws)."""

    @abstractmethod
    def apply(self, near: Array, projected: Array) -> Array:
        """`A (B G)`: near operand, projection -> (batch..., rows..., draws)."""

    @abstractmethod
    def fold(self, out: Array, vectors: Array) -> Array:
        """`C G`: output, (columns, draws) -> (batch..., rows..., draws)."""

    @abstractmethod
    def near_sums(self, near: Array, values: Array) -> Array:
        """Sums over the contracted dimensions of a near operand times values there.

        The values are (batch..., contracted..., 1), as `project` returns them; the result is
        (batch..., rows...). The same as `apply`, but never keeps the products.
        """

    @abstractmethod
    def out_sums(self, out: Array) -> Array:
        """Sums over the columns of an output -> (batch..., rows...)."""

    @abstractmethod
    def column_sums(self, far: Array) -> Array:
        """Sums over the contracted dimensions of the far operand -> (batch, columns)."""

    @abstractmethod
    def scale_far(self, far: Array, weights: Array) -> Array:
        """Far operand with its columns scaled by (batch, columns)."""

    @abstractmethod
    def scale_out(self, out: Array, weights: Array) -> Array:
        """Output with its columns scaled by (batch, columns)."""

    @abstractmethod
    def over_rows(self, values: Array) -> Array:
        """Values of the rows, (batch..., rows...), spread over the output's columns."""

    @abstractmethod
    def row_axes(self) -> tuple[int, int, int] | None:
        """Axes of the near operand, the output, and (batch..., rows...) that hold the same rows.

        The longest such; None if there is no dimension of rows that can be cut.
        """

    def cut(self, size: int) -> Self:
        """The contraction of `size` of the rows along `row_axes`.

        Raises:
          ValueError: there are no such axes.
        """
        axes = self.row_axes()
        if axes is None:
            raise ValueError("this contraction has no rows that can be cut")
        near, out = list(self.shapes[self.near]), list(self.shapes[2])
        rows = self.rows // out[axes[1]] * size
        near[axes[0]] = out[axes[1]] = size
        shapes = [tuple(near)] * 2 + [tuple(out)]
        shapes[self.far] = self.shapes[self.far]
        return replace(self, shapes=(shapes[0], shapes[1], shapes[2]), rows=rows)

    def contracted_axes(self) -> dict[int, int]:
        """Axes of the near operand that sums run over, and those of a projection for the same.

        Sums over a part of such an axis add up; none if there is no axis that can be cut.
        """
        return {}

    def cut_contracted(self, axis: int, size: int) -> Self:
        """The contraction over `size` elements along an axis of `contracted_axes` of both operands.

        Raises:
          ValueError: there is no such axis.
        """
        raise ValueError(f"axis {axis} of this contraction cannot be cut")

    def check_cost(self, draws: int, *, far_known: bool) -> int:
        """Operations of the check, in units of those of the product.

        Measured on CPUs: each element of the operands and the output costs conversion to double
        precision, its part of a norm, and `draws` products; about four times as much where the
        product is a batch of small ones. One of two unknown operands, as in attention, has to save
        some 400 operations an element, however few the draws: replayed in tiles of a few heads,
        neither operands nor scores are ever whole.
        """
        elements = math.prod(self.shapes[self.near]) + math.prod(self.shapes[2])
        each = 2 * draws + 16
        if far_known:
            return elements * each * (4 if self.batch > 1 else 1)
        elements += math.prod(self.shapes[self.far])
        return elements * (2 * draws + 400 if self.batch > 1 else each)


def extent(dtype: np.dtype[Any]) -> int:
    """Largest magnitude of an integer type."""
    info = np.iinfo(dtype)
    return max(-int(info.min), int(info.max))


@dataclass(frozen=True, slots=True, kw_only=True)
class DotGeneral(Contraction):
    """`lax.dot_general` with any batch, contracting and free dimensions."""

    contracting: tuple[tuple[int, ...], tuple[int, ...]]
    batching: tuple[tuple[int, ...], tuple[int, ...]]

    def _free(self, side: int) -> tuple[int, ...]:
        used = {*self.contracting[side], *self.batching[side]}
        return tuple(d for d in range(len(self.shapes[side])) if d not in used)

    def _sizes(self, side: int, dims: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.shapes[side][d] for d in dims)

    def _out_axes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Positions of the batch, row and column dimensions in the output."""
        batch = len(self.batching[0])
        left = batch + len(self._free(0))
        axes = (tuple(range(batch, left)), tuple(range(left, len(self.shapes[2]))))
        return tuple(range(batch)), axes[self.near], axes[self.far]

    def _far_layout(self, far: Array) -> Array:
        """Far operand as (batch..., contracted..., columns...)."""
        side = self.far
        order = (*self.batching[side], *self.contracting[side], *self._free(side))
        return lax.transpose(far, order) if order != tuple(range(len(order))) else far

    def project(self, far: Array, vectors: Array) -> Array:
        """See `Contraction.project`."""
        free = self._free(self.far)
        kept = (*self.batching[self.far], *self.contracting[self.far])
        shaped = vectors.reshape(*self._sizes(self.far, free), vectors.shape[-1])
        out = _dot(far, shaped, (free, tuple(range(len(free)))), ((), ()))
        # `dot_general` leaves the other dimensions in the operand's own order.
        position = {d: i for i, d in enumerate(sorted(kept))}
        order = (*(position[d] for d in kept), len(kept))
        return lax.transpose(out, order) if order != tuple(range(len(order))) else out

    def apply(self, near: Array, projected: Array) -> Array:
        """See `Contraction.apply`."""
        batch = len(self.batching[0])
        contracted = tuple(range(batch, batch + len(self.contracting[0])))
        dims = (self.contracting[self.near], contracted)
        return _dot(near, projected, dims, (self.batching[self.near], tuple(range(batch))))

    def fold(self, out: Array, vectors: Array) -> Array:
        """See `Contraction.fold`."""
        _, _, columns = self._out_axes()
        sizes = tuple(self.shapes[2][d] for d in columns)
        shaped = vectors.reshape(*sizes, vectors.shape[-1])
        return _dot(out, shaped, (columns, tuple(range(len(columns)))), ((), ()))

    def near_sums(self, near: Array, values: Array) -> Array:
        """See `Contraction.near_sums`."""
        return self.contracted_sums(self.scale_near(near, values))

    def contracted_sums(self, near: Array) -> Array:
        """Sums over the contracted dimensions of a near operand -> (batch..., rows...)."""
        side = self.near
        sums = jnp.sum(near, axis=self.contracting[side])
        # What is left stands in the operand's own order; the batch dimensions come first.
        kept = (*self.batching[side], *self._free(side))
        position = {d: i for i, d in enumerate(sorted(kept))}
        return jnp.transpose(sums, [position[d] for d in kept])

    def scale_near(self, near: Array, values: Array) -> Array:
        """Near operand scaled by values over the contracted dimensions, as `near_sums` has them."""
        dims = (*self.batching[self.near], *self.contracting[self.near])
        return near * _spread(values, self.shapes[self.near], dims)

    def out_sums(self, out: Array) -> Array:
        """See `Contraction.out_sums`."""
        return jnp.sum(out, axis=self._out_axes()[2])

    def column_sums(self, far: Array) -> Array:
        """See `Contraction.column_sums`."""
        out = jnp.sum(self._far_layout(far), axis=self._contracted_axes())
        return out.reshape(self.batch, self.columns)

    def _contracted_axes(self) -> tuple[int, ...]:
        batch = len(self.batching[0])
        return tuple(range(batch, batch + len(self.contracting[0])))

    def scale_far(self, far: Array, weights: Array) -> Array:
        """See `Contraction.scale_far`."""
        free = self._free(self.far)
        dims = (*self.batching[self.far], *free)
        return far * _spread(weights, self.shapes[self.far], dims)

    def scale_out(self, out: Array, weights: Array) -> Array:
        """See `Contraction.scale_out`."""
        batch, _, columns = self._out_axes()
        return out * _spread(weights, self.shapes[2], (*batch, *columns))

    def over_rows(self, values: Array) -> Array:
        """See `Contraction.over_rows`."""
        batch, rows, _ = self._out_axes()
        return _spread(values, self.shapes[2], (*batch, *rows))

    def row_axes(self) -> tuple[int, int, int] | None:
        """See `Contraction.row_axes`."""
        free = self._free(self.near)
        if not free:
            return None
        i = max(range(len(free)), key=lambda i: self.shapes[self.near][free[i]])
        return free[i], self._out_axes()[1][i], len(self.batching[0]) + i

    def contracted_axes(self) -> dict[int, int]:
        """See `Contraction.contracted_axes`."""
        return dict(zip(self.contracting[self.near], self._contracted_axes(), strict=True))

    def cut_contracted(self, axis: int, size: int) -> Self:
        """See `Contraction.cut_contracted`."""
        if axis not in self.contracting[self.near]:
            raise ValueError(f"axis {axis} of this contraction cannot be cut")
        far = self.contracting[self.far][self.contracting[self.near].index(axis)]
        shapes = list(self.shapes)
        for side, d in ((self.near, axis), (self.far, far)):
            shapes[side] = (*shapes[side][:d], size, *shapes[side][d + 1 :])
        contracted = self.contracted // self.shapes[self.near][axis] * size
        return replace(self, shapes=(shapes[0], shapes[1], shapes[2]), contracted=contracted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Contraction):
    """`lax.conv_general_dilated` with a kernel that is known: rows are output positions.

    A feature group is a product of its own, and counts as a batch of it.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    specs: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    groups: int

    def _taps(self) -> tuple[int, ...]:
        return tuple(self.shapes[1][d] for d in self.specs[1][2:])

    def _kernel(self, far: Array) -> Array:
        """Kernel as (groups, columns, inputs, taps)."""
        moved = lax.transpose(far, self.specs[1])
        return moved.reshape(self.groups, self.columns, moved.shape[1], math.prod(self._taps()))

    def project(self, far: Array, vectors: Array) -> Array:
        """-> (taps, groups, inputs, draws); see `Contraction.project`."""
        out = _dot(self._kernel(far), vectors, ((1,), (0,)), ((), ()))
        return lax.transpose(out, (2, 0, 1, 3))

    def apply(self, near: Array, projected: Array) -> Array:
        """-> (groups, n, positions..., draws); see `Contraction.apply`."""
        spec = self.specs[0]
        x = lax.transpose(near, (spec[0], *spec[2:], spec[1]))
        interior = [d - 1 for d in self.lhs_dilation]
        edges = [(low, high, gap) for (low, high), gap in zip(self.padding, interior, strict=True)]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
        x = x.reshape(*x.shape[:-1], self.groups, -1)
        out_spec = self.specs[2]
        extent = [self.shapes[2][d] for d in out_spec[2:]]
        window = [(n - 1) * s + 1 for n, s in zip(extent, self.strides, strict=True)]
        steps = (1, *self.strides, 1, 1)
        grid = np.indices(self._taps()).reshape(len(window), -1).T * np.array(self.rhs_dilation)
        starts = np.concatenate(
            [np.zeros((len(grid), 1)), grid, np.zeros((len(grid), 2))], axis=1
        ).astype(np.int32)
        sizes = (x.shape[0], *window, *x.shape[-2:])
        axis = len(window) + 1

        def tap(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
            start, kernel = item
            piece = lax.dynamic_slice(x, tuple(start), sizes)
            piece = lax.slice(piece, (0,) * piece.ndim, piece.shape, steps)
            return total + _dot(piece, kernel, ((axis + 1,), (1,)), ((axis,), (0,))), None

        shape = (self.groups, x.shape[0], *extent, projected.shape[-1])
        zero = jnp.zeros(shape, projected.dtype)
        return lax.scan(tap, zero, (starts, projected))[0]

    def fold(self, out: Array, vectors: Array) -> Array:
        """-> (groups, n, positions..., draws); see `Contraction.fold`."""
        folded = _dot(self._out(out), vectors, ((out.ndim,), (0,)), ((), ()))
        return jnp.moveaxis(folded, -2, 0)

    def _out(self, out: Array) -> Array:
        """Output as (n, positions..., groups, columns)."""
        spec = self.specs[2]
        moved = lax.transpose(out, (spec[0], *spec[2:], spec[1]))
        return moved.reshape(*moved.shape[:-1], self.groups, self.columns)

    def near_sums(self, near: Array, values: Array) -> Array:
        """See `Contraction.near_sums`."""
        return self.apply(near, values)[..., 0]

    def out_sums(self, out: Array) -> Array:
        """See `Contraction.out_sums`."""
        return jnp.moveaxis(jnp.sum(self._out(out), axis=-1), -1, 0)

    def column_sums(self, far: Array) -> Array:
        """See `Contraction.column_sums`."""
        return jnp.sum(self._kernel(far), axis=(2, 3))

    def scale_far(self, far: Array, weights: Array) -> Array:
        """See `Contraction.scale_far`."""
        return far * _spread(weights.reshape(1, -1), self.shapes[1], (self.specs[1][0],))

    def scale_out(self, out: Array, weights: Array) -> Array:
        """See `Contraction.scale_out`."""
        return out * _spread(weights.reshape(1, -1), self.shapes[2], (self.specs[2][1],))

    def over_rows(self, values: Array) -> Array:
        """See `Contraction.over_rows`."""
        spec = self.specs[2]
        wide = jnp.repeat(jnp.moveaxis(values, 0, -1), self.columns, axis=-1)
        # (n, positions..., features) to the output's own order.
        return lax.transpose(wide, np.argsort((spec[0], *spec[2:], spec[1])))

    def row_axes(self) -> tuple[int, int, int] | None:
        """The examples; see `Contraction.row_axes`."""
        return self.specs[0][0], self.specs[2][0], 1


def _spread(weights: Array, shape: tuple[int, ...], dims: tuple[int, ...]) -> Array:
    """Values over `dims`, in that order, broadcast to `shape`."""
    shaped = weights.reshape([shape[d] for d in dims])
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    shaped = jnp.transpose(shaped, order)
    return lax.broadcast_in_dim(shaped, shape, tuple(sorted(dims)))


def _dot(
    a: Array,
    b: Array,
    contracting: tuple[tuple[int, ...], tuple[int, ...]],
    batching: tuple[tuple[int, ...], tuple[int, ...]],
) -> Array:
    dims = (contracting, batching)
    return lax.dot_general(a, b, dims, precision=lax.Precision.HIGHEST)


def _dot_general(equation: Equation, near: int) -> Contraction | None:
    (lhs, rhs), out = equation.inputs, equation.outputs[0]
    (lc, rc), (lb, rb) = equation.params["dimension_numbers"]
    form = DotGeneral(
        near=near,
        shapes=(lhs.shape, rhs.shape, out.shape),
        dtypes=(lhs.dtype, rhs.dtype, out.dtype),
        batch=math.prod(lhs.shape[d] for d in lb),
        contracted=math.prod(lhs.shape[d] for d in lc),
        rows=_free_size((lhs, rhs)[near].shape, ((lc, lb), (rc, rb))[near]),
        columns=_free_size((rhs, lhs)[near].shape, ((rc, rb), (lc, lb))[near]),
        contracting=(tuple(lc), tuple(rc)),
        batching=(tuple(lb), tuple(rb)),
    )
    return form if _supported(form) else None


def _free_size(shape: tuple[int, ...], used: tuple[Sequence[int], Sequence[int]]) -> int:
    taken = {*used[0], *used[1]}
    return math.prod(n for d, n in enumerate(shape) if d not in taken)


def _conv_general_dilated(equation: Equation, near: int) -> Contraction | None:
    (lhs, rhs), out = equation.inputs, equation.outputs[0]
    params = equation.params
    specs = params["dimension_numbers"]
    groups = params["feature_group_count"]
    if near != 0 or params["batch_group_count"] != 1 or not 1 <= len(lhs.shape) - 2 <= 3:
        return None
    features = rhs.shape[specs.rhs_spec[0]]
    form = Convolution(
        near=0,
        shapes=(lhs.shape, rhs.shape, out.shape),
        dtypes=(lhs.dtype, rhs.dtype, out.dtype),
        batch=groups,
        rows=math.prod(out.shape) // max(features, 1),
        contracted=math.prod(rhs.shape) // max(features, 1),
        columns=features // groups,
        strides=tuple(params["window_strides"]),
        padding=tuple((int(low), int(high)) for low, high in params["padding"]),
        lhs_dilation=tuple(params["lhs_dilation"]),
        rhs_dilation=tuple(params["rhs_dilation"]),
        specs=(tuple(specs.lhs_spec), tuple(specs.rhs_spec), tuple(specs.out_spec)),
        groups=groups,
    )
    return form if _supported(form) else None


def _supported(form: Contraction) -> bool:
    """Whether the product has a check: floats, or integers that provably do not wrap."""
    if 0 in (form.batch, form.rows, form.columns, form.contracted):
        return False
    names = tuple(d.name for d in form.dtypes)
    if all(n in FLOATS for n in names):
        return True
    narrow = all(n in ("int8", "uint8") for n in names[:2])
    return narrow and names[2] == "int32" and form.magnitude <= np.iinfo(np.int32).max


contractions: dict[str, Callable[[Equation, int], Contraction | None]] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _conv_general_dilated,
}


def contraction(equation: Equation, near: int = 0) -> Contraction | None:
    """The form of an equation as a contraction, or None if it is none that has a check."""
    rule = contractions.get(equation.kind)
    return rule(equation, near) if rule else None
