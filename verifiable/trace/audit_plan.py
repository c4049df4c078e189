"""Plans of audits: which leaves of a committed trace are opened, and the opening as bytes.

After a trace was committed to, a seed that nobody knew before chooses layers of the program. The
leaves that their tests need follow from the program, so both sides make the same `AuditPlan`, and
know the length of the answer before anything is sent:

    MAGIC || id of the plan || data of each leaf, in order || digests of the multiproof

An output is often a claim under another name, such as the logits of a product. Its leaves then
follow from the claim's: they are sent only where a device committed to an answer that differs.

The s layers audited of L are those whose digests H("layer of an audit", seed, number) are smallest:
a uniform draw without replacement, whose longer draws contain the shorter ones. The r rows of a
layer are drawn likewise, in blocks of neighbours, with H("rows of an audit", seed, layer, block);
without cuts, the rows of all layers by one draw, with H("rows of an audit", seed, block). If the
answer follows from fewer than r rows of the last layer, their blocks are audited in every layer,
and what is left of r is drawn from the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Bool, Integer

from verifiable import merkle
from verifiable.encoding import encode, tagged_hash
from verifiable.errors import (
    MalformedEncoding,
    is_bytes32,
    received_bytes,
    require_bytes32,
    require_exact_type,
)
from verifiable.trace.copies import Copy, opened_copies
from verifiable.trace.layout import Layout, TensorRows, tensor_rows

MAGIC: Final = b"verifiable audit 2".ljust(32, b"\0")
"""The first 32 bytes of an opening: format and version."""

HEADER = len(MAGIC) + 32  # bytes of format, version and the id of the plan


def drawn(seed: bytes, population: int, count: int) -> tuple[int, ...]:
    """The layers that a seed chooses, ascending.

    Args:
      seed: 32 bytes that nobody knew when the trace was committed to.
      population: layers of the program, L.
      count: layers that are audited, s.

    Raises:
      ValueError: no layers, more than there are, or a seed of another length.
    """
    require_bytes32("the seed of an audit", seed)
    if type(count) is not int or not 1 <= count <= population:
        raise ValueError(
            f"the program has {population} layers, so 1 .. {population} can be audited, not {count}"
        )
    return _smallest(range(population), count, "layer of an audit", seed)


def drawn_rows(
    seed: bytes,
    layer: int | None,
    length: int,
    count: int,
    *,
    block: int = 1,
    sure: Collection[int] = (),
) -> tuple[int, ...]:
    """The rows of a layer that are audited, ascending: a seed's choice, and some in any case.

    They are drawn in blocks of neighbours. Where the last block is cut short by the end of the
    layer, rows before it are taken too, so that there are always as many.

    Args:
      seed: 32 bytes that nobody knew when the trace was committed to.
      layer: number of the layer; None if the rows of all layers are the same.
      length: rows of the layer, T.
      count: rows that are audited, r; all, if there are no more.
      block: rows of a block, which divides r.
      sure: blocks that are audited in any case, with fewer than r rows; the rest is drawn.
    """
    if count >= length:
        return tuple(range(length))
    of_layer = () if layer is None else (layer.to_bytes(8, "little"),)
    others = [n for n in range(-(-length // block)) if n not in sure]
    wanted = count // block - len(sure)
    chosen = _smallest(others, wanted, "rows of an audit", seed, *of_layer)
    found: list[int] = []
    end = length
    for number in sorted({*chosen, *sure}, reverse=True):
        end = min((number + 1) * block, end)
        found += range(end - 1, end - 1 - block, -1)
        end -= block
    return tuple(reversed(found))


def _smallest(numbers: Iterable[int], count: int, tag: str, *of: bytes) -> tuple[int, ...]:
    """The numbers whose digests are the smallest, ascending."""

    def digest(number: int) -> bytes:
        return tagged_hash(tag, *of, number.to_bytes(8, "little"))

    return tuple(sorted(sorted(numbers, key=digest)[:count]))


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """What an audit looks at, and the leaves that it needs. Made by `Program.audit_plan`.

    Attributes:
      program: 32-byte id of the program.
      seed: 32 bytes that chose layers and rows.
      population: layers of the program.
      layers: numbers of those that are audited, ascending.
      names: their names.
      rows: of each of these layers, those that are audited, ascending; empty if all are.
      row_count: how many rows were asked for; None for all.
      leaves: indices of the leaves to open, ascending.
      layout: of the program.
      copies: tensors whose leaves are not sent where they follow from others; their sources are
        opened, and are no copies.
      id: 32 bytes that bind program, seed, layers, rows and leaves.
    """

    program: bytes
    seed: bytes
    population: int
    layers: tuple[int, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...] = ()
    row_count: int | None = None
    leaves: tuple[int, ...] = field(repr=False)
    layout: Layout = field(repr=False)
    copies: tuple[Copy, ...] = field(default=(), repr=False)
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Require leaves of the layout, and name the plan."""
        if fault := merkle.indices_fault(self.leaves, self.layout.size):
            raise ValueError(fault)
        if opened_copies(self.copies, self.layout, self.leaves) != self.copies:
            raise ValueError("a copy, or what it follows from, is not among the leaves to open")
        runs = [list(r) for r in _runs(self.leaves)]
        rows = [[list(r) for r in self.rows]] if self.rows else []
        content = encode([self.population, list(self.layers), runs, *rows])
        found = tagged_hash("plan of an audit", self.program, self.seed, content)
        object.__setattr__(self, "id", found)

    @cached_property
    def places(self) -> Integer[np.ndarray, "leaves 3"]:
        """Tensor, first row and one past the last, of each leaf to open."""
        return self.layout.places(self.leaves)

    @cached_property
    def _follows(self) -> Bool[np.ndarray, " leaves"]:
        """Of each leaf to open, whether it is one of a copy."""
        return np.isin(self.places[:, 0], [copy.tensor for copy in self.copies])

    @cached_property
    def _sizes(self) -> Integer[np.ndarray, " leaves"]:
        """Bytes of each leaf to open."""
        widths = np.array([t.row_bytes for t in self.layout.tensors], np.int64)
        tensors, starts, stops = self.places.T
        return (stops - starts) * widths[tensors]

    @cached_property
    def sent(self) -> tuple[int, ...]:
        """Indices of the leaves that are sent, without those of copies."""
        return tuple(np.asarray(self.leaves)[~self._follows].tolist())

    def sizes(self, *, apart: bool = False) -> tuple[int, ...]:
        """Bytes of each leaf that is sent.

        Args:
          apart: whether the leaves of copies are sent too, since they differ.
        """
        return tuple((self._sizes if apart else self._sizes[~self._follows]).tolist())

    @cached_property
    def tensors(self) -> tuple[TensorRows, ...]:
        """The rows to open of each tensor of which there are any."""
        return tensor_rows(self.places)

    @cached_property
    def proof(self) -> merkle.MultiproofShape:
        """Shape of the multiproof."""
        return merkle.MultiproofShape.of(self.leaves, self.layout.size)

    @property
    def digests(self) -> int:
        """Digests of the multiproof."""
        return self.proof.digests

    @cached_property
    def opened(self) -> int:
        """Canonical bytes of the leaves that are sent, without those of copies."""
        return int(np.sum(self._sizes[~self._follows]))

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded opening."""
        return HEADER + self.opened + merkle.DIGEST_SIZE * self.digests

    @property
    def most_nbytes(self) -> int:
        """The same of a device whose copies differ: the most that a receiver has to read."""
        return self.nbytes - self.opened + int(np.sum(self._sizes))

    def starts(self, data: bytes) -> Integer[np.ndarray, " leaves"]:
        """Where the data of each leaf to open begins in an encoded opening.

        Args:
          data: from `framed`.
        """
        return self._starts[len(data) == self.most_nbytes]

    @cached_property
    def _starts(self) -> tuple[Integer[np.ndarray, " leaves"], Integer[np.ndarray, " leaves"]]:
        """The same where the leaves of copies are not sent, and where they are."""
        apart = HEADER + np.cumsum(self._sizes) - self._sizes
        taken = np.where(self._follows, 0, self._sizes)
        found = HEADER + np.cumsum(taken) - taken
        for copy in self.copies:
            own = self.places[:, 0] == copy.tensor
            rows = self.places[own, 1]
            width = self.layout.tensors[copy.tensor].row_bytes
            found[own] = self._begin(copy, found) + rows * width
        return (found, apart) if self.copies else (apart, apart)

    def data(self, opening: bytes) -> list[memoryview]:
        """The data of each leaf to open; those of copies from what they follow from.

        Args:
          opening: from `framed`.
        """
        view, starts = memoryview(opening), self.starts(opening)
        pairs = zip(starts.tolist(), (starts + self._sizes).tolist(), strict=True)
        return [view[start:stop] for start, stop in pairs]

    def _begin(self, copy: Copy, starts: Any) -> int:
        """Where the data that a copy follows from begins, given where that of each leaf does."""
        width = self.layout.tensors[copy.source].row_bytes
        leaf = self.layout.leaf(copy.source, copy.start // width)
        place = int(np.searchsorted(self.leaves, leaf))
        return int(starts[place]) + copy.start - int(self.places[place, 1]) * width

    def agree(self, tensors: Sequence[memoryview]) -> bool:
        """Whether every copy has the bytes of its source, so that its leaves are not sent.

        Args:
          tensors: canonical bytes of each tensor of the layout.
        """
        return all(
            bytes(tensors[c.tensor])
            == bytes(tensors[c.source][c.start : c.start + self.layout.tensors[c.tensor].nbytes])
            for c in self.copies
        )

    def framed(self, data: bytes | bytearray | memoryview) -> bytes:
        """The bytes that a device sent, of a length that an opening has, and with its header.

        Raises:
          MalformedEncoding: another length or header, or leaves of copies that do not differ.
          TypeError: `data` is of another type.
        """
        data = received_bytes(data)
        if len(data) not in (self.nbytes, self.most_nbytes):
            raise MalformedEncoding(
                f"the opening has {len(data)} bytes, the plan needs {self.nbytes}"
            )
        if data[: len(MAGIC)] != MAGIC:
            raise MalformedEncoding(f"the opening does not start with the header {MAGIC!r}")
        if len(data) > self.nbytes and not self._differ(data):
            raise MalformedEncoding("the opening repeats leaves that follow from others")
        return data

    def _differ(self, data: bytes) -> bool:
        """Whether a copy differs from its source in an opening with all leaves."""
        view, starts = memoryview(data), self.starts(data)
        for copy in self.copies:
            size = self.layout.tensors[copy.tensor].nbytes
            own = int(starts[np.searchsorted(self.places[:, 0], copy.tensor)])
            other = self._begin(copy, starts)
            if bytes(view[own : own + size]) != bytes(view[other : other + size]):
                return True
        return False


def named(data: bytes) -> bytes:
    """The id of the plan that an encoded opening answers, 32 bytes."""
    return data[len(MAGIC) : HEADER]


def other_plan(theirs: Any, plan: AuditPlan) -> str:
    """That an opening answers another plan than this one, in words."""
    found = theirs.hex()[:16] if type(theirs) is bytes else "no bytes"
    return f"it answers plan {found}, not {plan.id.hex()[:16]}"


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending indices as runs: start, and one past the end."""
    for _, group in itertools.groupby(enumerate(indices), lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        yield run[0], run[-1] + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOpening:
    """The leaves that a plan asks for. Received from a device: nothing in it is trusted.

    Attributes:
      plan: 32-byte id of the plan that it answers.
      leaves: canonical bytes of each leaf, in increasing order of their indices; without those of
        copies if they are those of their sources.
      proof: Merkle multiproof for the leaves of the plan.
    """

    plan: bytes
    leaves: tuple[bytes, ...] = field(repr=False)
    proof: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        """The bytes to send: `AuditPlan.nbytes`, or `most_nbytes` where a copy differs."""
        return b"".join([MAGIC, self.plan, *self.leaves, *self.proof])

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, plan: AuditPlan) -> Self:
        """Read the bytes that a device sent.

        Args:
          data: the bytes; `plan.nbytes` and `most_nbytes` say how many there must be.
          plan: the verifier's own.

        Raises:
          MalformedEncoding: another length or header, or leaves of copies that do not differ.
          TypeError: `data` or `plan` is of another type.
        """
        data = received_bytes(data)
        require_exact_type("plan", plan, AuditPlan)
        data = plan.framed(data)
        leaves: list[bytes] = []
        start = HEADER
        for size in plan.sizes(apart=len(data) == plan.most_nbytes):
            leaves.append(data[start : start + size])
            start += size
        proof = tuple(data[i : i + 32] for i in range(start, len(data), 32))
        return cls(plan=named(data), leaves=tuple(leaves), proof=proof)


def fault(opening: AuditOpening, plan: AuditPlan) -> tuple[str, str] | None:
    """Why an opening does not have the form that a plan asks for: a code of `REASONS`, a message.

    Args:
      opening: from a device; its fields may be any objects.
      plan: the verifier's own.
    """
    if type(opening.plan) is not bytes or opening.plan != plan.id:
        return "opening-plan", other_plan(opening.plan, plan)
    leaves: Any = opening.leaves
    if type(leaves) not in (tuple, list) or not all(type(x) is bytes for x in leaves):
        return "opening-structure", "its leaves are not a list of bytes"
    apart = len(leaves) == len(plan.leaves)
    asked = plan.leaves if apart else plan.sent
    if len(leaves) != len(asked):
        code = "opening-missing" if len(leaves) < len(asked) else "opening-extra"
        return code, f"the plan asks for {len(asked)} leaves, got {len(leaves)}"
    sizes, wanted = tuple(map(len, leaves)), plan.sizes(apart=apart)
    if sizes != wanted:
        code = "opening-reordered" if sorted(sizes) == sorted(wanted) else "opening-leaf"
        i = next(i for i, pair in enumerate(zip(sizes, wanted, strict=True)) if pair[0] != pair[1])
        return code, f"leaf {asked[i]} has {wanted[i]} bytes, got {sizes[i]}"
    proof: Any = opening.proof
    if type(proof) not in (tuple, list) or not all(map(is_bytes32, proof)):
        return "opening-proof", "its proof is not a list of digests of 32 bytes"
    if len(proof) != plan.digests:
        return "opening-proof", f"the plan needs {plan.digests} digests, got {len(proof)}"
    return None
