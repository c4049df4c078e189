"""The on-chain verifier: `Settlement.vy`, a contract in Vyper that stores one Merkle root an epoch.

    calldata   bytes of every call to the contract, for any client that sends transactions
    evm        an Ethereum chain in this process, to try the contract on (needs the extra `evm`)
    build      compiles `Settlement.vy` into `Settlement.json`: ABI, bytecode, selectors

Rules: specs/contract.md.
"""

from __future__ import annotations

from protocols.contracts import calldata, evm

__all__ = ["calldata", "evm"]
