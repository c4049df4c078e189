"""The judge: what a discontinuity may explain, and nothing accepted that did not pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tests.helpers.runs import (
    ACCEPT,
    INDETERMINATE,
    POLICY,
    REJECT,
    ROWS,
    SMALL,
    WIDTH,
    W,
    X,
    one_step,
    put,
    quantised,
    reinterpreted,
)
from verifiable import challenge, program
from verifiable.check.judging.receive import Problem
from verifiable.check.judging.spread import Again, Look
from verifiable.check.judging.verdict import judge, refuse
from verifiable.check.outputs import Output, OutputStatistic
from verifiable.check.replay.replay import Findings
from verifiable.check.specification import Target
from verifiable.claims.statistic import Statistic
from verifiable.report import REASONS, Coverage

# ---------------------------------------------------------- what discontinuous glue may explain


def test_a_rejection_before_the_glue_stands():
    """A cheat cannot hide behind a rounding that comes later, nor behind one beside it."""

    def fn(p: Any, x: Any) -> Any:
        first = x @ p
        return reinterpreted(jnp.tanh(first)) @ p

    compiled = program.compile(fn, W, X, policy=POLICY)
    assert [bool(c.discontinuities) for c in compiled.claims] == [False, True]
    y, trace = jax.device_get(jax.jit(compiled.execute)(W, X))
    key = compiled.setup(W, challenge.secret(bytes(range(32))))
    report = compiled.check(key, X, y=y, trace=[one_step(trace.values[0]), trace.values[1]])
    assert (report.verdict, report.reason) == (REJECT, "claim-mismatch")
    assert report.claim == compiled.claims[0].name


@pytest.mark.compiled
def test_no_glue_explains_what_no_accumulator_can_reach():
    """Not even an operand that stands behind a choice."""

    def fn(p: Any, x: Any) -> Any:
        bits = lax.bitcast_convert_type(jnp.tanh(x), jnp.int32)
        return quantised(p, jnp.where(bits % 2 == 0, jnp.int8(100), jnp.int8(-7)))

    compiled = program.compile(fn, SMALL, X, policy=POLICY)
    [only] = compiled.claims
    assert only.discontinuities
    y, _ = jax.device_get(jax.jit(compiled.execute)(SMALL, X))
    key = compiled.setup(SMALL, challenge.secret(bytes(range(32))))
    for change, expected in (
        (0, (ACCEPT, "ok")),
        (1, (INDETERMINATE, "discontinuous-glue")),
        (2**30, (REJECT, "claim-range")),
    ):
        wrong = put(y, (3, 3), y[3, 3] + change)
        report = compiled.check(key, X, y=wrong, trace=[wrong])
        assert (report.verdict, report.reason) == expected


@pytest.mark.parametrize(
    ("before", "glue"),
    [
        (lambda x: jnp.sign(x * 3), set()),  # a claim of its own
        (lambda x: jnp.round(x * 3), set()),  # this too
        (jnp.round, set()),  # the input has the same bits everywhere
        (lambda x: lax.igamma(jnp.abs(x) + 1, x * x), {"igamma"}),
        (lambda x: lax.atan2(jnp.sin(x), -x), set()),
        (lambda x: lax.linalg.lu(x[:, :ROWS])[0][:, :1] * x, {"lu"}),
        (lambda x: (lax.linalg.lu(x[:, :ROWS])[0][:, :1] > 0) * x, set()),
        (lambda x: x[jnp.argsort(jnp.sin(x[:, 0]))], set()),
        (lambda x: jnp.sin(x) * (jnp.cos(x) > 0.5), set()),
        (lambda x: jnp.tanh(x).astype(jnp.bfloat16).astype(jnp.float32), set()),
        (lambda x: jax.nn.one_hot(jnp.argmax(jnp.sin(x), -1), WIDTH), set()),
        (lambda x: lax.cond(jnp.sin(x).sum() > 0, lambda: x, lambda: -x), set()),
        (lambda x: jax.nn.softmax(jnp.sin(x)), set()),
        (lambda x: jnp.maximum(jnp.sin(x), 0), set()),
    ],
    ids=lambda v: "+".join(sorted(v)) or "none" if isinstance(v, set) else "",
)
def test_taint(before: Callable[[Any], Any], glue: set[str]):
    """What honest devices may compute differently is marked, and nothing else."""
    compiled = program.compile(lambda p, x: before(x) @ p, W, X, policy=POLICY)
    only = compiled.claims[-1]
    found = {name.rpartition("/")[2] for name in only.discontinuities}
    assert found >= glue
    assert bool(found) == bool(glue)
    assert set(only.discontinuities) <= set(compiled.coverage.discontinuities)


# ------------------------------------------------------------------------- the judge by himself


def statistic(**changes: Any) -> Statistic:
    fine: dict[str, Any] = {
        "worst": 0.5,
        "row": 0,
        "passed": True,
        "finite_claim": True,
        "in_range": True,
        "finite_operands": True,
    }
    return Statistic(**{k: np.asarray(v) for k, v in (fine | changes).items()})


def measured(**changes: Any) -> OutputStatistic:
    fine: dict[str, Any] = {"worst": 0.5, "row": 0, "finite": True, "own_finite": True}
    return OutputStatistic(**{k: np.asarray(v) for k, v in (fine | changes).items()})


def an_output(index: int, glue: Sequence[str] = (), loops: Sequence[str] = ()) -> Output:
    return Output(
        name=f"o{index}",
        eps_types=NONE,
        replays_inexactly=False,
        discontinuities=frozenset(glue),
        loops=frozenset(loops),
    )


def a_claim(
    index: int, glue: Sequence[str] = (), loops: Sequence[str] = (), *, inexact: bool = False
) -> Any:
    return SimpleNamespace(
        index=index,
        name=f"c{index}",
        discontinuities=frozenset(glue),
        loops=frozenset(loops),
        group=index,
        form=SimpleNamespace(mismatch="claim-mismatch", rows_too=False),
        replays_inexactly=inexact,
    )


def never(target: Target) -> Look:
    raise AssertionError(f"looked at {target}, whose operands are exact")


NONE: frozenset[str] = frozenset()
NOTHING = Coverage(checked=0, replayed=0)


def alone(findings: Findings) -> Any:
    """Arguments of `judge` for exact claims, of which a test that is repeated finds the same."""
    again = looking(retest=findings.statistics.__getitem__)
    return {"coverage": NOTHING, "bound": None, "again": again, "flips": {}, "most": 100}


def looking(**changes: Any) -> Again:
    """Looks that find nothing: no numbers that no device has, and no other claims before it."""
    found: dict[str, Any] = {
        "look": never,
        "retest": never,
        "recount": never,
        "unfounded": lambda *_: Look(False, 0.0),
        "reads": lambda *_: frozenset(),
    }
    return Again(**found | changes)


bits = st.booleans()
worst = st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 5.0, np.inf, np.nan])
statistics = st.builds(
    statistic, worst=worst, passed=bits, finite_claim=bits, in_range=bits, finite_operands=bits
)


@given(
    st.lists(st.tuples(statistics, bits, bits, bits), max_size=3),
    st.lists(st.tuples(st.builds(measured, worst=worst, finite=bits, own_finite=bits), bits)),
    bits,
)
@settings(max_examples=300, deadline=None)
def test_only_a_run_that_passed_everything_is_accepted(
    found: list[Any], outputs: list[Any], stopped: bool
):
    claims = [
        a_claim(i, ["round"] * glue, ["while"] * loop) for i, (_, _, glue, loop) in enumerate(found)
    ]
    findings = Findings(
        statistics={i: s for i, (s, *_) in enumerate(found)},
        taken={i: np.asarray(taken) for i, (_, taken, *_) in enumerate(found)},
        stopped={"while": np.asarray(stopped)},
        outputs={i: s for i, (s, _) in enumerate(outputs)},
    )
    leaves = [an_output(i, ["round"] * glue) for i, (_, glue) in enumerate(outputs)]
    report = judge(findings, claims, leaves, **alone(findings))
    verdict, reason, name, results = report.verdict, report.reason, report.claim, report.results
    everything = [
        s.passed & s.finite_claim & s.in_range & s.finite_operands & (s.worst <= 1)
        for s, *_ in found
    ] + [o.finite & o.own_finite & (o.worst <= 1) for o, _ in outputs]
    assert (verdict is ACCEPT) == (all(everything) and not stopped)
    assert reason in REASONS
    assert (reason == "ok") == (verdict is ACCEPT)
    assert [r.name for r in results] == [c.name for c in claims] + [leaf.name for leaf in leaves]
    for result, passed in zip(results, everything, strict=True):
        assert (result.verdict is ACCEPT) == bool(passed)
    if verdict is REJECT:
        assert any(r.verdict is REJECT and (r.name, r.reason) == (name, reason) for r in results)
    elif verdict is INDETERMINATE:
        assert not any(r.verdict is REJECT for r in results)


def test_a_rejection_counts_more_than_what_is_open():
    claims = [a_claim(0, ["round"]), a_claim(1), a_claim(2)]
    findings = Findings(
        statistics={
            0: statistic(passed=False),
            1: statistic(finite_operands=False),
            2: statistic(finite_claim=False),
        },
        taken=dict.fromkeys(range(3), np.True_),
        stopped={},
        outputs={},
    )
    report = judge(findings, claims, [], **alone(findings))
    assert (report.verdict, report.reason, report.claim) == (REJECT, "claim-nonfinite", "c2")
    assert [(r.verdict, r.reason) for r in report.results[:2]] == [
        (INDETERMINATE, "discontinuous-glue"),
        (INDETERMINATE, "nonfinite-operand"),
    ]


@pytest.mark.parametrize("glue", [(), ("round",)])
def test_too_many_flips_behind_a_discontinuity_are_indeterminate(glue: tuple[str, ...]):
    flipped = statistic()._replace(ties=np.int32(5), flips=np.int32(3))
    findings = Findings(statistics={0: flipped}, taken={0: np.True_}, stopped={}, outputs={})
    many = (INDETERMINATE, "discontinuous-glue") if glue else (REJECT, "decision-ties")
    for most, expected, worst in ((3, (ACCEPT, "ok"), 0.5), (2, many, 1.5), (0, many, 6.0)):
        again = alone(findings) | {"flips": {0: most}}
        report = judge(findings, [a_claim(0, glue)], [], **again)
        assert (report.verdict, report.reason) == expected
        [result] = report.results
        assert (result.worst, result.ties, result.flips) == (worst, 5, 3)


def test_no_output_without_claims_depends_on_a_sum():
    leaf = an_output(0)
    assert (leaf.decisive, leaf.own_sums) == (0, NONE)


@given(st.lists(st.tuples(bits, bits, bits), max_size=6))
def test_a_failed_test_of_inexact_operands_only_accuses(found: list[tuple[bool, bool, bool]]):
    """Passed, inexact, shown wrong by a second look: in order, until one is shown wrong."""
    claims = [a_claim(i, inexact=inexact) for i, (_, inexact, _) in enumerate(found)]
    findings = Findings(
        statistics={i: statistic(passed=passed) for i, (passed, *_) in enumerate(found)},
        taken=dict.fromkeys(range(len(found)), np.True_),
        stopped={},
        outputs={},
    )
    looked: list[int] = []

    def look(target: Target) -> Look:
        looked.append(target.index)
        return Look(found[target.index][2], 2.0, row=7, trip=3)

    report = judge(findings, claims, [], **alone(findings) | {"again": looking(look=look)})
    failed = [i for i, (passed, *_) in enumerate(found) if not passed]
    wrong = [i for i in failed if found[i][2] or not found[i][1]]
    first = wrong[0] if wrong else len(found)
    assert looked == [i for i in failed if found[i][1] and i <= first]
    assert report.verdict is (REJECT if wrong else INDETERMINATE if failed else ACCEPT)
    for i in failed:
        result = report.results[i]
        assert (result.verdict is REJECT) == (i == first or (i in wrong and not found[i][1]))
        assert (result.reason == "ill-conditioned") == (i < first)
    if wrong and found[first][1]:
        assert (report.results[first].row, report.results[first].trip) == (7, 3)


def test_of_what_is_refused_nothing_was_checked():
    report = refuse(Problem(reason="trace-structure", message="a list", where="claims[3]"))
    assert (report.verdict, report.reason, report.claim) == (REJECT, "trace-structure", "claims[3]")
    assert (report.message, report.coverage) == ("a list", Coverage(checked=0, replayed=0))
    assert (report.results, report.y) == ((), None)


def test_the_failing_trip_and_row_are_named():
    stacked = statistic(
        worst=[0.1, 7.0, 0.2],
        row=[4, 5, 6],
        passed=[True, False, True],
        finite_claim=[True] * 3,
        in_range=[True] * 3,
        finite_operands=[True] * 3,
    )
    findings = Findings({0: stacked}, {0: np.ones(3, bool)}, {}, {})
    [result] = judge(findings, [a_claim(0)], [], **alone(findings)).results
    assert (result.worst, result.row, result.trip) == (7.0, 5, 1)


def test_a_claim_outside_of_loops_is_in_the_first_trip():
    for found in (statistic(row=3), statistic(row=3, passed=False)):
        findings = Findings({0: found}, {0: np.True_}, {}, {})
        [result] = judge(findings, [a_claim(0)], [], **alone(findings)).results
        assert (result.worst, result.row, result.trip) == (0.5, 3, 0)


def test_a_claim_in_a_scan_without_iterations_has_passed_with_nothing():
    empty = Statistic(*(np.reshape(x, -1)[:0] for x in statistic()))
    findings = Findings({0: empty}, {0: np.zeros(0, bool)}, {}, {})
    [result] = judge(findings, [a_claim(0)], [], **alone(findings)).results
    assert (result.verdict, result.worst, result.row, result.trip) == (ACCEPT, 0.0, None, 0)


def trips(**changes: Any) -> Statistic:
    """A claim in a scan of three iterations."""
    fine = {"worst": 0.5, "row": 0, "passed": True, "finite_claim": True, "in_range": True}
    fine |= {"finite_operands": True} | changes
    return statistic(**{k: v if isinstance(v, list) else [v] * 3 for k, v in fine.items()})


def test_a_second_test_decides_where_the_branch_was_taken():
    open_, fine = trips(finite_operands=False, row=1), trips(row=2)
    for taken, verdict, reason in (
        ([True] * 3, ACCEPT, "ok"),
        ([True, False, True], INDETERMINATE, "nonfinite-operand"),
    ):
        findings = Findings({0: open_}, {0: np.asarray(taken)}, {}, {})
        again = alone(findings) | {"again": looking(retest=lambda _: fine)}
        [result] = judge(findings, [a_claim(0)], [], **again).results
        assert (result.verdict, result.reason) == (verdict, reason)
        assert (result.row, result.trip) == ((2, 0) if all(taken) else (1, 1))


def test_a_claim_without_a_number_is_open_only_after_a_rejection_and_a_second_test():
    rejected, empty = statistic(passed=False), statistic(worst=0.0)
    for first, second, again, verdict in (
        (rejected, empty, never, ACCEPT),
        (rejected, statistic(worst=0.0, finite_operands=False), lambda _: empty, INDETERMINATE),
        (statistic(), statistic(worst=0.0, finite_operands=False), lambda _: empty, ACCEPT),
        (rejected, statistic(finite_operands=False), lambda _: statistic(), ACCEPT),
    ):
        findings = Findings({0: first, 1: second}, {0: np.True_, 1: np.True_}, {}, {})
        arguments = alone(findings) | {"again": looking(retest=again)}
        report = judge(findings, [a_claim(0), a_claim(1)], [], **arguments)
        assert report.results[1].verdict is verdict


@pytest.mark.parametrize("failing", range(3))
def test_a_loop_that_was_cut_short_excuses_only_what_comes_after(failing: int):
    """It is cut short in the second of three iterations of a scan, and is a claim itself."""
    own = trips(passed=[i != failing for i in range(3)])
    own = own._replace(stopped=np.array([False, True, False]))
    findings = Findings({0: own}, {0: np.ones(3, bool)}, {"c0": np.True_}, {})
    report = judge(findings, [a_claim(0, loops=["c0"])], [], **alone(findings))
    [result] = report.results
    excused = (INDETERMINATE, "trip-limit")
    assert (result.verdict, result.reason) == (
        excused if failing > 1 else (REJECT, "claim-mismatch")
    )
    other = Findings({0: own}, {0: np.ones(3, bool)}, {"other": np.True_}, {})
    behind = judge(other, [a_claim(0, loops=["other"])], [], **alone(other))
    assert (behind.results[0].verdict, behind.results[0].reason) == excused
    beside = judge(other, [a_claim(0)], [], **alone(other))
    assert (beside.results[0].verdict, beside.results[0].reason) == (REJECT, "claim-mismatch")


@pytest.mark.parametrize("taken", [(True, False, True), (False, True, False)])
def test_what_a_branch_that_was_not_taken_holds_has_a_reason_of_its_own(taken: tuple[bool, ...]):
    """Cheat: numbers in an iteration whose branch was not taken, where nothing reads them."""
    findings = Findings({0: trips(passed=[True, False, True])}, {0: np.asarray(taken)}, {}, {})
    [result] = judge(findings, [a_claim(0)], [], **alone(findings)).results
    reason = "claim-mismatch" if taken[1] else "claim-untaken"
    assert (result.verdict, result.reason, result.trip) == (REJECT, reason, 1)


@pytest.mark.parametrize("behind", [False, True])
def test_a_loop_that_was_cut_short_excuses_no_output_but_those_behind_it(behind: bool):
    """Cheat: a wrong output, or numbers where no device has any, beside a loop without end."""
    outputs = [an_output(0, loops=["while"] * behind)]
    for found, mismatch, excused in (
        (measured(worst=2.0), "output-mismatch", "trip-limit"),
        (measured(own_finite=False), "output-mismatch", "nonfinite-output"),
    ):
        findings = Findings({}, {}, {"while": np.True_}, {0: found})
        again = looking(unfounded=lambda _: Look(True, np.inf, row=3))
        [result] = judge(findings, [], outputs, **alone(findings) | {"again": again}).results
        expected = (INDETERMINATE, excused) if behind else (REJECT, mismatch)
        assert (result.verdict, result.reason) == expected


def test_the_message_names_the_farthest_element_of_the_output_that_is_rejected():
    y = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    theirs = [np.array([9.0, 2.0]), np.array([3.0, 5.0])]
    outputs = [an_output(0), an_output(1)]
    wrong = Findings({}, {}, {}, {0: measured(), 1: measured(worst=2.0)})
    report = judge(wrong, [], outputs, **alone(wrong), y=y, theirs=theirs)
    assert report.message == f"{REASONS['output-mismatch']}: element [1] is 5.0, replayed 4.0"
    assert judge(wrong, [], outputs, **alone(wrong), y=y).message == ""
    empty = [np.zeros(0)] * 2
    assert judge(wrong, [], outputs, **alone(wrong), y=empty, theirs=empty).message == ""
    open_ = Findings({}, {}, {}, {0: measured(finite=False), 1: measured()})
    report = judge(open_, [], outputs, **alone(open_), y=y, theirs=theirs)
    assert (report.reason, report.message) == ("output-nonfinite", "")


def test_nothing_to_check_is_a_pass_of_nothing():
    findings = Findings({}, {}, {}, {})
    report = judge(findings, [], [], **alone(findings))
    assert (report.verdict, report.reason, report.claim) == (ACCEPT, "ok", None)
    assert (report.results, report.worst) == ((), 0.0)
