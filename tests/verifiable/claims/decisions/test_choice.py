"""ChoiceForm claims: single rows against a slow oracle, committed indices, programs and cheats."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tests.helpers.runs import Run
from verifiable import Submission, parameter_root, program, trace
from verifiable.check.judging.evidence import evidence_of, verify_evidence
from verifiable.claims.decisions.choice import ChoiceForm
from verifiable.claims.form import Yardstick
from verifiable.policy import Policy
from verifiable.report import Report, Verdict

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
INF, NAN = math.inf, math.nan
EPS = 2.0**-10

# ------------------------------------------------------------------------ one row, by oracle


def slack_of(row: list[float], x: float) -> float:
    """eps (|x| + rms) + tiny, from the text; an infinity has only tiny."""
    tiny = float(np.finfo(F32).tiny)
    if not math.isfinite(x):
        return tiny
    finite = [v for v in row if math.isfinite(v)]
    return EPS * (abs(x) + math.sqrt(sum(v * v for v in finite) / len(finite))) + tiny


def excess(form: ChoiceForm, rows: list[list[float]], i: int, j: int) -> float:
    """By how much of the slack element i, which is to come first, is behind element j."""
    for row, inexact in zip(rows, form.inexact, strict=True):
        a, b = row[i], row[j]
        if form.kind in ("argmax", "top_k"):
            a, b = -a, -b
        certain = not inexact or (a == b and math.isinf(a))
        if not certain:
            return max(a - b, 0.0) / (slack_of(row, row[i]) + slack_of(row, row[j]))
        if a != b:
            return INF if a > b else 0.0
    return INF if form.stable and i > j else 0.0


def worst_of(form: ChoiceForm, rows: list[list[float]], picked: list[int]) -> float:
    rest = [j for j in range(form.length) if j not in picked]
    pairs = [(i, j) for q, j in enumerate(picked) for i in picked[:q]]
    pairs += [(i, j) for i in picked for j in rest]
    return max((excess(form, rows, i, j) for i, j in pairs), default=0.0)


def form_of(
    kind: str, length: int, count: int, inexact: tuple[bool, ...], stable: bool
) -> ChoiceForm:
    return ChoiceForm(
        kind=kind,
        shape=(length,),
        axis=0,
        count=count,
        keys=tuple(F32 if flag else I32 for flag in inexact),
        inexact=inexact,
        stable=stable,
        dtype=I32,
        operands=len(inexact),
    )


FORMS = {
    "the largest": form_of("argmax", 5, 1, (True,), True),
    "the least": form_of("argmin", 5, 1, (True,), True),
    "of one": form_of("argmax", 1, 1, (True,), True),
    "the largest three": form_of("top_k", 6, 3, (True,), True),
    "the largest six": form_of("top_k", 6, 6, (True,), True),
    "in order": form_of("sort", 6, 6, (True,), True),
    "in some order": form_of("sort", 6, 6, (True,), False),
    "by class and number": form_of("sort", 6, 6, (False, True), True),
    "by number and class": form_of("sort", 6, 6, (True, False), True),
    "by class": form_of("sort", 6, 6, (False,), False),
    "by two numbers": form_of("sort", 6, 6, (True, True), False),
}


@functools.cache
def judged(name: str) -> Callable[..., Any]:
    form = FORMS[name]

    def one(keys: Any, committed: Any) -> Any:
        with jax.enable_x64(True):
            return form.test(keys, committed, Yardstick(eps=EPS))

    return jax.jit(one)


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 1.0, -1.0, 2.0, INF, -INF, 1e38, -1e38, 1e-40])
MOVES = st.integers(-9, 9)


def drawn(data: Any, form: ChoiceForm) -> list[list[float]]:
    """Keys with ties, and numbers that are a few quarters of the slack apart."""
    rows: list[list[float]] = []
    for inexact in form.inexact:
        if inexact:
            near = data.draw(st.lists(NUMBERS, min_size=form.length, max_size=form.length))
            moved = [x * (1 + data.draw(MOVES) * EPS) for x in near]
            rows.append([float(np.float32(x)) for x in np.clip(moved, -1.1e38, 1.1e38)])
            rows[-1] = [n if math.isinf(n) else x for n, x in zip(near, rows[-1], strict=True)]
        else:
            rows.append(data.draw(st.lists(st.integers(0, 2), min_size=6, max_size=6)))
    return rows


def own(form: ChoiceForm, rows: list[list[float]]) -> list[int]:
    sign = -1 if form.kind in ("argmax", "top_k") else 1
    order = sorted(range(form.length), key=lambda i: [sign * row[i] for row in rows])
    return order[: form.count]


def committed(form: ChoiceForm, picked: list[int]) -> np.ndarray[Any, Any]:
    array = np.asarray(picked, np.uint8)
    return array[0] if form.kind in ("argmax", "argmin") else array


@pytest.mark.parametrize("name", FORMS)
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_choice_passes_iff_it_is_right_for_some_row_within_the_slack(name: str, data: Any):
    form = FORMS[name]
    rows = drawn(data, form)
    picked = own(form, rows)
    match data.draw(st.sampled_from(["own", "swapped", "any", "other", "beyond"])):
        case "swapped" if form.count > 1:
            q = data.draw(st.integers(1, form.count - 1))
            picked[q - 1], picked[q] = picked[q], picked[q - 1]
        case "any":
            picked = data.draw(st.permutations(range(form.length)))[: form.count]
        case "other" | "beyond" as how:
            top = form.length - 1 if how == "other" else 255
            picked[data.draw(st.integers(0, form.count - 1))] = data.draw(st.integers(0, top))
        case _:
            pass
    keys = [
        np.asarray(row, F32 if inexact else I32)
        for row, inexact in zip(rows, form.inexact, strict=True)
    ]
    found = judged(name)(keys, committed(form, picked))
    valid = len(set(picked)) == form.count and max(picked) < form.length
    assert bool(found.in_range) == valid
    assert bool(found.finite_operands)
    if not valid:
        return
    worst = worst_of(form, rows, picked)
    if abs(worst - 1) > 1e-3:
        assert bool(found.passed) == (worst <= 1), (rows, picked, worst)
        if 0.05 < worst < 1e30:  # below, subnormal numbers may be flushed
            np.testing.assert_allclose(float(found.worst), worst, rtol=2e-3)


def test_small_steps_do_not_add_up():
    """Cheat: a row whose neighbours are within the slack, committed in reverse order."""
    form = FORMS["in order"]
    row = np.asarray([1 + 1.5 * i * EPS for i in range(6)], F32)
    swapped = judged("in order")([row], committed(form, [1, 0, 2, 3, 4, 5]))
    assert bool(swapped.passed)
    reverse = judged("in order")([row], committed(form, [5, 4, 3, 2, 1, 0]))
    assert not bool(reverse.passed)


OWN: dict[str, Callable[[Any], Any]] = {
    "the largest": jnp.argmax,
    "the least": jnp.argmin,
    "the largest three": lambda row: lax.top_k(row, 3)[1],
    "in order": jnp.argsort,
}


@pytest.mark.parametrize("name", OWN)
def test_of_nan_the_choice_is_the_verifiers_own_or_nothing_is_shown(name: str):
    form = FORMS[name]
    row = jnp.asarray([1.0, NAN, 3.0, NAN, -2.0, 0.5][: form.length])
    mine = np.asarray(form.pack(OWN[name](row)))
    found = judged(name)([row], mine)
    assert bool(found.passed & found.finite_operands & found.in_range)
    other = np.roll(mine, 1) if mine.ndim else np.uint8((mine + 1) % form.length)
    found = judged(name)([row], other)
    assert bool(found.passed & found.in_range)
    assert not bool(found.finite_operands)


@pytest.mark.parametrize(
    ("length", "bits"), [(1, 8), (256, 8), (257, 16), (65_536, 16), (65_537, 32)]
)
def test_indices_are_committed_in_the_smallest_type(length: int, bits: int):
    form = form_of("argmax", length, 1, (True,), True)
    last = form.pack(jnp.int32(length - 1))
    assert (last.shape, last.dtype) == form.packed((), I32) == ((), np.dtype(f"uint{bits}"))
    assert int(form.outputs(last, [None])[0]) == length - 1
    beyond = jnp.asarray(np.iinfo(last.dtype).max, last.dtype)
    assert int(form.outputs(beyond, [None])[0]) == length - 1


# ---------------------------------------------------------------------------------- programs

ROWS, WIDTH, LAYERS = 4, 24, 2
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 4, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)
POLICY = Policy(draws=1)
CLASSES = np.arange(WIDTH, dtype=np.int32) // 8


def chooses(w: Any, x: Any) -> Any:
    """Under `scan`, `cond` and `vmap`; along both axes; values, indices, and what they gather."""

    def layer(h: Any, u: Any) -> tuple[Any, Any]:
        h = jnp.tanh(h @ u + 0.1)
        values, indices = lax.top_k(h, 3)
        routed = jnp.take_along_axis(h, indices[:, ::-1], 1) * values
        return h + 0.1 * routed.sum(axis=1, keepdims=True), jnp.argmax(h, axis=0)

    h, best = lax.scan(layer, x, w)
    h = lax.switch(
        jnp.argmin(h[0, :3]), [lambda: h, lambda: jnp.flip(h), lambda: h[jnp.argsort(h[:, 0])]]
    )
    classes = jnp.broadcast_to(CLASSES, h.shape)
    _, ordered, where = lax.sort((classes, h, lax.iota(jnp.int32, WIDTH) + 0 * classes), num_keys=2)
    least = jax.vmap(lambda row: row[lax.top_k(-row, 2)[1]])(h)
    return {"y": ordered @ w[0], "where": where, "best": best, "least": least}


@functools.cache
def made() -> Run:
    return Run.of(chooses, W, X, policy=POLICY)


def checked(values: Any, y: Any = None) -> Report:
    return made().check(made().y if y is None else y, tuple(values))


def named(kind: str, which: int = 0) -> int:
    claims = [c for c in made().program.claims if isinstance(c.form, ChoiceForm)]
    return [c.index for c in claims if c.primitive == kind][which]


def test_every_choice_is_a_claim_and_nothing_is_left_behind_one():
    compiled = made().program
    kinds = sorted(c.primitive for c in compiled.claims if isinstance(c.form, ChoiceForm))
    assert kinds == ["argmax", "argmin", "sort", "sort", "top_k", "top_k"]
    assert not compiled.coverage.discontinuities
    assert not any(x.discontinuities for x in (*compiled.claims, *compiled.outputs))
    assert all(c.dtype == np.uint8 for c in compiled.claims if isinstance(c.form, ChoiceForm))


def test_honest_devices_are_accepted_and_return_the_plain_answer():
    c = made()
    report = checked(c.claims)
    assert report.verdict is Verdict.ACCEPT, report
    plain = jax.device_get(jax.jit(chooses)(W, X))
    jax.tree.map(np.testing.assert_array_equal, c.y, plain)
    with jax.disable_jit():
        y, run = jax.device_get(c.program.execute(W, X))
    report = checked(run.values, y)
    assert report.verdict is Verdict.ACCEPT, report


Tamper = Callable[[Any], None]


def sets(value: int) -> Tamper:
    def tamper(array: Any) -> None:
        array[..., 0] = value

    return tamper


def repeats(array: Any) -> None:
    array[..., 0] = array[..., 1]


def swaps(array: Any) -> None:
    array[..., [0, 1]] = array[..., [1, 0]]


def second_best(array: Any) -> None:
    array[:] = (array + 1) % ROWS


CHEATS: dict[str, tuple[str, int, Tamper, str]] = {
    "an index beyond the row": ("top_k", 0, sets(WIDTH), "claim-range"),
    "an index beyond the column": ("argmax", 0, sets(ROWS), "claim-range"),
    "an element picked twice": ("top_k", 0, repeats, "claim-range"),
    "an order that is no permutation": ("sort", -1, repeats, "claim-range"),
    "an index of a branch that does not exist": ("argmin", 0, sets(255), "claim-range"),
    "an element that is not the largest": ("argmax", 0, second_best, "decision-mismatch"),
    "the largest in another order": ("top_k", 0, swaps, "decision-mismatch"),
    "two elements out of order": ("sort", -1, swaps, "decision-mismatch"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_rejected(name: str):
    kind, which, tamper, reason = CHEATS[name]
    index = named(kind, which)
    values = [np.array(v) for v in made().claims]
    if not values[index].ndim:
        values[index] = values[index][None]
    tamper(values[index])
    values[index] = values[index].reshape(made().claims[index].shape)
    report = checked(values)
    assert (report.verdict, report.reason) == (Verdict.REJECT, reason), report
    assert report.claim == made().program.claims[index].name


def test_a_choice_beyond_the_slack_is_evidence():
    """Cheat: an element that is not the largest, in one column of one iteration."""
    c, index = made(), named("argmax")
    values = [np.array(v) for v in c.claims]
    values[index][1, 2] = (values[index][1, 2] + 1) % ROWS
    changed = trace.Trace(values=tuple(values))
    committed = trace.commit(c.y, changed).commitment
    run = Submission(
        y=c.y,
        trace=changed,
        commitment=committed,
        program=c.program.id,
        parameters=parameter_root(W),
    )
    report = c.program.verify(c.key, X, run, commitment=committed)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "decision-mismatch")
    result = next(r for r in report.results if r.name == report.claim)
    assert (result.trip, result.row) == (1, 2)
    evidence = evidence_of(c.program, report, run)
    assert verify_evidence(evidence, c.program, W, X).guilty


FORM_OF_THREE = replace(FORMS["the largest"], shape=(1, 3), axis=1)


def test_calibration_measures_the_keys():
    policy = made().program.calibrate(W, [(X,)])
    names = {c.name for c in made().program.claims if isinstance(c.form, ChoiceForm)}
    found = {m.name: m for m in policy.calibration.measured if m.name in names}
    assert found.keys() == names
    assert all(m.worst < 2.0**-16 for m in found.values())
    rounds = np.float32([[1.0, 2.0, 3.0]]), np.float32([[1.0, 2.0, 3.0]]) * (1 + 2.0**-12)
    assert 2.0**-14 < FORM_OF_THREE.apart([rounds[0]], [rounds[1]]) < 2.0**-12


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: lax.top_k(jnp.sin(x), 0)[1],
        lambda x: jnp.sort(lax.complex(jnp.sin(x), x)),
        lambda x: lax.top_k(jnp.sin(x), 3)[0],
    ],
)
def test_what_chooses_nothing_or_complex_numbers_is_no_choice(fn: Callable[[Any], Any]):
    compiled = program.compile(lambda _, x: fn(x), W, X, policy=POLICY)
    assert not [c for c in compiled.claims if isinstance(c.form, ChoiceForm)]
