"""Keeps the run of all tests small and quick: what a module compiles, and the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.helpers import memory
from verifiable import program

# Timings never decide a test.
settings.register_profile("verifiable", deadline=None)
settings.load_profile("verifiable")

# Hundreds of programs would each be tested; `test_self_test.py` says which are.
program.compile.__kwdefaults__["self_test"] = False


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--optimised` compiles everything as for users; `--exhaustive` explores more scenarios."""
    parser.addoption("--optimised", action="store_true", help="ignore quick_compilation")
    parser.addoption(
        "--exhaustive", action="store_true", help="explore all audits of up to five ballots"
    )


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later collection: it lives as long as the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _memory_of_a_module() -> Iterator[None]:
    yield
    memory.forget_results()
    memory.free_compiled_programs()


@pytest.fixture(scope="module")
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile the programs of a module without LLVM's optimisations: a third less work.

    They are the same HLO, so verdicts, reasons and names are those of users; the last bits of
    floats may be others. Not for modules about bits, tolerances, speed or memory.
    """
    import jax  # noqa: PLC0415 - many tests need no JAX

    jax.config.update("jax_disable_most_optimizations", not request.config.option.optimised)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
