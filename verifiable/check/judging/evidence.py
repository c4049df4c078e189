"""Evidence that a committed run is wrong, for a judge who has the model and trusts no accuser.

A rejection rests on the coordinator's secret vectors. Evidence needs none of them: it names one row
of one claim or output, and opens, under the device's own commitment, that value and the claims that
its operands are replayed from. `verify_evidence` replays the operands, op by op in the program's
types and in float64, and decides

    products           guilty iff  ||(C_i - A_i B) * w||  >  KAPPA sigma_i + spread_i
    integer products   guilty iff  C_i != A_i B
    roundings          guilty iff an element is farther than  KAPPA slack + spread  from the values
                       that round to it; decisions likewise
    outputs            guilty iff the distance of the row exceeds  KAPPA eps ||row|| + spread

with sigma and w of `products.freivalds`, A_i B itself in place of a projection, and the spread of
`judging.spread`. The spread of a product is estimated with DRAWS vectors. These and the seeds of
the perturbations follow from the root of the commitment, the program, and the place: an accuser
has nothing to choose but the row. KAPPA is far above 1, the largest deviation of an honest device,
so that the rounding of a judge's own machine decides only about wrong rows close to the limit.

What discontinuous glue, a replayed loop, or operands that are not finite may explain is never
convicted.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Final, Self

import jax
import numpy as np

from verifiable import trace as traces
from verifiable.challenge import secret
from verifiable.check import settings
from verifiable.check.judging.accused import Accused, accused_of
from verifiable.check.judging.spread import (
    MANY,
    Rows,
    Sizes,
    as_wholes,
    changes,
    decide,
    distances,
    unmoved,
)
from verifiable.check.replay.parameter_values import SIZES
from verifiable.check.specification import Specification, Target
from verifiable.check.trees import parameter_root
from verifiable.claims.products import freivalds
from verifiable.claims.statistic import Deviation
from verifiable.encoding import tagged_hash
from verifiable.errors import (
    MalformedEncoding,
    Misnamed,
    received_bytes,
    require_bytes32,
    require_type,
)
from verifiable.jaxpr import interpret
from verifiable.jaxpr.perturb import in_float64
from verifiable.report import Report, Verdict
from verifiable.submission import Submission
from verifiable.trace import Commitment, Opening

_LOG = logging.getLogger(__name__)

KAPPA: Final = 4.0
DRAWS: Final = 64
MAGIC: Final = b"verifiable evidence 1".ljust(32, b"\0")
"""The first 32 bytes of an encoding: format and version."""

_HEADER = len(MAGIC) + 32 + 32 + 40 + 1 + 4 + 8 + 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Which value of a committed run is wrong, opened with all that shows it.

    Received from an accuser: nothing in it is trusted.

    Attributes:
      program: 32-byte id of the program.
      parameters: 32-byte root of the parameters that the job named.
      commitment: of the device to its answer and trace.
      output: whether an output is accused; else a claim.
      index: of the claim or output.
      trip: iteration, counted over the scans around the claim.
      row: of the claim in that iteration, or of the output: as in `ClaimResult`.
      opening: of every leaf of the accused value and of the claims that its operands need.
    """

    program: bytes
    parameters: bytes
    commitment: Commitment
    output: bool
    index: int
    trip: int
    row: int
    opening: Opening = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse ids of another length and places that no encoding has."""
        for name in ("program", "parameters"):
            require_bytes32(name, getattr(self, name), MalformedEncoding)
        if type(self.commitment) is not Commitment or type(self.opening) is not Opening:
            raise MalformedEncoding("evidence holds a Commitment and an Opening")
        if type(self.output) is not bool:
            raise MalformedEncoding("output must be a boolean")
        for name, bits in (("index", 32), ("trip", 64), ("row", 64)):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**bits:
                raise MalformedEncoding(f"{name} must be an integer of {bits} bits")

    def encode(self) -> bytes:
        """The bytes to send or to store: header, place, opened leaves, proof."""
        place = bytes([self.output]) + self.index.to_bytes(4, "big")
        place += self.trip.to_bytes(8, "big") + self.row.to_bytes(8, "big")
        head = (MAGIC, self.program, self.parameters, self.commitment.encode(), place)
        return b"".join([*head, *self.opening.leaves, *self.opening.proof])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, program: Specification) -> Self:
        """Read the bytes that an accuser sent.

        Args:
          data: of any length; program and place say how long the leaves are.
          program: the judge's own.

        Raises:
          MalformedEncoding: not evidence about a claim or output of this program.
          Misnamed: it is about another program: a changed bit, or the wrong program of the judge.
          TypeError: `data` or `program` is of another type.
        """
        data = received_bytes(data)
        _require_program(program)
        if len(data) < _HEADER or data[:32] != MAGIC:
            raise MalformedEncoding(f"the evidence does not start with the header {MAGIC!r}")
        _require_own("program", data[32:64], program.id)
        place = data[136:_HEADER]
        if place[0] > 1:
            raise MalformedEncoding("the first byte of a place must be 0, a claim, or 1, an output")
        output, index = bool(place[0]), int.from_bytes(place[1:5], "big")
        leaves: list[bytes] = []
        start = _HEADER
        for leaf in accused_of(program, Target(output, index)).leaves:
            size = program.layout.leaf_size(leaf)
            leaves.append(data[start : start + size])
            start += size
        rest = data[start:]
        if start > len(data) or len(rest) % 32 or len(rest) > 32 * 64 * len(leaves):
            raise MalformedEncoding(
                f"the evidence has {len(data)} bytes, of which header and leaves need {start} and "
                f"the rest must be at most {64 * len(leaves)} digests of 32 bytes: it was cut or "
                "extended"
            )
        proof = tuple(rest[i : i + 32] for i in range(0, len(rest), 32))
        return cls(
            program=data[32:64],
            parameters=data[64:96],
            commitment=Commitment.decode(data[96:136]),
            output=output,
            index=index,
            trip=int.from_bytes(place[5:13], "big"),
            row=int.from_bytes(place[13:], "big"),
            opening=Opening(leaves=tuple(leaves), proof=proof),
        )


def _require_own(name: str, theirs: bytes, mine: bytes) -> None:
    """Require that evidence is about the judge's own program or parameters."""
    if theirs != mine:
        raise Misnamed(
            f"the evidence is about {name} {theirs.hex()}, not {mine.hex()}: judge it with the "
            f"{name} of the job that the commitment was signed for; if these are, it shows nothing",
            name=name,
            expected=mine,
            found=theirs,
        )


def _require_program(program: object) -> None:
    if not isinstance(program, Specification):
        raise TypeError(
            f"program must be a Program, got {type(program).__name__}: evidence is about one "
            "program; of a family, the one for the job's inputs, family.program(*inputs)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge found; equal for equal evidence, whatever names the judge's functions have.

    The message has these names: it is for readers, and is not compared.

    Attributes:
      guilty: whether the device is shown to be wrong.
      excess: distance of the row over its limit and spread; infinite where it must be equal.
      message: the finding in words, with the judge's own name of the claim or output.
    """

    guilty: bool
    excess: float
    message: str = field(compare=False)

    def __bool__(self) -> bool:
        """A judgement has no truth value: compare `guilty`."""
        raise TypeError("a judgement has no truth value: read judgement.guilty")


def evidence_of(program: Specification, report: Report, submission: Submission) -> Evidence:
    """The evidence for a rejection.

    Args:
      program: that checked the submission.
      report: that rejects it because of a claim or output.
      submission: the run, as it was checked.

    Raises:
      ValueError: the report does not reject a claim or output: what has the wrong shape, or is not
        what was committed to, is no evidence for others.
      TypeError: an argument is of another type.
    """
    _require_program(program)
    require_type("report", report, Report)
    require_type("submission", submission, Submission)
    names = [*(c.name for c in program.claims), *(o.name for o in program.outputs)]
    result = next((r for r in report.results if r.name == report.claim), None)
    rejected = report.verdict is Verdict.REJECT
    if not rejected or result is None or result.row is None or result.name not in names:
        raise ValueError(f"evidence needs a claim or output that was rejected, got {report.reason}")
    place = names.index(result.name)
    output = place >= len(program.claims)
    index = place - len(program.claims) if output else place
    committed = traces.commit(submission.y, submission.trace, layout=program.layout)
    if committed.commitment != submission.commitment:
        raise ValueError("the submission is not what its commitment binds")
    return Evidence(
        program=program.id,
        parameters=submission.parameters,
        commitment=submission.commitment,
        output=output,
        index=index,
        trip=result.trip,
        row=result.row,
        opening=committed.open(accused_of(program, Target(output, index)).leaves),
    )


def verify_evidence(
    evidence: Evidence, program: Specification, params: Any, *inputs: Any
) -> Judgement:
    """Decide, without key or challenge, whether a committed value is shown to be wrong.

    The answer depends on the arguments only. It costs a replay of a part of the program, the
    accused product in float64, and up to 64 perturbed replays.

    Args:
      evidence: from an accuser.
      program: the judge's own, compiled under the policy of the job.
      params: the parameters that the job names.
      *inputs: the job's inputs.

    Raises:
      Misnamed: program or params are not those that the evidence names.
      ValueError: params are refused by `setup`, or inputs have another tree, shape or dtype than
        the program's. Evidence does not name inputs: the caller must pass those of the job that the
        commitment was signed for.
      MalformedProof, RootMismatch, MalformedEncoding: what is opened was not committed to, or is
        not a value of the program.
      TypeError: an argument is of another type.
    """
    require_type("evidence", evidence, Evidence)
    _require_program(program)
    _require_own("program", evidence.program, program.id)
    _require_own("parameters", evidence.parameters, parameter_root(params))
    program.require_normal(params)
    with settings.neutral(compiled=True):
        # Before float64 is enabled, so that 64-bit arrays become those that JAX makes of them.
        params, inputs = program.conform_params(params), program.conform_inputs(inputs)
        accused = accused_of(program, Target(evidence.output, evidence.index))
        return _Trial(accused, evidence, params, inputs).judge()


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    accused: Accused
    evidence: Evidence
    params: Any
    inputs: tuple[Any, ...]

    def judge(self) -> Judgement:
        program, e = self.accused.program, self.evidence
        given = self.opened()
        trip = "" if e.output else f", trip {e.trip}"
        accused = program.judged(self.inputs)[e.output][e.index]
        place = f"{'' if e.output else 'claim '}{accused.name}{trip}, row {e.row}"
        _LOG.info("evidence against %s: its parts compile at first use", place)
        if accused.discontinuities or accused.loops:
            return Judgement(
                guilty=False,
                excess=0.0,
                message=f"{place}: discontinuous or unbounded glue before it may explain it",
            )
        with jax.enable_x64(True):
            arguments = self.accused.arguments(self.params, self.inputs)
            own, wide = (self.centre(arguments, given, f) for f in (interpret.apply, in_float64))
            limit, scale = np.maximum(own.limit, wide.limit), np.minimum(own.scale, wide.scale)
            distance = np.minimum(distances(own, own.expected), distances(wide, wide.expected))
            whole = not e.output and self.accused.claim.form.rows_too
            if accused.replays_inexactly and (whole or (distance > limit).any()):
                # A compiler may have put factors together whose product overflows or vanishes.
                third = self.row(self.accused.compiled(arguments, given))
                distance = np.minimum(distance, distances(third, third.expected))
            moves = functools.partial(self.changes, arguments, given, accused.replays_inexactly)
            found = decide(distance, limit, scale, moves)
            if whole and not found.wrong:
                rows = np.arange(len(distance))[None]
                found = as_wholes(found, distance, wide, moves, [rows])
            if found.wrong and not e.output and self.accused.claim.loop is not None:
                after = self.row(self.accused.effect(arguments, given))
                if not distances(after, after.expected).any():
                    found = found._replace(wrong=False, excess=1.0)
        verb = "shown to be wrong" if found.wrong else "not shown to be wrong"
        size = f"{found.excess:.3g} times what rounding explains"
        if math.isinf(found.excess):
            size = "where nothing explains a difference"
        return Judgement(
            guilty=found.wrong, excess=found.excess, message=f"{place}: {verb}, {size}"
        )

    def opened(self) -> dict[int, np.ndarray[Any, Any]]:
        """The opened tensors by their index, verified."""
        e, layout, leaves = self.evidence, self.accused.program.layout, self.accused.leaves
        tensors = {i: layout.tensors[i] for i in self.accused.tensors}
        found = {i: np.zeros((t.rows, t.columns), t.dtype) for i, t in tensors.items()}
        for piece in traces.verify_opening(e.commitment, layout, e.opening, indices=leaves):
            found[piece.place.tensor][piece.place.start : piece.place.stop] = piece.rows
        return {i: found[i].reshape(t.shape) for i, t in tensors.items()}

    def row(self, found: Deviation) -> Deviation:
        """The accused row: one of a product or output, the elements of one of a rounding.

        Its limit is KAPPA times the tolerance.
        """
        chosen = self.chosen(len(found.limit))
        found = Deviation(*(np.asarray(x)[chosen] for x in found))
        return found._replace(limit=KAPPA * found.limit)

    def chosen(self, rows: int) -> Rows:
        """The accused row among those of a `Deviation`."""
        e = self.evidence
        if e.output:
            found = None if e.trip or e.row >= rows else np.asarray([e.row])
        else:
            found = self.accused.claim.row(e.trip, e.row, rows)
        if found is None:
            raise MalformedEncoding(f"trip {e.trip}, row {e.row} is outside of the accused value")
        return found

    def centre(self, arguments: list[Any], given: Any, apply: interpret.Apply) -> Deviation:
        """The deviation itself, not projected, evaluated op by op."""
        with jax.disable_jit():
            return self.row(self.accused.deviation(arguments, given, self.accused.measure, apply))

    def changes(
        self, arguments: list[Any], given: Any, inexact: bool, rows: Rows
    ) -> Iterator[tuple[Sizes, Rows]]:
        """Changes in perturbed replays; see `second_look.decide`.

        Args:
          arguments: from `Accused.arguments`.
          given: the opened tensors.
          inexact: whether replays can differ.
          rows: of those that `row` chooses.
        """
        e, claim = self.evidence, None if self.evidence.output else self.accused.claim
        if not inexact:
            yield from ((sizes, np.zeros(rows.shape)) for sizes in islice(cycle(SIZES), MANY))
            return
        place = e.index.to_bytes(4, "big") + e.trip.to_bytes(8, "big") + e.row.to_bytes(8, "big")
        seed = tagged_hash("evidence", e.commitment.root, e.program, bytes([e.output]), place)
        draws = math.sqrt(DRAWS) if claim is not None and claim.form.contraction else 1.0
        vectors: dict[str, Any] = {}
        if claim is not None and claim.vectors is not None:
            vectors[claim.vectors] = freivalds.vectors(secret(seed), claim.vectors, DRAWS)
        first = int.from_bytes(seed[:4], "big")
        run = functools.partial(self.accused.perturbed, arguments, given, vectors)
        own = unmoved(run)
        chosen = np.arange(len(own))[self.chosen(len(own))][rows]
        for sizes, change in changes(run, own, chosen, first):
            yield sizes, change / draws
