"""The two draws: which jobs are audited, and which units of an audited one are opened.

    H(domain, root and size of the closed log, chain, round and value of the beacon, job, worker)

The log of answers draws the jobs, the log of traces the units, each with the round of the beacon
after its closing. Nobody knows the round when the log closes, and nobody can draw again: another
order of the log has another root, and a root counts only if it was announced before the round.
Whoever has log and beacon computes the same.
"""

from __future__ import annotations

from protocols.audited.receipt import TraceReceipt
from verifiable.challenge import Beacon, ClosedLog, LogPlace
from verifiable.encoding import tagged_hash
from verifiable.errors import VerificationError


class NotDrawn(VerificationError):
    """A draw that does not follow from the announced log and the round of the beacon after it."""


def job_seed(log: ClosedLog, beacon: Beacon, *, job: bytes, worker: bytes) -> bytes:
    """The 32-byte seed that says whether a job is audited.

    Args:
      log: the closed log of answers.
      beacon: the round that appeared after it was closed.
      job: digest of the job.
      worker: identity of the worker.
    """
    return _seed("draw of a job", log, beacon, job, worker)


def unit_seed(log: ClosedLog, beacon: Beacon, *, job: bytes, worker: bytes) -> bytes:
    """The 32-byte seed of the plan of an audit.

    Args:
      log: the closed log of traces.
      beacon: the round that appeared after it was closed.
      job: digest of the job.
      worker: identity of the worker.
    """
    return _seed("seed of an audit", log, beacon, job, worker)


def audited(seed: bytes, rate: float) -> bool:
    """Whether the job of a seed is audited, at some rate."""
    drawn = int.from_bytes(tagged_hash("job of an audit", seed)[:8], "little")
    return drawn < int(rate * 2.0**64)


def require_drawn(
    seed: bytes,
    receipt: TraceReceipt,
    *,
    log: ClosedLog,
    place: LogPlace,
    beacon: Beacon,
) -> None:
    """Verify that a coordinator drew a seed, and did not choose it: for workers and third parties.

    Args:
      seed: of a request for an opening.
      receipt: of the trace that is to be opened.
      log: the log of traces, as it was announced before the round of the beacon appeared.
      place: where the log holds the receipt.
      beacon: the round after the log was closed, from the beacon itself.

    Raises:
      NotDrawn: another beacon or round, or another seed.
      MalformedProof, RootMismatch: the announced log does not hold the receipt at this place.
    """
    if (beacon.chain, beacon.round) != (log.chain, log.closed_at + 1):
        raise NotDrawn(
            f"the log draws with round {log.closed_at + 1} of {log.chain}, not with round "
            f"{beacon.round} of {beacon.chain}"
        )
    place.verify(receipt.digest, log)
    own = unit_seed(log, beacon, job=receipt.job, worker=receipt.worker)
    if seed != own:
        raise NotDrawn(f"the log and the beacon draw {own.hex()}, not {seed.hex()}")


def _seed(domain: str, log: ClosedLog, beacon: Beacon, job: bytes, worker: bytes) -> bytes:
    return tagged_hash(
        domain,
        log.root,
        log.size.to_bytes(8, "little"),
        beacon.chain.encode(),
        beacon.round.to_bytes(8, "little"),
        beacon.value,
        job,
        worker,
    )
