"""The second look: honest runs on ill-conditioned glue are not rejected, cheats are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.helpers.runs import ACCEPT, INDETERMINATE, REJECT, SECRET_SEED, put
from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.check.flips import FEW
from verifiable.check.judging import second_look, spread
from verifiable.check.judging.spread import MANY, SIZES, decide
from verifiable.check.specification import Target
from verifiable.claims.statistic import Deviation
from verifiable.policy import Policy
from verifiable.trace import Trace

WIDTH, ROWS = 64, 16
POLICY = Policy(draws=4)
RNG = np.random.default_rng(7)
W = jnp.asarray(RNG.standard_normal((2, WIDTH, WIDTH)) / 8, jnp.float32)
NOISE = RNG.standard_normal((ROWS, WIDTH)).astype(np.float32)


def normalized(x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)


def fast_variance(x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5)


def embedded(x: Any) -> Any:
    """Sines of large angles, as of times and positions."""
    frequencies = jnp.exp(jnp.arange(WIDTH, dtype=jnp.float32) * (-9.0 / WIDTH))
    return jnp.sin(x[:, :1] * frequencies)


def sharpened(x: Any) -> Any:
    scores = x @ x.T * 300
    return jax.nn.softmax(scores, axis=-1) @ x


# Glue before a claim, and inputs on which rounding decides.
ILL: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "layer norm of constant rows": (normalized, np.full((ROWS, WIDTH), 30.3, np.float32)),
    "fast variance at mean/std 100": (fast_variance, NOISE + 100),
    "sine of large angles": (embedded, 1e5 * (1 + NOISE**2)),
    "sharp attention": (sharpened, NOISE),
    "arccosine near one": (
        lambda x: jnp.arccos(jnp.tanh(x) / jnp.tanh(x * (1 + 1e-7))),
        30 + NOISE,
    ),
}


def model(glue: Callable[[Any], Any], w: Any, x: Any) -> Any:
    return jnp.tanh(glue(x) @ w[0]) @ w[1]


@functools.cache
def compiled(name: str) -> tuple[program.Program, Any, Any]:
    glue, x = ILL[name]
    made = program.compile(functools.partial(model, glue), W, x, policy=POLICY)
    key = made.setup(W, challenge.secret(SECRET_SEED))
    return made, key, jnp.asarray(x)


def lanes(values: Any, count: int) -> Any:
    """A sum in another order: `count` running sums, one after the other."""
    return np.add.reduce([values[..., i::count].cumsum(-1)[..., -1] for i in range(count)], axis=0)


@pytest.mark.optimised
@pytest.mark.parametrize("name", ILL)
@pytest.mark.parametrize("compile_", [True, False])
def test_honest_runs_on_ill_conditioned_glue_are_not_rejected(name: str, *, compile_: bool):
    made, key, x = compiled(name)
    with jax.disable_jit(not compile_):
        y, trace = jax.jit(made.execute)(W, x)
    assert made.check(key, x, y=y, trace=trace).verdict is not REJECT


def test_a_constant_row_summed_in_lanes_is_ill_conditioned():
    """The device's mean differs in the last bits; its layer norm then has nothing in common."""
    made, key, x = compiled("layer norm of constant rows")
    row = np.asarray(x)
    mean = (lanes(row, 8) / np.float32(WIDTH)).astype(np.float32)[:, None] * np.float32(1 + 3e-7)
    centred = row - mean
    hidden = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(1e-5))
    first = (hidden.astype(np.float32) @ np.asarray(W[0])).astype(np.float32)
    y = np.tanh(first) @ np.asarray(W[1])
    report = made.check(key, x, y=y, trace=[first, y])
    assert report.results[0].worst > 10
    assert (report.verdict, report.reason) == (INDETERMINATE, "ill-conditioned")


@pytest.mark.parametrize(
    "name", ["fast variance at mean/std 100", "sine of large angles", "sharp attention"]
)
def test_rounded_weights_are_rejected_behind_ill_conditioned_glue(name: str):
    made, key, x = compiled(name)
    scale = jnp.max(jnp.abs(W), axis=1, keepdims=True) / 7
    y, trace = jax.jit(made.execute)(jnp.round(W / scale) * scale, x)
    report = made.check(key, x, y=y, trace=trace)
    assert (report.verdict, report.reason) == (REJECT, "claim-mismatch")


def every_kind(w: Any, x: Any, n: Any) -> Any:
    """Random keys, branches whose double precision differs, loops in branches, an empty scan."""
    x = x + jax.random.normal(jax.random.fold_in(jax.random.key(0), n), x.shape)
    x, _ = lax.scan(lambda c, u: (jnp.tanh(c @ u), None), x, jnp.zeros((0, WIDTH, WIDTH)))

    def repeated() -> Any:
        chosen = lax.cond(n > 1, lambda: x, lambda: jnp.sin(x))
        body = lambda c: (c[0] + 1, jnp.sin(c[1]))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < n, body, (jnp.int32(0), chosen))[1] @ w[0]

    return jnp.tanh(lax.cond(n > 0, repeated, lambda: jnp.cos(x) @ w[1])) @ w[1]


def test_a_look_goes_through_glue_of_every_kind():
    """A wrong claim before or after it is rejected, and nothing is raised."""
    n = jnp.int32(3)
    made = program.compile(every_kind, W, NOISE, n, policy=POLICY, self_test=False)
    key = made.setup(W, challenge.secret(SECRET_SEED))
    y, trace = jax.device_get(jax.jit(made.execute)(W, NOISE, n))
    assert made.check(key, NOISE, n, y=y, trace=trace).verdict is ACCEPT
    cheated = [c.index for c in made.claims if c.work and np.any(trace.values[c.index])]
    assert len(cheated) == 2
    for index in cheated:
        claims = list(trace.values)
        claims[index] = put(claims[index], (3, 3), 9)
        report = made.check(key, NOISE, n, y=y, trace=claims)
        assert (report.verdict, report.reason) == (REJECT, "claim-mismatch")


def test_a_row_of_noise_hides_no_cheat():
    """Many rows whose failure rounding explains, before one that it does not."""

    def fn(w: Any, x: Any) -> Any:
        return jnp.tanh(normalized(x) @ w[0]) @ w[1]

    x = np.array(NOISE)
    x[:12] = 0.3
    made = program.compile(fn, W, x, policy=POLICY)
    key = made.setup(W, challenge.secret(SECRET_SEED))
    y, trace = jax.device_get(jax.jit(made.execute)(W, x))
    noisy = np.array(trace.values[0])
    noisy[:12] += 1e-3 * RNG.standard_normal((12, WIDTH)).astype(np.float32)
    report = made.check(key, x, y=y, trace=[noisy, trace.values[1]])
    assert report.results[0].reason == "ill-conditioned"
    wrong = put(noisy, (14, 3), noisy[14, 3] + 0.1)
    report = made.check(key, x, y=y, trace=[wrong, trace.values[1]])
    assert (report.verdict, report.results[0].row) == (REJECT, 14)


def never(*_: Any) -> spread.Look:
    raise AssertionError("looked at a claim whose operands are exact")


def test_what_is_exact_needs_no_second_look(monkeypatch: pytest.MonkeyPatch):
    """Between two claims without rounding, nothing explains a difference."""

    def fn(w: Any, x: Any) -> Any:
        return jnp.maximum(x @ w[0], 0) @ w[1]

    made = program.compile(fn, W, NOISE, policy=POLICY)
    key = made.setup(W, challenge.secret(SECRET_SEED))
    y, trace = jax.device_get(jax.jit(made.execute)(W, NOISE))
    monkeypatch.setattr(second_look.SecondLook, "look", never)
    wrong = put(trace.values[0], (2, 3), 9)
    assert made.check(key, NOISE, y=y, trace=[wrong, trace.values[1]]).verdict is REJECT
    assert made.check(key, NOISE, y=y, trace=trace).verdict is ACCEPT


def test_changes_are_told_from_a_replay_without_noise(monkeypatch: pytest.MonkeyPatch):
    made = program.compile(lambda w, x: jnp.tanh(x @ w[0]) @ w[1], W, NOISE, policy=POLICY)
    key = made.setup(W, challenge.secret(SECRET_SEED))
    y, run = jax.device_get(jax.jit(made.execute)(W, NOISE))
    plain, sizes = second_look.SecondLook._draw, list[tuple[float, ...]]()  # pyright: ignore[reportPrivateUsage]

    def draw(self: Any, *of: Any) -> Any:
        made = plain(self, *of)

        def seen(given: Any, seed: Any, *noise: Any, **more: Any) -> Any:
            sizes.append(tuple(float(x) for x in noise))
            return made(given, seed, *noise, **more)

        return seen

    monkeypatch.setattr(second_look.SecondLook, "_draw", draw)
    wrong = put(run.values[1], (2, 3), 9)
    assert made.check(key, NOISE, y=y, trace=[run.values[0], wrong]).verdict is REJECT
    assert sizes[0] == (0, 0)
    assert len(sizes) > 1
    assert (0, 0) not in sizes[1:]


def test_an_output_within_the_spread_is_not_confirmed():
    """The verifier's own y is the answer."""
    x = np.array(NOISE)
    x[:8] = 0.3
    ones = jnp.ones((WIDTH, WIDTH)) + jnp.eye(WIDTH)
    made = program.compile(lambda w, x: normalized(x @ w), ones, x, policy=POLICY)
    key = made.setup(ones, challenge.secret(SECRET_SEED))
    y, trace = jax.device_get(jax.jit(made.execute)(ones, x))
    near = np.array(y)
    near[:8] += np.float32(1e-3) * NOISE[:8]
    report = made.check(key, x, y=near, trace=trace)
    assert (report.verdict, report.reason) == (INDETERMINATE, "ill-conditioned")
    np.testing.assert_allclose(report.y, y, atol=1e-2)
    near[12] += 0.1
    report = made.check(key, x, y=near, trace=trace)
    assert (report.verdict, report.results[-1].row) == (REJECT, 12)


def test_flips_are_counted_and_the_row_of_the_first_is_named():
    """Of ties in row 5, which other rounding turns round; the other rows are far from a tie.

    But those of row 6, which are zero, and of row 7: within their slack, and beyond rounding.
    """
    row = np.arange(ROWS)[:, None]
    x = np.where(row == 6, np.float32(0), NOISE)

    def chosen(w: Any, x: Any) -> Any:
        h = x @ w[0]
        other = jnp.where((row == 5) | (row == 6), h * 0.3 + h * 0.7, 100)
        return jnp.where(jnp.where(row == 7, h * (1 + 3e-6), other) > h, h, 2 * h) @ w[1]

    made = program.compile(chosen, W, x, policy=POLICY)
    key = made.setup(W, challenge.secret(SECRET_SEED))
    y, run = jax.device_get(jax.jit(made.execute)(W, x))
    [index] = [c.index for c in made.claims if c.decisions]
    look = made.compiled_check.second_look

    def with_flips(row: int, bits: int) -> CheckArguments:
        values = list(run.values)
        values[index] = put(values[index], (row, 0), values[index][row, 0] ^ bits)
        return CheckArguments.of(key, (x,), y, Trace(values=tuple(values)))

    def times(arguments: CheckArguments, most: int) -> float:
        return look.recount(arguments, [index], most).excess

    more = with_flips(9, 0b101)
    # Ties may be decided otherwise; what no rounding turns round is never allowed, few as it is.
    assert look.recount(with_flips(5, 0b111), [index], 8).allowed
    near, far, target = with_flips(7, 0b1), with_flips(9, 0b1), Target(output=False, index=index)
    for arguments in (more, near, far):
        assert not look.recount(arguments, [index], 8).allowed
    assert [times(more, most) * max(most, 0.5) for most in (0, 1, 2, 8)] == [times(far, 1) + 1] * 4
    found, most = look.look(with_flips(5, 0b111), target), made.flip_limits[index]
    assert (found.wrong, found.allowed, found.row, found.excess) == (False, True, 5, 1.0)
    found = look.look(near, target)
    assert (found.wrong, found.allowed, found.row, found.excess) == (False, False, 7, 1 / most)
    found = look.look(far, target)
    assert (found.wrong, found.row) == (True, 9)
    assert [look.look(a, target, strict=True).wrong for a in (with_flips(5, 0b111), near, far)] == [
        False,
        True,
        True,
    ]


def test_the_accept_path_does_not_know_of_it():
    """The compiled check is the same text before and after a second look."""
    made, key, x = compiled("fast variance at mean/std 100")
    y, trace = jax.jit(made.execute)(W, x)

    def text() -> list[str]:
        arguments = CheckArguments.of(key, (x,), y, trace)
        with jax.enable_x64(True):
            return [part.lower(arguments).as_text() for part in made.compiled_check.parts]

    before = text()
    values = [put(trace.values[0], (1, 1), 5.0), trace.values[1]]
    assert made.check(key, x, y=y, trace=values).verdict is REJECT
    assert text() == before


# ------------------------------------------------------------------------------- the decision


def judged(distance: Any, changes: Any, scale: float = 1e6) -> spread.Look:
    """`decide` on rows with a limit of 1."""
    full = np.ones(len(distance))
    return decide(np.asarray(distance, float), full, scale * full, changes)


def changes(*sizes: float) -> Any:
    """The same change of each row in every replay, at the honest size."""
    return lambda rows: (((1.0, 0.0), np.asarray(sizes, float)[rows]) for _ in range(MANY))


@pytest.mark.parametrize(
    ("distance", "change", "wrong"),
    [
        ([0.5], [0.0], False),
        ([1.5], [0.0], True),
        ([1.5], [0.2], False),  # 4 times 0.2 is added to the limit
        ([1.5], [0.1], True),
        ([np.inf], [0.1], True),
        ([np.inf], [np.inf], False),  # other rounding is not finite either
        ([1.5, 90.0], [5.0, 5.0], True),
        ([], [], False),
    ],
)
def test_the_limit_is_widened_by_the_spread(distance: Any, change: Any, *, wrong: bool):
    assert judged(distance, changes(*change)).wrong is wrong


def test_distances_are_zero_where_the_verifier_is_not_finite_and_infinite_where_the_claim_is():
    low = np.array([[1.0, 2.0], [np.nan, 2.0], [np.inf, 0.0], [1.0, 1.0]])
    high = np.array([[1.0, 5.0], [np.nan, 2.0], [np.inf, 0.0], [1.0, 1.0]])
    expected = np.array([[4.0, 3.0], [1.0, 1.0], [1.0, 1.0], [np.inf, 1.0]])
    found = Deviation(expected, low, high, np.ones(4), np.ones(4), np.zeros((4, 1)))
    assert spread.distances(found, expected).tolist() == [3.0, np.inf, np.inf, 0.0]


def test_a_visible_spread_decides_nothing():
    assert judged([900.0], changes(8.1), scale=10_000).wrong
    assert not judged([900.0], changes(8.1), scale=10).wrong
    assert judged([900.0], changes(7.9), scale=10).wrong  # within 32 times the limit


def test_a_heavy_tail_decides_nothing():
    """One replay of many that jumps shows a cliff that an honest device may fall off."""

    def some(jump_at: int) -> Any:
        return lambda _: (
            ((1.0, 0.0), np.array([5.0 if m == jump_at else 0.1])) for m in range(MANY)
        )

    assert not judged([22.0], some(3)).wrong
    assert judged([2.0], some(MANY)).wrong
    assert not judged([2.0], some(MANY - 1)).wrong


def test_coherent_changes_far_above_independent_ones_are_no_heavy_tail():
    """Many products in a row: one sign for each moves a row ten times as far as random signs.

    Now and then the coherent ones cancel, and the median of both kinds together is near the small
    ones.
    """

    def both(_: Any) -> Any:
        for m in range(MANY):
            independent, coherent = SIZES[m % len(SIZES)]
            cancels = m >= 3 * MANY // 4
            yield (
                (independent, coherent),
                np.array([0.02 * independent + (0.03 if cancels else 0.21) * coherent]),
            )

    assert judged([3.0], both).wrong
    assert not judged([1.8], both).wrong


def test_many_replays_keep_what_few_have_not_acquitted():
    """Rows are named as before; a claim that is wrong throughout takes no memory for each row."""
    distance = np.full(10, 6.0)
    distance[[2, 5]] = 2.0, 6.5
    found = judged(distance, changes(*np.ones(10)))
    assert (found.wrong, found.row) == (True, 5)
    with mock.patch.object(spread, "MOST", 3):
        assert judged(distance, changes(*np.ones(10))) == found
        tails = np.where(np.arange(10) == 5, 6.0, 1.0)  # the worst of few, explained by many
        late = lambda rows: (  # noqa: E731
            ((1.0, 0.0), (tails if m > FEW else np.ones(10))[rows]) for m in range(MANY)
        )
        assert judged(distance, late).row in (0, 1)


def test_few_replays_decide_only_what_is_clear():
    """Near the widened limit all replays are made."""
    made: list[int] = []

    def counted(change: float, _: Any) -> Any:
        for m in range(MANY):
            made.append(m)
            yield (1.0, 0.0), np.array([change])

    near = ((90.0, FEW), (2.0, FEW), (0.5, 0), (6.0, MANY))
    far = ((90.0, MANY), (2.0, FEW))
    for change, cases in ((1.0, near), (1.25, far)):
        for distance, expected in cases:
            made.clear()
            judged([distance], functools.partial(counted, change))
            assert len(made) == expected


def test_a_jump_that_few_replays_miss_shows_nothing():
    """A clamp turns what moves by some limits into what moves by thousands, in one replay of 20."""

    def jumps(_: Any) -> Any:
        for m in range(MANY):
            yield SIZES[m % len(SIZES)], np.array([30_000.0 if m == 19 else 7.0])

    assert not judged([20_000.0], jumps).wrong
