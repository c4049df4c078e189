"""Makes the same calls in several EVMs, and compares them with each other and with Python."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.evms.calls import SENDER, Scenario
from protocols.contracts import calldata, evm
from protocols.settlement.statements import Deployment


@dataclass
class Tally:
    """What became of the calls.

    Attributes:
      results: calls by kind and reason; None is a call that was accepted.
      disagreements: calls that Python decides otherwise than the contract.
      splits: calls of which two EVMs differ in result, reason, data, events, gas or state root.
      mutations: how often each kind of mutation was used.
      terms: committees that took office.
    """

    results: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    mutations: Mapping[str, int] = field(default_factory=dict)
    terms: int = 0


Outcome = tuple[str | None, bytes, int, Any, bytes]


def outcome(chain: Any, to: bytes | None, data: bytes, sender: bytes) -> Outcome:
    """Reason or None, return data, gas, events, and the state root afterwards."""
    try:
        if to is None:
            done = chain.deploy(data, sender=sender)
        else:
            done = chain.call(to, data, sender=sender)
        reason, output, gas, logs = None, done.output, done.gas, done.logs
    except evm.Reverted as error:
        reason, output, gas, logs = error.reason, b"", error.gas, ()
    root = chain.root if hasattr(chain, "root") else chain._state.make_state_root()
    return reason, output, gas, logs, root


def compare(chains: Sequence[Any], calls: int, seed: int, *, long: bool = False) -> Tally:
    """Make calls in fresh chains.

    Args:
      chains: EVMs in which nothing has happened; the first decides what Python is compared with.
      calls: how many mutated and honest calls.
      seed: of the calls.
      long: with a committee whose members are in two chunks.
    """
    address = chains[0].next_address(SENDER)
    deployment = Deployment(chain_id=evm.CHAIN_ID, contract=address)
    scenario = Scenario(deployment, random.Random(seed), long=long)  # noqa: S311
    tally = Tally()

    def everywhere(to: bytes | None, data: bytes, sender: bytes, name: str) -> str | None:
        first, *others = (outcome(chain, to, data, sender) for chain in chains)
        for other in others:
            if other != first:
                tally.splits.append(f"{name}: {first[::2]} and {other[::2]} for {data.hex()}")
        return first[0]

    first = scenario.ledger.head.committee
    setup = [*calldata.registrations(first), calldata.activate()]
    everywhere(None, calldata.deployment(first.id), SENDER, "deploy")
    for data in setup:
        assert everywhere(address, data, SENDER, "setup") is None
    for _ in range(calls):
        for data in scenario.staging():
            assert everywhere(address, data, SENDER, "staging") is None
        name, data, sender = scenario.call()
        expected, change = scenario.ledger.submit(data, sender)
        found = everywhere(address, data, sender, name)
        tally.results[name, found] += 1
        if found != expected:
            tally.disagreements.append(f"{name}: {expected!r}, not {found!r}, for {data.hex()}")
        elif found is None:
            scenario.accepted(change)
    tally.mutations, tally.terms = scenario.counts, scenario.ledger.head.sequence + 1
    return tally
