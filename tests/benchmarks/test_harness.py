"""The harness: bars, verdicts, tidy JSON, exit status, interleaving and intervals."""

import inspect
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import ablation, check_vs_earlier, check_vs_rerun, harness, progress, soundness
from benchmarks.harness import Row
from tests.helpers.p_values import above, at_most
from verifiable import program
from verifiable.errors import IndeterminateWarning

ROOT = Path(__file__).parent.parent


# --------------------------------------------------------------------------------------- bars


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_bar_holds_exactly_when_the_comparison_does(value: float, bar: float):
    assert Row("c", "m", value, "1", f">= {bar!r}").holds is (value >= bar)
    assert Row("c", "m", value, "1", f"<= {bar!r}").holds is (value <= bar)
    assert Row("c", "m", value, "1", f"> {bar!r}").holds is (value > bar)
    assert Row("c", "m", value, "1", f"< {bar!r}").holds is (value < bar)
    assert Row("c", "m", value, "1", f"== {bar!r}").holds is (value == bar)
    assert Row("c", "m", value, "1").holds is None


def test_a_bar_reads_its_number_and_its_separators():
    assert harness.parse_bar(">= 100_000") == (">=", 100_000.0)
    assert harness.parse_bar("<= 1e-9") == ("<=", 1e-9)


@pytest.mark.parametrize(
    "bar", ["", "10", ">=10", "=> 10", ">= ten", ">= nan", "<= inf", ">= 10 ", ">= 10\n", "> 1,5"]
)
def test_a_bar_that_judges_nothing_is_refused(bar: str):
    with pytest.raises(ValueError, match="a bar is"):
        Row("c", "m", 1.0, "1", bar)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(value: float):
    with pytest.raises(ValueError, match="not a finite number"):
        Row("c", "m", value, "1", ">= 0")


# ------------------------------------------------------------------------------------ running


class _Fake:
    CLAIM = "Two and two make four."

    def __init__(self, *rows: Row):
        self._rows = rows

    def rows(self, quick: bool, shards: str | None = None):
        yield from self._rows


GOOD = Row("two", "sum", 4.0, "1", "== 4")
PLAIN = Row("two", "seconds", 0.5, "s")
BAD = Row("three", "sum", 5.0, "1", "== 4")


def _run(monkeypatch: pytest.MonkeyPatch, path: Path | None, *rows: Row, quick: bool = False):
    monkeypatch.setattr(harness, "load", lambda _: _Fake(*rows))
    console = Console(file=io.StringIO(), width=120)
    kept = harness.run("fake", quick=quick, path=path, console=console)
    return kept, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rows", "quick", "kept"),
    [
        ((GOOD, PLAIN), False, True),
        ((GOOD, BAD), False, False),
        ((GOOD, BAD), True, True),
        ((PLAIN,), False, True),
        ((), False, False),
        ((), True, False),
    ],
)
def test_a_run_fails_on_a_missed_bar_and_on_measuring_nothing(monkeypatch, rows, quick, kept):
    assert _run(monkeypatch, None, *rows, quick=quick)[0] is kept


def test_a_run_prints_its_verdict_then_every_row_and_marks_the_missed_one(monkeypatch):
    _, text = _run(monkeypatch, None, GOOD, PLAIN, BAD)
    claim, verdict, _, *rows = text.splitlines()
    assert "Two and two make four." in claim
    assert verdict.startswith("1 of 2 bars hold; missed: three, sum: 5 (== 4), ")
    assert [row.split()[-1] for row in rows if "sum" in row] == ["yes", "NO"]
    assert "500 ms" in rows[1]


def test_what_was_measured_before_an_error_is_printed(monkeypatch):
    class Failing(_Fake):
        def rows(self, quick: bool):
            yield GOOD
            raise RuntimeError("out of memory")

    monkeypatch.setattr(harness, "load", lambda _: Failing())
    console = Console(file=io.StringIO(), width=120)
    with pytest.raises(RuntimeError, match="out of memory"):
        harness.run("fake", quick=False, path=None, console=console)
    assert "1 of 1 bars hold" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_verdict_counts_bars_and_names_what_is_missed():
    assert harness.verdict([]) == "nothing was measured"
    assert harness.verdict([PLAIN]) == "0 of 0 bars hold"
    assert harness.verdict([GOOD, PLAIN]) == "1 of 1 bars hold"
    assert harness.verdict([BAD, GOOD, BAD]) == (
        "1 of 3 bars hold; missed: three, sum: 5 (== 4); three, sum: 5 (== 4)"
    )


def test_the_json_is_tidy(monkeypatch, tmp_path):
    _run(monkeypatch, tmp_path / "any.json", GOOD, PLAIN, BAD)
    result = json.loads((tmp_path / "any.json").read_text())
    keys = ["name", "verdict", "claim", "date", "command", "machine", "versions", "rows"]
    assert list(result) == keys
    assert result["verdict"].startswith("1 of 2 bars hold")
    assert result["name"] == "fake"
    assert result["claim"] == _Fake.CLAIM
    assert result["command"] == "python -m benchmarks fake"
    assert {"cpu", "cores", "memory", "os"} <= set(result["machine"])
    assert {"python", "jax", "verifiable"} <= set(result["versions"])
    keys = {"case", "measure", "value", "unit", "bar", "holds"}
    assert all(set(row) == keys for row in result["rows"])
    assert [row["holds"] for row in result["rows"]] == [True, None, False]
    assert [row["value"] for row in result["rows"]] == [4.0, 0.5, 5.0]


def test_a_value_measured_twice_is_refused():
    with pytest.raises(ValueError, match="2 times"):
        harness.tidy("fake", _Fake.CLAIM, [GOOD, PLAIN, GOOD], "python -m benchmarks fake")


def test_a_directory_gets_a_file_named_after_the_benchmark(monkeypatch, tmp_path):
    _run(monkeypatch, tmp_path, GOOD, quick=True)
    assert json.loads((tmp_path / "fake.json").read_text())["command"].endswith("--quick")


def test_results_do_not_repeat_where_a_machine_keeps_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "load", lambda _: _Fake(GOOD))
    given = {"path": tmp_path, "console": Console(file=io.StringIO())}
    harness.run("fake", quick=False, chosen={"shards": str(tmp_path)}, **given)
    assert json.loads((tmp_path / "fake.json").read_text())["command"].endswith("--shards DIR")


def test_medians_are_of_interleaved_warm_calls():
    calls: list[str] = []
    thunks = {name: lambda name=name: calls.append(name) for name in ("a", "b", "c")}
    medians = harness.interleaved_medians(thunks, 4)
    warm, rounds = calls[:3], [calls[i : i + 3] for i in range(3, len(calls), 3)]
    assert warm == ["a", "b", "c"]
    assert rounds == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
    assert set(medians) == {"a", "b", "c"}
    assert all(value >= 0 for value in medians.values())


def test_medians_need_a_repeat():
    with pytest.raises(ValueError, match="at least 1"):
        harness.interleaved_medians({"a": lambda: None}, 0)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.9, 0.99, 0.999]))
def test_clopper_pearson_against_its_definition(n: int, data: st.DataObject, level: float):
    """At each end of the interval, what was seen or worse has probability (1 - level) / 2."""
    k = data.draw(st.integers(0, n))
    low, high = harness.clopper_pearson(k, n, level)
    tail = (1 - level) / 2
    assert low == 0 if k == 0 else above(k - 1, n, low) == pytest.approx(tail, rel=1e-6)
    assert high == 1 if k == n else at_most(k, n, high) == pytest.approx(tail, rel=1e-6)


# --------------------------------------------------------------------------------- quantities


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.01234, "s", "12.3 ms"),
        (3.2e-7, "s", "320 ns"),
        (75.0, "s", "75 s"),
        (7200.0, "s", "7.2e+03 s"),
        (0.0, "s", "0 s"),
        (1_250_000, "bytes", "1.25 MB"),
        (12, "bytes", "12 B"),
        (3.1e9, "B/s", "3.1 GB/s"),
        (100_000, "1", "100,000"),
        (23.456, "1", "23.5"),
        (1.5e-9, "1", "1.5e-09"),
        (2_400_000, "leaves/s", "2,400,000 leaves/s"),
        (123_456.7, "1/s", "123,457/s"),
    ],
)
def test_a_quantity_is_written_with_its_unit(value: float, unit: str, text: str):
    assert harness.quantity(value, unit) == text


# --------------------------------------------------------------------------------- the package


def test_every_benchmark_has_one_claim_of_one_sentence():
    assert harness.names()
    for name in harness.names():
        claim = harness.load(name).CLAIM
        assert claim.strip() == claim != ""
        assert "\n" not in claim
        result = harness.RESULTS / f"{name}.json"
        assert not result.exists() or json.loads(result.read_text())["claim"] == claim


def test_every_argument_of_a_benchmark_has_an_option(monkeypatch: pytest.MonkeyPatch):
    for name in harness.names():
        arguments = inspect.signature(harness.load(name).rows).parameters.keys()
        assert arguments - {"quick"} <= command.CHOSEN.keys()
    told: list[Any] = []
    monkeypatch.setattr(harness, "run", lambda name, **given: told.append(given["chosen"]) or True)
    options = "--only mlp gru --jobs 2 --minutes 3".split()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "gpu", *options])
    assert command.main() == 0
    assert told == [{"only": ["mlp", "gru"], "jobs": 2, "minutes": 3}]


def test_a_long_measurement_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    with progress.told_to(said.append):
        assert list(progress.steps(2, "keys")) == [0, 1]
    assert list(progress.steps(1, "nobody listens")) == [0]
    assert [text.partition(",")[0] for text in said] == ["keys: 1 of 2", "keys: 2 of 2"]
    _, quiet = _run(monkeypatch, None, GOOD)
    monkeypatch.setattr(harness, "SECONDS", 0)
    _, told = _run(monkeypatch, None, GOOD)
    assert "fake, 0 s: two" not in quiet
    assert "fake, 0 s: two" in told


def test_soundness_measures_every_deviation():
    rows = {(row.case, row.measure): row for row in soundness.deviations(trials=10)}
    for kappa in soundness.KAPPAS:
        row = rows[f"kappa={kappa}", "interval_low"]
        assert harness.parse_bar(row.bar or "")[0] == "<="
        bound = rows[f"kappa={kappa}", "bound"].value
        assert harness.parse_bar(row.bar or "")[1] == pytest.approx(bound, rel=1e-3)
    assert rows["kappa=0.5", "acceptance"].value == 1
    assert rows["kappa=16", "acceptance"].value == 0


def test_soundness_reads_enough_text():
    assert len(soundness.documentation().split()) > 20_000


def test_the_check_is_measured_against_the_run(monkeypatch: pytest.MonkeyPatch):
    # Which strategy is the fastest is a matter of time.
    monkeypatch.setattr(
        program.Program, "tune", lambda self, *_, **given: (self, {self.strategy: 1})
    )
    model = check_vs_rerun.gpt(width=64, tokens=64, layers=1)
    model = replace(model, name="tiny", least=1e9, ablation=True)
    measured = list(check_vs_rerun.measure(model, repeats=1))
    rows = {row.measure: row for row in measured if row.case == "tiny"}
    seconds = rows["seconds_run"].value / rows["seconds_check"].value
    assert rows["ratio"].value == pytest.approx(seconds)
    assert rows["ratio"].holds is False
    assert rows["ratio_with_commitment"].value > 0
    assert rows["commitment_cost"].holds is not None
    assert rows["trace_bytes"].value > 0
    assert rows["params_bytes"].value == 4 * (12 * 64**2 + 13 * 64 + 2 * 64)
    ablated = {row.case for row in measured} - {"tiny"}
    # So small a check is one program as it is. It has neither decisions nor blocks of columns.
    schedules = {"tiny as it is", "tiny tiles=rows", "tiny tiles=none"}
    assert ablated == schedules | {"tiny decisions=none"}
    rows = {row.measure: row for row in measured if row.case == "tiny decisions=none"}
    assert rows["same_program"].holds
    assert rows["cost_of_decisions"].value > 0


def test_what_an_ablation_leaves_out_is_gone():
    def fn(b: jax.Array, x: jax.Array) -> jax.Array:
        hidden = x @ b
        return jnp.sign(jnp.tanh(hidden) - 0.5) @ b

    b, x = jnp.ones((1024, 1024)), jnp.ones((64, 1024))
    compiled = program.compile(fn, b, x)
    with ablation.without_decisions(), pytest.warns(IndeterminateWarning, match="sign"):
        other = program.compile(fn, b, x)
    assert [c.decisions > 0 for c in compiled.claims] == [False, True, False]
    assert [c.decisions for c in other.claims] == [0, 0]

    def choice(b: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.argmax(x @ b, axis=-1)

    b = jnp.ones((64, 1024))
    [cut] = program.compile(choice, b, x[:, :64]).claims
    with ablation.without_blocks():
        [whole] = program.compile(choice, b, x[:, :64]).claims
    assert (cut.form.contraction.blocks, whole.form.contraction.blocks) == (2, 1)


def test_an_earlier_library_is_taken_from_the_history(tmp_path: Path):
    with pytest.raises(RuntimeError, match="is not in this clone"):
        check_vs_earlier.unpack("0" * 40, tmp_path)
    try:
        check_vs_earlier.unpack(check_vs_earlier.COMMIT, tmp_path)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert "def check(" in (tmp_path / "verifiable" / "program.py").read_text()


def test_an_unknown_benchmark_is_refused_by_name():
    with pytest.raises(ValueError, match="no benchmark 'nope'"):
        harness.load("nope")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nope"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no benchmark 'nope'" in done.stderr
