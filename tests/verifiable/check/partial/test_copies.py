"""Outputs that are claims under another name are opened once, and verified as if opened twice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import verifiable as vf
from tests.helpers.runs import ACCEPT, REJECT
from verifiable import challenge, trace
from verifiable.check.partial.copies import copies_of
from verifiable.errors import MalformedEncoding
from verifiable.policy import Policy
from verifiable.report import Report
from verifiable.trace import AuditOpening, AuditPlan, Committed
from verifiable.trace.copies import Copy, opened_copies

LAYERS, ROWS, WIDTH = 3, 64, 32
RNG = np.random.default_rng(5)
P = jnp.asarray(RNG.standard_normal((LAYERS, WIDTH, WIDTH)) / 4, jnp.float32)
X = jnp.asarray(RNG.standard_normal((ROWS, WIDTH)), jnp.float32)


def model(p: Any, x: Any) -> Any:
    """Layers with cuts, and of what follows them several outputs that are claims."""

    def layer(carry: Any, w: Any) -> Any:
        product = jnp.tanh(carry) @ w
        return carry + product, product[:, None]

    carry, products = lax.scan(layer, x, p)
    logits = jnp.tanh(carry) @ p[0]
    doubled = logits * 2
    return {
        "a logits": logits[None, 2:5, :, None],
        "b logits again": logits[-1],
        "c products": products,
        "d last carry": carry[2:],
        "e choice": jnp.argmax(jnp.tanh(carry), -1).reshape(2, -1),
        "f columns": logits[:, 1:],
        "g doubled": doubled,
        "h doubled again": (doubled, doubled[1]),
        "i stacked rows": products[1, 2],
    }


@functools.cache
def program() -> vf.Program:
    return vf.compile(model, P, X, policy=Policy(draws=2), cuts=True)


@dataclass(frozen=True)
class Sent:
    """What a device committed to, and what it opens."""

    committed: Committed
    opening: Any


@functools.cache
def honest() -> tuple[vf.VerifierKey, Any, tuple[np.ndarray, ...]]:
    y, found = jax.device_get(jax.jit(program().execute)(P, X))
    return program().setup(P, challenge.secret()), y, found.values


def plan() -> AuditPlan:
    return program().audit_plan(bytes(32), layers=1)


def committed(y: Any = None) -> Committed:
    own = honest()
    return trace.commit(own[1] if y is None else y, trace.Trace(values=own[2]))


def audit(sent: Sent) -> Report:
    return program().audit(
        honest()[0], X, plan=plan(), commitment=sent.committed.commitment, opening=sent.opening
    )


def test_the_outputs_that_are_claims():
    claims = {(c.primitive, len(c.trips)): c.index for c in program().claims}
    assert len(claims) == len(program().claims) == 4
    row, first = WIDTH * 4, len(claims)
    wanted = [
        (("dot_general", 0), 2 * row),
        (("dot_general", 0), (ROWS - 1) * row),
        (("dot_general", 1), 0),
        (("cut", 1), ((LAYERS - 1) * ROWS + 2) * row),
        (("dot_general", 1), (ROWS + 2) * row),
    ]
    tensors = [0, 1, 2, 3, 9]
    copies = {c.tensor: c for c in copies_of(program())}
    for n, (source, start) in zip(tensors, wanted, strict=True):
        found = copies.pop(first + n)
        assert (found.source, found.start) == (claims[source], start)
    # An output that was there before, from which no other follows.
    twice = copies.pop(first + 7)
    assert (twice.source, twice.start) == (first + 6, 0)
    assert not copies
    assert plan().agree(committed().tensors)


@pytest.mark.parametrize(
    "fn",
    [
        lambda p, x: jnp.swapaxes(x @ p[0], 0, 1),
        lambda p, x: (x @ p[0])[::2],
        lambda p, x: (x @ p[0])[:, :4],
        lambda p, x: jnp.broadcast_to(x @ p[0], (2, ROWS, WIDTH)),
        lambda p, x: (x @ p[0]).astype(jnp.bfloat16),
        lambda p, x: (x @ p[0])[:, None, ::-1],
        lambda p, x: lax.scan(lambda c, w: (c, (x @ w)[:2]), 0, p)[1],
        lambda p, x: x @ p[0] > 0,
        lambda p, x: lax.reshape(x @ p[0], (WIDTH, ROWS), dimensions=(1, 0)),
    ],
)
def test_bytes_in_another_order_or_type_are_sent(fn: Callable[..., Any]):
    assert not copies_of(vf.compile(fn, P, X, policy=Policy(draws=2)))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_last_carry_is_the_cut_of_the_iteration_that_ran_last(reverse: bool):
    def fn(p: Any, x: Any) -> Any:
        return lax.scan(lambda c, w: (c + jnp.tanh(c) @ w, None), x, p, reverse=reverse)[0]

    compiled = vf.compile(fn, P, X, policy=Policy(draws=2), cuts=True)
    [found] = copies_of(compiled)
    y, made = jax.device_get(jax.jit(compiled.execute)(P, X))
    bytes_of = made.values[found.source].tobytes()
    assert bytes_of[found.start : found.start + y.nbytes] == y.tobytes()


# ---------------------------------------------------------------------------------- openings


def test_what_follows_is_not_sent():
    asked, sent = plan(), committed()
    opening = sent.open(asked)
    data = opening.encode()
    y = program().layout.tensors[len(program().claims) :]
    spared = sum(y[n].nbytes for n in (0, 1, 2, 3, 7, 9))
    assert len(data) == asked.nbytes == asked.most_nbytes - spared
    assert len(opening.leaves) == len(asked.sent) == len(asked.leaves) - 6
    assert asked.opened == sum(map(len, opening.leaves))
    assert AuditOpening.decode(data, asked) == opening
    for given in (opening, data):
        report = audit(Sent(sent, given))
        assert (report.verdict, report.reason) == (ACCEPT, "ok"), report
    assert report.coverage.opened == asked.opened  # pyright: ignore[reportAttributeAccessIssue]


def moved(by: float) -> Any:
    """The answer, of which one element of the first logits is off."""
    y = dict(honest()[1])
    y["a logits"] = y["a logits"].copy()
    y["a logits"][0, 0, 0, 0] *= 1 + by
    return y


def full(sent: Committed) -> AuditOpening:
    """All leaves of the plan, whether they are copies or not."""
    asked = plan()
    found = sent.open(asked.leaves)
    return AuditOpening(plan=asked.id, leaves=found.leaves, proof=found.proof)


def short(sent: Committed) -> AuditOpening:
    """The leaves of the plan that are sent where all copies are equal."""
    asked, found = plan(), full(sent)
    pairs = zip(asked.leaves, found.leaves, strict=True)
    return replace(found, leaves=tuple(leaf for i, leaf in pairs if i in asked.sent))


def swapped(opening: AuditOpening, place: int) -> AuditOpening:
    leaves = list(opening.leaves)
    leaves[place] = bytes([leaves[place][0] ^ 1]) + leaves[place][1:]
    return replace(opening, leaves=tuple(leaves))


def place_of(tensor: int, leaves: tuple[int, ...]) -> int:
    return leaves.index(program().layout.leaf(tensor, 0))


def logits() -> int:
    return copies_of(program())[0].source


# Of an answer that is far from the claim, and of one that is equal: the reason, and what is sent.
FORMS: dict[str, tuple[str, Callable[[Committed, Committed], Sent]]] = {
    "the answer differs from the claim, which alone is sent": (
        "opening-mismatch",
        lambda far, equal: Sent(far, short(far)),
    ),
    "the answer differs from the claim, and both are sent": (
        "output-mismatch",
        lambda far, equal: Sent(far, full(far)),
    ),
    "both are sent, and are equal": (
        "opening-structure",
        lambda far, equal: Sent(equal, full(equal)),
    ),
    "both are sent as bytes, and are equal": (
        "opening-structure",
        lambda far, equal: Sent(equal, full(equal).encode()),
    ),
    "the claim from which the answer follows is another": (
        "opening-mismatch",
        lambda far, equal: Sent(equal, swapped(short(equal), place_of(logits(), plan().sent))),
    ),
    "the claim and the answer are sent, and the claim is another": (
        "opening-mismatch",
        lambda far, equal: Sent(far, swapped(full(far), place_of(logits(), plan().leaves))),
    ),
    "the claim and the answer are sent, and the answer is another": (
        "opening-mismatch",
        lambda far, equal: Sent(
            equal, swapped(full(equal), place_of(len(program().claims), plan().leaves))
        ),
    ),
    "the committed answer differs, and is sent equal": (
        "opening-structure",
        lambda far, equal: Sent(far, full(equal)),
    ),
    "the claim is missing": (
        "opening-missing",
        lambda far, equal: Sent(equal, replace(short(equal), leaves=short(equal).leaves[1:])),
    ),
    "a copy is sent, and the others are not": (
        "opening-extra",
        lambda far, equal: Sent(
            equal, replace(short(equal), leaves=(*short(equal).leaves, full(equal).leaves[-1]))
        ),
    ),
    "one of all leaves is missing": (
        "opening-extra",
        lambda far, equal: Sent(far, replace(full(far), leaves=full(far).leaves[:-1])),
    ),
    "bytes of neither length": (
        "opening-structure",
        lambda far, equal: Sent(far, full(far).encode()[: plan().most_nbytes - 4]),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_hostile_forms_have_their_reasons(name: str):
    reason, make = FORMS[name]
    report = audit(make(committed(moved(0.5)), committed()))
    assert (report.verdict, report.reason) == (REJECT, reason), report.message


def test_an_answer_of_another_run_may_differ_in_its_last_bits():
    """The worker's plain run rounded otherwise than the one that made the trace."""
    near = committed(moved(2.0**-22))
    opening = near.open(plan())
    assert len(opening.leaves) == len(plan().leaves)
    data = opening.encode()
    assert len(data) == plan().most_nbytes
    assert AuditOpening.decode(data, plan()) == opening
    for given in (opening, data):
        report = audit(Sent(near, given))
        assert (report.verdict, report.reason) == (ACCEPT, "ok"), report
    with pytest.raises(MalformedEncoding, match="repeats leaves"):
        AuditOpening.decode(full(committed()).encode(), plan())


def test_copies_follow_from_what_is_opened():
    asked, layout = plan(), program().layout
    copy = asked.copies[0]
    for leaf in (layout.leaf(copy.source, 0), layout.leaf(copy.tensor, 0)):
        left = [i for i in asked.leaves if i != leaf]
        assert copy not in opened_copies(asked.copies, layout, left)
        with pytest.raises(ValueError, match="not among the leaves"):
            replace(asked, leaves=tuple(left))
    chain = Copy(tensor=asked.copies[1].tensor, source=copy.tensor, start=0)
    with pytest.raises(ValueError, match="not among the leaves"):
        replace(asked, copies=(copy, chain))
    with pytest.raises(ValueError, match="does not fit"):
        replace(asked, copies=(replace(copy, start=10**6),))
