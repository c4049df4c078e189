"""Contract and Python: the same decision on every mutated call, in two EVMs.

py-evm and, where npm is installed, @ethereumjs/vm make the same calls of `settle`, `rotate` and
`verify_inclusion` (`evms.calls`). Their results, reasons, events, gas and state roots are compared
with each other, and the reason with the one that Python gives for the bytes (`evms.reader`).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

from benchmarks.evms.compare import compare
from benchmarks.evms.ethereumjs import EthereumJs, NotInstalled
from benchmarks.harness import Row
from protocols.contracts import evm

CLAIM = (
    "On 10,000 mutated calls, Python and the contract decide alike, for the same reason, and two "
    "EVMs agree in result, events, gas and state root"
)
CALLS, QUICK, SEED = 10_000, 400, 20_261_126


def rows(quick: bool) -> Iterator[Row]:
    """Make the calls: about ten minutes on one core, nearly all of them in JavaScript."""
    chains: list[Any] = [evm.Chain(native=True)]
    try:
        chains.append(EthereumJs())
    except NotInstalled as missing:
        warnings.warn(str(missing), stacklevel=1)
    try:
        tally = compare(chains, QUICK if quick else CALLS, SEED, long=True)
    finally:
        for other in chains[1:]:
            other.close()
    for line in (*tally.disagreements, *tally.splits):
        print(line)
    for kind in ("settle", "rotate", "inclusion"):
        found = Counter({why: n for (name, why), n in tally.results.items() if name == kind})
        yield Row(kind, "calls", found.total(), "1")
        yield Row(kind, "accepted", found[None], "1", ">= 1")
        yield Row(kind, "reasons of refusals", len(found) - 1, "1")
    yield Row("committees in office", "number", tally.terms, "1")
    total = f"{tally.results.total():,} calls"
    yield Row(total, "decided otherwise by Python", len(tally.disagreements), "1", "== 0")
    if chains[1:]:
        yield Row("py-evm and @ethereumjs/vm", "differ", len(tally.splits), "1", "== 0")
