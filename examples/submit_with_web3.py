"""Submit an epoch with web3.py.

    python examples/submit_with_web3.py RPC_URL SUBMISSION_FILE --from ADDRESS
    python examples/submit_with_web3.py RPC_URL SUBMISSION_FILE --key-file FILE

The file holds what `SettlementSubmission.encode` returns. Its statement names chain and contract.
The sender is an unlocked account of the node, or a private key (hexadecimal) in a file. The call is
simulated first: if the contract refuses it, the script prints the reason and sends nothing.

Needs web3: pip install web3.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from web3 import HTTPProvider, Web3
from web3.exceptions import ContractLogicError
from web3.middleware import SignAndSendRawMiddlewareBuilder
from web3.types import TxParams, TxReceipt

from protocols.contracts import calldata
from protocols.settlement.statements import EpochStatement
from protocols.settlement.submission import SettlementSubmission

MAX_FILE = 1024


def submit(w3: Web3, sender: str, submission: SettlementSubmission[EpochStatement]) -> TxReceipt:
    """Simulate, send, and wait until the root is stored.

    Raises:
      ContractLogicError: the contract refuses; its message holds the reason.
      RuntimeError: another chain, or a transaction that failed after all.
    """
    statement = submission.statement
    if w3.eth.chain_id != statement.chain_id:
        raise RuntimeError(f"signed for chain {statement.chain_id}, not {w3.eth.chain_id}")
    address = Web3.to_checksum_address(statement.contract)
    call: TxParams = {
        "from": Web3.to_checksum_address(sender),
        "to": address,
        "data": Web3.to_hex(calldata.settle(submission)),
    }
    w3.eth.call(call)
    # A margin: the 1/64 of its gas that a call must hold back is not part of the estimate.
    call["gas"] = w3.eth.estimate_gas(call) * 11 // 10
    receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_transaction(call))
    stored = w3.eth.contract(address, abi=calldata.ABI).functions.roots(statement.epoch).call()
    if receipt["status"] != 1 or bytes(stored) != statement.root:
        raise RuntimeError(f"the transaction failed: {receipt}")
    return receipt


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rpc")
    parser.add_argument("submission", type=Path)
    sender = parser.add_mutually_exclusive_group(required=True)
    sender.add_argument("--from", dest="account", help="an account that the node holds")
    sender.add_argument("--key-file", type=Path)
    options = parser.parse_args(arguments)

    with options.submission.open("rb") as file:
        submission = SettlementSubmission.decode(EpochStatement, file.read(MAX_FILE))
    w3 = Web3(HTTPProvider(options.rpc))
    account = options.account
    if options.key_file is not None:
        key = w3.eth.account.from_key(options.key_file.read_text().strip())
        w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(key), layer=0)
        account = key.address
    try:
        receipt = submit(w3, account, submission)
    except ContractLogicError as error:
        print(f"refused: {error.message}", file=sys.stderr)
        return 1
    print(f"epoch {submission.statement.epoch} settled, {receipt['gasUsed']} gas")
    return 0


if __name__ == "__main__":
    sys.exit(main())
