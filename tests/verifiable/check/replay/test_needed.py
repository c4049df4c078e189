"""What near-ties need of a scan in a scan, whose inner carry is committed too."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import verifiable as vf
from verifiable.check.replay.needed import needed
from verifiable.policy import Policy

GROUPS, LAYERS, WIDTH = 2, 3, 32


def routed(params: Any, x: Any) -> Any:
    """Groups of layers, (rows, WIDTH) -> (GROUPS, rows), each with a choice after its layers."""

    def layer(x: Any, w: Any) -> Any:
        return checkpoint_name(jnp.tanh(x @ w), "layer"), None

    def group(x: Any, given: Any) -> Any:
        x, _ = lax.scan(layer, x, given["layers"])
        return x, jnp.argmax(x @ given["router"], axis=-1)

    return lax.scan(group, x, params)[1]


def test_carries_of_a_scan_in_a_scan_are_read_in_every_iteration() -> None:
    rng = np.random.default_rng(0)
    layers = rng.standard_normal((GROUPS, LAYERS, WIDTH, WIDTH)) / 4
    router = rng.standard_normal((GROUPS, WIDTH, WIDTH))
    params = {"layers": jnp.float32(layers), "router": jnp.float32(router)}
    x = jnp.float32(rng.standard_normal((8, WIDTH)))
    program = vf.compile(routed, params, x, policy=Policy(draws=8), self_test=False, cuts=True)
    [inner] = [c for c in program.claims if c.primitive == "cut" and c.trips == (GROUPS, LAYERS)]
    [choice] = [c for c in program.claims if c.trips == (GROUPS,) and c.primitive != "cut"]

    needs = needed(program.function.block, program.analysis, {choice.index}, ends=True)
    assert inner.index in needs.reads and not needs.last

    submission = program.prove(params, x)
    key = program.setup(params, vf.challenge.secret(bytes(32)))
    report = program.verify(key, x, submission, commitment=submission.commitment)
    assert report.verdict is vf.Verdict.ACCEPT
