"""The least deviation of each product's rows that a check always catches, relative to the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable import program
from verifiable.check import execute
from verifiable.claims.products.product import room_of
from verifiable.jaxpr import interpret


def of_rows(
    compiled: program.Program,
) -> Callable[[Any, Any], Iterator[tuple[int, tuple[float, float]]]]:
    """Of parameters and inputs: by product, its K and the largest of both measures over its rows.

    Compiled once for all inputs.
    """
    kappa, tolerances = compiled.bound.kappa(), compiled.tolerances

    def emit(claim: Any, equation: Any, env: Any, _: Any) -> Any:
        outputs, _ = execute.honest(claim, equation, env)
        form = claim.form.contraction
        if form is None or form.exact:
            return outputs, ()
        [out] = outputs
        operands = interpret.read_all(env, equation.inputs)
        near, far = operands[form.near], operands[form.far]
        room = room_of(form, near, far, out, tolerances[claim.name])
        wide = out.astype(jnp.float64)
        weighted = jnp.sqrt(form.out_sums(form.scale_out(wide, room.weights) ** 2))
        rms = jnp.sqrt(jnp.mean(room.weights**2, axis=-1))
        rms = rms.reshape(form.batch, *[1] * (weighted.ndim and 1))
        plain = jnp.sqrt(form.out_sums(wide**2)).reshape(form.batch, -1) * rms
        deviation = (kappa * room.sigma).reshape(form.batch, -1)
        # A row that is zero has no relative deviation.
        sizes = (weighted.reshape(form.batch, -1), plain)
        return outputs, tuple(jnp.max(jnp.where(s > 0, deviation / s, 0)) for s in sizes)

    def run(params: Any, inputs: Any) -> Any:
        env, block = compiled.bind(params, inputs), compiled.function.block
        return execute.execute(block, compiled.analysis, env, emit=emit)[1]

    jitted = jax.jit(run)

    def slip(params: Any, inputs: Any) -> Iterator[tuple[int, tuple[float, float]]]:
        with jax.enable_x64(True):
            found = jax.device_get(jitted(params, inputs))
        for claim in compiled.claims:
            if found[claim.index] != ():
                weighted, plain = (float(np.max(x)) for x in found[claim.index])
                yield claim.form.contraction.contracted, (weighted, plain)

    return slip
