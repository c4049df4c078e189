"""Answers as bytes: cards, receipts, files, conversations; hostile ones by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.helpers import decoder
from verifiable import challenge, encoding, program
from verifiable.errors import MalformedEncoding
from verifiable.generation import (
    ModelCard,
    Sampler,
    SavedText,
    TextReceipt,
    TokenState,
    compile_generation,
    decode,
    judge_saved,
    save,
    transcript,
)
from verifiable.generation.plain import job_fields
from verifiable.generation.saved import MAGIC, NOTHING
from verifiable.policy import Policy
from verifiable.report import Verdict

V, PARAMS = decoder.VOCABULARY, decoder.PARAMS
SAMPLER = Sampler(temperature=0.9, top_k=12)
STOP = 1


@functools.cache
def turns() -> SimpleNamespace:
    """A model, its card and key, and a conversation of two turns, saved."""
    model = compile_generation(
        transcript(decoder.logits, SAMPLER, vocabulary=V),
        PARAMS,
        lengths=[(12, 6)],
        stop=[STOP],
        policy=Policy(draws=8),
        self_test=False,
    )
    card = ModelCard(
        name="tiny",
        family=model.family.id,
        parameters=program.parameter_root(PARAMS),
        stop=(STOP,),
        tokenizer=bytes(32),
        template="{{ text }}",
        sampler=SAMPLER,
        published=bytes(range(32)),
    )
    key = model.setup(PARAMS, challenge.secret(bytes(32)))
    first = saved(model, card, [5, 7, 9], bytes(range(32)), None)
    prompt = (*first.job.prompt, *first.text, 11)
    second = saved(model, card, prompt, bytes(32), first.receipt)
    return SimpleNamespace(model=model, card=card, key=key, first=first, second=second)


def saved(
    model: Any, card: ModelCard, prompt: Any, seed: bytes, previous: TextReceipt | None
) -> SavedText:
    job = model.job(prompt, limit=6, seed=seed)
    text = decode(model, PARAMS, job, step=decoder.step, cache=decoder.cache)
    return save(card, job, text, model.prove(PARAMS, job, text), previous=previous)


def judged(found: SavedText, **given: Any) -> Any:
    c = turns()
    return judge_saved(c.model, c.key, c.card, found, **given)


def test_a_saved_text_is_judged_from_its_bytes_alone():
    c = turns()
    found = SavedText.decode(bytearray(c.first.encode()))
    assert found == c.first
    report = judged(found, job=c.first.job)
    assert report.require().tokens == c.first.text
    assert len(c.first.receipt.encode()) <= 256
    assert c.first.receipt.previous == NOTHING


def test_a_turn_is_judged_without_the_one_before_and_after_it():
    c = turns()
    assert judged(c.second).verdict is Verdict.ACCEPT
    report = judged(c.second, previous=c.first)
    assert report.require().tokens == c.second.text


def test_cards_and_receipts_are_read_back():
    c = turns()
    assert ModelCard.decode(c.card.encode()) == c.card
    assert ModelCard.decode(c.card.encode()).id == c.card.id
    receipt = c.second.receipt
    assert TextReceipt.decode(receipt.encode()) == receipt
    assert receipt.previous == c.first.receipt.id != receipt.id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "other"),
        ("family", bytes(32)),
        ("parameters", bytes(32)),
        ("stop", ()),
        ("tokenizer", bytes(range(32))),
        ("template", ""),
        ("sampler", replace(SAMPLER, temperature=0.8)),
        ("published", bytes(32)),
    ],
)
def test_every_field_of_a_card_is_part_of_the_models_name(name: str, value: Any):
    card = turns().card
    other = replace(card, **{name: value})
    assert other.id != card.id
    assert other.job_digest(turns().first.job) != card.job_digest(turns().first.job)
    assert ModelCard.decode(other.encode()) == other


@pytest.mark.parametrize(
    "changes", [{"prompt": (5, 7)}, {"limit": 7}, {"seed": bytes(32)}, {"sampler": Sampler()}]
)
def test_every_part_of_a_job_is_part_of_its_digest(changes: dict[str, Any]):
    c = turns()
    other = replace(c.first.job, **changes)
    assert c.card.job_digest(other) != c.card.job_digest(c.first.job)


# --------------------------------------------------------------------------- what is rejected


def another_model(c: SimpleNamespace) -> Any:
    return replace(c.first, card=replace(c.card, published=bytes(32)))


def a_receipt_of_another_model(c: SimpleNamespace) -> Any:
    return replace(c.first, receipt=replace(c.first.receipt, card=bytes(32)))


def a_job_that_was_not_given(c: SimpleNamespace) -> Any:
    job = replace(c.first.job, seed=bytes(32))
    return replace(c.first, job=job)


def a_text_that_was_not_bound(c: SimpleNamespace) -> Any:
    return replace(c.first, text=(*c.first.text[:-1], (c.first.text[-1] + 2) % V))


def a_run_with_a_byte_less(c: SimpleNamespace) -> Any:
    return replace(c.first, run=c.first.run[:-1])


def a_run_with_a_byte_more(c: SimpleNamespace) -> Any:
    return replace(c.first, run=c.first.run + b"\0")


def no_run(c: SimpleNamespace) -> Any:
    return replace(c.first, run=b"")


def a_run_with_a_bit_flipped(c: SimpleNamespace) -> Any:
    run = bytearray(c.first.run)
    run[-100] ^= 1
    return replace(c.first, run=bytes(run))


def a_run_of_the_other_turn(c: SimpleNamespace) -> Any:
    return replace(c.first, run=c.second.run)


def a_text_of_no_tokens(c: SimpleNamespace) -> Any:
    return rebound(c, ())


def a_token_beyond_the_vocabulary(c: SimpleNamespace) -> Any:
    return rebound(c, (*c.first.text[:-1], V))


def a_stop_in_the_middle(c: SimpleNamespace) -> Any:
    return rebound(c, (*c.first.text[:2], STOP, *c.first.text[3:]))


def a_limit_beyond_all_lengths(c: SimpleNamespace) -> Any:
    return rebound(c, c.first.text, limit=2**40)


def a_prompt_beyond_the_vocabulary(c: SimpleNamespace) -> Any:
    return rebound(c, c.first.text, prompt=(5, V))


def a_sampler_of_another_program(c: SimpleNamespace) -> Any:
    return rebound(c, c.first.text, sampler=Sampler())


def rebound(c: SimpleNamespace, text: Any, **changes: Any) -> Any:
    """A device's own receipt of another text or job."""
    run = c.model.prove(PARAMS, c.first.job, c.first.text)
    return save(c.card, replace(c.first.job, **changes), text, run)


HOSTILE: dict[Callable[..., Any], str] = {
    another_model: "receipt-model",
    a_receipt_of_another_model: "receipt-model",
    a_job_that_was_not_given: "receipt-job",
    a_text_that_was_not_bound: "receipt-text",
    a_run_with_a_byte_less: "run-structure",
    a_run_with_a_byte_more: "run-structure",
    no_run: "run-structure",
    a_run_with_a_bit_flipped: "commitment-mismatch",
    a_run_of_the_other_turn: "commitment-mismatch",
    a_text_of_no_tokens: "text-empty",
    a_token_beyond_the_vocabulary: "text-range",
    a_stop_in_the_middle: "text-stop",
    a_limit_beyond_all_lengths: "receipt-job",
    a_prompt_beyond_the_vocabulary: "receipt-job",
    a_sampler_of_another_program: "receipt-job",
}


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda f: f.__name__)
def test_hostile_texts_are_rejected_after_a_trip_as_bytes(hostile: Callable[..., Any]):
    found = SavedText.decode(hostile(turns()).encode())
    report = judged(found)
    assert (report.verdict, report.reason) == (Verdict.REJECT, HOSTILE[hostile])
    assert TokenState.RIGHT not in report.states


def test_a_coordinator_gave_another_job():
    c = turns()
    assert judged(c.first, job=c.second.job).reason == "receipt-job"
    impossible = a_prompt_beyond_the_vocabulary(c)
    with pytest.raises(ValueError, match="vocabulary"):
        judged(impossible, job=impossible.job)
    with pytest.raises(TypeError, match="job"):
        judged(c.first, job=c.first)
    with pytest.raises(TypeError, match="previous"):
        judged(c.first, previous=c.first.receipt)


def test_swapped_turns_and_a_forgotten_one_are_rejected():
    c = turns()
    assert judged(c.first, previous=c.second).reason == "receipt-chain"
    assert judged(c.second, previous=c.second).reason == "receipt-chain"
    alone = replace(c.second, receipt=replace(c.second.receipt, previous=NOTHING))
    assert judged(alone, previous=c.first).reason == "receipt-chain"
    other = saved(c.model, c.card, [4, 11], bytes(32), c.first.receipt)
    assert judged(other).verdict is Verdict.ACCEPT
    assert judged(other, previous=c.first).reason == "receipt-chain"


def test_a_turn_before_that_its_receipt_does_not_bind_is_no_turn_before():
    """What was said is made up: the next prompt has it, and the receipt is the true one's."""
    c = turns()
    forged = replace(c.first, text=(*c.first.text[:-1], (c.first.text[-1] + 2) % V))
    assert forged.receipt.id == c.first.receipt.id
    prompt = (*forged.job.prompt, *forged.text, 11)
    after = saved(c.model, c.card, prompt, bytes(32), forged.receipt)
    assert judged(after, previous=forged).reason == "receipt-chain"


def test_numbers_of_numpy_have_the_bytes_of_the_floats_that_they_equal():
    other = replace(turns().card, sampler=replace(SAMPLER, temperature=np.float64(0.9)))
    assert other.encode() == turns().card.encode()


def test_a_card_may_have_more_stop_tokens_than_a_message_has_items_by_default():
    card = replace(turns().card, stop=tuple(range(5000)))
    assert ModelCard.decode(card.encode()) == card


def test_a_key_or_a_card_of_another_program_is_the_callers_mistake():
    c = turns()
    for card in (replace(c.card, family=bytes(32)), replace(c.card, stop=(2,))):
        with pytest.raises(ValueError, match="another program"):
            judge_saved(c.model, c.key, card, c.first)


# ------------------------------------------------------------------------------ what is no file


def head_of(**changes: Any) -> bytes:
    c = turns()
    size = int.from_bytes(c.first.encode()[32:36], "big")
    head = encoding.decode(c.first.encode()[36 : 36 + size], max_size=size)
    found = encoding.encode({k: v for k, v in (head | changes).items() if v != "absent"})
    return b"".join((MAGIC, len(found).to_bytes(4, "big"), found, c.first.run))


def job_with(**changes: Any) -> Any:
    return job_fields(turns().first.job) | changes


NO_FILES: dict[str, Callable[[], bytes]] = {
    "empty": bytes,
    "another header": lambda: b"verifiable text 2".ljust(32, b"\0") + turns().first.encode()[32:],
    "cut in the size": lambda: turns().first.encode()[:34],
    "cut in the head": lambda: turns().first.encode()[:100],
    "a head of four gigabytes": lambda: MAGIC + b"\xff" * 4 + bytes(64),
    "an absent part": lambda: head_of(receipt="absent"),
    "one part more": lambda: head_of(more=1),
    "a card that is a number": lambda: head_of(card=1),
    "a receipt that is a list": lambda: head_of(receipt=[]),
    "a card of another kind": lambda: head_of(card=encoding.encode(["other", {}])),
    "a card with one field more": lambda: head_of(
        card=encoding.encode(["verifiable model card 1", {"more": 1}])
    ),
    "three bytes of a token": lambda: head_of(text=bytes(3)),
    "tokens as a list": lambda: head_of(text=[1, 2, 3, 4]),
    "a job that is a number": lambda: head_of(job=3),
    "a job without a prompt": lambda: head_of(job=job_with(prompt=b"")),
    "a limit of one and a half": lambda: head_of(job=job_with(limit=1.5)),
    "a limit that is true": lambda: head_of(job=job_with(limit=True)),
    "a limit of zero": lambda: head_of(job=job_with(limit=0)),
    "a short seed": lambda: head_of(job=job_with(seed=bytes(31))),
    "one value more in a job": lambda: head_of(job=job_with(more=None)),
    "a sampler that is a list": lambda: head_of(job=job_with(sampler=[])),
    "a temperature as an integer": lambda: head_of(
        job=job_with(sampler={"temperature": 1, "source": "blake3"})
    ),
    "a temperature of zero": lambda: head_of(
        job=job_with(sampler={"temperature": 0.0, "source": "blake3"})
    ),
    "a temperature beyond float32": lambda: head_of(
        job=job_with(sampler={"temperature": 1e300, "source": "blake3"})
    ),
    "a number that no sampler has": lambda: head_of(job=job_with(sampler={"heat": 1.0})),
    "another source of noise": lambda: head_of(job=job_with(sampler={"source": "dice"})),
    "a receipt of five parts": lambda: head_of(receipt=encoding.encode([1, 2, 3, 4, 5])),
    "a receipt with a short digest": lambda: head_of(
        receipt=encoding.encode(["verifiable text receipt 1", *[bytes(31)] * 4, bytes(39) + b"\1"])
    ),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_saved_text_is_malformed_and_nothing_else(name: str):
    with pytest.raises(MalformedEncoding):
        SavedText.decode(NO_FILES[name]())


def test_any_byte_of_the_head_that_changes_is_noticed():
    """All but the name of the turn before, which is compared where that turn is given."""
    c = turns()
    data, rng = c.first.encode(), np.random.default_rng(0)
    size = int.from_bytes(data[32:36], "big")
    for place in rng.choice(36 + size, 60, replace=False).tolist():
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            found = SavedText.decode(changed)
        except MalformedEncoding:
            continue
        if found.receipt.previous != NOTHING:
            assert judged(found, previous=c.second).reason == "receipt-chain"
        else:
            report = judged(found)
            assert report.verdict is Verdict.REJECT
            assert report.reason.startswith(("receipt-", "commitment-")), place


REFUSED: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "a name of bytes": ({"name": b"tiny"}, TypeError),
    "a short digest": ({"tokenizer": bytes(31)}, ValueError),
    "a digest of text": ({"published": "0" * 32}, TypeError),
    "stop tokens that repeat": ({"stop": (1, 1)}, ValueError),
    "a negative stop token": ({"stop": (-1,)}, ValueError),
    "stop tokens in a list": ({"stop": [1]}, TypeError),
    "no sampler": ({"sampler": None}, TypeError),
    "a template of a megabyte": ({"template": "a" * 2**20}, ValueError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_card_cannot_be_made(name: str):
    changes, error = REFUSED[name]
    with pytest.raises(error):
        replace(turns().card, **changes)
