"""The judge's view of a run of which only some layers, or rows of them, are looked at.

`verdict.judge` decides on all claims and iterations of a program. Here those that an audit does not
look at count as passed, a second look sees the rows of the others only, and what is reported names
no other. Nothing that was not opened decides anything: it is zero, and not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from verifiable.check import flips
from verifiable.check.judging.second_look import SecondLook
from verifiable.check.judging.spread import Again, Look
from verifiable.check.partial.layers import Trips
from verifiable.check.partial.row_test import RowsTested
from verifiable.check.replay.replay import Findings
from verifiable.check.specification import Specification, Target
from verifiable.claims.claim import Claim
from verifiable.claims.statistic import Statistic
from verifiable.report import ClaimResult, NearTie

Parts = Mapping[int, RowsTested]
_ALL: Parts = MappingProxyType({})


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PartialLook(SecondLook):
    """Second looks at the audited iterations of claims.

    Attributes:
      tested: the claims that are looked at, and their iterations.
      parts: of those that are looked at in some rows, the rows.
      limits: how many decisions of each may differ from the verifier's own.
      most: how many decisions of all of them together may.
      retests: tests the claims of `parts` again, in their rows; by index.
    """

    tested: Mapping[int, Trips]
    parts: Parts
    limits: Mapping[int, int]
    most: int
    retests: Callable[[], Mapping[int, Statistic]]

    @staticmethod
    def of(
        look: SecondLook,
        tested: Mapping[int, Trips],
        parts: Parts,
        retests: Callable[[], Mapping[int, Statistic]],
    ) -> PartialLook:
        """The looks of an audit; what is compiled is shared with those at whole runs."""
        program = look.program
        shared = {f.name: getattr(look, f.name) for f in fields(SecondLook)}
        audited = _audited(program, tested, parts)
        return PartialLook(
            tested=tested,
            parts=parts,
            limits={c.index: flips.limit(c, program.policy) for c in audited},
            most=flips.total(audited, program.policy),
            retests=retests,
            **shared,
        )

    def at(self, arguments: Callable[[], Any]) -> Again:
        """The looks at one run, of the claims that are audited.

        Args:
          arguments: makes those of `on`; called when something is looked at.
        """

        def look(target: Target, **how: Any) -> Look:
            return self.look(arguments(), target, **how)

        def unfounded(target: Target, **how: Any) -> Look:
            return self.unfounded(arguments(), target, **how)

        def recount(indices: Sequence[int], most: int) -> Look:
            return self.recount(arguments(), indices, most)

        def retest(index: int) -> Statistic:
            if index not in self.parts:
                return self.retest(arguments(), index)
            found = self.retests()[index]
            return _placed(found, self.parts[index], self.program.claims[index].trips)

        def reads(target: Target) -> frozenset[int]:
            return self.reads(target).intersection(self.tested)

        return Again(look=look, retest=retest, recount=recount, unfounded=unfounded, reads=reads)

    def _looked(self, target: Target, rows: int) -> np.ndarray[Any, Any]:
        if target.output:  # its index counts outputs, and names no claim
            return np.ones(rows, bool)
        trips = self.tested[target.index]
        every = self.program.claims[target.index].trips
        length = every[0] if every else 1
        if target.index in self.parts:
            by_row = self.parts[target.index].mask(length).ravel()
            return np.repeat(by_row, rows // by_row.size)
        if trips is None:
            return np.ones(rows, bool)
        by_trip = np.isin(np.arange(length), sorted(trips))
        return np.repeat(by_trip, rows // length)

    def _most_flips(self, index: int) -> int:
        return self.limits[index]


def _audited(program: Specification, tested: Mapping[int, Trips], parts: Parts) -> list[Claim]:
    """The audited claims with decisions, of as many iterations and rows as are audited."""
    found: list[Claim] = []
    claims = program.claims
    for index, trips in sorted(tested.items()):
        claim = claims[index]
        if not claim.decisions:  # then its rows have none either
            continue
        if trips is not None:
            claim = replace(claim, trips=(len(trips), *claim.trips[1:]))
        found.append(replace(claim, form=parts[index].form) if index in parts else claim)
    return found


def _placed(found: Statistic, part: RowsTested, trips: tuple[int, ...]) -> Statistic:
    """The statistic of all iterations and rows, given that of some: the others have passed."""
    rows = part.placed(np.reshape(found.row, len(part.rows))).astype(np.int32)
    if not trips:  # no iterations: a claim that leads into the first
        return found._replace(row=rows.reshape(()))
    return expanded(found._replace(row=rows), sorted(part.rows), trips)


def completed(
    findings: Findings,
    claims: Sequence[Claim],
    tested: Mapping[int, Trips],
    parts: Parts = _ALL,
) -> Findings:
    """Findings of all claims and iterations: what was not looked at has passed.

    Args:
      findings: of an audit.
      claims: of the program.
      tested: the claims that were looked at, and their iterations.
      parts: of those that were looked at in some rows, the rows.
    """
    statistics: dict[int, Statistic] = {}
    taken: dict[int, Any] = {}
    for claim in claims:
        index, trips = claim.index, claim.trips
        if index not in tested:
            statistics[index], taken[index] = passed(trips), np.zeros(trips, bool)
            continue
        chosen, part = tested[index], parts.get(index)
        statistics[index], taken[index] = findings.statistics[index], findings.taken[index]
        if part is not None:
            statistics[index] = _placed(statistics[index], part, trips)
        if chosen is not None:
            own = sorted(chosen)
            if part is None:
                statistics[index] = expanded(statistics[index], own, trips)
            full = np.zeros(trips, bool)  # a retest leaves what is untaken as it is
            full[own] = taken[index]
            taken[index] = full
            if np.any(findings.stopped.get(claim.name, False)) and not np.any(
                statistics[index].stopped
            ):
                # Cut short where it is not looked at: what follows shows nothing.
                first = np.arange(full.size).reshape(trips) == 0
                statistics[index] = statistics[index]._replace(stopped=first)
    return findings._replace(statistics=statistics, taken=taken)


def looked_at(
    results: Sequence[ClaimResult], claims: Sequence[Claim], tested: Mapping[int, Trips]
) -> tuple[ClaimResult, ...]:
    """The results of what was looked at: claims, then outputs."""
    every = enumerate(results)
    return tuple(r for i, r in every if i >= len(claims) or i in tested)


def ties_of(
    ties: Sequence[NearTie],
    claims: Sequence[Claim],
    tested: Mapping[int, Trips],
    parts: Parts = _ALL,
) -> tuple[NearTie, ...]:
    """The near-ties of what was looked at."""
    by_name = {c.name: c for c in claims}

    def seen(tie: NearTie) -> bool:
        claim = by_name[tie.claim]
        trips = tested.get(claim.index, frozenset())
        inner = math.prod(claim.trips[1:])
        if claim.index in parts:
            part = parts[claim.index]
            return tie.trip in part.rows and tie.row in part.numbers(tie.trip)
        return trips is None or tie.trip // inner in trips

    return tuple(filter(seen, ties))


def expanded(found: Statistic, chosen: Sequence[int], trips: tuple[int, ...]) -> Statistic:
    """The statistic of all iterations, given that of some: the others have passed.

    Args:
      found: numpy arrays, (s, ...).
      chosen: the s iterations.
      trips: lengths of the scans around the claim.
    """
    before = passed(trips)
    for full, value in zip(before, found, strict=True):
        # A value without the axis of iterations is the same in all.
        full[list(chosen)] = value
    return before


def passed(trips: tuple[int, ...]) -> Statistic:
    """The statistic of a claim that is not looked at: below any that is."""
    true = np.ones(trips, bool)
    return Statistic(
        worst=np.full(trips, -1.0),
        row=np.zeros(trips, np.int32),
        passed=true,
        finite_claim=true.copy(),
        in_range=true.copy(),
        finite_operands=true.copy(),
        ties=np.zeros(trips, np.int32),
        flips=np.zeros(trips, np.int32),
        defined=true.copy(),
        stopped=~true,
    )
