"""What other rounding does to values that depend on parameters only.

A second look moves what it replays. But a table of sines of large angles, or weights that are
standardised in the graph, are evaluated in `setup`, and an honest device evaluates them itself:
they may be off by far more than the rounding of their last operation. So `setup` evaluates the
known part COUNT times more, with the other rounding of `jaxpr.perturb`, and the key keeps a few
numbers of each value that is not exact:

    far operand    of each replay, the operator norm of the change of its image (`Product.moved`):
                   no row of the product changes by more than this times the norm of A_i;
    kept value     the largest change of an element, in units of |value| + rms of its row, over all
                   replays, those of larger size divided by it;
    table          the same of each element, against which a claim is tested (`claims.table`).

Parameters and constants, moved or widened, are exact: they have none, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from verifiable.check.analysis.partition import Analysis, Frame
from verifiable.check.replay import replay
from verifiable.claims.claim import Claim
from verifiable.claims.form import Yardstick
from verifiable.claims.products.condensed import restored
from verifiable.claims.slack import slack
from verifiable.claims.table import size
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Env, Var
from verifiable.jaxpr.effects import is_float
from verifiable.jaxpr.perturb import Noise
from verifiable.policy import Policy

COUNT = 8
WIDEN = 4.0
SIZES = ((1.0, 0.0), (WIDEN, 0.0), (0.0, 1.0), (0.0, WIDEN))  # independent, coherent

Moves = dict[str, Any]  # as `replay.Residual`; None for what is exact


def shapes(frame: Frame, analysis: Analysis, trips: tuple[int, ...] = ()) -> Moves:
    """Shapes and dtypes of `moves`, stacked over the scans around the frame."""
    far = jax.ShapeDtypeStruct((*trips, COUNT), jnp.float64)
    kept = jax.ShapeDtypeStruct(trips, jnp.float64)
    tables = {v: jax.ShapeDtypeStruct((*trips, *v.shape), jnp.float32) for v in frame.tables}
    return {
        "kept": [tables.get(v, kept) if _inexact(v, analysis) else None for v in frame.kept],
        "projected": [
            far if _moved(claims[0], analysis) else None for claims in frame.projected.values()
        ],
        "children": [
            shapes(child, analysis, (*trips, equation.params["length"]))
            for equation, child in frame.children.items()
        ],
    }


def moves(
    frame: Frame,
    analysis: Analysis,
    env: Env,
    vectors: Mapping[str, Array],
    policy: Policy,
    residual: replay.Residual,
) -> Moves:
    """How far other rounding moves the known values of a program that are not exact.

    Args:
      frame: the outermost one.
      analysis: of the whole function.
      env: values of constants and parameters.
      vectors: random vectors by label.
      policy: for the tolerances and what devices may lose.
      residual: from `replay.setup`.
    """

    def measure(frame: Frame, env: Env, own: replay.Residual) -> Moves:
        kept = zip(frame.kept, own["kept"], strict=True)

        def changed(v: Var, moved: Array, value: Array) -> Array:
            if v in frame.tables:
                return _change(moved, value, _table_size(value)).astype(jnp.float32)
            return jnp.max(_change(moved, value, _size(value)), initial=0.0)

        projected = zip(replay.projecting(frame, policy), own["projected"], strict=True)
        return {
            "kept": [changed(v, env[v], x) if _inexact(v, analysis) else None for v, x in kept],
            "projected": [
                _far_change(c, env, replay.yardstick(c, vectors, policy, projection=restored(c, p)))
                if _moved(c, analysis)
                else None
                for c, p in projected
            ],
        }

    def one(arguments: tuple[Array, Array, Array]) -> Moves:
        seed, independent, coherent = arguments
        noise = Noise(
            seed=seed,
            independent=independent,
            coherent=coherent,
            losses=dict(policy.losses),
            exact=analysis.exact,
        )
        return replay.known(frame, analysis, dict(env), measure, noise, residual)

    sizes = np.asarray([SIZES[m % len(SIZES)] for m in range(COUNT)], np.float32)
    found = lax.map(one, (np.arange(COUNT, dtype=np.uint32), sizes[:, 0], sizes[:, 1]))
    return _gathered(found, sizes.max(axis=-1))


def _gathered(found: Moves, sizes: Any) -> Moves:
    """The results of all replays, which are stacked in front, in the shapes of `shapes`."""

    def largest(x: Array) -> Array:
        return jnp.max(x / sizes.reshape(-1, *([1] * (x.ndim - 1))), axis=0)

    return {
        "kept": jax.tree.map(largest, found["kept"]),
        "projected": jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), found["projected"]),
        "children": [_gathered(child, sizes) for child in found["children"]],
    }


def with_moves(key: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of a key, of which each frame holds its moves, as `Context.inside` reads them."""
    return {**key, "residual": _merged(key["residual"], key["moves"])}


def _merged(residual: replay.Residual, moves: Moves) -> replay.Residual:
    below = zip(residual["children"], moves["children"], strict=True)
    own = {"kept": moves["kept"], "projected": moves["projected"]}
    return {**residual, "moves": own, "children": [_merged(r, m) for r, m in below]}


def alter(noise: Noise) -> Callable[[Array, str, Array | None], Array]:
    """Moves a value that the key holds, by what `moves` found or its last operation may lose."""

    def altered(value: Array, name: str, change: Array | None) -> Array:
        if change is None:
            return noise.known(value, name)
        # Of a table, each element has its own.
        return noise.known(
            value, name, change * (_table_size(value) if change.ndim else _size(value))
        )

    return altered


def _inexact(variable: Var, analysis: Analysis) -> bool:
    return is_float(variable.dtype) and not analysis.facts[variable].exact


def _moved(claim: Claim, analysis: Analysis) -> bool:
    """Whether the far operand of a product of floats is known and not exact."""
    far = claim.far
    return far is not None and bool(claim.eps_types) and not analysis.fact(far).exact


def _far_change(claim: Claim, env: Env, yardstick: Yardstick) -> Array:
    if claim.far is None:
        raise AssertionError("a projected claim has a far operand")
    return claim.form.moved(interpret.read(env, claim.far), yardstick)


def _change(moved: Array, value: Array, size: Array) -> Array:
    wide = jnp.complex128 if jnp.iscomplexobj(value) else jnp.float64
    ratio = jnp.abs(moved.astype(wide) - value.astype(wide)) / size
    return jnp.where(jnp.isnan(ratio), 0.0, ratio)  # infinite either way


def _table_size(value: Array) -> Array:
    return size(value.astype(jnp.float64), value.dtype)


def _size(value: Array) -> Array:
    """|value| + rms of its row, float64, and not zero."""
    magnitude = jnp.abs(value).astype(jnp.float64)
    return slack(magnitude, 1.0, [np.dtype(jnp.finfo(value.dtype).dtype)])
