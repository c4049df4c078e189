"""Tokens changed through the tolerance of the last claim, on states of a trained language model.

Each position of some texts has logits, a claim, and a token, their argmax. The cheat shifts two
logits of every position by as little as it takes to change the token (`cheats.steered`). A row of
the check decides on each position by itself, so `changed` is the share of positions whose changed
row passes, over several keys; `near_ties` the share that a report lists as near-ties, which holds
every one of them; `random` the share of positions that pass with a random token.

Operands and outputs: `bf16 -> f32` rounds states and weights and adds up in float32. With logits in
bfloat16 no test can tell one of the best tokens from another: `compile` warns, and the row has no
bar.

*Roundings.* The states are normalised again in a type, rounded to the operands of the head, and
moved towards the second token (`steered_rounding`), each element to a share of its slack that a row
as a whole may have, or, behind a norm in bfloat16, to the neighbour of its result there. `changed`
is the share of tokens that this changes, if it passes.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cheats import steered
from benchmarks.harness import Row
from benchmarks.progress import steps
from benchmarks.steered_rounding import SteeredRounding
from protocols.demo import models
from protocols.demo.models import networks
from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.check.replay.replay import Context
from verifiable.claims.claim import Claim
from verifiable.claims.products import freivalds
from verifiable.claims.roundings.rounding import SHARE
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Env
from verifiable.key import VerifierKey
from verifiable.report import Verdict
from verifiable.submission import Submission
from verifiable.trace import Trace

CLAIM = (
    "Through the tolerance of its logits, a device can change at most 1 % of the tokens of a "
    "trained language model, and a report lists each of them as a near-tie."
)

TEXTS = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "specs/voting.md", "specs/sampling.md")
TOKENS = 96  # of each text
KEYS = 5
LEFT = 0.1  # of the slack: what passes of levels behind a norm in bfloat16

TYPES: dict[str, tuple[Any, Any, str | None]] = {
    "f32": (jnp.float32, jnp.float32, "<= 0.01"),
    "bf16 -> f32": (jnp.bfloat16, jnp.float32, "<= 0.01"),
    "bf16": (jnp.bfloat16, jnp.bfloat16, None),
}


def rows(quick: bool) -> Iterator[Row]:
    """Measure; `quick` takes one text and one key."""
    model = models.smollm2()
    found = states(model, TEXTS[: 1 if quick else None])
    hidden = jnp.concatenate(found)
    for name, (operands, out, bar) in TYPES.items():
        yield from measured(model, hidden, name, operands, out, bar, 1 if quick else KEYS)
    for name in ROUNDED:
        yield from rounded(model, hidden, name)


def _normalised(dtype: Any, hidden: Any) -> Any:
    """States divided by their root mean square, computed in a type."""
    x = hidden.astype(dtype)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True)).astype(dtype)


def choose_rounded(dtype: Any, params: Any, hidden: Any) -> Any:
    """The most likely token, from a norm in a type that is rounded to bfloat16."""
    return choose(jnp.bfloat16, jnp.float32, params["embedding"], _normalised(dtype, hidden))


def choose_quantised(dtype: Any, params: Any, hidden: Any) -> Any:
    """The most likely token, from a norm in a type, quantised to int8 like the weights."""
    x = _normalised(dtype, hidden).astype(jnp.float32)
    unit = jnp.max(jnp.abs(x), axis=-1, keepdims=True) / 127
    q = jnp.clip(jnp.round(x / unit), -127, 127).astype(jnp.int8)
    dims = (((1,), (1,)), ((), ()))
    whole = jax.lax.dot_general(q, params["levels"], dims, preferred_element_type=jnp.int32)
    return jnp.argmax(whole.astype(jnp.float32) * unit * params["scale"], axis=-1)


ROUNDED: dict[str, tuple[Any, Any, str | None]] = {
    "f32, rounded to bf16": (choose_rounded, jnp.float32, "<= 0.01"),
    "f32, W8A8": (choose_quantised, jnp.float32, "<= 0.01"),
    "bf16, kept": (choose_rounded, jnp.bfloat16, None),
    "bf16, W8A8": (choose_quantised, jnp.bfloat16, None),
}


def rounded(model: Any, hidden: Any, name: str) -> Iterator[Row]:
    """What moving the rounded operand of the head does, within what passes for certain."""
    fn, dtype, bar = ROUNDED[name]
    embedding, case = model.params["embedding"], f"{model.name} {name}"
    scale = jnp.max(jnp.abs(embedding), axis=-1) / 127
    levels = jnp.round(embedding / scale[:, None]).astype(jnp.int8)
    params = {"embedding": embedding, "levels": levels, "scale": scale}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        compiled = program.compile(functools.partial(fn, dtype), params, hidden, self_test=False)
    sent, key = compiled.prove(params, hidden), compiled.setup(params, challenge.secret())
    honest = compiled.check(key, hidden, y=sent.y, trace=sent.trace).require()
    cheat = SteeredRounding.of(compiled)
    if cheat is None:
        raise AssertionError(f"nothing is rounded before the choice of {name}")
    if cheat.rounding.form.origin is None:
        y, trace = cheat(params, (hidden,), sent.trace, SHARE * 0.95)
    elif cheat.rounding.form.steps:
        y, trace = cheat(params, (hidden,), sent.trace, LEFT)
    else:
        y, trace = cheat.neighbours(params, (hidden,), sent.trace)
    report = compiled.check(key, hidden, y=y, trace=trace)
    changed = set(np.flatnonzero(np.asarray(y) != np.asarray(sent.y)).tolist())
    missed = changed - {tie.row for tie in report.near_ties}
    yield Row(case, "accepted", int(report.verdict is Verdict.ACCEPT), "1")
    yield Row(case, "changed", len(changed) / len(hidden), "1", bar)
    yield Row(case, "changed_unreported", len(missed), "1", "<= 0")
    yield Row(case, "near_ties", len(honest.near_ties) / len(hidden), "1")
    y, trace = cheat(params, (hidden,), sent.trace, 0.95)
    report = compiled.check(key, hidden, y=y, trace=trace)
    changed = set(np.flatnonzero(np.asarray(y) != np.asarray(sent.y)).tolist())
    case = f"{case}, all of the slack"
    yield Row(case, "accepted", int(report.verdict is Verdict.ACCEPT), "1")
    yield Row(case, "changed", len(changed) / len(hidden), "1")


def states(model: Any, names: Sequence[str]) -> list[Any]:
    """The last states of the first tokens of files of this project, each (tokens, width)."""
    folder = Path(__file__).parent.parent
    run = jax.jit(functools.partial(networks.llama_states, **model.logits.keywords))
    texts = [model.tokenize((folder / name).read_text())[:TOKENS] for name in names]
    return [run(model.params, jnp.asarray(ids)) for ids in texts]


def choose(operands: Any, out: Any, embedding: Any, hidden: Any) -> Any:
    """The most likely token at each position."""
    states = hidden.astype(operands)
    logits = jax.lax.dot_general(
        states, embedding.astype(operands), (((1,), (1,)), ((), ())), preferred_element_type=out
    )
    return jnp.argmax(logits, axis=-1)


@dataclass(frozen=True, kw_only=True)
class Steering:
    """One program and honest run."""

    program: program.Program
    inputs: tuple[Any, ...]
    sent: Submission

    def passes(self, key: VerifierKey, values: Any, y: Any) -> Any:
        """Which rows of the claim of logits pass under a key."""
        arguments = CheckArguments.of(key, self.inputs, y, Trace(values=tuple(values)))
        return np.asarray(self._ratios(arguments)) <= 1.0

    @cached_property
    def _ratios(self) -> Callable[[CheckArguments], Any]:
        """What is measured of each row of the claim, over its limit; compiled once."""
        check = self.program.compiled_check
        [choice] = check.near_ties.choices

        def measure(claim: Claim, env: Env, context: Context) -> Any:
            form: Any = claim.form.contraction
            given, out = context.yardstick(claim, env), context.claimed[claim.index]
            near = interpret.read(env, claim.near)
            applied = freivalds.apply(form, near, given.projection)
            g, eps, limit = given.vectors, given.eps, context.limit
            return freivalds.compare(
                form, applied, given.projection, out, g, eps=eps, limit=limit
            ).ratio

        return check.second_look.measurement(choice.claim, measure)


def measured(
    model: Any, hidden: Any, name: str, operands: Any, out: Any, bar: str | None, keys: int
) -> Iterator[Row]:
    """What shifting two logits does, from states (positions, width), over several keys."""
    embedding, case = model.params["embedding"], f"{model.name} {name}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        compiled = program.compile(
            functools.partial(choose, operands, out), embedding, hidden, self_test=False
        )
    sent = compiled.prove(embedding, hidden)
    changed, random, unreported, near = [], [], 0, 0
    run = Steering(program=compiled, inputs=(hidden,), sent=sent)
    rng = np.random.default_rng(0)
    seconds = []
    for _ in steps(keys, f"{case}: keys"):
        key = compiled.setup(embedding, challenge.secret())
        report = compiled.check(key, hidden, y=sent.y, trace=sent.trace).require()
        start = time.perf_counter()
        compiled.check(key, hidden, y=sent.y, trace=sent.trace)
        seconds.append(time.perf_counter() - start)
        near = len(report.near_ties)
        y, values, _ = steered(compiled, key, (hidden,), sent)
        passed = run.passes(key, values, y)
        changed.append(passed.mean())
        # A device that keeps what passes is accepted, and all that it changed is reported.
        kept_y = np.where(passed, y, np.asarray(sent.y))
        kept = [
            np.where(passed[:, None], new, np.asarray(old))
            if new.shape[:1] == passed.shape
            else new
            for new, old in zip(values, sent.trace.values, strict=True)
        ]
        told = compiled.check(key, hidden, y=kept_y, trace=kept).require().near_ties
        unreported += len(set(np.flatnonzero(passed).tolist()) - {tie.row for tie in told})
        chosen = rng.integers(0, embedding.shape[0], len(y))
        random.append(_random(run, key, chosen).mean())
    positions = len(hidden)
    yield Row(case, "positions", positions, "1")
    yield Row(case, "changed", float(np.mean(changed)), "1", bar)
    yield Row(case, "changed_unreported", unreported, "1", None if bar is None else "<= 0")
    yield Row(case, "random", float(np.mean(random)), "1", None if bar is None else "<= 0")
    yield Row(case, "near_ties", near / positions, "1")
    yield Row(case, "seconds_check", float(np.median(seconds)), "s")


def _random(run: Steering, key: VerifierKey, chosen: Any) -> Any:
    """Which rows pass whose logits are shifted, by as little as it takes, to another token."""
    [choice] = run.program.compiled_check.near_ties.choices
    values = [np.array(x) for x in run.sent.trace.values]
    logits, each = values[choice.claim], np.arange(len(chosen))
    top = logits.max(axis=-1)
    logits[each, chosen] = np.nextafter(top, np.asarray(np.inf, logits.dtype))
    return run.passes(key, values, chosen) & (chosen != np.asarray(run.sent.y))
