"""A compiler that errs is found before it judges a device, and an honest program passes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from verifiable import challenge, errors, program
from verifiable.check import locate, schedule, self_test
from verifiable.check.schedule import Strategy
from verifiable.check.self_test import random_array
from verifiable.jaxpr import from_jax
from verifiable.policy import Policy
from verifiable.report import Verdict

RNG = np.random.default_rng(5)
ROWS, WIDTH = 16, 48
W = (RNG.standard_normal((WIDTH, WIDTH)) / 7).astype(np.float32)
X = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)
SECRET = challenge.secret(b"tests of the self-test of checks")
FEW = Policy(draws=2, trip_limit=50)

compiled = functools.partial(program.compile, policy=FEW, self_test=True)


def straight(w: Any, x: Any) -> Any:
    return jnp.tanh(jnp.sin(x @ w) * 2) @ w


def scanned(w: Any, x: Any) -> Any:
    return lax.scan(lambda c, _: (jnp.tanh(jnp.sin(c * 0.5) @ w), None), x, length=3)[0]


def output(w: Any, x: Any) -> Any:
    return jnp.exp(jnp.sin(x @ w))


def before_a_scan(w: Any, x: Any) -> Any:
    scale = jnp.sin(jnp.sum(x))
    return lax.scan(lambda c, _: (jnp.tanh(c * scale @ w), None), x, length=2)[0]


def after_a_scan(w: Any, x: Any) -> Any:
    return lax.scan(lambda c, _: (jnp.sin(c * 0.5), None), x, length=3)[0] @ w


def branching(w: Any, x: Any) -> Any:
    return lax.cond(x[0, 0] > -9, lambda: jnp.sin(x) @ w, lambda: x @ w.T)


def chosen(w: Any, x: Any) -> Any:
    hidden = x @ w
    return jnp.argmax(jnp.sin(3 * hidden) * hidden, axis=-1)


def wrong(x: Any) -> Any:
    return x + x.dtype.type(1)


def rounded(x: Any) -> Any:
    """What another order of sums or another function of a library may make of a number."""
    return x * x.dtype.type(1 + 2.0**-22) + x.dtype.type(1e-7)


Plant = Callable[[dict[str, Callable[[Any], Any]]], None]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Makes the compiler err in the primitives of some names."""

    def plant(changes: dict[str, Callable[[Any], Any]]) -> None:
        def as_function(equation: Any) -> Callable[..., Any]:
            def function(*values: Any) -> list[Any]:
                return [changes[equation.kind](x) for x in right(equation)(*values)]

            return function if equation.kind in changes and compiling else right(equation)

        def compile(fn: Callable[..., Any], strategy: Strategy) -> Callable[..., Any]:
            def traced(*arguments: Any) -> Any:
                compiling.append(fn)
                try:
                    return fn(*arguments)
                finally:
                    compiling.pop()

            return real(traced, strategy)

        compiling: list[Any] = []
        right, real = from_jax.as_function, schedule.compile
        monkeypatch.setattr(from_jax, "as_function", as_function)
        monkeypatch.setattr(schedule, "compile", compile)

    return plant


@pytest.mark.parametrize(
    "fn",
    [straight, scanned, output, before_a_scan, after_a_scan, branching, chosen],
    ids=lambda f: f.__name__,
)
def test_a_planted_miscompilation_is_named_with_both_values(fn: Any, planted: Plant):
    planted({"sin": wrong})
    with pytest.raises(errors.Miscompiled) as caught:
        compiled(fn, W, X).setup(W, SECRET)
    error = caught.value
    assert error.equation.split("/")[-1] == "sin"
    assert error.compiled == pytest.approx(error.op_by_op + 1, rel=1e-3)
    assert not isinstance(error, errors.VerificationError)
    assert all(str(x) in str(error) for x in (error.equation, error.compiled, error.op_by_op))


def test_a_wrong_test_of_a_right_value_is_named(monkeypatch: pytest.MonkeyPatch):
    """The glue is right wherever it is compiled alone: the claim is named instead."""

    def compile(fn: Callable[..., Any], strategy: Strategy) -> Callable[..., Any]:
        def erring(*arguments: Any) -> Any:
            packed, mine = real(fn, strategy)(*arguments)
            return replace(
                packed, vectors={k: v + v.dtype.type(9) for k, v in packed.vectors.items()}
            ), mine

        return erring if getattr(fn, "func", None) is not None else real(fn, strategy)

    real = schedule.compile
    monkeypatch.setattr(schedule, "compile", compile)
    with pytest.raises(errors.Miscompiled, match="the test of dot_general"):
        compiled(straight, W, X).setup(W, SECRET)


def test_the_test_can_be_left_out(planted: Plant):
    planted({"sin": wrong})
    key = compiled(straight, W, X, self_test=False).setup(W, SECRET)
    assert key.nbytes


def test_a_program_is_tested_once_for_each_strategy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "verifiable")
    calls: list[Any] = []
    real = self_test._attempt
    monkeypatch.setattr(
        self_test, "_attempt", lambda *a: (calls.append(a[0].strategy), real(*a))[1]
    )
    one = compiled(straight, W, X)
    for p in (one, one, one.with_policy(replace(FEW, phi=1e-8)), replace(one, strategy=Strategy())):
        p.setup(W, challenge.secret())
    assert len(calls) == len(set(calls)) == len({one.strategy, Strategy()})
    steps = [message.split(",")[0] for message in caplog.messages]
    assert steps[0] == "self-test of a new program: a random run is evaluated op by op"
    assert steps.count("self-test passed") == len(calls)


def constant_rows(w: Any, x: Any) -> Any:
    """Layer norm of rows that are all rounding noise."""
    h = (x * 0 + 0.1) @ jnp.ones_like(w)
    h = (h - jnp.mean(h, -1, keepdims=True)) * lax.rsqrt(jnp.var(h, -1, keepdims=True) + 1e-12)
    return h @ w


def large_angles(w: Any, x: Any) -> Any:
    return jnp.sin(1e6 * (x @ w)) @ w


def stepping(w: Any, x: Any) -> Any:
    return jnp.sign(jnp.sum(x @ w - x @ w, -1, keepdims=True)) * x @ w


OP_BY_OP = f"self-test: the check is evaluated op by op, {1 + self_test.REPLAYS} times"


@pytest.mark.parametrize(
    ("fn", "kind"),
    [(constant_rows, "div"), (large_angles, "mul")],
    ids=lambda f: getattr(f, "__name__", f),
)
def test_what_rounding_explains_is_no_miscompilation(
    fn: Any, kind: str, planted: Plant, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "verifiable")
    planted({kind: rounded})
    compiled(fn, W, X).setup(W, SECRET)
    assert OP_BY_OP in caplog.messages


def test_a_decision_at_zero_is_no_miscompilation():
    compiled(stepping, W, X).setup(W, SECRET)


def test_a_miscompilation_after_what_rounding_explains_is_named(planted: Plant):
    planted({"mul": rounded, "exp": wrong})
    with pytest.raises(errors.Miscompiled) as caught:
        compiled(lambda w, x: jnp.exp(large_angles(w, x)) @ w, W, X).setup(W, SECRET)
    assert caught.value.equation.split("/")[-1] == "exp"


def test_a_test_without_an_answer_is_made_again_as_in_a_check(caplog: pytest.LogCaptureFixture):
    """Squares overflow in the float32 of a cheap test, and not in its second."""
    caplog.set_level("INFO", "verifiable")
    compiled(lambda w, x: (x * 1e25) @ w, W, X, strategy=Strategy()).setup(W, SECRET)
    assert any(message.startswith("second test of ") for message in caplog.messages)
    assert OP_BY_OP not in caplog.messages


def endless(w: Any, x: Any) -> Any:
    return lax.while_loop(lambda c: c[0, 0] < 1e9, lambda c: c * 0.5, x @ w) @ w


def not_finite(w: Any, x: Any) -> Any:
    return jnp.log(-1 - jnp.abs(x @ w)) @ w


def no_iterations(w: Any, x: Any) -> Any:
    return lax.scan(lambda c, _: (c @ w, None), x, length=0)[0] @ w


@pytest.mark.parametrize("fn", [endless, not_finite, no_iterations], ids=lambda f: f.__name__)
def test_a_run_that_proves_nothing_is_no_error(fn: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locate, "MOST_STEPS", 200)
    compiled(fn, W, X).setup(W, SECRET)


@pytest.mark.parametrize("error", [NotImplementedError, jax.errors.JaxRuntimeError, KeyError])
def test_only_what_cannot_be_evaluated_op_by_op_proves_nothing(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    def failing(*_: Any) -> Any:
        raise error("of the test")

    monkeypatch.setattr(locate.Watch, "__call__", failing)
    one = compiled(straight, W, X)
    if error is KeyError:
        with pytest.raises(KeyError, match="of the test"):
            one.setup(W, SECRET)
        assert not one.tested
    else:
        assert one.setup(W, SECRET).nbytes


@pytest.mark.parametrize(
    "dtype",
    "float32 float16 bfloat16 float8_e4m3fn complex64 int8 int4 uint32 bool".split(),
)
def test_random_inputs_of_every_type(dtype: str):
    array = random_array(jax.ShapeDtypeStruct((3, 2), jnp.dtype(dtype)), RNG)
    assert (array.shape, array.dtype) == ((3, 2), jnp.dtype(dtype))


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_random_keys_as_inputs(implementation: str):
    key = jax.random.key(0, impl=implementation)
    made = random_array(jax.ShapeDtypeStruct((2,), key.dtype), RNG)
    assert (made.shape, made.dtype) == ((2,), key.dtype)


# ------------------------------------------------------------- what XLA's CPU backend errs about


def arctan(w: Any, x: Any) -> Any:
    return jnp.arctan(x @ w) @ w


def squares_after_a_small_product(w: Any, x: Any) -> Any:
    points = jnp.reshape(jnp.tile(x, (1, 3)), (-1, 3))
    lengths = jax.vmap(lambda r: jnp.sum((w[:3, :3] @ r) ** 2))(points)
    return lengths.reshape(-1, WIDTH) @ w


def negative_padding(w: Any, x: Any) -> Any:
    image = (x @ w).reshape(1, ROWS, WIDTH, 1)
    kernel = w[:1, :4].reshape(1, 1, 1, 4)
    found = lax.conv_general_dilated(
        image, kernel, (1, 1), ((0, 0), (-5, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return found.reshape(ROWS, -1)


ERRING = {
    "arctan": (arctan, X),
    "squares after a small product": (
        squares_after_a_small_product,
        RNG.standard_normal((832, WIDTH)).astype(np.float32),
    ),
    "negative padding": (negative_padding, X),
}


@pytest.mark.optimised
@pytest.mark.parametrize(("fn", "x"), ERRING.values(), ids=ERRING.keys())
def test_a_compiler_that_errs_convicts_no_honest_device(fn: Any, x: Any):
    """With vectors of 512 bits, the first is miscompiled on jax 0.10.2, and crashes the process."""
    one = compiled(fn, W, x, strategy=Strategy())
    with jax.disable_jit():
        y, trace = one.execute(W, x)
    try:
        key = one.setup(W, SECRET)
    except errors.Miscompiled as error:
        assert error.equation
        return
    assert one.check(key, x, y=y, trace=trace).verdict is Verdict.ACCEPT


@pytest.mark.parametrize(
    ("compiled", "plain", "perturbed", "found"),
    [
        ([1, 5, 3], [1, 2, 3], [[1, 2, 3], [1, 2, 3]], (5, 2)),
        ([1, 5, 3], [1, 2, 3], [[1, 2, 3], [1, 4, 3]], None),  # rounding decides it too
        ([True, False], [True, True], [[True, True]], (False, True)),
        ([1, 2, 3], [1, 2, 3], [[0, 2, 3]], None),
    ],
)
def test_integers_that_rounding_does_not_change_must_be_equal(
    compiled: Any, plain: Any, perturbed: Any, found: Any
):
    arrays = [np.asarray(x) for x in (compiled, plain, *perturbed)]
    assert locate.worst_difference(arrays[0], arrays[1], arrays[2:]) == found
