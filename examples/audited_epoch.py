"""An epoch with three devices: an honest one, one that lies, and one that vanishes when audited.

python examples/audited_epoch.py
"""

from __future__ import annotations

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from audited_coordinator import Coordinator
from audited_device import Device
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import verifiable as vf
from protocols.audited import PartialRules
from protocols.audited.judging import Judge
from protocols.identities import Identity
from protocols.messages import Job
from protocols.replicated import Schedule
from protocols.replicated.runs import input_digest

RULES = PartialRules(
    beacon=Schedule(chain="example", genesis=0, period=3),
    rate=1.0,  # all, so that the example shows it; a few in a hundred deter with a bond
    layers=1,
    rows=None,
    receipt_seconds=60,
    log_seconds=60,
    beacon_seconds=60,
    trace_seconds=60,
    opening_seconds=60,
    judging_seconds=600,
)


def model(params: jax.Array, x: jax.Array) -> jax.Array:
    """Four layers, of which an audit opens one."""
    return jax.lax.scan(lambda c, w: (c + jnp.tanh(c @ w), None), x, params)[0]


def main() -> dict[str, str]:
    """Play the epoch; return how the job ended for each device."""
    rng, key, now = np.random.default_rng(0), Ed25519PrivateKey.generate(), int(time.time())
    params = jnp.asarray(rng.standard_normal((4, 64, 64)) / 8, jnp.float32)
    x = jnp.asarray(rng.standard_normal((8, 64)), jnp.float32)
    program = vf.compile(model, params, x, cuts=True)
    me = Identity(public_key=key.public_key().public_bytes_raw())
    job = Job(
        coordinator=me.id,
        epoch=1,
        nonce=os.urandom(32),
        expiry=now + 3600,
        program=program.id,
        parameters=vf.parameter_root(params),
        input=input_digest(x),
    )
    cast = {"honest": {}, "lying": {"false": 0.5}, "vanishing": {"false": 0.5, "shy": True}}
    devices = {
        name: Device(program=program, params=params, plain=jax.jit(model), coordinator=me, **kind)
        for name, kind in cast.items()
    }
    secret = program.setup(params, vf.challenge.secret())
    judge = Judge(job=job, program=program, key=secret, inputs=(x,))
    coordinator = Coordinator(judge, RULES, key.sign, now)
    coordinator.play({device.identity.id: device for device in devices.values()}, x)
    ends = {name: coordinator.states[d.identity.id].result for name, d in devices.items()}
    found = {name: f"{end.outcome.value}: {end.reason}" for name, end in ends.items() if end}
    print(found)
    return found


if __name__ == "__main__":
    main()
