"""Audits of some layers and positions of a text: honest devices, cheats and hostile openings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protocols.demo import models
from verifiable import challenge, encoding, program, trace
from verifiable.errors import MalformedEncoding
from verifiable.generation import (
    ModelCard,
    OpenedText,
    Sampler,
    TextDraw,
    TextReport,
    TokenState,
    at_positions,
    compile_generation,
    generate,
    judge_opened,
    save,
    transcript,
)
from verifiable.generation.opened import MAGIC as OPENED
from verifiable.generation.saved import MAGIC, framed
from verifiable.generation.transcript import require_causal
from verifiable.policy import Policy
from verifiable.report import Verdict

MODEL = models.small_llama(3, width=32, layers=2)
V, PARAMS = MODEL.vocabulary, MODEL.params
SEED, SAMPLER = bytes(range(32)), Sampler(temperature=8.0, top_k=12, repetition_penalty=1.1)
RIGHT, NEAR, WRONG = TokenState.RIGHT, TokenState.NEAR_TIE, TokenState.WRONG
UNSEEN, UNDECIDED = TokenState.UNSEEN, TokenState.UNDECIDED
LENGTH = 6


@functools.cache
def made() -> SimpleNamespace:
    """A compiled model, its key, an honest text of six tokens and the run over it."""
    model = compile_generation(
        transcript(MODEL.logits_at, SAMPLER, vocabulary=V),
        PARAMS,
        lengths=[(4, 8)],
        policy=Policy(draws=8),
        self_test=False,
        cuts=True,
        row_block=2,
    )
    job = model.job([5, 7, 9], limit=LENGTH, seed=SEED)
    text, submission = generate(model, PARAMS, job, **MODEL.decoder)
    key = model.setup(PARAMS, challenge.secret(bytes(32)))
    return SimpleNamespace(model=model, job=job, text=text, submission=submission, key=key)


def planned(c: SimpleNamespace, text: Any, wanted: Callable[[Any], bool], **changes: Any) -> Any:
    """The plan of the first seed whose draw is wanted."""
    given: dict[str, Any] = {"layers": 1, "rows": 2, "positions": 2}
    for n in range(2000):
        plan = c.model.audit_plan(n.to_bytes(32, "little"), c.job, text, **given | changes)
        if wanted(plan):
            return plan
    raise AssertionError("no seed draws this")


def meeting(position: int) -> Callable[[Any], bool]:
    return lambda plan: position in plan.positions


def audited(c: SimpleNamespace, text: Any, sent: Any, plan: Any, opening: Any = None) -> TextReport:
    opening = c.model.open(sent, plan).encode() if opening is None else opening
    return c.model.audit(c.key, c.job, text, plan=plan, commitment=sent.commitment, opening=opening)


def run(text: Any, params: Any = PARAMS) -> Any:
    """What a device without scruples hands in."""
    c = made()
    sent = c.model.family.prove(params, *c.model.inputs(c.job, text))
    return replace(sent, parameters=c.submission.parameters)


# ---------------------------------------------------------------------------- honest devices


@pytest.mark.parametrize(
    ("layers", "rows", "positions"), [(1, 2, 2), (2, 4, 2), (1, None, 2), (2, None, 8)]
)
def test_an_honest_text_is_accepted_in_what_is_audited(
    layers: int, rows: int | None, positions: int
):
    c = made()
    given = {"layers": layers, "rows": rows, "positions": positions}
    plan = c.model.audit_plan(bytes(32), c.job, c.text, **given)
    assert len(plan.positions) == positions
    report = audited(c, c.text, c.submission, plan)
    assert report.require().tokens == c.text
    seen = [i for i in plan.positions if i < LENGTH]
    assert {i for i, s in enumerate(report.states) if s is not UNSEEN} == set(seen)
    assert {report.states[i] for i in seen} <= {RIGHT, NEAR}
    assert len(c.model.open(c.submission, plan).encode()) == plan.nbytes
    assert report.report is not None
    assert report.report.detection is not None
    assert report.report.detection.audited == layers
    assert not report.listed  # only a whole check looks for ties between candidates


def test_an_audit_opens_the_logits_of_its_positions_alone():
    """Where a row of logits is longer than a leaf, as in all vocabularies in use."""
    wide = 20_000
    table = jax.ShapeDtypeStruct((wide, 32), np.float32)
    model = compile_generation(
        transcript(MODEL.logits_at, SAMPLER, vocabulary=wide),
        PARAMS | {"embedding": table},
        lengths=[(4, 8)],
        policy=Policy(draws=8),
        self_test=False,
        cuts=True,
        row_block=2,
    )
    job, text = replace(made().job, seed=SEED), made().text
    sizes = [
        model.audit_plan(bytes(32), job, text, layers=1, rows=2, positions=n).opening.opened
        for n in (1, 2, 3)
    ]
    assert np.diff(sizes).tolist() == [4 * wide] * 2


@pytest.mark.parametrize("seed", range(3))
def test_a_device_that_runs_op_by_op_is_accepted(seed: int):
    c = made()
    compiled = c.model.program(c.job, c.text)
    with jax.disable_jit():
        y, claims = compiled.execute(PARAMS, *c.model.inputs(c.job, c.text))
    sent = replace(
        c.submission, y=y, trace=claims, commitment=compiled.commit(y, claims).commitment
    )
    plan = c.model.audit_plan(bytes([seed]) * 32, c.job, c.text, layers=1, rows=2, positions=2)
    assert audited(c, c.text, sent, plan).verdict is Verdict.ACCEPT


def test_a_text_with_fewer_tokens_than_are_audited_is_audited_whole():
    c = made()
    job = replace(c.job, limit=1)
    text, submission = generate(c.model, PARAMS, job, **MODEL.decoder)
    plan = c.model.audit_plan(bytes(32), job, text, layers=1, rows=2, positions=2)
    assert plan.positions == (0, 1)
    report = audited(SimpleNamespace(**{**vars(c), "job": job}), text, submission, plan)
    assert report.require().states[0] in (RIGHT, NEAR)


def test_positions_are_drawn_alike_and_apart_from_rows():
    c = made()
    seeds = [n.to_bytes(32, "little") for n in range(300)]
    plans = [c.model.audit_plan(s, c.job, c.text, layers=1, rows=2, positions=2) for s in seeds]
    met = np.bincount([p for plan in plans for p in plan.positions], minlength=LENGTH)
    # Each position with probability 1/3: five standard deviations are 41.
    assert np.abs(met - 100).max() < 41
    assert len({plan.id for plan in plans}) == 300
    by_rows = {plan.part.rows for plan in plans if plan.positions == plans[0].positions}
    assert len(by_rows) > 1


# ------------------------------------------------------------------------------------ cheats


def another(token: int) -> int:
    return (token + 1) % V


def one_changed_token(place: int) -> tuple[Any, Any]:
    c = made()
    text = (*c.text[:place], another(c.text[place]), *c.text[place + 1 :])
    return text, run(text)


def forged(text: Any, **changed: Callable[[Any], None]) -> Any:
    """The honest run over a text, of which claims or the answer are changed and committed to."""
    c = made()
    compiled, honest = c.model.program(c.job, text), run(text)
    values, y = [np.array(x) for x in honest.trace.values], np.array(honest.y)
    for name, change in changed.items():
        if name == "y":
            change(y)
            continue
        [index] = [x.index for x in compiled.claims if x.name.replace("/", "_") == name]
        change(values[index])
    claims = trace.Trace(values=tuple(values))
    return replace(honest, y=y, trace=claims, commitment=compiled.commit(y, claims).commitment)


def a_forged_answer(place: int) -> tuple[Any, Any]:
    """The run claims that the model picks the changed token."""
    text, _ = one_changed_token(place)

    def said(y: Any) -> None:
        y[place] = text[place]

    return text, forged(text, y=said)


def a_forged_choice(place: int) -> tuple[Any, Any]:
    """It takes the next candidate instead, and says so in claim and answer."""
    c = made()
    honest = [np.asarray(x) for x in c.submission.trace.values]
    names = [x.name for x in c.model.program(c.job, c.text).claims]
    order = honest[names.index("pick_token/top_k")][place]
    best = (int(honest[names.index("pick_token/argmax")][place]) + 1) % 12
    text = (*c.text[:place], int(order[best]), *c.text[place + 1 :])

    def chosen(choice: Any) -> None:
        choice[place] = best

    def said(y: Any) -> None:
        y[place] = text[place]

    return text, forged(text, pick_token_argmax=chosen, y=said)


def forged_logits(place: int) -> tuple[Any, Any]:
    """Logits that lead to the changed token, and all that follows from them."""
    text, _ = one_changed_token(place)

    def raised(logits: Any) -> None:
        logits[place, text[place]] = 1e4

    def first(order: Any) -> None:
        left = [t for t in order[place].tolist() if t != text[place]]
        order[place] = [text[place], *left][:12]

    def chosen(choice: Any) -> None:
        choice[place] = 0

    def said(y: Any) -> None:
        y[place] = text[place]

    return text, forged(
        text, logits_dot_general=raised, pick_token_top_k=first, pick_token_argmax=chosen, y=said
    )


CHEATS: dict[Callable[[int], tuple[Any, Any]], tuple[str, str]] = {
    one_changed_token: ("token-mismatch", "token-unseen"),
    a_forged_answer: ("output-mismatch", "ok"),
    a_forged_choice: ("decision-mismatch", "ok"),
    forged_logits: ("claim-mismatch", "ok"),
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda f: f.__name__)
def test_a_wrong_token_is_met_where_the_audit_looks(cheat: Callable[[int], tuple[Any, Any]]):
    c, place = made(), LENGTH - 1  # no token follows, which the run would pick otherwise
    text, sent = cheat(place)
    met, missed = CHEATS[cheat]
    report = audited(c, text, sent, planned(c, text, meeting(place)))
    assert (report.verdict, report.reason) == (Verdict.REJECT, met), report.report
    assert RIGHT not in report.states[place : place + 1]
    # The draw of others does not meet it; what the text then gets is no reject.
    report = audited(c, text, sent, planned(c, text, lambda p: place not in p.positions))
    assert report.reason == missed
    assert report.verdict is (Verdict.ACCEPT if missed == "ok" else Verdict.INDETERMINATE)
    assert report.states[place] is (UNSEEN if missed == "ok" else UNDECIDED)
    if missed == "ok":
        assert report.meets() == pytest.approx(2 / LENGTH)
        assert report.meets(2) == pytest.approx(1 - 4 * 3 / (LENGTH * 5))
        assert "one wrong token is met with probability 0.333" in str(report)


def test_layers_that_a_device_does_not_compute_are_met_where_they_are_audited():
    """It skips the second layer, and runs the pass over the text that comes of it."""
    c = made()
    blocks = (("attention", "output"), ("mlp", "down"))
    off = {b: PARAMS["layers"][b] | {x: PARAMS["layers"][b][x].at[1].set(0)} for b, x in blocks}
    cheap = PARAMS | {"layers": off}
    text, sent = generate(c.model, cheap, c.job, **MODEL.decoder)
    for layer, reason in ((0, "ok"), (1, "claim-mismatch")):
        plan = planned(c, text, lambda p, layer=layer: p.part.layers == (layer,))
        report = audited(c, text, sent, plan)
        assert report.reason == reason
    assert report.report is not None
    assert report.report.detection is not None
    assert report.report.detection.lazy(0.5) == 0.5


def test_another_seed_or_prompt_is_met_wherever_the_audit_looks():
    c = made()
    plan = c.model.audit_plan(bytes(32), c.job, c.text, layers=2, positions=8)
    for changes in ({"seed": bytes(32)}, {"prompt": (5, 7)}):
        job = replace(c.job, **changes)
        text, sent = generate(c.model, PARAMS, job, **MODEL.decoder)
        assert text != c.text
        own = c.model.audit_plan(bytes(32), c.job, text, layers=2, positions=8)
        assert audited(c, text, sent, own).verdict is Verdict.REJECT
    # A cached answer: the text of another job under the run of this one.
    assert audited(c, text, c.submission, plan).verdict is Verdict.REJECT


def test_an_answer_that_goes_on_behind_the_text_is_rejected():
    c = made()

    def speaks(y: Any) -> None:
        y[LENGTH:] = 5

    plan = planned(c, c.text, lambda p: max(p.positions) < LENGTH)
    report = audited(c, c.text, forged(c.text, y=speaks), plan)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "token-mismatch")
    assert "behind the text" in report.message


# -------------------------------------------------------------------------- hostile openings


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


HOSTILE: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "a byte less": (lambda data: data[:-1], "opening-structure"),
    "a byte more": (lambda data: data + b"\0", "opening-structure"),
    "nothing": (lambda _: b"", "opening-structure"),
    "another header": (lambda data: flipped(data, 0), "opening-structure"),
    "of another plan": (lambda data: flipped(data, 32), "opening-plan"),
    "a leaf changed": (lambda data: flipped(data, 100), "opening-mismatch"),
    "a digest changed": (lambda data: flipped(data, len(data) - 1), "opening-mismatch"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_openings_are_rejected_with_the_reason(name: str):
    c = made()
    change, reason = HOSTILE[name]
    plan = c.model.audit_plan(bytes(32), c.job, c.text, layers=1, rows=2, positions=2)
    sent = change(c.model.open(c.submission, plan).encode())
    report = audited(c, c.text, c.submission, plan, sent)
    assert (report.verdict, report.reason) == (Verdict.REJECT, reason)
    assert RIGHT not in report.states


def test_the_opening_of_other_positions_is_of_another_plan():
    c = made()
    plan = c.model.audit_plan(bytes(32), c.job, c.text, layers=1, rows=2, positions=2)
    other = planned(c, c.text, lambda p: p.positions != plan.positions)
    sent = c.model.open(c.submission, other)
    assert audited(c, c.text, c.submission, plan, sent).reason == "opening-plan"


def test_the_opening_of_another_run_is_not_of_this_commitment():
    c = made()
    text, sent = one_changed_token(2)
    plan = c.model.audit_plan(bytes(32), c.job, text, layers=1, rows=2, positions=2)
    opening = c.model.open(sent, plan)
    report = audited(c, text, c.submission, plan, opening)
    assert (report.verdict, report.reason) == (Verdict.REJECT, "opening-mismatch")


def test_an_opening_that_did_not_come_is_the_callers_to_leave_undecided():
    c = made()
    plan = c.model.audit_plan(bytes(32), c.job, c.text, layers=1, rows=2, positions=2)
    with pytest.raises(TypeError, match="nothing is shown"):
        c.model.audit(
            c.key, c.job, c.text, plan=plan, commitment=c.submission.commitment, opening=None
        )


# ------------------------------------------------------------------------------- the caller


def test_what_is_no_text_is_refused_before_anything_is_opened():
    c = made()
    plan = c.model.audit_plan(bytes(32), c.job, c.text, layers=1, rows=2, positions=2)
    assert audited(c, (*c.text, 1), c.submission, plan).reason == "text-length"


def test_a_plan_of_another_text_or_draw_is_the_callers_mistake():
    c = made()
    plan = c.model.audit_plan(bytes(32), c.job, c.text, layers=1, rows=2, positions=2)
    moved = replace(plan, positions=tuple(i + 1 for i in plan.positions))
    sent = c.model.open(c.submission, plan).encode()
    assert audited(c, c.text, c.submission, moved, sent).states[plan.positions[0]] is not UNSEEN
    other = planned(c, c.text, lambda p: p.positions != plan.positions)
    mixed = replace(plan, opening=other.opening)
    with pytest.raises(ValueError, match="not of this text"):
        audited(c, c.text, c.submission, mixed, b"")
    with pytest.raises(ValueError, match=r"1 \.\. 8 can be audited, not 9"):
        c.model.audit_plan(bytes(32), c.job, c.text, layers=1, positions=9)
    with pytest.raises(ValueError, match="no program of this model"):
        c.model.open(replace(c.submission, program=bytes(32)), plan)


def test_few_programs_of_positions_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("verifiable.generation.audited._PARTS", 1)
    c, model = made(), replace(made().model, _parts={}, _plans={})
    for n in (1, 2):
        model.audit_plan(bytes(32), c.job, c.text, layers=1, positions=n)
        assert [positions for _, positions in model._parts] == [n]


def test_a_model_that_returns_all_logits_is_audited_with_all_of_them_opened():
    """Then nothing is saved, and nothing is wrong."""

    def everywhere(params: Any, ids: Any) -> Any:
        return MODEL.logits_at(params, ids, np.arange(len(ids)))

    model = compile_generation(
        transcript(at_positions(everywhere), Sampler(), vocabulary=V),
        PARAMS,
        lengths=[(2, 3)],
        policy=Policy(draws=4),
        self_test=False,
        cuts=True,
        row_block=1,
    )
    job = model.job([5], limit=3)
    text, submission = generate(model, PARAMS, job)
    plan = model.audit_plan(bytes(32), job, text, layers=1, rows=1, positions=1)
    key = model.setup(PARAMS, challenge.secret(bytes(32)))
    c = SimpleNamespace(model=model, job=job, key=key)
    report = audited(c, text, submission, plan)
    assert report.require().states.count(UNSEEN) == 2
    wrong = (*text[:1], another(text[1]), text[2])
    sent = model.family.prove(PARAMS, *model.inputs(job, wrong))
    report = audited(c, wrong, sent, planned(c, wrong, meeting(1), rows=1, positions=1))
    assert (report.verdict, report.states[1]) == (Verdict.REJECT, WRONG)


def refuses_a_plan(logits: Any, why: str) -> None:
    """A model whose texts cannot be audited in part says so."""
    model = compile_generation(
        transcript(logits, Sampler(), vocabulary=V),
        PARAMS,
        lengths=[(2, 3)],
        policy=Policy(draws=1),
        self_test=False,
    )
    with pytest.raises(ValueError, match=why):
        model.audit_plan(bytes(32), model.job([5], limit=3), (5, 6, 7), layers=1, positions=1)


def two_rows_more(params: Any, ids: Any, positions: Any) -> Any:
    more = jnp.concatenate([positions, positions[:1], positions[:1]])
    return MODEL.logits_at(params, ids, more)[: len(positions)]


def test_a_model_with_rows_of_no_position_cannot_be_audited_in_some():
    refuses_a_plan(two_rows_more, "computes otherwise for other numbers")


def test_layers_that_hold_the_choice_of_tokens_cannot_be_drawn():
    """Without a scan or scopes with numbers, each claim is a layer, that of the logits too."""

    def unscanned(params: Any, ids: Any, positions: Any) -> Any:
        return params["embedding"][ids][positions] @ params["embedding"].T

    refuses_a_plan(unscanned, "not told apart")


def test_no_key_is_made_for_a_model_that_depends_on_how_many_positions_it_is_asked_for():
    """Its logits at one position, which an audit would test, are others than in the whole run."""
    found = transcript(lambda w, ids, p: MODEL.logits_at(w, ids, p) / len(p), SAMPLER, vocabulary=V)
    with pytest.raises(ValueError, match="depend on how many"):
        require_causal(found, PARAMS, 12, some=True)
    require_causal(found, PARAMS, 12)


# ------------------------------------------------------------------- openings in small files

DRAW = TextDraw(seed=bytes(32), layers=1, rows=2, positions=2)


@functools.cache
def card() -> ModelCard:
    return ModelCard(
        name="tiny",
        family=made().model.family.id,
        parameters=program.parameter_root(PARAMS),
        stop=(),
        tokenizer=bytes(32),
        template="",
        sampler=SAMPLER,
        published=bytes(32),
    )


@functools.cache
def opened() -> OpenedText:
    c = made()
    return opened_of(save(card(), c.job, c.text, c.submission), c.submission)


def opened_of(saved: Any, submission: Any, draw: TextDraw = DRAW) -> OpenedText:
    plan = draw.plan(made().model, saved.job, saved.text)
    return OpenedText.of(saved, draw, made().model.open(submission, plan))


def judged(found: OpenedText, **given: Any) -> TextReport:
    return judge_opened(made().model, made().key, card(), found, **given)


def test_an_opening_is_judged_from_its_bytes_alone():
    found = OpenedText.decode(bytearray(opened().encode()))
    assert found == opened()
    report = judged(found, draw=DRAW, job=made().job)
    assert report.require().tokens == made().text
    assert report.states.count(UNSEEN) == LENGTH - 2


def test_a_turn_is_judged_after_the_opening_of_the_one_before():
    c = made()
    job = replace(c.job, prompt=(5,), limit=1)
    text = generate(c.model, PARAMS, job, **MODEL.decoder)[0]
    first = save(card(), job, text, c.model.prove(PARAMS, job, text))
    after = replace(c.job, prompt=(5, *text, 9))
    words, submission = generate(c.model, PARAMS, after, **MODEL.decoder)
    saved = save(card(), after, words, submission, previous=first.receipt)
    second = opened_of(saved, submission)
    before = replace(opened(), job=first.job, text=first.text, receipt=first.receipt)
    assert judged(second, previous=before).verdict is Verdict.ACCEPT
    assert judged(second, previous=opened()).reason == "receipt-chain"
    with pytest.raises(TypeError, match="previous"):
        judged(second, previous=first.receipt)


FILES: dict[str, tuple[Callable[[OpenedText], OpenedText], str]] = {
    "another model": (lambda o: replace(o, card=replace(o.card, name="big")), "receipt-model"),
    "another job": (lambda o: replace(o, job=replace(o.job, seed=bytes(32))), "receipt-job"),
    "another text": (
        lambda o: replace(o, text=(*o.text[:-1], another(o.text[-1]))),
        "receipt-text",
    ),
    "more layers than there are": (lambda o: redrawn(o, layers=3), "audit-draw"),
    "more positions than there are": (lambda o: redrawn(o, positions=9), "audit-draw"),
    "rows that no block divides": (lambda o: redrawn(o, rows=3), "audit-draw"),
    "fewer positions than were opened": (lambda o: redrawn(o, positions=1), "opening-plan"),
    "another seed": (lambda o: redrawn(o, seed=bytes(range(32))), "opening-"),
    "a byte less": (lambda o: replace(o, opening=o.opening[:-1]), "opening-structure"),
    "no opening": (lambda o: replace(o, opening=b""), "opening-structure"),
    "a leaf changed": (lambda o: replace(o, opening=flipped(o.opening, 99)), "opening-mismatch"),
}


def redrawn(found: OpenedText, **changes: Any) -> OpenedText:
    return replace(found, draw=replace(found.draw, **changes))


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_rejected_after_a_trip_as_bytes(name: str):
    change, reason = FILES[name]
    report = judged(OpenedText.decode(change(opened()).encode()))
    assert report.verdict is Verdict.REJECT
    assert report.reason.startswith(reason)
    assert RIGHT not in report.states


def test_the_verifiers_own_draw_decides():
    report = judged(opened(), draw=replace(DRAW, seed=bytes(range(32))))
    assert (report.verdict, report.reason) == (Verdict.REJECT, "audit-draw")
    wide = redrawn(opened(), layers=3)
    with pytest.raises(ValueError, match="layers"):
        judged(wide, draw=wide.draw)


def head_with(draw: Any) -> bytes:
    data = opened().encode()
    size = int.from_bytes(data[32:36], "big")
    head = encoding.decode(data[36 : 36 + size], max_size=size) | {"draw": draw}
    return framed(OPENED, head, opened().opening)


NO_FILES: dict[str, Callable[[], bytes]] = {
    "the header of a whole run": lambda: MAGIC + opened().encode()[32:],
    "a draw that is a list": lambda: head_with([]),
    "a draw without positions": lambda: head_with({"seed": bytes(32), "layers": 1}),
    "a draw with one number more": lambda: head_with({**asdict(DRAW), "more": 1}),
    "a short seed": lambda: head_with({**asdict(DRAW), "seed": bytes(31)}),
    "no layers": lambda: head_with({**asdict(DRAW), "layers": 0}),
    "layers that are true": lambda: head_with({**asdict(DRAW), "layers": True}),
    "all positions": lambda: head_with({**asdict(DRAW), "positions": None}),
    "half a row": lambda: head_with({**asdict(DRAW), "rows": 0.5}),
    "more than four gigarows": lambda: head_with({**asdict(DRAW), "rows": 2**32}),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_opened_text_is_malformed_and_nothing_else(name: str):
    with pytest.raises(MalformedEncoding):
        OpenedText.decode(NO_FILES[name]())
