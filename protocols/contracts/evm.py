"""An Ethereum chain in this process, to try the contract on: deploy, call, and count gas.

py-evm executes calls by the rules of the Prague fork. There are no blocks, fees, nonces or
signatures of accounts. The gas of a call is the gas of execution, without the 21,000 and the
calldata that every transaction pays for. Each call starts with cold storage, as a transaction does.

py-evm's own precompiles for BLS12-381 are pure Python, and a pairing takes seconds. With
`native=True`, `py_arkworks_bls12381` computes pairing and mapping for the same gas: a call is some
hundred times faster, and is no longer checked by an independent implementation.

Needs the extra `evm` (py-evm).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from verifiable.errors import Structured

HOW_TO_INSTALL = (
    "the in-process chain needs py-evm, which the extra `evm` installs: "
    "pip install 'py-evm>=0.12.1b1'"
)

GAS = 2**24
"""The most gas that one transaction may use on Ethereum (EIP-7825)."""

CHAIN_ID = 31337
"""The chain id that development chains use."""


class Reverted(Structured):
    """A call failed and changed nothing.

    Attributes:
      reason: the contract's reason, or "" if it gave none, as when a precompile fails.
      gas: gas used.
    """

    def __init__(self, reason: str, gas: int, cause: object):
        """Keep the reason and the gas."""
        self.reason, self.gas = reason, gas
        super().__init__(reason or f"no reason given: {cause}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReceipt:
    """Result of a call that succeeded.

    Attributes:
      output: its return data; for a deployment, the address of the contract.
      gas: gas of execution, before refunds.
      logs: topics and data of each event, in order.
    """

    output: bytes
    gas: int
    logs: tuple[tuple[tuple[bytes, ...], bytes], ...] = ()


def available() -> bool:
    """Return whether py-evm is installed."""
    return find_spec("eth") is not None


class Chain:
    """A chain in this process.

    Attributes:
      native: whether pairing and mapping run natively.
      chain_id: the `chain.id` that the contract reads.
    """

    def __init__(self, *, native: bool = False, missing: Collection[bytes] = ()):
        """Start an empty chain.

        Args:
          native: run pairing and mapping natively.
          missing: addresses of precompiles that the chain lacks, as chains of older forks do.

        Raises:
          ImportError: py-evm is not installed.
        """
        if not available():
            raise ImportError(HOW_TO_INSTALL)
        # Importing py-evm raises the recursion limit for deeply nested calls; nothing here nests.
        limit = sys.getrecursionlimit()
        builder = import_module("eth.tools.builder.chain")
        base = import_module("eth.chains.base").MiningChain
        vm = import_module("eth.vm.forks.prague").PragueVM
        self._message = import_module("eth.vm.message").Message
        self._context = import_module("eth.vm.transaction_context").BaseTransactionContext
        self._new_address = import_module("eth._utils.address").generate_contract_address
        sys.setrecursionlimit(limit)
        local = base.configure("Local", chain_id=CHAIN_ID)
        chain = builder.build(local, builder.fork_at(vm, 0))
        database = import_module("eth.db.atomic").AtomicDB()
        self._state = chain.from_genesis(database, {"gas_limit": 2 * GAS}).get_vm().state
        self._computation = self._state.computation_class
        self.native, self.chain_id = native, CHAIN_ID
        table = {**self._computation.get_precompiles(), **(_native_precompiles() if native else {})}
        table = {address: run for address, run in table.items() if address not in missing}
        self._computation = self._computation.configure("Local", _precompiles=table)
        self._state.computation_class = self._computation

    def next_address(self, sender: bytes) -> bytes:
        """Address of the contract that this account deploys next."""
        return self._new_address(sender, self._state.get_nonce(sender))

    def deploy(self, initcode: bytes, *, sender: bytes) -> CallReceipt:
        """Create a contract; the output is its address. Raises Reverted if it fails."""
        address = self.next_address(sender)
        self._state.increment_nonce(sender)
        message = self._message(
            gas=GAS,
            to=b"",
            sender=sender,
            value=0,
            data=b"",
            code=initcode,
            create_address=address,
        )
        receipt = self._run(self._computation.apply_create_message, message, keep=True)
        return CallReceipt(output=address, gas=receipt.gas)

    def call(self, to: bytes, data: bytes, *, sender: bytes, keep: bool = True) -> CallReceipt:
        """Call a contract, and undo its effects unless `keep`. Raises Reverted if it fails."""
        message = self._message(
            gas=GAS,
            to=to,
            sender=sender,
            value=0,
            data=data,
            code=self._state.get_code(to),
        )
        return self._run(self._computation.apply_message, message, keep=keep)

    def _run(self, apply: Callable[..., Any], message: Any, *, keep: bool) -> CallReceipt:
        before = self._state.snapshot()
        self._state.mark_address_warm(message.sender)
        self._state.mark_address_warm(message.storage_address)
        context = self._context(origin=message.sender, gas_price=0)
        done = apply(self._state, message, context)
        if done.is_error or not keep:
            self._state.revert(before)
        else:
            self._state.commit(before)
        self._state.lock_changes()
        gas = GAS - done.get_gas_remaining()
        if done.is_error:
            raise Reverted(_reason(done.output), gas, done.error)
        logs = tuple(
            (tuple(topic.to_bytes(32, "big") for topic in topics), data)
            for _, topics, data in done.get_log_entries()
        )
        return CallReceipt(output=done.output, gas=gas, logs=logs)


def _reason(output: bytes) -> str:
    """Text of `Error(string)`, with which Solidity and Vyper revert; "" if there is none."""
    if output[:4] != bytes.fromhex("08c379a0") or len(output) < 68:
        return ""
    size = int.from_bytes(output[36:68], "big")
    return output[68 : 68 + size].decode("utf-8", "replace")


def _native_precompiles() -> Mapping[bytes, Callable[[Any], None]]:
    """PAIRING_CHECK and MAP_FP2_TO_G2 of EIP-2537 on arkworks: same rules, same gas."""
    ark = import_module("py_arkworks_bls12381")
    error = import_module("eth.exceptions").VMError

    def unpadded(data: bytes) -> bytes:
        parts = [data[i : i + 64] for i in range(0, len(data), 64)]
        if any(part[:16] != bytes(16) for part in parts):
            raise error("coordinate 0 >= field modulus")
        return b"".join(part[16:] for part in parts)

    def point(kind: Any, data: bytes) -> Any:
        # The library has no affine encoding of infinity.
        return kind.from_xy_bytes_be(unpadded(data)) if any(data) else kind.identity()

    def pairing(computation: Any) -> None:
        data = bytes(computation.msg.data)
        if not data or len(data) % 384:
            raise error("Length of data must be a multiple of 384 bytes")
        pairs = [data[i : i + 384] for i in range(0, len(data), 384)]
        computation.consume_gas(32_600 * len(pairs) + 37_700, "BLS12_PAIRING_CHECK gas")
        try:
            ps = [point(ark.G1Point, pair[:128]) for pair in pairs]
            qs = [point(ark.G2Point, pair[128:]) for pair in pairs]
        except ValueError as cause:
            raise error(str(cause)) from cause
        computation.output = int(ark.GT.pairing_check(ps, qs)).to_bytes(32, "big")

    def map_fp2(computation: Any) -> None:
        data = bytes(computation.msg.data)
        if len(data) != 128:
            raise error("Length of data must be 128 bytes")
        computation.consume_gas(23_800, "BLS12_MAP_FP2_TO_G2 gas")
        try:
            mapped = ark.G2Point.map_from_fp2_be(unpadded(data)).to_xy_bytes_be()
        except ValueError as cause:
            raise error(str(cause)) from cause
        parts = [mapped[i : i + 48] for i in range(0, 192, 48)]
        computation.output = b"".join(bytes(16) + part for part in parts)

    return {bytes(19) + b"\x0f": pairing, bytes(19) + b"\x11": map_fp2}
