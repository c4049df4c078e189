"""Tables: what no input decides is committed where its rounding is magnified; it taints nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers import accusations
from verifiable import challenge, program, trace
from verifiable.check import execute
from verifiable.check.judging.evidence import verify_evidence
from verifiable.policy import Policy
from verifiable.report import Report, Verdict
from verifiable.submission import Submission

ROWS, WIDTH, FEATURES = 16, 32, 8
RNG = np.random.default_rng(5)
POLICY = Policy(draws=4)
SECRET = challenge.secret(bytes(32))
P = {
    "first": (RNG.standard_normal((6 * FEATURES, WIDTH)) / 7).astype(np.float32),
    "layers": (RNG.standard_normal((2, WIDTH, WIDTH)) / 6).astype(np.float32),
    "scale": RNG.standard_normal(WIDTH).astype(np.float32),
}
PLACES = RNG.standard_normal((ROWS, 3)).astype(np.float32)
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)


def frequencies(base: float = 0.9) -> Any:
    return jnp.exp(base * jnp.arange(FEATURES))


def fourier(p: Any, places: Any) -> Any:
    """Features of positions that differ from job to job, at frequencies up to 500."""
    angles = (places[:, :, None] * frequencies()).reshape(ROWS, -1)
    features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    return jnp.tanh(features @ p["first"]) @ p["layers"][0]


def rotated(x: Any) -> Any:
    """Rotary positions, far apart."""
    rates = 100.0 ** (-jnp.arange(WIDTH // 2) / (WIDTH // 2))
    angles = 300 * jnp.arange(ROWS)[:, None] * rates
    a, b = jnp.split(x, 2, -1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def rotary(p: Any, x: Any) -> Any:
    return lax.scan(lambda h, w: (jnp.tanh(rotated(h) @ w), None), x, p["layers"])[0]


class Case(NamedTuple):
    fn: Callable[[Any, Any], Any]
    inputs: Any


CASES = {"frequencies": Case(fourier, PLACES), "rotary tables": Case(rotary, X)}


@functools.cache
def compiled(name: str) -> program.Program:
    fn, inputs = CASES[name]
    return program.compile(fn, P, inputs, policy=POLICY, self_test=name == "frequencies")


@functools.cache
def key(name: str) -> Any:
    return compiled(name).setup(P, SECRET)


def device(name: str, change: Callable[[Any], Any] = lambda t: t) -> tuple[Any, list[Any]]:
    """Answer and claims of a device that uses other tables, and is honest with these."""
    made = compiled(name)

    def emit(claim: Any, equation: Any, env: Any, _: Any) -> Any:
        results, committed = execute.honest(claim, equation, env)
        if not claim.form.is_table:
            return results, committed
        other = jnp.asarray(change(np.array(committed)))
        return [other], other

    with jax.disable_jit():
        env = made.bind(P, (CASES[name].inputs,))
        outputs, found = execute.execute(made.function.block, made.analysis, env, emit=emit)
    return made.unflatten(outputs), [np.array(found[c.index]) for c in made.claims]


def checked(name: str, y: Any, claims: list[Any]) -> Report:
    return compiled(name).check(key(name), CASES[name].inputs, y=y, trace=claims)


def put(table: Any, value: float) -> Any:
    """A table with another last element."""
    table.reshape(-1)[-1] = value
    return table


HONEST: Mapping[str, Callable[[Any], Any]] = {
    "its own": lambda t: t,
    "all up": lambda t: np.nextafter(t, np.float32(np.inf)),
    "all down": lambda t: np.nextafter(t, np.float32(-np.inf)),
    "up and down": lambda t: np.nextafter(t, np.inf * (-1.0) ** np.arange(t.size).reshape(t.shape)),
}
CHEATS: Mapping[str, Callable[[Any], Any]] = {
    "scaled": lambda t: t * np.float32(1.001),
    "another base": lambda t: np.abs(t) ** np.float32(1.02) * np.sign(t),
    "coarse": lambda t: np.round(t * 128) / 128,
    "another order": lambda t: np.roll(t, 1, 0),
    "one element off": lambda t: put(t, t.flat[-1] * np.float32(1.005) + np.float32(0.005)),
    "not a number": lambda t: put(t, np.nan),
    "infinite": lambda t: put(t, np.inf),
}


@pytest.mark.parametrize("name", CASES)
def test_honest_devices_of_all_libraries_are_accepted(name: str):
    fn, inputs = CASES[name]
    y, sent = jax.jit(compiled(name).execute)(P, inputs)
    runs = {"jit": (y, list(sent.values))} | {how: device(name, f) for how, f in HONEST.items()}
    for how, run in runs.items():
        report = checked(name, *run)
        assert (how, report.verdict) == (how, Verdict.ACCEPT)
        assert report.worst < 0.5
    assert np.allclose(y, fn(P, inputs), atol=1e-3)


@pytest.mark.parametrize("cheat", CHEATS)
@pytest.mark.parametrize("name", CASES)
def test_other_tables_are_rejected_although_all_that_follows_is_right(name: str, cheat: str):
    report = checked(name, *device(name, CHEATS[cheat]))
    nonfinite = cheat in ("not a number", "infinite")
    assert report.verdict is Verdict.REJECT
    assert report.reason == ("claim-nonfinite" if nonfinite else "table-mismatch")
    assert report.claim is not None and report.claim.endswith("table")


def test_tables_of_another_shape_or_type_are_rejected():
    y, claims = device("frequencies")
    assert checked("frequencies", y, [claims[0][:-1], *claims[1:]]).reason == "claim-shape"
    wide = [claims[0].astype(np.float16), *claims[1:]]
    assert checked("frequencies", y, wide).reason == "claim-dtype"


@pytest.mark.parametrize("name", CASES)
def test_a_row_behind_a_table_is_rejected_and_not_left_open(name: str):
    """By less than what the last digits of a table explained before it was committed."""
    y, claims = device(name)
    index = next(i for i, c in enumerate(compiled(name).claims) if c.work)
    rows = claims[index].reshape(-1, WIDTH)
    rows[1] *= np.float32(1.001)
    report = checked(name, y, claims)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")
    assert report.claim == compiled(name).claims[index].name


@pytest.mark.parametrize(("how", "guilty"), [("scaled", True), ("all up", False)])
def test_a_judge_without_a_key_convicts_another_table_and_no_library(how: str, guilty: bool):
    made = compiled("frequencies")
    y, claims = device("frequencies", (CHEATS | HONEST)[how])
    sent = trace.Trace(values=tuple(claims))
    committed = trace.commit(y, sent).commitment
    parameters = key("frequencies").header.parameters
    run = Submission(y=y, trace=sent, commitment=committed, program=made.id, parameters=parameters)
    evidence = accusations.against(made, run, index=0)
    assert verify_evidence(evidence, made, P, PLACES).guilty is guilty


# ----------------------------------------------------------------------------- what is a table


def unrolled(p: Any, x: Any) -> Any:
    for w in p["layers"]:
        x = jnp.tanh(rotated(x) @ w)
    return x


def sliced(p: Any, x: Any) -> Any:
    """Each iteration has a table of its own parameters."""

    def layer(h: Any, w: Any) -> Any:
        return jnp.tanh(h * jnp.sin(40 * jnp.exp(w[0])) @ w), None

    return lax.scan(layer, x, p["layers"])[0]


def in_a_branch(p: Any, x: Any) -> Any:
    def turned(h: Any) -> Any:
        return rotated(h) @ p["layers"][0]

    return lax.cond(x[0, 0] > 0, turned, lambda h: h @ p["layers"][1], x)


def in_a_loop(p: Any, x: Any) -> Any:
    turned = lax.while_loop(lambda c: c.sum() < 9, lambda c: c + jnp.sin(frequencies()), x[0, :8])
    return (x @ p["layers"][0]) * jnp.tile(turned, 4)


HALF = (ROWS, WIDTH // 2)
PLACEMENTS = {
    "before the unknown positions": (fourier, PLACES, [(FEATURES,)]),
    "after the known positions, outside of a loop": (rotary, X, [HALF, HALF]),
    "equal in all layers": (unrolled, X, [HALF, HALF]),
    "of the parameters of an iteration": (sliced, X, [(2, WIDTH)]),
    "in a branch": (in_a_branch, X, [HALF, HALF]),
    "read by a loop": (in_a_loop, X, [(FEATURES,)]),
    "cancelling sums": (lambda p, x: x * (p["scale"] - p["scale"].mean()) ** 2, X, [(WIDTH,)]),
    "before it is spread": (
        lambda p, x: x @ p["layers"][0] + jnp.tile(jnp.sin(jnp.exp(p["scale"])), (ROWS, 1)),
        X,
        [(WIDTH,)],
    ),
    "what a branch returns": (
        lambda p, x: (
            lax.cond(x[0, 0] > 0, lambda: jnp.sin(jnp.exp(p["scale"])), lambda: p["scale"])
            * (x @ p["layers"][0])
        ),
        X,
        [(WIDTH,)],
    ),
    "a few units only": (lambda p, x: x * lax.rsqrt(jnp.abs(p["scale"]) + 1) * jnp.exp(x), X, []),
    "exact": (lambda p, x: jnp.sin(x * p["scale"]), X, []),
    "projected by the key": (lambda p, x: x @ jnp.sin(jnp.exp(p["layers"][0])), X, []),
    "large": (
        lambda p, x: (
            jnp.tanh(x @ p["layers"][0]) + jnp.sin(jnp.exp(p["large"]))[jnp.int32(x[0, 0] > 0)]
        ),
        X,
        [],
    ),
}


@pytest.mark.parametrize("name", PLACEMENTS)
def test_where_a_table_is_committed(name: str):
    fn, inputs, shapes = PLACEMENTS[name]
    params = {**P, "large": np.zeros((200, WIDTH), np.float32)}
    made = program.compile(fn, params, inputs, policy=POLICY, self_test=False)
    assert [c.shape for c in made.claims if c.form.is_table] == shapes
