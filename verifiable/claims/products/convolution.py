"""`conv_general_dilated` as a contraction."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.claims.contraction import Contraction, broadcast, dot
from verifiable.jaxpr.blocks import Array, Equation


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Contraction):
    """`lax.conv_general_dilated` with a known kernel: rows are output positions of the images.

    The feature groups are the batch.
    """

    far_must_be_known: ClassVar[bool] = True

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    specs: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    groups: int

    @classmethod
    def of(cls, equation: Equation, near: int) -> Self | None:
        """The contraction of an equation; None if it has none, or if `near` is the kernel."""
        (lhs, rhs), out = equation.inputs, equation.outputs[0]
        params = equation.params
        specs = params["dimension_numbers"]
        groups = params["feature_group_count"]
        if near != 0 or params["batch_group_count"] != 1 or not 1 <= len(lhs.shape) - 2 <= 3:
            return None
        features = rhs.shape[specs.rhs_spec[0]]
        return cls(
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

    @property
    def far_side(self) -> Hashable:
        """See `Contraction.far_side`."""
        kernel = self.shapes[1], self.specs[1], self.groups
        return type(self), kernel, self.dtypes, self.blocks, self.bounds

    def _taps(self) -> tuple[int, ...]:
        return tuple(self.shapes[1][d] for d in self.specs[1][2:])

    def _kernel(self, far: Array) -> Array:
        """Kernel as (groups, columns, inputs, taps)."""
        moved = lax.transpose(far, self.specs[1])
        return moved.reshape(self.groups, self.columns, moved.shape[1], math.prod(self._taps()))

    def project(self, far: Array, vectors: Array) -> Array:
        """-> (taps, groups, inputs, draws); see `Contraction.project`."""
        out = dot(self._kernel(far), vectors, ((1,), (0,)), ((), ()))
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
            return total + dot(piece, kernel, ((axis + 1,), (1,)), ((axis,), (0,))), None

        shape = (self.groups, x.shape[0], *extent, projected.shape[-1])
        zero = jnp.zeros(shape, projected.dtype)
        return lax.scan(tap, zero, (starts, projected))[0]

    def fold(self, out: Array, vectors: Array) -> Array:
        """-> (groups, n, positions..., draws); see `Contraction.fold`."""
        folded = dot(self._out(out), vectors, ((out.ndim,), (0,)), ((), ()))
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
        return far * broadcast(weights.reshape(1, -1), self.shapes[1], (self.specs[1][0],))

    def scale_out(self, out: Array, weights: Array) -> Array:
        """See `Contraction.scale_out`."""
        return out * broadcast(weights.reshape(1, -1), self.shapes[2], (self.specs[2][1],))

    def over_rows(self, values: Array) -> Array:
        """See `Contraction.over_rows`."""
        spec = self.specs[2]
        wide = jnp.repeat(jnp.moveaxis(values, 0, -1), self.columns, axis=-1)
        # (n, positions..., features) to the output's own order.
        return lax.transpose(wide, np.argsort((spec[0], *spec[2:], spec[1])))

    def row_axes(self) -> tuple[int, int, int] | None:
        """The examples; see `Contraction.row_axes`."""
        return self.specs[0][0], self.specs[2][0], 1
