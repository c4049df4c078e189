"""Texts that a tiny decoder generated: honest devices, near-ties, and cheats by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import decoder
from verifiable import challenge, trace
from verifiable.errors import UnlistedChoice
from verifiable.generation import (
    GenerationJob,
    Sampler,
    TextReport,
    TokenState,
    compile_generation,
    decode,
    generate,
    transcript,
)
from verifiable.policy import Policy
from verifiable.report import Verdict
from verifiable.submission import Submission

V, PARAMS = decoder.VOCABULARY, decoder.PARAMS
SEED = bytes(range(32))
STOP = 1
RIGHT, NEAR, WRONG = TokenState.RIGHT, TokenState.NEAR_TIE, TokenState.WRONG

MADE: dict[str, tuple[Sampler, list[tuple[int, int]]]] = {
    "greedy": (Sampler(), [(4, 3), (5, 9)]),
    "sampled": (
        Sampler(temperature=0.9, top_k=12, top_p=0.9, min_p=0.01, repetition_penalty=1.1),
        [(5, 9)],
    ),
}


@functools.cache
def made(name: str) -> SimpleNamespace:
    """A compiled model, its key, an honest text, and the device that made it."""
    sampler, lengths = MADE[name]
    model = compile_generation(
        transcript(decoder.logits, sampler, vocabulary=V),
        PARAMS,
        lengths=lengths,
        stop=[STOP],
        policy=Policy(draws=8),
        self_test=False,
    )
    job = model.job([5, 7, 9], limit=8, seed=SEED)
    text = generated(model, job)
    assert len(text) == 8
    submission = model.prove(PARAMS, job, text)
    key = model.setup(PARAMS, challenge.secret(bytes(32)))
    return SimpleNamespace(model=model, job=job, text=text, submission=submission, key=key)


def generated(model: Any, job: GenerationJob, params: Any = PARAMS) -> tuple[int, ...]:
    return decode(model, params, job, step=decoder.step, cache=decoder.cache)


def run(model: Any, job: GenerationJob, text: Any, params: Any = PARAMS) -> Any:
    """What a device without scruples hands in."""
    return model.family.prove(params, *model.inputs(job, text))


def verified(c: SimpleNamespace, text: Any, submission: Any) -> TextReport:
    return c.model.verify(c.key, c.job, text, submission, commitment=submission.commitment)


# ---------------------------------------------------------------------------- honest devices


@pytest.mark.parametrize("name", MADE)
def test_an_honest_text_is_accepted(name: str):
    c = made(name)
    report = verified(c, c.text, c.submission)
    assert report.require().tokens == c.text
    assert set(report.states) <= {RIGHT, NEAR}
    assert report.states.count(RIGHT) >= 5
    assert report.near_ties == report.states.count(NEAR)
    assert report.listed
    assert "8 tokens" in str(report)


@pytest.mark.parametrize("name", MADE)
def test_a_device_that_runs_op_by_op_is_accepted(name: str):
    c = made(name)
    program = c.model.program(c.job, c.text)
    with jax.disable_jit():
        y, claims = program.execute(PARAMS, *c.model.inputs(c.job, c.text))
    assert c.text == tuple(np.asarray(y)[:8].tolist())
    sent = replace(c.submission, y=y, trace=claims, commitment=trace.commit(y, claims).commitment)
    report = verified(c, c.text, sent)
    assert report.verdict is Verdict.ACCEPT, report.report


def test_all_lengths_share_one_key():
    c = made("greedy")
    job = c.model.job([5, 7], limit=3, seed=SEED)
    text = generated(c.model, job)
    submission = c.model.prove(PARAMS, job, text)
    programs = {c.model.program(job, text).id, c.model.program(c.job, c.text).id}
    assert len(programs) == 2
    report = c.model.verify(c.key, job, text, submission, commitment=submission.commitment)
    assert report.require().tokens == text


def test_another_temperature_needs_no_other_program():
    c = made("sampled")
    sampler = replace(c.job.sampler, temperature=0.5)
    job = c.model.job(c.job.prompt, limit=8, seed=SEED, sampler=sampler)
    text = generated(c.model, job)
    submission = c.model.prove(PARAMS, job, text)
    report = c.model.verify(c.key, job, text, submission, commitment=submission.commitment)
    assert report.verdict is Verdict.ACCEPT


@functools.cache
def twins() -> SimpleNamespace:
    """A token of the text gets a twin, which is less likely by a part in a million."""
    c = made("greedy")
    place = next(i for i, t in enumerate(c.text) if c.text.count(t) == 1)
    twin = next(t for t in range(2, V) if t not in (*c.text, *c.job.prompt))
    head = PARAMS["head"]
    params = PARAMS | {"head": head.at[:, twin].set(head[:, c.text[place]] * (1 - 1e-6))}
    key = c.model.setup(params, challenge.secret(bytes(32)))
    return SimpleNamespace(**{**vars(c), "key": key}, params=params, place=place, twin=twin)


def test_near_ties_are_listed_where_they_are():
    c = twins()
    report = verified(c, c.text, c.model.prove(c.params, c.job, c.text))
    assert report.verdict is Verdict.ACCEPT
    assert report.states[c.place] is NEAR
    others = [s for i, s in enumerate(report.states) if i != c.place]
    assert others.count(RIGHT) >= 5


def test_a_decoder_may_pick_the_other_token_of_a_near_tie():
    """It rounds differently than the pass. The rest of its text follows from its own token."""
    c = twins()
    prefix = (*c.text[: c.place], c.twin)
    text = decode(c.model, c.params, c.job, step=decoder.step, cache=decoder.cache, prefix=prefix)
    submission = c.model.prove(c.params, c.job, text, differences=1)
    assert submission.y[c.place] == c.text[c.place] != text[c.place]
    report = verified(c, text, submission)
    assert report.verdict is Verdict.ACCEPT
    assert report.states[c.place] is NEAR
    assert WRONG not in report.states


def test_no_device_may_pick_a_token_that_takes_more_than_one_sigma():
    """A near-tie that the report lists, but a run would put that token first only by luck."""
    c = twins()
    head = PARAMS["head"]
    close = c.params | {"head": head.at[:, c.twin].set(head[:, c.text[c.place]] * (1 - 1e-3))}
    key = c.model.setup(close, challenge.secret(bytes(32)))
    prefix = (*c.text[: c.place], c.twin)
    text = decode(c.model, close, c.job, step=decoder.step, cache=decoder.cache, prefix=prefix)
    submission = c.model.prove(close, c.job, text, differences=1)
    report = c.model.verify(key, c.job, text, submission, commitment=submission.commitment)
    assert report.reason == "token-mismatch"
    assert report.states[c.place] is WRONG
    assert report.report is not None
    assert any({t.chosen, t.other} == {c.twin, c.text[c.place]} for t in report.report.near_ties)


def test_a_report_says_where_near_ties_are_not_listed():
    """Nothing is followed through Fourier transforms."""

    def filtered(params: Any, ids: Any, positions: Any) -> Any:
        logits = decoder.norm(params["table"][ids])[positions] @ params["head"]
        return jnp.fft.irfft(jnp.fft.rfft(logits), V)

    program = transcript(filtered, Sampler(temperature=1.0), vocabulary=V)
    with pytest.warns(UnlistedChoice, match="fft is not followed"):
        model = compile_generation(
            program, PARAMS, lengths=[(2, 3)], policy=Policy(draws=1), self_test=False
        )
    job = model.job([5], limit=3, seed=SEED)
    text, submission = generate(model, PARAMS, job)
    key = model.setup(PARAMS, challenge.secret(bytes(32)))
    report = model.verify(key, job, text, submission, commitment=submission.commitment)
    assert report.require().listed is False
    assert "not listed" in str(report)


# ------------------------------------------------------------------------------------ cheats


def another(token: int) -> int:
    return next(t for t in (token + 1, token + 2) if t % V != STOP) % V


def changed(text: Any, place: int) -> tuple[int, ...]:
    return (*text[:place], another(text[place]), *text[place + 1 :])


def one_changed_token(c: SimpleNamespace) -> Any:
    """The rest follows from it."""
    text = changed(c.text, 4)
    return text, run(c.model, c.job, text)


def the_last_token_changed(c: SimpleNamespace) -> Any:
    text = changed(c.text, 7)
    return text, run(c.model, c.job, text)


def the_run_of_another_text(c: SimpleNamespace) -> Any:
    return changed(c.text, 7), c.submission


def a_choice_forged_with_it(c: SimpleNamespace) -> Any:
    """Trace and answer say that the model picks the changed token, the next of the candidates."""
    program = c.model.program(c.job, c.text)
    [index] = [x.index for x in program.claims if x.primitive == "argmax"]
    [order] = [x.index for x in program.claims if x.primitive == "top_k"]
    row = np.asarray(c.submission.trace.values[order])[4].tolist()
    token = row[(row.index(c.text[4]) + 1) % 12]
    text = (*c.text[:4], token, *c.text[5:])
    honest = run(c.model, c.job, text)
    values = [np.array(x) for x in honest.trace.values]
    y = np.array(honest.y)
    values[index][4] = values[order][4].tolist().index(token)
    y[4] = token
    claims = trace.Trace(values=tuple(values))
    sent = replace(honest, y=y, trace=claims, commitment=trace.commit(y, claims).commitment)
    return text, sent


def of_another_job(c: SimpleNamespace, **changes: Any) -> Any:
    job = replace(c.job, **changes)
    text = generated(c.model, job)
    assert text != c.text
    return text, run(c.model, job, text)


def another_seed(c: SimpleNamespace) -> Any:
    return of_another_job(c, seed=bytes(32))


def another_temperature(c: SimpleNamespace) -> Any:
    return of_another_job(c, sampler=replace(c.job.sampler, temperature=3.0))


def a_dropped_prompt(c: SimpleNamespace) -> Any:
    return of_another_job(c, prompt=c.job.prompt[1:])


def another_seed_with_an_honest_run(c: SimpleNamespace) -> Any:
    text = generated(c.model, replace(c.job, seed=bytes(32)))
    return text, run(c.model, c.job, text)


@functools.cache
def of_the_likeliest_only() -> Any:
    """As if `top_k` were 1."""
    c = made("sampled")
    greedy = replace(c.model, transcript=transcript(decoder.logits, Sampler(), vocabulary=V))
    job = replace(c.job, sampler=Sampler())
    return generated(greedy, job)


def another_top_k(c: SimpleNamespace) -> Any:
    text = of_the_likeliest_only()
    assert text != c.text
    return text, run(c.model, c.job, text)


CHEAP = PARAMS | {name: PARAMS[name].at[1].set(0) for name in ("out", "down")}


def skipped_layers(c: SimpleNamespace) -> Any:
    text = generated(c.model, c.job, CHEAP)
    return text, replace(run(c.model, c.job, text, CHEAP), parameters=c.submission.parameters)


def a_cheap_text_with_an_honest_run(c: SimpleNamespace) -> Any:
    text = generated(c.model, c.job, CHEAP)
    assert text != c.text
    return text, run(c.model, c.job, text)


def tokens_after_the_stop(c: SimpleNamespace) -> Any:
    return (*c.text[:3], STOP, *c.text[4:]), c.submission


def an_end_without_a_stop(c: SimpleNamespace) -> Any:
    return c.text[:5], run(c.model, replace(c.job, limit=5), c.text[:5])


def a_stop_that_came_early(c: SimpleNamespace) -> Any:
    text = (*c.text[:4], STOP)
    return text, run(c.model, c.job, text)


def padding_that_speaks(c: SimpleNamespace) -> Any:
    y = np.asarray(c.submission.y).copy()
    y[len(c.text) :] = 5
    claims = c.submission.trace
    return c.text, replace(c.submission, y=y, commitment=trace.commit(y, claims).commitment)


def more_than_was_asked_for(c: SimpleNamespace) -> Any:
    return (*c.text, 5), c.submission


CHEATS: dict[Callable[..., Any], tuple[str, int | None]] = {
    one_changed_token: ("token-mismatch", 4),
    the_last_token_changed: ("token-mismatch", 7),
    the_run_of_another_text: ("lookup-mismatch", None),
    a_choice_forged_with_it: ("decision-mismatch", 4),
    another_seed: ("decision-mismatch", None),
    another_temperature: ("decision-mismatch", None),
    a_dropped_prompt: ("lookup-mismatch", None),
    another_seed_with_an_honest_run: ("token-mismatch", None),
    another_top_k: ("token-mismatch", None),
    skipped_layers: ("claim-mismatch", None),
    a_cheap_text_with_an_honest_run: ("token-mismatch", None),
    tokens_after_the_stop: ("text-stop", None),
    an_end_without_a_stop: ("text-unfinished", None),
    a_stop_that_came_early: ("token-mismatch", 4),
    padding_that_speaks: ("output-mismatch", None),
    more_than_was_asked_for: ("text-length", None),
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda f: f.__name__)
def test_cheats_are_rejected(cheat: Callable[..., Any]):
    c = made("sampled")
    reason, place = CHEATS[cheat]
    report = verified(c, *cheat(c))
    assert report.verdict is Verdict.REJECT
    assert report.reason == reason, report.report
    if place is not None:
        assert report.states[place] is WRONG
        assert WRONG not in report.states[:place]


# ------------------------------------------------------------------------------- the caller


def test_prove_refuses_a_text_of_other_tokens():
    c = made("sampled")
    with pytest.raises(ValueError, match=r"first \d+ instead of \d+ at 4"):
        c.model.prove(PARAMS, c.job, changed(c.text, 4))
    with pytest.raises(ValueError, match="text-unfinished"):
        c.model.prove(PARAMS, c.job, c.text[:3])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a prompt that is too long": ({"prompt": [1] * 6}, "none holds a prompt of 6"),
    "more tokens than any shape": ({"limit": 10}, "none holds a prompt of 3"),
    "a token beyond the vocabulary": ({"prompt": [V]}, "the prompt has token 64"),
    "another sampler": ({"sampler": Sampler(temperature=0.5)}, "the job asks for"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_jobs_of_other_models_are_refused(name: str):
    changes, message = REFUSED[name]
    given: dict[str, Any] = {"prompt": [5, 7, 9], "limit": 8}
    given |= changes
    with pytest.raises(ValueError, match=message):
        made("greedy").model.job(given.pop("prompt"), **given)


def test_token_ids_are_whole_numbers():
    with pytest.raises(TypeError):
        made("greedy").model.job([5.7], limit=3)
    with pytest.raises(TypeError, match="must be token ids, got str"):
        made("greedy").model.job("hello", limit=3)  # type: ignore[arg-type]


def test_stop_tokens_and_lengths_are_of_the_model():
    program = transcript(decoder.logits, Sampler(), vocabulary=V)
    with pytest.raises(ValueError, match="stop tokens"):
        compile_generation(program, PARAMS, lengths=[(2, 2)], stop=[V])
    with pytest.raises(ValueError, match="at least one token"):
        compile_generation(program, PARAMS, lengths=[(0, 2)])


def test_no_key_is_made_for_a_model_that_looks_ahead():
    program = transcript(
        lambda params, ids, positions: jnp.flip(params["head"][ids % 24], 0)[positions],
        Sampler(),
        vocabulary=V,
    )
    model = compile_generation(program, PARAMS, lengths=[(2, 3)])
    with pytest.raises(ValueError, match="not causal"):
        model.setup(PARAMS, challenge.secret(bytes(32)))


def test_a_report_has_no_truth_value():
    with pytest.raises(TypeError, match="no truth value"):
        bool(verified(made("greedy"), None, made("greedy").submission))


def test_the_model_is_not_asked_about_what_is_no_text():
    c = made("greedy")
    report = verified(c, jnp.zeros((2, 2)), c.submission)
    assert (report.reason, report.report, report.states) == ("text-structure", None, ())
    assert c.model.refusal(c.job, c.text) is None


def test_a_submission_is_read_by_the_layout_of_its_text():
    c = made("greedy")
    layout = c.model.program(c.job, c.text).layout
    read = Submission.decode(c.submission.encode(), layout)
    assert verified(c, c.text, read).verdict is Verdict.ACCEPT
