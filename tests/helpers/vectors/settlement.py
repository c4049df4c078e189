"""Points, signatures, statements, committees and submissions."""

from __future__ import annotations

import functools
import json
from typing import Any

from protocols.settlement import (
    Committee,
    Deployment,
    EpochStatement,
    Head,
    Lock,
    LockReport,
    Member,
    Prepare,
    Rotation,
    SettlementSubmission,
    registered_key,
    verify_certificate,
    verify_epoch,
    verify_rotation,
)
from tests.helpers.vectors.values import Given, Operations, octets
from verifiable import bls

KINDS: dict[str, Any] = {
    kind.KIND: kind for kind in (EpochStatement, Rotation, Prepare, Lock, LockReport)
}


def public_key(given: Given) -> str:
    return bls.PublicKey(octets(given["data"])).eip2537().hex()


def signature(given: Given) -> None:
    bls.Signature(octets(given["data"]))


def verify(given: Given) -> None:
    key, message, domain = (octets(given[name]) for name in ("key", "message", "domain"))
    bls.verify(
        bls.PublicKey(key), message, bls.Signature(octets(given["signature"])), domain=domain
    )


def possession(given: Given) -> bls.ProvenKey:
    key, proof, binding, domain = (octets(given[n]) for n in ("key", "proof", "binding", "domain"))
    return bls.ProvenKey(
        key=bls.PublicKey(key), possession=bls.Possession(proof), binding=binding, domain=domain
    )


def void(_: object) -> None:
    """A case without an output."""


def aggregate(given: Given) -> None:
    bls.fast_aggregate_verify(
        [possession(key) for key in given["keys"]],
        octets(given["message"]),
        bls.Signature(octets(given["signature"])),
        domain=octets(given["domain"]),
    )


def statement(given: Given) -> str:
    data = octets(given["data"])
    found = KINDS[given["kind"]].decode(data)
    assert found.message == data
    return found.digest.hex()


def _member(given: Given, chain: int) -> Member:
    where = Deployment(chain_id=chain, contract=octets(given["contract"]))
    key = registered_key(
        bls.PublicKey(octets(given["key"])),
        bls.Possession(octets(given["proof"])),
        where,
        octets(given["registrant"]),
    )
    return Member(key=key, weight=given["weight"])


@functools.cache
def _committee(text: str) -> Committee:
    given = json.loads(text)
    members = tuple(_member(member, given["chain"]) for member in given["members"])
    where = Deployment(chain_id=given["chain"], contract=octets(given["contract"]))
    return Committee(deployment=where, members=members)


def committee_of(given: Given) -> Committee:
    return _committee(json.dumps(given, sort_keys=True))


def submission(given: Given) -> dict[str, str] | None:
    data, kind = octets(given["data"]), given["kind"]
    found: Any = SettlementSubmission.decode(KINDS[kind], data)
    assert found.encode() == data
    here = given["head"]
    head = Head(
        committee=committee_of(here["committee"]),
        sequence=here["sequence"],
        epoch=here["epoch"],
        root=octets(here["root"]),
    )
    if kind == "epoch":
        head = verify_epoch(found, head)
    elif kind == "rotation":
        head = verify_rotation(found, head, committee_of(given["incoming"]))
    else:
        verify_certificate(found, head)
        return None
    return {
        "epoch": str(head.epoch),
        "sequence": str(head.sequence),
        "committee": head.committee.id.hex(),
        "root": head.root.hex(),
    }


OPERATIONS: Operations = {
    "bls/public-key": public_key,
    "bls/signature": signature,
    "bls/verify": verify,
    "bls/possession": lambda given: void(possession(given)),
    "bls/aggregate": aggregate,
    "statements/statement": statement,
    "statements/committee": lambda given: committee_of(given).id.hex(),
    "statements/submission": submission,
}
