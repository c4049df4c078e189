"""Constants that change, several threads, and forked processes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.paths import ROOT
from verifiable import challenge, program
from verifiable.policy import Policy
from verifiable.report import Verdict

RNG = np.random.default_rng(9)
W = (RNG.standard_normal((32, 32)) / 6).astype(np.float32)
X = RNG.standard_normal((16, 32)).astype(np.float32)
FEW = Policy(draws=2)
SECRET = challenge.secret(b"tests of threads and processes..")


def model(w: Any, x: Any) -> Any:
    return jnp.tanh(x @ w) @ w


def test_an_array_that_is_closed_over_may_change_after_compile():
    """Device and coordinator compute with the constants that the id names."""
    constant = W.copy()

    def fn(w: Any, x: Any) -> Any:
        return jnp.tanh(x @ constant) @ w

    one = program.compile(fn, W, X, policy=FEW)
    before = one.prove(W, X).y
    same = program.compile(fn, W, X, policy=FEW)
    constant *= 2
    key, sent = same.setup(W, SECRET), same.prove(W, X)
    assert one.id == same.id == sent.program
    assert same.verify(key, X, sent, commitment=sent.commitment).verdict is Verdict.ACCEPT
    np.testing.assert_array_equal(sent.y, before)
    assert program.compile(fn, W, X, policy=FEW).id != one.id


def test_parameters_that_change_have_another_root():
    """What a device names is what it computed with."""
    params = W.copy()
    one = program.compile(model, params, X, policy=FEW)
    key, first = one.setup(params, SECRET), one.prove(params, X)
    params *= 2
    second = one.prove(params, X)
    assert first.parameters == key.header.parameters == program.parameter_root(W)
    assert second.parameters == program.parameter_root(2 * W)
    assert one.verify(key, X, first, commitment=first.commitment).verdict is Verdict.ACCEPT


@pytest.mark.parametrize("parts", [1, 2])
def test_several_threads_use_a_program_at_once(parts: int):
    """The first use too, when everything is compiled."""
    one = program.compile(model, W, X, policy=FEW)
    one = replace(one, strategy=replace(one.strategy, parts=parts))

    def run(n: int) -> bool:
        x = X + np.float32(n)
        sent = one.prove(W, x)
        key = one.setup(W, challenge.secret())
        good = one.verify(key, x, sent, commitment=sent.commitment).verdict
        bad = one.check(key, x, y=sent.y + 1, trace=sent.trace).verdict
        return (good, bad) == (Verdict.ACCEPT, Verdict.REJECT)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(run, range(16)))


FORKED = """
import multiprocessing
import os
import warnings

import jax
import numpy as np

from verifiable import challenge, key, program
from verifiable.check import settings
from verifiable.policy import Policy

warnings.simplefilter("ignore")  # JAX warns of the fork
settings._PATIENCE = 1.0
W, X = np.eye(32, dtype=np.float32), np.ones((16, 32), np.float32)


def compiled():
    return program.compile(lambda w, x: x @ w, W, X, policy=Policy(draws=2), self_test=False)


def spawned(secret):
    one, events = compiled(), []
    listen = jax.monitoring.register_event_duration_secs_listener
    listen(lambda event, *_, **__: events.append(event))
    mine = key.VerifierKey.from_bytes(secret)
    compilations = sum("backend_compile" in event for event in events)
    sent = one.prove(W, X)
    return one.check(mine, X, y=sent.y, trace=sent.trace).reason, compilations


def main():
    if os.fork() == 0:  # before JAX is used
        print("first:", spawned(compiled().setup(W, challenge.secret()).to_bytes()), flush=True)
        os._exit(0)
    os.wait()
    one = compiled()
    mine = one.setup(W, challenge.secret())
    sent = one.prove(W, X)
    assert one.check(mine, X, y=sent.y, trace=sent.trace).reason == "ok"
    if os.fork() == 0:
        calls = [
            compiled,
            lambda: one.prove(W, X),
            lambda: one.setup(W, challenge.secret()),
            lambda: one.check(mine, X, y=sent.y, trace=sent.trace),
            lambda: one.verify(mine, X, sent, commitment=sent.commitment),
        ]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                print("second:", "forked after JAX was used" in str(error), flush=True)
        os._exit(0)
    os.wait()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print("spawned:", pool.apply(spawned, (mine.to_bytes(),)), flush=True)


if __name__ == "__main__":
    main()
"""


def test_a_forked_process_works_or_says_why_not(tmp_path: Path):
    """JAX hangs in a process that was forked after its first use.

    A new process reads a key without compiling: it would do so again after every restart.
    """
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, script], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    assert done.stdout.splitlines() == [
        "first: ('ok', 0)",
        *["second: True"] * 5,
        "spawned: ('ok', 0)",
    ], done
