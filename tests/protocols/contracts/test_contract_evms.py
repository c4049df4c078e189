"""The same calls in other EVMs: titanoboa, with and without native pairings, and an anvil node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from protocols.contracts import calldata, evm
from protocols.contracts.calldata import call
from protocols.settlement import submission
from tests.helpers import onchain
from tests.helpers.chain_cheats import (
    CHEATS,
    EVERYONE,
    INCLUSIONS,
    INCOMING,
    REGISTRATIONS,
    Cheat,
    established,
    fresh,
    inclusion,
    incoming,
    python,
    registering,
    seat,
)
from tests.helpers.chains import Anvil, Titanoboa, anvil_binary
from tests.helpers.onchain import found, signed


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> Iterator[Anvil]:
    started = Anvil(anvil_binary(request.config.cache.mkdir("anvil")))
    yield started
    started.close()


@pytest.fixture(scope="module")
def fresh_on_anvil(node: Anvil) -> onchain.Office:
    """The node's first contract, at the same address as the first on any chain."""
    return found(node, activate=False)


@pytest.fixture(scope="module")
def on_anvil(node: Anvil, fresh_on_anvil: onchain.Office) -> onchain.Office:
    del fresh_on_anvil  # It comes first.
    return established(node)


class Recorder:
    """A chain that records successful calls and their gas."""

    def __init__(self, chain: Any):
        self.chain, self.chain_id = chain, chain.chain_id
        self.next_address = chain.next_address
        self.calls: list[tuple[str, bytes, int]] = []

    def deploy(self, initcode: bytes, *, sender: bytes) -> evm.CallReceipt:
        done = self.chain.deploy(initcode, sender=sender)
        self.calls.append(("deploy", initcode, done.gas))
        return done

    def call(self, to: bytes, data: bytes, *, sender: bytes, keep: bool = True) -> evm.CallReceipt:
        done = self.chain.call(to, data, sender=sender, keep=keep)
        self.calls.append(("call", data, done.gas))
        return done


def life(chain: Any) -> list[tuple[str, bytes, int]]:
    """A contract from deployment to its second committee: every call with its gas."""
    recorder: Any = Recorder(chain)
    made = established(recorder)
    two_absent = signed(made.next().statement, made, [i for i in EVERYONE if i not in (0, 2)])
    assert python(two_absent, made.head) is None
    made.call(calldata.settle(two_absent))
    made.head = submission.verify_epoch(two_absent, made.head)
    for index in (0, 12):
        proof = onchain.tree(1).inclusion(index)
        made.call(calldata.verify_inclusion(1, index, onchain.leaves(1)[index], proof))
    made.call(calldata.rotate(signed(made.head.rotation(incoming(made)), made, EVERYONE)))
    made.head = submission.Head(
        committee=incoming(made), sequence=1, epoch=made.head.epoch, root=made.head.root
    )
    made.secrets = onchain.holders(incoming(made), INCOMING)
    made.call(calldata.settle(made.next()))
    assert made.call(call("committee_id")).output == incoming(made).id
    return recorder.calls


# ------------------------------------------------------------------------------------- titanoboa


def test_titanoboa_agrees():
    """Not in gas: to titanoboa, all calls belong to one transaction."""
    ours, theirs = life(evm.Chain(native=True)), life(Titanoboa(native=True))
    assert [c[:2] for c in theirs] == [c[:2] for c in ours]


@pytest.fixture(scope="module")
def on_titanoboa() -> onchain.Office:
    return established(Titanoboa(native=True))


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_a_cheat_is_refused_by_titanoboa(cheat: Cheat, on_titanoboa: onchain.Office):
    assert on_titanoboa.refusal(cheat.data(on_titanoboa)) == cheat.expect


def test_with_the_precompiles_of_py_evm_itself():
    """Unpatched, where a pairing takes seconds: a committee of one, an epoch, and a forgery."""
    made = found(Titanoboa(native=False), [0])
    sent = made.next()
    made.call(calldata.settle(sent))
    made.head = submission.verify_epoch(sent, made.head)
    assert made.call(call("roots", bytes(32))).output == sent.statement.root
    forged = made.head.statement(root=bytes(32), size=1, policy=bytes(32))
    data = calldata.settle(
        submission.SettlementSubmission(statement=forged, signature=sent.signature, bitmap=b"\1")
    )
    assert made.refusal(data) == "bad-signature"


# ----------------------------------------------------------------------------------------- anvil


def intrinsic(data: bytes, create: bool) -> int:
    """Gas that a transaction pays before it runs: EIP-2, EIP-2028."""
    zeros = data.count(0)
    return 21_000 + 32_000 * create + 4 * zeros + 16 * (len(data) - zeros)


def test_a_node_agrees_in_calls_and_gas(request: pytest.FixtureRequest):
    """Gas of whole transactions, except those that clear storage, which get refunds."""
    another = Anvil(anvil_binary(request.config.cache.mkdir("anvil")))
    try:
        ours, theirs = life(evm.Chain(native=True)), life(another)
    finally:
        another.close()
    assert [c[:2] for c in theirs] == [c[:2] for c in ours]
    cleared = {calldata.SELECTORS[name] for name in ("activate", "rotate")}
    for (kind, data, mine), (_, _, gas) in zip(ours, theirs, strict=True):
        whole = mine + intrinsic(data, kind == "deploy")
        if data[:4] in cleared:
            assert 0.8 * whole <= gas < whole
        else:
            assert gas == whole


def test_a_node_of_an_older_fork_accepts_nothing(request: pytest.FixtureRequest):
    """Cancun has the opcodes, but not the precompiles."""
    older: Any = Anvil(anvil_binary(request.config.cache.mkdir("anvil")), hardfork="cancun")
    try:
        made = found(older, activate=False)
        assert made.refusal(registering(seat(1))) == "no-precompile"
    finally:
        older.close()


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda c: c.name)
def test_a_cheat_is_refused_by_a_node(cheat: Cheat, on_anvil: onchain.Office):
    assert on_anvil.refusal(calldata.settle(on_anvil.next())) is None
    assert on_anvil.refusal(cheat.data(on_anvil)) == cheat.expect


@pytest.mark.parametrize(
    ("expect", "data"), [r[1:] for r in REGISTRATIONS], ids=[r[0] for r in REGISTRATIONS]
)
def test_a_registration_is_refused_by_a_node(
    expect: str, data: Callable[[], bytes], fresh_on_anvil: onchain.Office
):
    assert fresh_on_anvil.address == fresh().address
    assert fresh_on_anvil.refusal(registering(seat(1))) is None
    assert fresh_on_anvil.refusal(data()) == expect


@pytest.mark.parametrize(
    ("expect", "make"), [r[1:] for r in INCLUSIONS], ids=[r[0] for r in INCLUSIONS]
)
def test_an_inclusion_proof_is_refused_by_a_node(
    expect: str, make: Callable[..., Any], on_anvil: onchain.Office
):
    assert on_anvil.refusal(inclusion(make)) == expect
