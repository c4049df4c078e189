"""`verifiable chat` and `verifiable verify FILE`: answers of a language model, verified.

An answer is written to a file with its receipt and its run; `verify` judges such a file alone, with
nothing but the model.
"""

# No `from __future__ import annotations`: typer evaluates the annotations of its commands, and
# they use names imported inside a function, so that this module loads without the extra.

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from protocols.cli.output import AS_JSON, fail, show, visible
from verifiable.errors import MalformedEncoding

MOST_BYTES = 1 << 32
"""The most bytes of a file that is read: several times the answers of the longest length."""

if TYPE_CHECKING:
    import typer
    from rich.console import RenderableType
    from rich.status import Status

    from protocols.demo.conversation import Turn
    from protocols.demo.models import LanguageModel
    from verifiable.generation import SavedText, TextReport


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
        json_: Annotated[bool, as_json] = False,
    ) -> None:
        """Judge a saved answer with nothing but the model: status 0 if it is accepted."""
        raise typer.Exit(run_verify(file, after, as_json=json_))

    del chat, verify


def run_chat(
    prompt: str | None, limit: int, temperature: float, out: Path, *, as_json: bool
) -> int:
    """Ask, show, write and judge, turn by turn, and return the exit status.

    Args:
      prompt: what is asked; None for the lines of standard input, in one conversation.
      limit: the most tokens of an answer.
      temperature: of the sampler.
      out: file of the first answer; that of turn n gets `-n` in its name.
      as_json: print one JSON object for each answer.
    """
    from dataclasses import replace  # noqa: PLC0415 - beside what loads JAX

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
        except (OSError, ValueError) as error:
            return fail(error)
        if not as_json:
            print()
        show(turn_dict(turn, file), turn_text(turn, file), as_json=as_json)
        right = right and turn.report.verdict is Verdict.ACCEPT
        previous = turn.saved
    return 0 if right and previous is not None else 1


def run_verify(file: Path, after: Path | None, *, as_json: bool) -> int:
    """Judge a saved answer, print the verdict, and return the exit status.

    Args:
      file: of the answer.
      after: file of the turn before.
      as_json: print one JSON object.
    """
    from rich.console import Console  # noqa: PLC0415 - an optional dependency

    from protocols.demo import conversation  # noqa: PLC0415 - loads JAX
    from verifiable.generation import judge_saved  # noqa: PLC0415 - the same
    from verifiable.report import Verdict  # noqa: PLC0415 - the same

    try:
        saved = read(file)
        previous = None if after is None else read(after)
        with Console(stderr=True).status("load the model, compile it, make the key, check"):
            model = load_model()
            answering = conversation.compiled(model)
            report = judge_saved(
                answering.made, answering.key, answering.card, saved, previous=previous
            )
    except (OSError, MalformedEncoding, ValueError) as error:
        return fail(error)
    words = conversation.words(model, report.tokens)
    show(
        {"model": answering.card.id.hex(), "text": words} | verdict_dict(report),
        verdict_text(saved, report, words),
        as_json=as_json,
    )
    return 0 if report.verdict is Verdict.ACCEPT else 1


def read(file: Path) -> "SavedText":
    """The answer in a file.

    Raises:
      OSError: the file cannot be read.
      MalformedEncoding: it is no answer.
    """
    from verifiable.generation import SavedText  # noqa: PLC0415 - loads JAX
    from verifiable.generation.saved import MAGIC  # noqa: PLC0415 - the same

    with file.open("rb") as opened:
        data = opened.read(len(MAGIC))
        if data == MAGIC:
            data += opened.read(MOST_BYTES)
    if len(data) > MOST_BYTES:
        raise MalformedEncoding(f"a file of an answer has at most {MOST_BYTES} bytes")
    return SavedText.decode(data)


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
        "bytes": dict(turn.sizes),
        "seconds": dict(turn.seconds),
        "file": str(file),
    }


def turn_text(turn: "Turn", file: Path) -> "Iterator[RenderableType]":
    """The verdict on an answer, what it cost, and where it was written."""
    from rich.text import Text  # noqa: PLC0415 - an optional dependency

    yield Text(str(turn.report), style="bold")
    yield Text("bytes: " + ", ".join(f"{size:,} {name}" for name, size in turn.sizes.items()))
    spent = ", ".join(f"{name} {seconds:.2f}" for name, seconds in turn.seconds.items())
    yield Text(f"seconds, compiling included where it is the first: {spent}")
    yield Text(
        f"receipt and run were written to {file}: judge them with `verifiable verify {file}`"
    )


def verdict_text(
    saved: "SavedText", report: "TextReport", words: str
) -> "Iterator[RenderableType]":
    """What was judged, and the verdict."""
    from rich.text import Text  # noqa: PLC0415 - an optional dependency

    yield Text(visible(words))
    yield Text(f"said to be of {visible(saved.card.name)}, model {saved.receipt.card.hex()}")
    yield Text(str(report), style="bold")


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
