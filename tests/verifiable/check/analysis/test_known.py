"""What need not be a decision: models in which no cheat hides behind one, and honest runs pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.programs import FEW, Case
from tests.helpers.runs import reinterpreted
from verifiable import program
from verifiable.errors import IndeterminateWarning
from verifiable.report import Verdict

RNG = np.random.default_rng(8)
ROWS, WIDTH = 16, 32
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
PARAMS = {
    "first": (RNG.standard_normal((WIDTH, WIDTH)) / 6).astype(np.float32),
    "last": (RNG.standard_normal((WIDTH, WIDTH)) / 6).astype(np.float32),
    "bias": RNG.standard_normal(8).astype(np.float32),
    "key": np.asarray(jax.random.PRNGKey(3)),
}
SEGMENTS = np.arange(ROWS) // 2


@dataclass(frozen=True)
class Middle:
    """A layer between two products: what it does, and claims of known values that it needs."""

    name: str
    layer: Callable[[Any, Any], Any]
    claims: tuple[str, ...] = ()


def buckets(p: Any, h: Any) -> Any:
    """A bias by the logarithm of the distance, as T5 has it."""
    distance = jnp.abs(jnp.arange(ROWS)[:, None] - jnp.arange(WIDTH)[None])
    scaled = jnp.log(distance.astype(jnp.float32) / 2 + 1e-6) / jnp.log(16.0) * 7
    return h + p["bias"][jnp.clip(scaled.astype(jnp.int32), 0, 7)]


def dropout(key: Any, h: Any) -> Any:
    return jnp.where(jax.random.bernoulli(key, 0.9, h.shape), h / 0.9, 0)


def halves(p: Any, h: Any) -> Any:
    """Interpolation between pixels, the positions of which are multiples of a quarter."""
    return jax.image.resize(h, (2 * ROWS, WIDTH), "nearest")[:ROWS]


def quantised(p: Any, h: Any) -> Any:
    scale = jnp.max(jnp.abs(p["last"])) / 127
    return h + h @ (jnp.round(p["last"] / scale) * scale)


MIDDLES = (
    Middle("softplus", lambda p, h: jax.nn.softplus(jnp.sin(h))),
    Middle("logaddexp", lambda p, h: jnp.logaddexp(jnp.sin(h), jnp.cos(h))),
    Middle("log_sigmoid", lambda p, h: jax.nn.log_sigmoid(jnp.sin(h))),
    Middle("isnan", lambda p, h: jnp.where(jnp.isnan(jnp.sin(h)), 0.0, jnp.sin(h))),
    Middle("isinf", lambda p, h: jnp.where(jnp.isinf(jnp.sin(h)), 0.0, jnp.sin(h))),
    Middle("nan_to_num", lambda p, h: jnp.nan_to_num(jnp.exp(h))),
    Middle(
        "window",
        lambda p, h: lax.reduce_window(jnp.sin(h), h[0, 0], lax.max, (1, 3), (1, 1), "SAME"),
    ),
    Middle("reduce", lambda p, h: h + lax.reduce(jnp.sin(h), h[0, 0], lax.min, (1,))[:, None]),
    Middle("segment_max", lambda p, h: jax.ops.segment_max(jnp.sin(h), SEGMENTS, 8)[SEGMENTS]),
    Middle("scatter-min", lambda p, h: jnp.sin(h).at[SEGMENTS].min(jnp.cos(h))),
    Middle("dropout, a constant key", lambda p, h: dropout(jax.random.key(0), jnp.sin(h))),
    Middle("dropout, a key among the parameters", lambda p, h: dropout(p["key"], jnp.sin(h))),
    Middle("resize by two", halves),
    Middle(
        "resize by three quarters",
        lambda p, h: jax.image.resize(h, (12, WIDTH), "linear"),
        ("table", "table", "gt", "ne", "ge", "le"),
    ),
    Middle("position buckets", buckets, ("min",)),
    Middle("weights rounded in the graph", quantised, ("round",)),
)


def model(middle: Middle) -> Callable[..., Any]:
    return lambda p, x: middle.layer(p, x @ p["first"]) @ p["last"]


@pytest.mark.parametrize("middle", MIDDLES, ids=lambda m: m.name)
def test_a_cheat_behind_it_is_rejected_and_no_honest_device(middle: Middle):
    case = Case(model(middle), PARAMS, X)
    assert case.program.analysis.discontinuities == ()
    roundings = [c.primitive for c in case.program.claims if not c.work]
    assert tuple(roundings) == middle.claims
    assert case.check().verdict is Verdict.ACCEPT
    y, trace = case.op_by_op()
    assert case.check(y, trace.values).verdict is Verdict.ACCEPT
    report = case.check(claims=case.changed(-1, lambda c: np.add(c, 0.1, out=c)))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "claim-mismatch")


@pytest.mark.parametrize("name", ["position buckets", "weights rounded in the graph"])
def test_what_a_device_rounds_of_the_parameters_is_a_claim(name: str):
    """Else it could be a coarser rounding, or another bucket, whose every use is consistent."""
    [middle] = [m for m in MIDDLES if m.name == name]
    case = Case(model(middle), PARAMS, X)
    [index] = [i for i, c in enumerate(case.program.claims) if not c.work]

    def coarser(values: Any) -> None:
        np.copyto(values, values // 2 * 2)

    report = case.check(claims=case.changed(index, coarser))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "rounding-mismatch")


def test_what_stays_indeterminate_is_shown_with_the_arithmetic_behind_it():
    def wrapped(p: Any, x: Any) -> Any:
        return (x @ p["first"] * reinterpreted(x)) @ p["last"]

    with pytest.warns(IndeterminateWarning, match="is behind .*: bitcast_convert_type;"):
        compiled = program.compile(wrapped, PARAMS, X, policy=FEW)
    [line] = [x for x in str(compiled).splitlines() if x.startswith("bitcast")]
    assert line.split() == ["bitcast_convert_type", "48.9%"]


def test_an_answer_behind_a_discontinuity_is_warned_of():
    """A device could send all zeros, and would never be rejected."""

    def fn(p: Any, x: Any) -> Any:
        return x @ p["first"], reinterpreted(x @ p["first"])

    with pytest.warns(IndeterminateWarning, match=r"^output\[1\] is behind .*: bitcast_[a-z_]*; "):
        compiled = program.compile(fn, PARAMS, X, policy=FEW)
    [line] = [x for x in str(compiled).splitlines() if x.startswith("bitcast")]
    assert line.split() == ["bitcast_convert_type", "0.0%", "output[1]"]
    assert "no product is a claim" not in str(compiled)


def test_a_program_without_a_claimed_product_says_so():
    with pytest.warns(IndeterminateWarning, match="^output is .*; no product is a claim"):
        compiled = program.compile(lambda _, x: reinterpreted(jnp.tanh(x)), (), X, policy=FEW)
    assert "no product is a claim, so that verifying costs what the model costs" in str(compiled)


def test_up_to_a_tenth_of_the_arithmetic_there_is_no_warning(recwarn: pytest.WarningsRecorder):
    """Of twelve equal products, the last is behind a discontinuity."""

    def deep(p: Any, x: Any) -> Any:
        for _ in range(11):
            x = jnp.tanh(x @ p["first"])
        return (x * reinterpreted(x[:, :1])) @ p["last"]

    program.compile(deep, PARAMS, X, policy=FEW)
    assert not [w for w in recwarn if w.category is IndeterminateWarning]
