"""Keeps the run of all tests small and quick: what a module compiles, and the garbage collector.

Tests are mostly compilation, and most of it is XLA's optimisations. So tests compile without them,
unless they are marked `optimised`: those about bits, tolerances, speed or memory. Most
programs are not compiled at all, but evaluated with numpy (`helpers/interpreted`), unless a test is
marked `compiled`. With `optimised(verifier=False)`, the device's half is compiled as users do, and
keys and checks as in other tests.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import bytecode, compilation, memory

# Files that take longest, in their order: last, one would keep one process busy and no other.
LONGEST = (
    "test_check test_frameworks test_evaluate test_program test_trips test_steering test_cli "
    "test_models test_rounding test_sheltered test_choice test_cli_chat test_audited "
    "test_self_test test_fleet test_protocols test_readme test_docs test_contract_agrees "
    "test_contract test_processes test_activations test_narrow_sums test_perturb test_verdicts "
    "test_evidence test_vote test_generation test_second_look test_coverage test_row_error "
    "test_allowed_rows test_decoding test_decision test_schedule test_origin "
    "test_steered_roundings test_corridor test_pieces test_rules test_known test_replay "
    "test_lookup test_cancellation test_near_ties test_calibration test_audit test_layers "
    "test_contract_committees test_freivalds test_exploration test_parameter_values test_trust "
    "test_harness test_choosers test_interpret test_contract_evms test_settings"
).split()

# Files with tests that are compiled as users do.
_OPTIMISED = pytest.StashKey[set[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--optimised` compiles everything as for users; `--exhaustive` explores more scenarios."""
    parser.addoption("--optimised", action="store_true", help="compile all tests as users do")
    parser.addoption(
        "--exhaustive", action="store_true", help="explore all audits of up to five ballots"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say what the mark is for, and what holds for all tests."""
    bytecode.keep(config)
    # On small matrices, the threads of numpy's products only wait for each other; the processes
    # that run tests, and those that these start, read this when they import numpy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    compilation.everything = config.option.optimised
    config.addinivalue_line(
        "markers", "optimised(verifier=True): compile as users do; for bits and tolerances"
    )
    config.addinivalue_line("markers", "compiled: compile programs, rather than use numpy")
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # The process that only hands out tests starts them earlier without these imports.
    gc.disable()  # What imports make stays.
    from hypothesis import HealthCheck, settings  # noqa: PLC0415
    from hypothesis.internal import entropy  # noqa: PLC0415

    from tests.helpers import moves  # noqa: PLC0415
    from tests.helpers.interpreted import programs  # noqa: PLC0415
    from verifiable import program  # noqa: PLC0415

    # Timings never decide a test.
    untimed = [HealthCheck.too_slow]
    settings.register_profile("verifiable", deadline=None, suppress_health_check=untimed)
    settings.load_profile("verifiable")
    # No test draws from numpy's global generator, which each example would seed and restore.
    entropy.NP_RANDOM = object()
    # Hundreds of programs would each be tested; `test_self_test.py` says which are.
    program.compile.__kwdefaults__["self_test"] = False
    compilation.share_contexts()
    compilation.share_lowerings()
    compilation.share_programs()
    compilation.leave_out_the_verifier()
    if not compilation.everything:
        moves.by_numpy()
        programs.interpret()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the processes take the files in this order."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what the imports made out of every later collection: it lives as long as the run.

    Tracing makes many objects that soon go by their counts: collections are worth it less often,
    and one of all objects after each file (`memory`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 1000)
    gc.enable()
    marked = (item.path for item in session.items if item.get_closest_marker("optimised"))
    session.stash[_OPTIMISED] = set(marked)


@pytest.fixture(scope="module", autouse=True)
def _memory_of_a_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give memory back after a file, where much is held.

    Between files that are optimised and others, no program is shared: JAX would take one for the
    other.
    """
    beyond = 0 if request.path in request.session.stash[_OPTIMISED] else memory.ENOUGH
    memory.free_compiled_programs(beyond=beyond)
    yield
    memory.forget_results()
    memory.free_compiled_programs(beyond=beyond)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile what a test and its fixtures run without optimisations, unless it is marked."""
    if "jax" in sys.modules:
        mark = item.get_closest_marker("optimised")
        whole = mark is not None and mark.kwargs.get("verifier", True)
        compilation.optimise(on=mark is not None, verifier=whole)
        from tests.helpers.interpreted import programs  # noqa: PLC0415

        numpy = item.get_closest_marker("compiled") is None
        programs.active, programs.verifier = numpy and mark is None, numpy and not whole
