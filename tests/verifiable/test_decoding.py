"""Sampled decoding under `scan`: every token is a decision, and nothing hides behind one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, program
from verifiable.check import execute
from verifiable.policy import Policy
from verifiable.report import Report, Verdict

VOCABULARY, WIDTH, LAYERS, TOKENS = 32, 16, 3, 6
RNG = np.random.default_rng(0)
PARAMS = {
    "table": jnp.asarray(RNG.standard_normal((VOCABULARY, WIDTH)), jnp.float32),
    "layers": jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 4, jnp.float32),
    "head": jnp.asarray(RNG.standard_normal((WIDTH, VOCABULARY)), jnp.float32),
}
PROMPTS = jnp.asarray([3, 17], jnp.int32)
SEED = jnp.uint32(7)


def top_k(logits: Any) -> Any:
    """The ten largest."""
    least = lax.top_k(logits, 10)[0][:, -1:]
    return jnp.where(logits < least, -jnp.inf, logits)


def top_p(logits: Any) -> Any:
    """The likeliest tokens that have nine tenths of the probability together."""
    order = jnp.argsort(-logits, axis=-1)
    likely = jax.nn.softmax(jnp.take_along_axis(logits, order, -1))
    dropped = jnp.cumsum(likely, axis=-1) - likely > 0.9
    ranks = jnp.argsort(order, axis=-1)
    return jnp.where(jnp.take_along_axis(dropped, ranks, -1), -jnp.inf, logits)


def softcap(logits: Any) -> Any:
    return 30 * jnp.tanh(logits / 30)


SAMPLERS: dict[str, Callable[[Any], Any]] = {
    "temperature": lambda logits: logits / 0.7,
    "top-k behind a softcap": lambda logits: top_k(softcap(logits)),
    "top-p": top_p,
}


def decode(sampler: Callable[[Any], Any], params: Any, prompts: Any, seed: Any) -> Any:
    """The tokens after each prompt, from a recurrent model."""

    def layer(h: Any, w: Any) -> tuple[Any, None]:
        return h + jnp.tanh(h @ w), None

    def step(carry: Any, key: Any) -> tuple[Any, Any]:
        state, token = carry
        h, _ = lax.scan(layer, 0.5 * state + params["table"][token], params["layers"])
        logits = sampler(h @ params["head"])
        token = jax.random.categorical(key, logits).astype(jnp.int32)
        return (h / 2, token), token

    start = jnp.zeros((len(prompts), WIDTH))
    keys = jax.random.split(jax.random.key(seed), TOKENS)
    return lax.scan(step, (start, prompts), keys)[1]


@functools.cache
def made(name: str) -> SimpleNamespace:
    fn = functools.partial(decode, SAMPLERS[name])
    compiled = program.compile(fn, PARAMS, PROMPTS, SEED, policy=Policy(draws=1))
    key = compiled.setup(PARAMS, challenge.secret(bytes(32)))
    return SimpleNamespace(program=compiled, key=key, run=jax.jit(compiled.execute), fn=fn)


def checked(name: str, y: Any, run: Any) -> Report:
    c = made(name)
    return c.program.check(c.key, PROMPTS, SEED, y=jax.device_get(y), trace=jax.device_get(run))


@pytest.mark.parametrize("name", SAMPLERS)
def test_honest_devices_are_accepted(name: str):
    c = made(name)
    assert not c.program.coverage.discontinuities
    y, run = c.run(PARAMS, PROMPTS, SEED)
    np.testing.assert_array_equal(y, jax.jit(c.fn)(PARAMS, PROMPTS, SEED))
    assert checked(name, y, run).verdict is Verdict.ACCEPT
    with jax.disable_jit():
        y, run = c.program.execute(PARAMS, PROMPTS, SEED)
    report = checked(name, y, run)
    assert report.verdict is Verdict.ACCEPT, report


def another_seed(name: str) -> Any:
    return made(name).run(PARAMS, PROMPTS, SEED + 1)


def another_head(name: str) -> Any:
    head = jnp.roll(PARAMS["head"], 1, axis=1)
    return made(name).run(PARAMS | {"head": head}, PROMPTS, SEED)


def skipped_layers(name: str) -> Any:
    return made(name).run(PARAMS | {"layers": PARAMS["layers"].at[1:].set(0)}, PROMPTS, SEED)


def one_changed_token(name: str) -> Any:
    """The third token of one prompt is another; the device goes on with it."""
    compiled = made(name).program
    [index] = [c.index for c in compiled.claims if c.primitive == "argmax"]
    changed = jnp.zeros((TOKENS, 2), jnp.uint8).at[2, 1].set(1)

    def emit(claim: Any, equation: Any, env: Any, change: Any) -> Any:
        outputs, committed = execute.honest(claim, equation, env)
        if change is not None:
            committed = (committed + change * np.uint8(5)) % np.uint8(VOCABULARY)
            outputs = claim.outputs(committed, env)
        return outputs, committed

    def run(*arguments: Any) -> Any:
        env, block = compiled.bind(PARAMS, arguments), compiled.function.block
        return execute.execute(block, compiled.analysis, env, emit=emit, given={index: changed})

    outputs, found = jax.jit(run)(PROMPTS, SEED)
    return outputs[0], [found[c.index] for c in compiled.claims]


CHEATS = [another_seed, another_head, skipped_layers, one_changed_token]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("cheat", CHEATS)
def test_cheats_are_rejected(cheat: Callable[[str], Any], name: str):
    report = checked(name, *cheat(name))
    assert report.verdict is Verdict.REJECT, report
    if cheat in (another_seed, one_changed_token):
        assert report.reason == "decision-mismatch", report
