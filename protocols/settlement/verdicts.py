"""The verdicts of an epoch, as an RFC 9162 tree over SHA-256 that a contract can verify.

A `VerdictRecord` names the worker, the job and the policy, the verdict and its reason, and how much
was checked. Its encoding, deterministic CBOR, is the data of one leaf.

The records of an epoch are in ascending order of job and worker, each pair once. So the root is a
function of the set of verdicts: all holders of the same verdicts compute the same root, in whatever
order they received them, and no verdict counts twice. Format: specs/settlement.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, Self

from protocols.messages import Message, is_digest, is_uint, or_null
from protocols.settlement.statements import EpochStatement, SettlementError
from verifiable.merkle import SHA256, Tree, verify_inclusion
from verifiable.report import Verdict

_CODE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def _code(value: Any) -> bool:
    return type(value) is str and 1 <= len(value) <= 32 and _CODE.issuperset(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRecord(Message):
    """The verdict on one worker's run of one job.

    Attributes:
      epoch: the epoch that settles it.
      job: digest of the job, which binds program, parameters and input.
      worker: identity of the worker.
      verdict: accept, reject or indeterminate. To reject blames nobody; evidence does.
      reason: stable code of the protocol that decided: at most 32 lower-case letters, digits and
        hyphens.
      commitment: root of the committed trace; None if none was committed.
      answer: digest of the accepted answer; None unless accepted.
      program: 32-byte program id.
      policy: id of the policy that the verdict was reached under, 32 bytes.
      checked: operations that claims tested (`Coverage`).
      replayed: operations that the verifier computed again.
    """

    KIND: ClassVar[str] = "verdict"
    TAG: ClassVar[str] = "message verdict"
    MAX_SIZE: ClassVar[int] = 512
    CHECKS: ClassVar[Mapping[str, Callable[[Any], bool]]] = {
        "epoch": is_uint,
        "job": is_digest,
        "worker": is_digest,
        "verdict": lambda value: isinstance(value, Verdict),
        "reason": _code,
        "commitment": or_null(is_digest),
        "answer": or_null(is_digest),
        "program": is_digest,
        "policy": is_digest,
        "checked": is_uint,
        "replayed": is_uint,
    }

    epoch: int
    job: bytes
    worker: bytes
    verdict: Verdict
    reason: str
    commitment: bytes | None
    answer: bytes | None
    program: bytes
    policy: bytes
    checked: int
    replayed: int

    def __post_init__(self) -> None:
        """Raises ValueError for a malformed field, or fields that contradict one another."""
        Message.__post_init__(self)
        if (self.verdict is Verdict.ACCEPT) != (self.answer is not None):
            raise ValueError("a verdict must have an answer iff it is accept")
        if self.answer is not None and self.commitment is None:
            raise ValueError("an accepted answer must have a commitment")

    def _values(self) -> list[Any]:
        values = Message._values(self)
        values[3] = self.verdict.value
        return values

    @classmethod
    def _field(cls, name: str, wire: Any) -> Any:
        return Verdict(wire) if name == "verdict" else wire


class EpochLog:
    """The verdicts of one epoch, and the tree over them.

    Attributes:
      epoch: number of the epoch.
      policy: id of the policy that all verdicts name.
      records: verdicts in ascending order of job and worker.
      tree: Merkle tree over their encodings.

    Raises:
      SettlementError: no-verdicts, other-epoch, other-policy, unordered-verdicts.
    """

    __slots__ = ("epoch", "policy", "records", "tree")

    def __init__(self, records: Sequence[VerdictRecord]):
        """Check the records against one another, and build the tree."""
        self.records = tuple(records)
        if not self.records:
            raise SettlementError("no-verdicts")
        first, *others = self.records
        self.epoch, self.policy = first.epoch, first.policy
        for record in others:
            if record.epoch != self.epoch:
                raise SettlementError("other-epoch", expected=self.epoch, found=record.epoch)
            if record.policy != self.policy:
                raise SettlementError("other-policy", expected=self.policy, found=record.policy)
        if any(a >= b for a, b in pairwise(map(_order, self.records))):
            raise SettlementError("unordered-verdicts")
        self.tree = Tree.from_data((record.encode() for record in self.records), suite=SHA256)

    @classmethod
    def of(cls, records: Iterable[VerdictRecord]) -> Self:
        """The log of these records, in any order. Raises as the class does."""
        return cls(sorted(records, key=_order))

    def __repr__(self) -> str:
        """Epoch, size and root."""
        return f"EpochLog({self.epoch}, size={self.tree.size}, root={self.tree.root.hex()})"

    def index(self, job: bytes, worker: bytes) -> int:
        """Position of a verdict.

        Raises:
          KeyError: the log has no verdict on this job and worker.
        """
        index = bisect_left(self.records, (job, worker), key=_order)
        if index == len(self.records) or _order(self.records[index]) != (job, worker):
            raise KeyError((job, worker))
        return index

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Inclusion proof of the verdict at `index`. Raises ValueError for no such index."""
        return self.tree.inclusion(index)


def _order(record: VerdictRecord) -> tuple[bytes, bytes]:
    return record.job, record.worker


def verify_verdict(
    record: VerdictRecord, *, index: int, proof: Sequence[bytes], statement: EpochStatement
) -> None:
    """Verify that a statement settles a verdict. The statement must have been verified before.

    Raises:
      SettlementError: other-epoch, other-policy.
      MalformedProof, RootMismatch: the verdict is not at this position of the statement's tree.
    """
    if record.epoch != statement.epoch:
        raise SettlementError("other-epoch", expected=statement.epoch, found=record.epoch)
    if record.policy != statement.policy:
        raise SettlementError("other-policy", expected=statement.policy, found=record.policy)
    verify_inclusion(
        proof,
        leaf=SHA256.leaf(record.encode()),
        index=index,
        size=statement.size,
        root=statement.root,
        suite=SHA256,
    )
