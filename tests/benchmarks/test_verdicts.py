"""The benchmark of verdicts: simulated devices, the zoo, cheats, and when one changes an answer."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cheats, trials, verdicts
from benchmarks.zoo import ZOO
from benchmarks.zoo.hazards import HAZARDS
from benchmarks.zoo.ill_conditioned import FAMILIES
from benchmarks.zoo.subject import Subject, Weights, normals
from verifiable import program
from verifiable.testing import devices, forging, parameters
from verifiable.testing.consequence import Spread
from verifiable.testing.devices import AWAY, DOWN, EACH, INDEPENDENT, TOWARDS, UP, moved

TYPES = (jnp.float32, jnp.float16, jnp.bfloat16)
WAYS = (UP, DOWN, AWAY, TOWARDS, EACH, INDEPENDENT)


# ----------------------------------------------------------------------------- simulated devices


def _values(dtype) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((40, 25)), dtype)


def _ordinals(x: jax.Array) -> np.ndarray:
    """The number of each float in the order of all floats of its type."""
    bits = np.asarray(x).view(np.int32 if x.dtype.itemsize == 4 else np.int16).astype(np.int64)
    lowest = -(2 ** (8 * x.dtype.itemsize - 1))
    return np.where(bits < 0, lowest - bits, bits)


def _moved(x: jax.Array, way: int, *, seed: int = 1, number: int = 3) -> jax.Array:
    return moved(x, None, np.uint32(seed), np.uint32(number), np.uint32(way))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("way", WAYS)
def test_a_device_moves_a_result_by_at_most_one_unit_in_the_last_place(way, dtype):
    x = _values(dtype)
    steps = _ordinals(_moved(x, way)) - _ordinals(x)
    sign = np.sign(np.asarray(x, np.float32)).astype(int)
    expected = {UP: 1, DOWN: -1, AWAY: sign, TOWARDS: -sign}
    if way in expected:
        np.testing.assert_array_equal(steps, np.broadcast_to(expected[way], steps.shape))
    elif way == EACH:
        assert any(np.all(steps == e) for e in expected.values())
    else:
        assert set(np.unique(steps)) == {-1, 0, 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_result_whose_exact_value_is_known_is_one_of_the_two_numbers_around_it(way):
    with jax.enable_x64(True):
        third = jnp.asarray(np.random.default_rng(1).standard_normal(1000)) / 3
        x = third.astype(jnp.bfloat16)
        after = _moved_from(x, third, way)
        np.testing.assert_array_equal(_moved_from(x, x.astype(jnp.float64), way), x)
    steps = _ordinals(after) - _ordinals(x)
    towards = np.sign(np.asarray(third) - np.asarray(x).astype(np.float64))
    assert np.any(steps)
    assert np.all((steps == 0) | (steps == towards))


def _moved_from(x: jax.Array, exact: jax.Array, way: int) -> jax.Array:
    return moved(x, exact, np.uint32(1), np.uint32(3), np.uint32(way))


def test_a_device_repeats_itself_and_another_one_does_not():
    x = _values(jnp.float32)
    first = _moved(x, INDEPENDENT)
    np.testing.assert_array_equal(first, _moved(x, INDEPENDENT))
    assert np.any(first != _moved(x, INDEPENDENT, seed=2))
    assert np.any(first != _moved(x, INDEPENDENT, number=4))


def test_equations_of_a_coherent_device_go_different_ways():
    x = _values(jnp.float32)
    ways = {tuple(np.ravel(_moved(x, EACH, number=n) > x)[:4].tolist()) for n in range(20)}
    assert len(ways) > 2


@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_rounded_number_stays(way):
    largest = float(jnp.finfo(jnp.float32).max)
    x = jnp.asarray([0.0, -0.0, np.inf, -np.inf, np.nan, largest], jnp.float32)
    after = np.asarray(_moved(x, way))
    np.testing.assert_array_equal(after[:5], np.asarray(x)[:5])
    assert np.isfinite(after[5])


def test_both_parts_of_a_complex_number_move():
    x = jax.lax.complex(_values(jnp.float32), _values(jnp.float32)[::-1])
    after = _moved(x, UP)
    assert np.all(_ordinals(after.real) - _ordinals(x.real) == 1)
    assert np.all(_ordinals(after.imag) - _ordinals(x.imag) == 1)


# ------------------------------------------------------------------------------ a small program


def _layers(p, x):
    h = jnp.tanh(x @ p["layers"][0])
    return jnp.argmax(h, -1), jnp.exp(h) @ p["layers"][1]


@functools.cache
def _bench() -> cheats.Bench:
    w = Weights(1)
    params = {"layers": [w.matrix(64, 64), w.matrix(64, 64)]}
    return cheats.Bench.of(Subject(fn=_layers, params=params, draw=normals(8, 64)))


def _inputs():
    return _bench().subject.draw(np.random.default_rng(3))


def test_a_simulated_device_moves_what_rounds_and_nothing_else():
    bench, inputs = _bench(), _inputs()
    params = bench.subject.params
    (choice, y), trace = bench.devices["jit"](params, inputs, 0)
    for name in devices.NAMES[2:]:
        (other, z), claims = bench.devices[name](params, inputs, 1)
        assert np.any(claims.values[0] != trace.values[0])
        assert np.any(claims.values[2] != trace.values[2])
        np.testing.assert_allclose(z, y, rtol=1e-4, atol=1e-5)
        assert choice.dtype == other.dtype
        assert bench.check(inputs, ((other, z), claims)).verdict is verdicts.Verdict.ACCEPT


@pytest.mark.parametrize("run", [0, 1, 4])
def test_a_simulated_device_does_not_move_exact_results(run):
    def fn(p, mask):
        kept = mask.astype(jnp.float32)
        return p * kept / 4 - 1e30 * (1 - kept)

    p, mask = _values(jnp.float32), jnp.ones((40, 25), jnp.int32)
    compiled = devices.devices(program.compile(fn, p, mask))
    for name in devices.NAMES[2:]:
        np.testing.assert_array_equal(compiled[name](p, (mask,), run)[0], p / 4)


def test_sums_in_lanes_and_narrow_sums_are_those_sums():
    def fn(p, x):
        return (x @ p).sum(-1), (x @ p) @ p

    p, x = jnp.ones((64, 64), jnp.float16), jnp.asarray(_values(jnp.float16)[:8, :1] + jnp.ones(64))
    compiled = program.compile(fn, p, x.astype(jnp.float16))
    for device in (devices.lanes(compiled, 4), devices.narrow_sums(compiled)):
        (sums, y), _ = device(p, (x.astype(jnp.float16),), 0)
        np.testing.assert_allclose(sums, x.astype(jnp.float32).sum(-1) * 64, rtol=0.05)
        assert y.shape == (8, 64)


# ---------------------------------------------------------------------------------------- cheats


def test_one_unit_is_wrong_by_its_kappa_in_one_row():
    bench, inputs = _bench(), _inputs()
    params = bench.subject.params
    _, honest = bench.run(params, *inputs)
    for unit, index in zip(forging.one_unit(bench.program), (0, 2), strict=True):
        answer = unit(params, inputs, 5)
        assert answer is not None
        wrong, right = (np.asarray(trace.values[index]) for trace in (answer[1], honest))
        # Both devices are compiled, and may round apart.
        rows = np.linalg.norm(wrong - right, axis=-1) > 1e-5 * np.linalg.norm(right, axis=-1)
        assert rows.sum() == 1
        report = bench.check(inputs, answer)
        assert report.claim == bench.program.claims[index].name
        # The statistic of a row at kappa has expectation kappa sqrt(t / L).
        expected = forging.KAPPA * (16 / bench.program.bound.limit) ** 0.5
        assert expected / 2 < report.worst < expected * 2


def test_one_unit_in_a_branch_that_is_not_taken_is_no_cheat():
    def fn(p, x, taken):
        return jax.lax.cond(taken, lambda: x @ p, lambda: x)

    w, [x] = Weights(4).matrix(64, 64), normals(32, 64)(np.random.default_rng(6))
    bench = cheats.Bench.of(Subject(fn=fn, params=w, draw=lambda _: (x, np.bool_(True))))
    [unit] = forging.one_unit(bench.program)
    assert unit(w, (x, np.bool_(True)), 1) is not None
    assert unit(w, (x, np.bool_(False)), 1) is None


def test_near_ties_go_the_other_way_and_nothing_else_does():
    def fn(p, x):
        h = jnp.tanh(x @ p["w"])
        return jnp.where(h > p["far"], h, 0) @ p["w"], h > p["near"]

    w, x = Weights(3).matrix(64, 64), normals(8, 64)(np.random.default_rng(5))
    near = jnp.tanh(x[0] @ w) * (1 + 1e-6)
    params = {"w": w, "near": near, "far": near + 0.1}
    bench = cheats.Bench.of(Subject(fn=fn, params=params, draw=lambda _: x))
    (y, decided), _ = bench.run(params, *x)
    (z, forged_), trace = forging.TurnedTies(bench.program)(params, x)
    np.testing.assert_array_equal(forged_, ~np.asarray(decided))
    np.testing.assert_array_equal(z, y)
    report = bench.check(x, ((z, forged_), trace))
    assert report.reason != "decision-mismatch"


def test_one_choice_is_another_one_in_one_row():
    bench, inputs = _bench(), _inputs()
    cheat = forging.one_choice(bench.program)
    assert cheat is not None
    (chosen, _), _ = bench.run(bench.subject.params, *inputs)
    answer = cheat(bench.subject.params, inputs, 1)
    assert np.sum(np.asarray(answer[0][0]) != chosen) == 1
    report = bench.check(inputs, answer)
    assert (report.verdict, report.reason) == (verdicts.Verdict.REJECT, "decision-mismatch")


@pytest.mark.parametrize(
    ("turned", "numbers", "within"),
    [({1, 2}, False, True), ({1, 3}, False, False), (set(), False, False), ({1}, True, False)],
)
def test_what_is_steered_is_within_the_corridor_if_the_report_says_so(turned, numbers, within):
    floats = np.ones(4, np.float32)
    normal = Spread.of([(floats,), (floats,)])
    ties = [SimpleNamespace(claim="head", trip=0, row=row) for row in (1, 2)]
    trial = trials.Trial(plain=_bench(), tested=_bench(), inputs=_inputs(), normal=normal)
    rows = [("head", 0, row) for row in turned]
    report = SimpleNamespace(near_ties=ties)
    y = (floats * np.nan if numbers else floats,)
    assert trial.within(y, report, rows) is within


def test_skipped_layers_are_found_by_name_or_number():
    numbered = {"a": {"b": 1}, "encoder": {"0": jnp.ones(2), "10": jnp.ones(2), "9": jnp.ones(2)}}
    skipped = parameters.skipped_layers(numbered)
    assert not np.any(skipped["encoder"].pop("10"))
    assert np.all([*skipped["encoder"].values()])
    assert parameters.skipped_layers({"a": {"b": 1}}) == {"a": {"b": 1}}


def test_verdicts_on_cheats_are_counted_by_cheat():
    bench = _bench()
    found = trials.cheated(bench, 1)
    assert {"int8 weights", "one unit", "near-ties", "decoy, then one unit"} <= set(found)
    for cheat in (
        "another model",
        "skipped layers",
        "one unit",
        "decoy, then one unit",
        "one choice",
    ):
        assert found[cheat].rejected == found[cheat].runs
        assert found[cheat].convicted == 1
    total = trials.Cheated()
    for tally in found.values():
        total.merge(tally)
        assert tally.accepted == 0
    assert total.runs == sum(tally.runs for tally in found.values())


def test_other_parameters_are_those_of_the_cheat():
    w = Weights(2)
    params = {"layers": [w.matrix(64, 64), w.vector(64)], "head": w.matrix(64, 32)}
    for change, levels in ((parameters.int8, 255), (parameters.int4, 15)):
        rounded = np.asarray(change(params)["head"])
        column = rounded[: parameters.GROUP, 0] / np.abs(rounded[: parameters.GROUP, 0]).max()
        assert len(np.unique(column)) <= levels
        assert 0 < np.abs(rounded - params["head"]).max() < 0.1
    assert not np.any(parameters.skipped_layers(params)["layers"][-1])
    assert np.any(parameters.skipped_layers(params)["layers"][0])
    other = parameters.another_model(params)
    assert float(np.std(other["head"])) == pytest.approx(float(np.std(params["head"])), rel=0.1)
    assert np.all(np.asarray(other["head"]) != np.asarray(params["head"]))


def test_a_decoy_comes_first_and_leaves_the_model_as_it_is():
    covered = cheats.with_decoy(_bench().subject)
    inputs = covered.draw(np.random.default_rng(4))
    compiled = program.compile(covered.fn, covered.params, *inputs)
    assert compiled.claims[0].shape == (8, 64)
    assert len(compiled.claims) == len(_bench().program.claims) + 1
    np.testing.assert_array_equal(
        covered.fn(covered.params, *inputs)[0][1], _layers(_bench().subject.params, *inputs[1:])[1]
    )


def test_an_answer_has_changed_if_a_choice_differs_or_a_number_leaves_the_spread():
    floats, choices = np.ones(4, np.float32), np.arange(4)
    unsure = np.array([0, 1, 2, 0])
    spread = Spread.of([(floats, choices), (floats + 1e-6, unsure)])
    assert not spread.changed((floats, choices))
    assert not spread.changed((floats + 3e-6, unsure))
    assert spread.changed((floats + 1e-5, choices))
    assert spread.changed((floats, np.array([1, 1, 2, 3])))
    assert not spread.changed((floats, np.array([0, 1, 2, 1])))  # the devices disagree there
    assert spread.changed((floats * np.nan, choices))


def test_an_answer_that_overflows_on_some_honest_devices_is_compared_with_the_others():
    first = np.array([1, np.inf, np.nan, 4, -np.inf], np.float32)
    other = np.array([1 + 1e-6, np.inf, np.nan, np.inf, -np.inf], np.float32)
    for spread in (Spread.of([(first,), (other,)]), Spread.of([(other,), (first,)])):
        assert not spread.changed((first,))
        assert not spread.changed((other,))
        for place, value in ((0, 1.1), (0, np.inf), (1, 9), (2, 9), (3, 5), (3, -np.inf), (4, 0)):
            wrong = first.copy()
            wrong[place] = value
            assert spread.changed((wrong,))


# ------------------------------------------------------------------------------------------ zoo


def test_the_zoo_is_large_and_holds_what_is_cheated_on():
    assert len(ZOO) >= 60
    barred = {*verdicts.QUICK, *verdicts.DECISIONS, *verdicts.COVERED, *verdicts.NONE_LEFT}
    assert barred <= set(ZOO)
    assert set(verdicts.QUICK_FAMILIES) <= set(FAMILIES)


def _compiled(subject: Subject) -> program.Program:
    inputs = subject.draw(np.random.default_rng(0))
    return program.compile(subject.fn, subject.params, *inputs)


@pytest.mark.parametrize("name", ZOO)
def test_every_model_has_claims(name):
    compiled = _compiled(ZOO[name]())
    assert compiled.claims
    assert "discontinuities: none" in str(compiled) or name not in verdicts.NONE_LEFT


@pytest.mark.parametrize("name", [*HAZARDS, *FAMILIES])
def test_every_hard_case_traces(name):
    make = HAZARDS.get(name) or functools.partial(FAMILIES[name].make, 64)
    assert _compiled(make()).claims or name == "int8 products as floats, K = 4,096"
