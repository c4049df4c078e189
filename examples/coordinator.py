"""A coordinator and a device in one file: jobs out, commitments in, verdicts, evidence.

    python examples/coordinator.py

The network, storage and identities of a real service are left out; `protocols` has signed messages,
votes, and a durable record (`protocols.journal`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

import verifiable as vf

Params = dict[str, jax.Array]


def model(params: Params, x: jax.Array) -> jax.Array:
    """Two layers of a perceptron."""
    return jax.nn.gelu(x @ params["up"]) @ params["down"]


def weights(seed: int) -> Params:
    """Random parameters."""
    rng = np.random.default_rng(seed)
    up, down = rng.standard_normal((256, 1024)) / 16, rng.standard_normal((1024, 256)) / 32
    return {"up": jnp.asarray(up, jnp.float32), "down": jnp.asarray(down, jnp.float32)}


@dataclass
class Coordinator:
    """Verifies what devices send; takes all commitments of an epoch before a verdict leaves."""

    program: vf.Program
    key: vf.VerifierKey
    parameters: bytes
    commitments: dict[str, vf.trace.Commitment] = field(default_factory=dict)

    def commit(self, device: str, commitment: vf.trace.Commitment) -> None:
        """Take a device's commitment; the first one counts."""
        self.commitments.setdefault(device, commitment)

    def judge(self, device: str, x: jax.Array, submission: vf.Submission) -> vf.Report:
        """The report on a submission."""
        return self.program.verify(
            self.key,
            x,
            submission,
            commitment=self.commitments[device],
            parameters=self.parameters,
        )


def convicted(
    program: vf.Program, report: vf.Report, sent: vf.Submission, params: Params, x: jax.Array
) -> bool:
    """Whether a rejection, the coordinator's own word, convinces a judge who has the model."""
    if report.verdict is not vf.Verdict.REJECT or report.claim is None:
        return False
    evidence = vf.evidence_of(program, report, sent).encode()  # to the judge, with the commitment
    received = vf.Evidence.decode(evidence, program)
    return vf.verify_evidence(received, program, params, x).guilty


def main() -> dict[str, str]:
    """Play one epoch with an honest device and a cheat; return the verdicts."""
    params, stale = weights(0), weights(1)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((8, 256)), jnp.float32)
    program = vf.compile(model, params, x)
    root = vf.parameter_root(params)
    coordinator = Coordinator(program, program.setup(params, vf.challenge.secret()), root)

    # The cheat names the right parameters and computes with others.
    cheat = replace(program.prove(stale, x), parameters=root)
    sent = {"honest": program.prove(params, x), "cheat": cheat}
    for device, submission in sent.items():
        coordinator.commit(device, submission.commitment)

    verdicts: dict[str, str] = {}
    for device, submission in sent.items():
        report = coordinator.judge(device, x, submission)
        verdicts[device] = f"{report.verdict.value}: {report.reason}"
        # A rejection is not paid; only a conviction may cost a device its stake or its name.
        if convicted(program, report, submission, params, x):
            verdicts[device] += ", convicted"
        print(f"{device}: {verdicts[device]}")
    return verdicts


if __name__ == "__main__":
    main()
