"""Gas: what an epoch costs on chain, and everything around it.

Gas of execution, in py-evm under the rules of Prague; the tests show that an anvil node counts the
same. "transaction" adds the 21,000 and the calldata that are paid before anything runs. Ethereum's
floor is what it asks for the pairing of two pairs alone: 37,700 + 2 · 32,600.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from benchmarks.harness import Row
from protocols.contracts import calldata, evm
from protocols.settlement.committee import Committee, Member, prove_registration, registered_key
from protocols.settlement.statements import Deployment, EpochStatement, Rotation
from protocols.settlement.submission import Head, SettlementSubmission, verify_epoch
from verifiable import merkle
from verifiable.bls import SecretKey

CLAIM = (
    "An epoch signed by all of 128 members settles for at most 260,000 gas, each absent one adds "
    "at most 15,000, and a verdict among 2^20 is shown for at most 80,000"
)
FLOOR = 37_700 + 2 * 32_600
MEMBERS, ABSENT, LEVELS = 128, 42, 20
SENDER = b"\x11" * 20
S = TypeVar("S", EpochStatement, Rotation)


def rows(quick: bool) -> Iterator[Row]:
    """Measure. Gas does not vary: a quick run is the run."""
    del quick
    chain = evm.Chain(native=True)
    deployment = Deployment(chain_id=chain.chain_id, contract=chain.next_address(SENDER))

    def call(data: bytes) -> int:
        return chain.call(deployment.contract, data, sender=SENDER).gas

    secrets = [SecretKey.generate(i.to_bytes(32, "big")) for i in range(2 * MEMBERS)]
    first, holders = _committee(secrets[:MEMBERS], deployment)
    second, _ = _committee(secrets[MEMBERS:], deployment)
    yield Row(
        "deploy", "execution", chain.deploy(calldata.deployment(first.id), sender=SENDER).gas, "gas"
    )
    staged = [call(data) for data in calldata.registrations(first)]
    case = f"{MEMBERS} members"
    yield Row(f"register {case}", "execution", sum(staged), "gas")
    yield Row(f"register {case}", "each", sum(staged) / MEMBERS, "gas")
    yield Row(f"register {case}", "largest call", max(staged), "gas", f"<= {evm.GAS}")
    yield Row(f"activate {case}", "execution", call(calldata.activate()), "gas")

    head = Head(committee=first)
    leaf, index = bytes(256), 0b1011_0110_0111_0101_0011
    proof = [bytes([level]) * 32 for level in range(LEVELS)]
    root = merkle.root_from_inclusion(
        proof, leaf=merkle.SHA256.leaf(leaf), index=index, size=2**LEVELS, suite=merkle.SHA256
    )
    gas: dict[str, int] = {}
    for name, signers, bar in (
        ("first epoch", range(MEMBERS), "<= 260_000"),
        ("all sign", range(MEMBERS), "<= 260_000"),
        ("one absent", range(1, MEMBERS), None),
        ("a third absent", range(ABSENT, MEMBERS), None),
    ):
        statement = head.statement(root=root, size=2**LEVELS, policy=bytes(32))
        sent = _signed(statement, first, holders, signers)
        head, data = verify_epoch(sent, head), calldata.settle(sent)
        gas[name] = call(data)
        yield Row(f"settle, {case}, {name}", "execution", gas[name], "gas", bar)
        yield Row(f"settle, {case}, {name}", "transaction", gas[name] + _intrinsic(data), "gas")
    yield Row("Ethereum's floor: one pairing check", "execution", FLOOR, "gas")
    yield Row(f"settle, {case}, all sign", "times the floor", gas["all sign"] / FLOOR, "1")
    each = (gas["a third absent"] - gas["all sign"]) / ABSENT
    yield Row(f"each of {ABSENT} absent", "execution", each, "gas", "<= 15_000")

    data = calldata.verify_inclusion(0, index, leaf, proof)
    shown = call(data)
    case = f"inclusion of {len(leaf)} bytes among 2^{LEVELS}"
    yield Row(case, "execution", shown, "gas", "<= 80_000")
    yield Row(case, "transaction", shown + _intrinsic(data), "gas", "<= 80_000")

    for data in calldata.registrations(second):
        call(data)
    handover = _signed(head.rotation(second), first, holders, range(MEMBERS))
    yield Row(
        f"rotate, {MEMBERS} to {MEMBERS}", "execution", call(calldata.rotate(handover)), "gas"
    )


def _committee(
    secrets: Sequence[SecretKey], deployment: Deployment
) -> tuple[Committee, list[SecretKey]]:
    """A committee of equal weights, and the secrets in its order."""
    seats: list[Member] = []
    for secret in secrets:
        proof = prove_registration(secret, deployment, SENDER)
        key = registered_key(secret.public_key, proof, deployment, SENDER)
        seats.append(Member(key=key, weight=1))
    of = Committee.of(deployment, seats)
    return of, sorted(secrets, key=lambda secret: of.index(secret.public_key))


def _signed(
    statement: S, of: Committee, holders: Sequence[SecretKey], signers: Iterable[int]
) -> SettlementSubmission[S]:
    message, domain = statement.message, statement.DOMAIN
    signatures = {i: holders[i].sign(message, domain=domain) for i in signers}
    return SettlementSubmission.combine(statement, signatures, of)


def _intrinsic(data: bytes) -> int:
    """What a transaction pays before it runs (EIP-2028)."""
    zeros = data.count(0)
    return 21_000 + 4 * zeros + 16 * (len(data) - zeros)
