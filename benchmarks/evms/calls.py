"""Calls of the contract, honest ones and mutated ones, from a seed.

An honest call settles the next epoch, hands over to the staged committee, or shows a verdict. A
mutation changes a field, the signers, what they signed, or bytes of the calldata; most calls have
one to three. `Scenario` follows what is accepted, so every call is made at the state of its time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.evms.reader import Ledger
from protocols.contracts import calldata
from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.statements import Deployment, EpochStatement, Rotation
from protocols.settlement.submission import Head
from verifiable import merkle
from verifiable.bls import SecretKey, Signature, curve

SENDER, STRANGER = b"\x11" * 20, b"\x22" * 20
POLICY = b"p" * 32
BIG = 2**64 - 1
WEIGHTS: tuple[tuple[int, ...], ...] = (
    (3, 1, 1, 2),
    (1,),
    (5, 5, 1),  # the first two keys cancel
    (BIG, BIG - 1, 1, 1),
    (1, 2, 3, 4, 5, 6, 7, 8),
    (2, 2, 2, 1, 1, 1, 1, 1, 1),
    (3, 1, 1, 2, 1, 5, 2),
)
"""Committees that follow each other; the last of a long run has members in two chunks."""
TWO_CHUNKS = tuple(1 + i % 3 for i in range(33))
P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f624"
    "1eabfffeb153ffffb9feffffffffaaab",
    16,
)


def holders(term: int, weights: Sequence[int]) -> list[SecretKey]:
    """Secrets of a committee; of three members, the keys of two add up to infinity."""
    made = [SecretKey.generate(f"{term} {i}".encode().rjust(32)) for i in range(len(weights))]
    if len(weights) == 3:
        made[1] = SecretKey(curve.ORDER - int.from_bytes(made[0].encode(), "big"))
    return made


def committee_of(
    secrets: Sequence[SecretKey], weights: Sequence[int], deployment: Deployment
) -> tuple[Committee, list[SecretKey]]:
    """A registered committee, and its secrets in its order."""
    seats: list[Member] = []
    for secret, weight in zip(secrets, weights, strict=True):
        proof = prove_registration(secret, deployment, SENDER)
        key = registered_key(secret.public_key, proof, deployment, SENDER)
        seats.append(Member(key=key, weight=weight))
    made = Committee.of(deployment, seats)
    return made, sorted(secrets, key=lambda secret: made.index(secret.public_key))


@dataclass
class Parts:
    """A submission before it is laid out."""

    statement: bytes
    told: bytes
    domain: bytes
    signers: list[int]
    bitmap: bytes | None = None
    signature: bytes | None = None


@dataclass
class Scenario:
    """Calls at the state that the accepted ones have left.

    Attributes:
      deployment: the contract.
      rng: decides everything.
      long: whether a committee has members in two chunks.
      ledger: the state, as Python follows it.
      counts: how often a mutation was used.
    """

    deployment: Deployment
    rng: random.Random
    long: bool = False
    ledger: Ledger = field(init=False)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        """Make the first committee."""
        self.terms = [*WEIGHTS, TWO_CHUNKS] if self.long else list(WEIGHTS)
        self.trees: list[tuple[merkle.Tree, list[bytes]]] = []
        self.offered = self._tree()
        first, self.secrets = self._committee(0)
        self.ledger = Ledger(Head(committee=first))
        self.incoming: tuple[Committee, list[SecretKey]] | None = None

    def _committee(self, term: int) -> tuple[Committee, list[SecretKey]]:
        weights = self.terms[term % len(self.terms)]
        return committee_of(holders(term, weights), weights, self.deployment)

    def staging(self) -> list[bytes]:
        """Calls that stage the next committee, where none is staged."""
        if SENDER in self.ledger.staged:
            return []
        self.incoming = self._committee(self.ledger.head.sequence + 1)
        self.ledger.staged[SENDER] = self.incoming[0]
        return calldata.registrations(self.incoming[0])

    def accepted(self, change: Callable[[], None]) -> None:
        """Follow a call that was accepted."""
        term, epochs = self.ledger.head.sequence, len(self.ledger.epochs)
        change()
        if self.ledger.head.sequence > term:
            assert self.incoming is not None
            self.secrets = self.incoming[1]
        if len(self.ledger.epochs) > epochs:
            self.trees.append(self.offered)

    def call(self) -> tuple[str, bytes, bytes]:
        """The next call: what it was made from, its data, its sender."""
        kind = self.rng.choices(["settle", "rotate", "inclusion"], [9, 5, 6])[0]
        if kind == "inclusion" and not self.trees:
            kind = "settle"
        changes = self.rng.choices([0, 1, 2, 3], [5, 60, 25, 10])[0]
        if kind == "rotate" and not changes and self.rng.random() < 0.5:
            changes = 1
        made = self._inclusion(changes) if kind == "inclusion" else self._submission(kind, changes)
        if changes and self.rng.random() < 0.25:
            made = self._bytes(made)
        sender = SENDER
        if kind == "rotate" and changes and self.rng.random() < 0.1:
            sender = self._used("sender", STRANGER)
        return kind, made, sender

    def _used(self, name: str, value: Any) -> Any:
        self.counts[name] = self.counts.get(name, 0) + 1
        return value

    # ------------------------------------------------------------------------------ submissions

    def _submission(self, kind: str, changes: int) -> bytes:
        head, rng = self.ledger.head, self.rng
        if kind == "settle":
            self.offered = self._tree()
            tree = self.offered[0]
            stated: Any = head.statement(root=tree.root, size=tree.size, policy=POLICY)
        else:
            assert self.incoming is not None
            stated = head.rotation(self.incoming[0])
        everyone = list(range(len(self.secrets)))
        parts = Parts(stated.message, stated.message, stated.DOMAIN, everyone)
        if not changes:
            parts.signers = self._quorum()
        for _ in range(changes):
            rng.choice(
                [self._word, self._word, self._signers, self._bitmap, self._domain, self._point]
            )(parts)
        bitmap = parts.bitmap
        if bitmap is None:
            bitmap = head.committee.bitmap(parts.signers)
        raw = parts.signature or self._signed(parts).eip2537()
        return calldata.call(kind, parts.statement, calldata._bytes(bitmap), raw)

    def _tree(self) -> tuple[merkle.Tree, list[bytes]]:
        size = self.rng.choice([1, 2, 3, 5, 8, 13])
        leaves = [self.rng.randbytes(self.rng.choice([1, 33, 64, 300])) for _ in range(size)]
        return merkle.Tree.from_data(leaves, suite=merkle.SHA256), leaves

    def _quorum(self) -> list[int]:
        """Signers with more than two thirds, who do not cancel out; sometimes all."""
        of = self.ledger.head.committee
        everyone = list(range(len(of.members)))
        chosen = self.rng.sample(everyone, len(everyone))
        while len(chosen) > 1 and of.has_quorum(chosen[1:]) and self.rng.random() < 0.7:
            chosen.pop(0)
        return everyone if self._scalar(chosen) == 0 else sorted(chosen)

    def _scalar(self, signers: Sequence[int]) -> int:
        return sum(int.from_bytes(self.secrets[i].encode(), "big") for i in signers) % curve.ORDER

    def _signed(self, parts: Parts) -> Signature:
        """The sum of the signatures, or of one where it would be infinity."""
        scalar = self._scalar(parts.signers) or self._scalar([0])
        return self._known(SecretKey(scalar).sign(parts.told, domain=parts.domain))

    def _known(self, made: Signature) -> Signature:
        self.ledger.known[made.eip2537()] = made
        return made

    def _word(self, parts: Parts) -> None:
        """Another value of a field, signed or not."""
        rng, head = self.rng, self.ledger.head
        at = 32 * rng.randrange(len(parts.statement) // 32)
        value = int.from_bytes(parts.statement[at : at + 32], "big")
        special = [0, 1, BIG, BIG + 1, 2**160, 2**256 - 1, value + 1, value - 1, value ^ 1 << 63]
        special += [rng.getrandbits(256), int.from_bytes(head.committee.id, "big")]
        if self.incoming is not None:
            special.append(int.from_bytes(self.incoming[0].id, "big"))
        word = (rng.choice(special) % 2**256).to_bytes(32, "big")
        parts.statement = parts.statement[:at] + word + parts.statement[at + 32 :]
        if rng.random() < 0.7:
            parts.told = parts.statement
        self._used("field", None)

    def _signers(self, parts: Parts) -> None:
        """Any members, or just enough, or just too few."""
        everyone = range(len(self.secrets))
        if self.rng.random() < 0.5:
            parts.signers = self._quorum()
        else:
            parts.signers = sorted(self.rng.sample(everyone, self.rng.randint(1, len(everyone))))
        if self.rng.random() < 0.3:
            chosen = self.rng.sample(everyone, self.rng.randint(1, len(everyone)))
            parts.bitmap = self.ledger.head.committee.bitmap(chosen)
        self._used("signers", None)

    def _bitmap(self, parts: Parts) -> None:
        good = self.ledger.head.committee.bitmap(parts.signers)
        flipped = bytearray(good)
        flipped[self.rng.randrange(len(good))] ^= 1 << self.rng.randrange(8)
        own = [bytes(flipped), good + b"\0", good[1:], b"", bytes(len(good)), b"\xff" * len(good)]
        parts.bitmap = self.rng.choice([*own, self.rng.randbytes(self.rng.randint(0, 32))])
        self._used("bitmap", None)

    def _domain(self, parts: Parts) -> None:
        domains = {EpochStatement.DOMAIN, Rotation.DOMAIN, b"verifiable epoch statement 2"}
        parts.domain = self.rng.choice(sorted(domains - {parts.domain}))
        self._used("domain", None)

    def _point(self, parts: Parts) -> None:
        """Another point in place of the signature, or none."""
        made, rng = self._signed(parts), self.rng
        raw, group = made.eip2537(), curve.active().g2
        match rng.choice(["flip", "negated", "doubled", "old", "infinite", "unreduced", "padding"]):
            case "flip":
                parts.signature = _flip(raw, rng)
            case "negated":
                point = group.combine([made.point], [curve.ORDER - 1])
                parts.signature = self._known(Signature.from_point(point)).eip2537()
            case "doubled":
                point = group.sum([made.point, made.point])
                parts.signature = self._known(Signature.from_point(point)).eip2537()
            case "old":
                parts.signature = rng.choice(list(self.ledger.known))
            case "infinite":
                parts.signature = bytes(256)
            case "unreduced":
                at = 64 * rng.randrange(4)
                more = int.from_bytes(raw[at : at + 64], "big") + P
                parts.signature = raw[:at] + more.to_bytes(64, "big") + raw[at + 64 :]
            case _:
                at = 64 * rng.randrange(4) + rng.randrange(16)
                parts.signature = raw[:at] + b"\1" + raw[at + 1 :]
        self._used("signature", None)

    # ------------------------------------------------------------------------------- inclusions

    def _inclusion(self, changes: int) -> bytes:
        rng, trees = self.rng, self.trees
        epoch = rng.randrange(len(trees))
        tree, leaves = trees[epoch]
        index = rng.randrange(tree.size)
        leaf, proof = leaves[index], list(tree.inclusion(index))
        for _ in range(changes):
            match rng.choice("epoch index leaf drop add swap digest sibling many long".split()):
                case "epoch":
                    epoch = rng.choice([rng.randrange(len(trees)), len(trees), BIG, BIG + 1])
                case "index":
                    index = rng.choice([rng.randrange(14), tree.size, BIG, BIG + 1])
                case "leaf":
                    leaf = rng.choice([*leaves, b"", rng.randbytes(40), leaf[:-1], leaf + b"\0"])
                case "drop" if proof:
                    proof.pop(rng.randrange(len(proof)))
                case "add":
                    proof.insert(rng.randint(0, len(proof)), rng.randbytes(32))
                case "swap":
                    rng.shuffle(proof)
                case "digest" if proof:
                    at = rng.randrange(len(proof))
                    proof[at] = _flip(proof[at], rng)
                case "sibling" if proof:
                    # An inner node, or a pair of digests, shown as a verdict.
                    leaf, proof = merkle.SHA256.leaf(leaf) + proof[0], proof[1:]
                case "many":
                    proof += [bytes(32)] * rng.choice([60, 64, 65, 66])
                case _:
                    leaf = rng.randbytes(rng.choice([2047, 2048, 2049, 2100]))
            self._used("inclusion", None)
        words = (calldata._word(epoch), calldata._word(index))
        return calldata.call(
            "verify_inclusion", *words, calldata._bytes(leaf), calldata._array(proof)
        )

    # ------------------------------------------------------------------------------------ bytes

    def _bytes(self, data: bytes) -> bytes:
        """Calldata with bytes changed, whatever they mean."""
        rng, made = self.rng, bytearray(data)
        match rng.choice(["bit", "bit", "word", "cut", "more", "selector"]):
            case "bit":
                made = bytearray(_flip(data, rng))
            case "word":
                at = 4 + 32 * rng.randrange((len(data) - 4) // 32)
                own = int.from_bytes(data[at : at + 32], "big")
                value = rng.choice([0, 1, 32, 33, 2**255, 2**256 - 32, own + 1, own + 32, own - 32])
                made[at : at + 32] = (value % 2**256).to_bytes(32, "big")
            case "cut":
                del made[len(data) - rng.choice([1, 31, 32, 33, 64, 65, 300]) :]
            case "more":
                made += rng.randbytes(rng.choice([1, 32, 100]))
            case _:
                names = ["settle", "rotate", "verify_inclusion"]
                made[:4] = rng.choice([*map(calldata.SELECTORS.get, names), rng.randbytes(4)])
        return self._used("bytes", bytes(made))


def _flip(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    made[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(made)
