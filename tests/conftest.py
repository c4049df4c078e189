"""Frees what a module of tests has compiled before the next module begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.helpers import memory

# Timings never decide a test.
settings.register_profile("verifiable", deadline=None)
settings.load_profile("verifiable")


@pytest.fixture(scope="module", autouse=True)
def _memory_of_a_module() -> Iterator[None]:
    yield
    memory.forget_results()
    memory.free_compiled_programs()
