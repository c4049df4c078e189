"""`verifiable chat` and `verifiable verify FILE`: answers of a language model, verified.

An answer is written to a file with its receipt and its run, and to a small one with the opening of
an audit in place of the run; `verify` judges either alone, with nothing but the model.
"""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# they use names imported inside a function, so that this module loads without the extra.

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from protocols.cli.output import AS_JSON, fail, show, visible
from verifiable.errors import MalformedEncoding

MOST_BYTES = 1 << 32
"""The most bytes of a file that is read: several times the answers of the longest length."""

NOTHING_SHOWN = 3
"""The exit status where a file is neither shown to be right nor to be wrong."""

CHAINS = {
    "checked": "the answer follows the turn before: its receipt and prompt continue it",
    "wrong": "the answer does not follow the turn before",
    "none named": "the receipt names no turn before",
    "not checked": (
        "the receipt names a turn before, which was not checked: give its file by --after"
    ),
}
"""What may be known of the turn before an answer: in JSON, and in words."""

if TYPE_CHECKING:
    import typer
    from rich.console import RenderableType
    from rich.status import Status

    from protocols.demo.conversation import Turn
    from protocols.demo.models import LanguageModel
    from verifiable.generation import OpenedText, SavedText, TextReport


def add(app: "typer.Typer") -> None:
    """Add both commands to an application."""
    import typer  # noqa: PLC0415 - an optional dependency

    as_json = typer.Option("--json", help=AS_JSON)

    @app.command()
    def chat(
        prompt: Annotated[
            str | None,
            typer.Option(help="Ask this and end. Default: read lines from the terminal."),
        ] = None,
        limit: Annotated[int, typer.Option(help="The most tokens of an answer.")] = 128,
        temperature: Annotated[
            float, typer.Option(help="Of the sampler; a job's own number.")
        ] = 0.7,
        out: Annotated[
            Path, typer.Option(metavar="FILE", help="Where answer and receipt are written.")
        ] = Path("answer.text"),
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Ask SmolLM2, and verify every token of its answers."""
        raise typer.Exit(run_chat(prompt, limit, temperature, out, as_json=json_))

    @app.command()
    def verify(
        file: Annotated[Path, typer.Argument(help="What `verifiable chat` wrote.")],
        after: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="The turn before, in a conversation; judge it too."),
        ] = None,
        seed: Annotated[
            str | None,
            typer.Option(
                metavar="HEX",
                help="Of an audit that you drew: a file of another draw is rejected.",
            ),
        ] = None,
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Judge an answer in a file with nothing but the model.

        Status 0: accepted. 1: rejected, shown to be wrong. 2: wrong usage, or the file is absent or
        no answer. 3: nothing is shown: the verdict is indeterminate, the model's weights are not
        installed, or the answer is of another model than SmolLM2.
        """
        raise typer.Exit(run_verify(file, after, seed=seed, as_json=json_))

    del chat, verify


def run_chat(
    prompt: str | None, limit: int, temperature: float, out: Path, *, as_json: bool
) -> int:
    """Ask, show, write and judge, turn by turn, and return the exit status.

    Args:
      prompt: what is asked; None for the lines of standard input, in one conversation.
      limit: the most tokens of an answer.
      temperature: of the sampler.
      out: file of the first answer; that of turn n gets `-n` in its name, and the small one with
        an opening the ending `.audit`.
      as_json: print one JSON object for each answer.
    """
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    from protocols.demo import conversation  # noqa: PLC0415 - loads JAX
    from verifiable.report import Verdict  # noqa: PLC0415 - the same

    if out.is_dir() or not out.parent.is_dir():
        return fail(OSError(f"no answer can be written to {out}: name a file in a folder"))
    try:
        sampler = replace(conversation.SAMPLER, temperature=temperature)
    except ValueError as error:
        return fail(error)
    notes, previous, right = Console(stderr=True), None, True
    with notes.status("load the model, compile it, make the key"):
        answering = conversation.compiled(load_model())
    for number, text in enumerate([prompt] if prompt is not None else _lines(), 1):
        file = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
        try:
            with notes.status("decode") as status:
                turn = conversation.answer(
                    answering,
                    text,
                    limit=limit,
                    sampler=sampler,
                    previous=previous,
                    tell=None if as_json else _saying(status),
                    now=status.update,
                )
            file.write_bytes(turn.saved.encode())
            audit_file(file).write_bytes(turn.opened.encode())
        except (OSError, ValueError) as error:
            return fail(error)
        if not as_json:
            print()
        show(turn_dict(turn, file), turn_text(turn, file), as_json=as_json)
        verdicts = {turn.report.verdict, turn.audit.verdict}
        right = right and verdicts == {Verdict.ACCEPT}
        previous = turn.saved
    return 0 if right and previous is not None else 1


def run_verify(file: Path, after: Path | None, *, seed: str | None = None, as_json: bool) -> int:
    """Judge an answer in a file, print the verdict, and return the exit status.

    Args:
      file: of the answer, with its run or with an opening.
      after: file of the turn before.
      seed: of the audit, in hexadecimal digits; None to take the file's at its word.
      as_json: print one JSON object.
    """
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    from protocols.demo import conversation  # noqa: PLC0415 - loads JAX
    from verifiable.generation import SavedText, judge_opened, judge_saved  # noqa: PLC0415
    from verifiable.report import Verdict  # noqa: PLC0415 - the same

    try:
        answer = read(file)
        previous = None if after is None else read(after)
        own = None if seed is None else _seed(seed)
        if own is not None and isinstance(answer, SavedText):
            return fail(ValueError(f"--seed is of an audit, and {file} has a whole run"))
        model = model_of(answer)
        if model is None:
            return NOTHING_SHOWN
        with Console(stderr=True).status("load the model, compile it, make the key, check"):
            answering = conversation.compiled(model)
            made, key, card = answering.made, answering.key, answering.card
            if isinstance(answer, SavedText):
                report = judge_saved(made, key, card, answer, previous=previous)
            else:
                draw = None if own is None else replace(answer.draw, seed=own)
                report = judge_opened(made, key, card, answer, draw=draw, previous=previous)
    except (OSError, MalformedEncoding, ValueError) as error:
        return fail(error)
    words, chain = conversation.words(model, report.tokens), chain_of(answer, report, after)
    found = {"model": answering.card.id.hex(), "text": words} | verdict_dict(report)
    show(
        found | {"chain": chain},
        verdict_text(answer, report, words, CHAINS[chain]),
        as_json=as_json,
    )
    return {Verdict.ACCEPT: 0, Verdict.REJECT: 1}.get(report.verdict, NOTHING_SHOWN)


def read(file: Path) -> "SavedText | OpenedText":
    """The answer in a file.

    Raises:
      OSError: the file cannot be read.
      MalformedEncoding: it is no answer.
    """
    from verifiable.generation import OpenedText, SavedText, opened, saved  # noqa: PLC0415

    kinds = {saved.MAGIC: SavedText, opened.MAGIC: OpenedText}
    with file.open("rb") as stream:
        header = stream.read(len(saved.MAGIC))
        if header not in kinds:
            raise MalformedEncoding(f"{file} is no answer: its header is another")
        rest = stream.read(MOST_BYTES)
    if len(rest) == MOST_BYTES:
        raise MalformedEncoding(f"a file of an answer has at most {MOST_BYTES} bytes")
    try:
        return kinds[header].decode(header + rest)
    except MalformedEncoding as error:
        raise MalformedEncoding(f"{file} is no answer, or is damaged: {error}") from error


def load_model() -> "LanguageModel":
    """Return SmolLM2; where its weights are absent, print a note and return a random model."""
    from protocols.demo import models  # noqa: PLC0415 - loads JAX

    try:
        return models.smollm2()
    except ImportError as error:
        print(
            f"note: {error}. Using a small random model instead, which cannot judge its answers.",
            file=sys.stderr,
        )
        return models.small_llama()


def model_of(answer: "SavedText | OpenedText") -> "LanguageModel | None":
    """The model that an answer names; None, with a message, if it is not at hand.

    The random model is taken for its own answers, and only where there is no other.
    """
    from protocols.demo import models  # noqa: PLC0415 - loads JAX

    try:
        model = models.smollm2()
    except ImportError as error:
        small = models.small_llama()
        if answer.card.name == small.name:
            print(f"note: judged by the {small.name}, as it says", file=sys.stderr)
            return small
        print(
            f"nothing is shown of an answer of {visible(answer.card.name)}, whose weights are "
            f"needed to judge it: {error}",
            file=sys.stderr,
        )
        return None
    if answer.card.name == model.name:
        return model
    print(
        f"nothing is shown of an answer of {visible(answer.card.name)}: this command has only "
        f"{model.name}; judge answers of your own model by `generation.judge_saved`",
        file=sys.stderr,
    )
    return None


def verdict_dict(report: "TextReport") -> dict[str, Any]:
    """The JSON object of a verdict."""
    return {
        "verdict": report.verdict.value,
        "reason": report.reason,
        "tokens": len(report.tokens),
        "near_ties": report.near_ties,
    }


def turn_dict(turn: "Turn", file: Path) -> dict[str, Any]:
    """The JSON object of an answer."""
    return {
        "model": turn.saved.card.id.hex(),
        "text": turn.words,
        **verdict_dict(turn.report),
        "audit": turn.audit.verdict.value,
        "bytes": dict(turn.sizes),
        "seconds": dict(turn.seconds),
        "file": str(file),
        "audit_file": str(audit_file(file)),
    }


def turn_text(turn: "Turn", file: Path) -> "Iterator[RenderableType]":
    """The verdict on an answer, what it cost, and where it was written."""
    from rich.text import Text  # noqa: PLC0415 - an optional dependency

    yield Text(str(turn.report), style="bold")
    yield Text(f"audit of {_looked_at(turn.audit)}: {turn.audit.verdict.value}", style="bold")
    yield Text("bytes: " + ", ".join(f"{size:,} {name}" for name, size in turn.sizes.items()))
    spent = ", ".join(f"{name} {seconds:.2f}" for name, seconds in turn.seconds.items())
    yield Text(f"seconds, compiling included where it is the first: {spent}")
    small = audit_file(file)
    yield Text(
        f"receipt and run were written to {file}, receipt and opening to {small}: judge either "
        f"with `verifiable verify {file}`"
    )


def verdict_text(
    answer: "SavedText | OpenedText", report: "TextReport", words: str, chain: str
) -> "Iterator[RenderableType]":
    """What was judged, the verdict, and what was found of the turn before."""
    from rich.text import Text  # noqa: PLC0415 - an optional dependency

    yield Text(visible(words))
    yield Text(f"said to be of {visible(answer.card.name)}, model {answer.receipt.card.hex()}")
    yield Text(str(report), style="bold")
    yield Text(chain)


def chain_of(answer: "SavedText | OpenedText", report: "TextReport", after: Path | None) -> str:
    """Whether the receipt was compared with that of the turn before: a key of `CHAINS`."""
    from verifiable.generation import saved  # noqa: PLC0415 - loads JAX

    if report.reason == "receipt-chain":
        return "wrong"
    # What a receipt is found to be first, it is not compared with the turn before any more.
    if after is not None and not report.reason.startswith("receipt-"):
        return "checked"
    return "none named" if answer.receipt.previous == saved.NOTHING else "not checked"


def _seed(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError as error:
        raise ValueError("--seed must be hexadecimal digits, two for each byte") from error


def audit_file(file: Path) -> Path:
    """Where the opening of an answer in a file is written."""
    return file.with_name(file.name + ".audit")


def _looked_at(report: "TextReport") -> str:
    """What an audit looked at, in words."""
    from verifiable.generation import TokenState  # noqa: PLC0415 - loads JAX

    seen = len(report.states) - report.states.count(TokenState.UNSEEN)
    found = None if report.report is None else report.report.detection
    rows = "" if found is None else f"{found.audited} of {found.layers} layers and "
    return f"{rows}{seen} of {len(report.states)} tokens"


def _lines() -> "Iterable[str]":
    """The lines of standard input that say something."""
    if sys.stdin.isatty():
        print("Ask, a line a turn; an end of file ends the conversation.", file=sys.stderr)
    return (line for line in map(str.strip, sys.stdin) if line)


def _saying(status: "Status") -> "Callable[[str], None]":
    """Print pieces of an answer; the first ends the status, which would break each into a line."""

    def say(piece: str) -> None:
        status.stop()
        print(visible(piece), end="", flush=True)

    return say
