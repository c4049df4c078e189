"""`verifiable plan` answers, or explains in the user's own options, whatever the options admit."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from protocols import cli
from verifiable.audits.planning import Economy

DEFAULTS = dataclasses.asdict(Economy())
GIVEN: dict[str, Any] = {"bad": 0.1, "error": 1e-6}
APP = cli.build_app()

# Every magnitude that a float has, and what is no number.
extremes = st.sampled_from(
    [
        *(0.0, 5e-324, 1e-320, 1e-280, 1e-16, 1e-9, 0.1, 0.5 - 2**-54, 0.5, 0.9, 1 - 2**-53, 1.0),
        *(1 + 2**-52, 1e16, 1e100, 1e308, math.inf, -math.inf, math.nan, -1.0),
    ]
)
floats = st.floats() | st.floats(0, 1) | extremes
integers = st.integers() | st.sampled_from([-1, 0, 1, 2, 8, 200, 2**53, 2**64, 10**400])
options = st.fixed_dictionaries(
    {"bad": floats | st.just(0.1), "error": floats | st.just(1e-6)},
    optional={"availability": floats, "agreement": floats}
    | {n: integers if isinstance(d, int) else floats for n, d in DEFAULTS.items()},
)
# Most draws are out of some range: others change one option or two, within what is plausible.
plausible = st.fixed_dictionaries(
    {"bad": st.floats(1e-12, 0.99), "error": st.floats(1e-15, 0.5)},
    optional={
        "availability": st.floats(1e-6, 1),
        "detection": st.floats(5e-324, 1),
        "run_cost": st.floats(1e-100, 1e100),
        "audit_cost": st.floats(1e-100, 1e100),
        "stake": st.floats(1e-100, 1e100),
        "gain": st.floats(1e-100, 1e100),
        "reward": st.floats(1e-100, 1e100),
        "false_reject": st.floats(0, 1),
        "outstanding": st.integers(1, 2**53),
        "window": st.integers(1, 2**53),
        "probation": st.integers(1, 1000),
    },
)


def answer(given: dict[str, Any], *flags: str) -> dict[str, Any] | str:
    """The plan, or the explanation; any other end of the command fails."""
    arguments = [f"--{name.replace('_', '-')}={value!r}" for name, value in given.items()]
    result = CliRunner().invoke(APP, ["plan", *arguments, *flags], catch_exceptions=False)
    if result.exit_code == 0:
        assert result.stderr == ""
        if "--json" not in flags:
            assert " nan" not in result.stdout and " inf" not in result.stdout
            return result.stdout

        def refuse(constant: str) -> Any:
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(result.stdout, parse_constant=refuse)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1 and len(result.stderr) < 300
    # It names an option of the command line, and none of Python's names.
    names = (*given, *DEFAULTS)
    assert any(f"--{name.replace('_', '-')} " in result.stderr for name in names)
    assert not any(name in result.stderr for name in DEFAULTS if "_" in name)
    return result.stderr


@settings(deadline=None, max_examples=80)
@given(options | plausible, st.sampled_from([(), ("--json",), ("--rational",)]))
@example(GIVEN | {"detection": 1e-280}, ("--json",))
@example(GIVEN | {"detection": 5e-324, "stake": 1.0, "gain": 1.0}, ("--rational",))
@example({"bad": 1e-6, "error": 1e-9}, ())
@example({"bad": 5e-324, "error": 5e-324}, ("--json",))
@example({"bad": 0.5 - 2**-54, "error": 1e-9}, ())
@example({"bad": 1 - 2**-53, "error": 0.5}, ("--json",))
@example(GIVEN | {"run_cost": 1e308}, ("--json",))
@example(GIVEN | {"run_cost": 1e100, "audit_cost": 1e-100}, ("--json",))
@example(GIVEN | {"availability": 0.0}, ())
@example(GIVEN | {"probation": 1001}, ())  # more than the lifetime by default
@example(GIVEN | {"availability": 5e-324}, ())
@example(GIVEN | {"window": 10**400}, ())
@example(GIVEN | {"outstanding": 2**53, "stake": 1e100, "gain": 1e100}, ("--rational",))
def test_every_input_is_answered_or_explained(given: dict[str, Any], flags: tuple[str, ...]):
    found = answer(given, *flags)
    if isinstance(found, dict):
        assert found["options"]
        for option in found["options"]:
            assert option["deters"] or option["error"] <= given["error"] * (1 + 1e-9)
            assert option["runs"] * (1 + 1e-9) >= 1
            assert option["cost"] > 0


EXPLAINED = {
    "an availability of 0": (
        {"availability": 0.0},
        "--availability must be above 0 and at most 1, got 0.0",
    ),
    "hardly an honest answer": (
        {"availability": 5e-324},
        "with --bad 0.1 and --availability 4.94066e-324, practically all answers are bad",
    ),
    "a cost without bound": ({"run_cost": 1e308}, "--run-cost must be from 1e-100 to 1e+100"),
    "a stake below zero": ({"stake": -1.0}, "--stake must be 0, or from 1e-100 to 1e+100"),
    "blind audits": ({"bad": 0.6, "detection": 0.5}, "no option reaches --error 1e-06 with --bad"),
    "a window of no result": ({"window": 0}, "--window must be from 1 to 2^53, got 0"),
    "a short life": ({"lifetime": 5.0}, "--lifetime must be finite, and at least 10, got 5.0"),
    "a detection of 0": ({"detection": 0.0}, "--detection must be above 0 and at most 1"),
    "no number": ({"false_reject": math.nan}, "--false-reject must be from 0 to 1, got nan"),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_an_explanation_names_the_option(name: str):
    change, expected = EXPLAINED[name]
    found = answer(GIVEN | change)
    assert isinstance(found, str) and found.startswith(f"error: {expected}")


def test_audits_that_detect_next_to_nothing_leave_the_votes():
    found = answer(GIVEN | {"detection": 1e-280}, "--json")
    assert isinstance(found, dict)
    names = {option["name"] for option in found["options"]}
    assert {"fixed-size", "first-to-match", "sequential"} <= names


def test_the_bond_is_the_one_at_which_vanishing_does_not_pay():
    economy = {"reward": 2.0, "detection": 0.5, "availability": 0.8, "agreement": 0.25}
    found = answer({"bad": 0.1, "error": 0.01, **economy}, "--json")
    assert isinstance(found, dict)
    for option in found["options"]:
        rate = option["audit_rate"]
        if not rate:
            assert option["bond"] is None
            continue
        wanted = 1 / (rate * 0.8 * 0.5 * 0.75) - 2
        assert option["bond"] == pytest.approx(max(0.0, wanted))
    assert any(option["bond"] is not None for option in found["options"])
    assert answer(GIVEN | {"agreement": 1.0}).startswith("error: --agreement must be from 0")  # pyright: ignore[reportAttributeAccessIssue]
