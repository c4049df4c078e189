"""Which positions of a text the results of its run belong to.

A report names rows of claims. The choice of the tokens has a row for each position of the
completion; the product of the logits has one for each of these too, or for each token of the
sequence, where the model computes logits for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from verifiable.generation.sampler import SCOPE
from verifiable.program import Program
from verifiable.report import NearTie, Report, Verdict


def picks_tokens(name: str) -> bool:
    """Whether an equation is the choice of the tokens."""
    return SCOPE in name and "argmax" in name


def mistaken(report: Report, count: int) -> Iterator[int]:
    """Positions whose committed token fails its own test."""
    for result in report.results:
        failed = result.verdict is Verdict.REJECT and result.reason == "decision-mismatch"
        if picks_tokens(result.name) and failed and result.row is not None and result.row < count:
            yield result.row


class TokenHead(NamedTuple):
    """A product of logits, or a choice from several, that decides on tokens or candidates.

    Attributes:
      rows: of it, in one iteration of the scans around it.
      first: the row of the completion's first token, counted over these scans.
      whole: whether its columns are all that is chosen from: then they are token ids.
      tokens: whether the tokens themselves are chosen from it, and not only candidates.
      everywhere: whether it has a row for each token of the sequence, whichever are picked.
    """

    rows: int
    first: int
    whole: bool
    tokens: bool
    everywhere: bool = False


def token_heads(program: Program, prompt: int) -> dict[str, TokenHead]:
    """The products of logits and the choices, by the names that near-ties have; none if none are.

    Args:
      program: a compiled transcript.
      prompt: number of tokens in the prompt.
    """
    found: dict[str, TokenHead] = {}
    listed: set[str] = set()
    room, total = program.y.shape[0], sum(x.shape[0] for x in program.inputs[:2])
    for choice in program.compiled_check.near_ties.choices:
        claim, form = choice.head.claim, choice.head.form
        # A model computes logits of the positions that are picked at, or of all tokens.
        rows = math.prod(claim.trips) * form.rows
        first = {room: 0, total: prompt - 1}.get(rows)
        if SCOPE in choice.equation.name and first is not None:
            whole = form.columns >= choice.equation.inputs[0].shape[-1]
            before = found.get(claim.name)
            tokens = picks_tokens(choice.equation.name) or (before is not None and before.tokens)
            found[claim.name] = TokenHead(form.rows, first, whole, tokens, rows == total)
            listed |= {choice.equation.name} if whole and not choice.narrowed else set()
    # What no rows of one product list whole is listed by the name of the choice, besides: behind a
    # cast that makes equals of two logits, or from several products. There, whatever the noise may
    # pick counts, so that what rows list is not asked for again.
    for choice in program.compiled_check.near_ties.followed.choices:
        equation = choice.equation
        if equation is not None and picks_tokens(choice.name) and choice.name not in listed:
            found[choice.name] = TokenHead(equation.outputs[0].size, 0, whole=False, tokens=True)
    return found


def token_ties(
    heads: Mapping[str, TokenHead], report: Report, places: Sequence[int]
) -> Iterator[tuple[int, NearTie, TokenHead]]:
    """Near-ties between tokens: position, tie, and what it is of.

    Args:
      heads: from `token_heads`.
      report: on the run.
      places: the positions that were picked at, in the order of the program's answer.
    """
    known = frozenset(places)
    for tie in report.near_ties:
        if tie.claim in heads:
            head = heads[tie.claim]
            i = tie.trip * head.rows + tie.row - head.first
            if head.everywhere and i in known:
                yield i, tie, head
            elif not head.everywhere and 0 <= i < len(places):
                yield places[i], tie, head
