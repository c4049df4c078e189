"""Imports flow one way; what needs no JAX loads without it; importing does nothing else."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("verifiable", "protocols")

# Root modules and folders of `verifiable`: each imports only what stands before it.
ORDER = (
    "_version errors encoding field report policy merkle challenge trace key submission "
    "jaxpr claims check program family freivalds generation testing"
).split()

# Beside them, what each may import of the others.
BESIDE = {
    "bls": "errors encoding",
    "voting": "errors encoding",
    "audits": "errors encoding voting",
}

# Rooms inside of `claims` and `check` may import each other in one direction only.
INNER = ("verifiable.claims", "verifiable.check")

FOLDERS = "report trace jaxpr claims check merkle bls voting audits generation testing".split()

# Root modules and folders of `protocols`, and what each may import of the others.
PROTOCOLS = {
    "events": "",
    "identities": "",
    "messages": "identities",
    "replicated": "events identities messages",
    "audited": "events identities messages replicated",
    "settlement": "events identities messages",
    "contracts": "settlement",
    "journal": "audited events identities messages replicated settlement",
    "simulation": "",
    "judging": "",
    "demo": "audited contracts identities judging messages replicated settlement",
    "cli": "demo",
    "testing": "audited identities messages replicated",
}

MOST_ROOT_MODULES = 14
MOST_LINES = 400
MOST_TEST_LINES = 600

WITHOUT_JAX = (
    "verifiable.errors verifiable.encoding verifiable.field verifiable.report verifiable.policy "
    "verifiable.merkle verifiable.challenge verifiable.bls verifiable.voting verifiable.audits "
    "protocols.identities protocols.messages protocols.replicated protocols.audited "
    "protocols.settlement "
    "protocols.settlement.receipts protocols.journal protocols.simulation "
    "protocols.simulation.tolerance protocols.simulation.trust protocols.contracts "
    "protocols.contracts.calldata protocols.contracts.evm"
).split()

# Only this module may look inside a jaxpr: what changes between versions of JAX ends there.
JAX_INSIDES = {"verifiable.jaxpr.from_jax": "jax.extend"}


@functools.cache
def imports(source: str, module: str) -> tuple[tuple[str, bool], ...]:
    """Modules that a source imports, as dotted names, and whether only for type checkers."""
    return tuple(_imports(ast.parse(source), module))


def _imports(tree: ast.Module, module: str) -> Iterator[tuple[str, bool]]:
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = module.rpartition(".")[0]
    for node in ast.walk(tree):
        typing = id(node) in guarded
        if isinstance(node, ast.Import):
            yield from ((alias.name, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package if node.level else ""
            base = ".".join(part for part in (base, node.module or "") if part)
            # `from package import module` names a module where there is one.
            for alias in node.names:
                name = f"{base}.{alias.name}"
                path = ROOT / Path(*name.split("."))
                is_module = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
                yield (name if is_module else base), typing


@functools.cache
def modules(package: str) -> dict[str, str]:
    """Sources by dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


@functools.cache
def own_imports(module: str) -> tuple[str, ...]:
    """What a module imports of this project."""
    source = modules(module.partition(".")[0])[module]
    found = [name for name, _ in imports(source, module) if name.partition(".")[0] in PACKAGES]
    # The package itself holds the version, and imports nothing at import time.
    return tuple(name for name in found if name != "verifiable")


def room(module: str) -> str:
    """Folder or root module of its package that a module belongs to."""
    return module.split(".")[1]


def allowed(name: str) -> set[str]:
    """What a room may import besides itself."""
    return set(BESIDE[name].split() if name in BESIDE else ORDER[: ORDER.index(name)])


@pytest.mark.parametrize("module", [m for m in modules("verifiable") if m != "verifiable"])
def test_imports_flow_downwards(module: str):
    mine = room(module)
    for name in own_imports(module):
        theirs = room(name)
        assert theirs == mine or theirs in allowed(mine), f"{module} imports {name}"


def test_every_room_has_a_place():
    rooms = {room(m) for m in modules("verifiable") if m != "verifiable"}
    assert rooms == {*ORDER, *BESIDE}
    assert {m.split(".")[1] for m in modules("verifiable") if m.count(".") > 1} == {*FOLDERS}


@pytest.mark.parametrize("folder", INNER)
def test_inner_rooms_import_in_one_direction(folder: str):
    """A module beside the rooms is one by itself."""

    def inner(name: str) -> str:
        return name.removeprefix(f"{folder}.").partition(".")[0]

    inside = [m for m in modules("verifiable") if m.startswith(f"{folder}.")]
    reached = {inner(m): set[str]() for m in inside}
    for m in inside:
        found = (name for name in own_imports(m) if name.startswith(f"{folder}."))
        reached[inner(m)].update(inner(name) for name in found if inner(name) != inner(m))
    for _ in reached:
        for found in reached.values():
            found.update(*(reached[name] for name in list(found)))
    assert not [name for name, found in reached.items() if name in found]


def test_few_modules_stand_in_the_root():
    root = [m for m in modules("verifiable") if m != "verifiable" and room(m) not in FOLDERS]
    assert len(root) <= MOST_ROOT_MODULES, root


@pytest.mark.parametrize(
    "module", [m for package in (*PACKAGES, "benchmarks", "assurance") for m in modules(package)]
)
def test_modules_are_short(module: str):
    assert len(modules(module.partition(".")[0])[module].splitlines()) <= MOST_LINES


def test_no_imports_go_in_circles():
    graph = {m: own_imports(m) for package in PACKAGES for m in modules(package)}
    TopologicalSorter(graph).prepare()  # raises an error that names a circle


@pytest.mark.parametrize("module", modules("verifiable"))
def test_primitives_never_import_protocols(module: str):
    assert not [name for name in own_imports(module) if name.startswith("protocols")]


@pytest.mark.parametrize("module", [m for m in modules("protocols") if m != "protocols"])
def test_protocols_import_only_what_they_build_on(module: str):
    mine = room(module)
    for name in own_imports(module):
        if name.startswith("protocols."):
            theirs = room(name)
            assert theirs == mine or theirs in PROTOCOLS[mine].split(), f"{module} imports {name}"


# Only these import hypothesis, which the extra `testing` installs.
STRATEGIES = {"verifiable.testing.strategies", "protocols.testing.strategies"}


def test_only_strategies_import_hypothesis():
    found = {
        module
        for package in PACKAGES
        for module, source in modules(package).items()
        for name, _ in imports(source, module)
        if name.partition(".")[0] == "hypothesis"
    }
    assert found == STRATEGIES
    importers = {
        module
        for package in PACKAGES
        for module in modules(package)
        if STRATEGIES & set(own_imports(module))
    }
    assert importers <= STRATEGIES


def test_every_room_of_protocols_has_a_place():
    assert {room(m) for m in modules("protocols") if m != "protocols"} == {*PROTOCOLS}


def test_no_class_name_means_two_things():
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for module, source in modules(package).items():
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, []).append(module)
    assert not {name: where for name, where in found.items() if len(where) > 1}


def test_rooms_name_their_modules():
    """The docstring of a folder, or of the one around it, names each module and folder in it."""
    unnamed: list[str] = []
    for package in PACKAGES:
        sources = modules(package)
        for module in sources:
            folder, _, name = module.rpartition(".")
            if folder in ("", "verifiable"):  # `verifiable` lists what users call
                continue
            around = (sources.get(f, "") for f in (folder, folder.rpartition(".")[0]))
            texts = (ast.get_docstring(ast.parse(source)) or "" for source in around)
            if not any(re.search(rf"\b{name}\b", text) for text in texts):
                unnamed.append(module)
    assert not unnamed


def test_files_of_tests_are_short():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / "tests").rglob("*.py")
    }
    assert not {path: n for path, n in lengths.items() if n > MOST_TEST_LINES}


LEAVES = {
    "voting": "audits bls",
    "audits.sampling": "voting bls",
    "audits.probabilities": "voting bls",
    "audits.sequential": "voting bls",
    "bls": "voting audits",
}


@pytest.mark.parametrize("module", LEAVES)
def test_leaves_know_nothing_of_programs(module: str):
    """`voting`, `sampling` and `bls` reach neither one another nor the check."""
    reached, found = {f"verifiable.{module}"}, {f"verifiable.{module}"}
    while found:
        found = {name for m in found for name in own_imports(m)} - reached
        reached |= found
    forbidden = {*LEAVES[module].split(), "program", "claims", "trace", "check", "key"}
    assert not {room(m) for m in reached if m != "verifiable"} & (
        forbidden - {room(f"verifiable.{module}")}
    )


def test_one_module_looks_inside_jaxprs():
    for package in PACKAGES:
        for module, source in modules(package).items():
            for name, _ in imports(source, module):
                inside = name.startswith(("jax.extend", "jax.core", "jax.interpreters", "jax._src"))
                assert not inside or name.startswith(JAX_INSIDES.get(module, "never")), module


def test_the_finder_of_imports_sees_them_all():
    source = (
        "import os, verifiable.merkle as m\n"
        "from verifiable import field, program as p\n"
        "from verifiable import claims\n"
        "from verifiable.errors import Rejected\n"
        "from . import key\n"
        "from .trace import commit\n"
        "if TYPE_CHECKING:\n    from verifiable.check.judging.verdict import judge\n"
        "def late():\n    from protocols import cli\n"
    )
    assert set(imports(source, "verifiable.sample")) == {
        ("os", False),
        ("verifiable.merkle", False),
        ("verifiable.field", False),
        ("verifiable.program", False),
        ("verifiable.claims", False),
        ("verifiable.errors", False),
        ("verifiable.key", False),
        ("verifiable.trace", False),
        ("verifiable.check.judging.verdict", True),
        ("protocols.cli", False),
    }


# ------------------------------------------------------------------------------ other processes


def run(script: str) -> str:
    """What a fresh interpreter prints, with warnings as errors."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


BLOCKER = """
import importlib.abc, sys

class NoJax(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in (
            *("jax", "jaxlib", "flax", "equinox"),
            *("eth", "eth_abi", "eth_utils", "vyper", "boa", "web3"),
        ):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, NoJax())
"""


def test_what_needs_no_jax_loads_without_it():
    """All in one process, each from scratch: a settlement node has no JAX, nor the extra `evm`."""
    script = BLOCKER + (
        "import importlib\n"
        f"names = {WITHOUT_JAX!r}\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "    for loaded in [n for n in sys.modules if n.startswith('verifiable')]:\n"
        "        del sys.modules[loaded]\n"
        "    print(name)\n"
    )
    assert run(script).split() == WITHOUT_JAX


def test_the_blocker_blocks():
    """Otherwise the test above would show nothing."""
    assert "ImportError" in run(
        BLOCKER + "\ntry:\n    import verifiable.freivalds\nexcept ImportError as e:\n"
        "    print(type(e).__name__)\n"
    )


def test_a_settlement_node_has_no_jax():
    assert run(BLOCKER + "import protocols.settlement; print('loaded')").strip() == "loaded"


def test_importing_the_package_loads_nothing_and_changes_nothing():
    script = """
import os, sys, threading, random, warnings, logging
before = (dict(os.environ), random.getstate(), list(warnings.filters), list(sys.path))
import verifiable
assert "jax" not in sys.modules and "numpy" not in sys.modules, "not lazy"
assert not [n for n in sys.modules if n.startswith("verifiable.") and n != "verifiable._version"]
assert (dict(os.environ), random.getstate(), list(warnings.filters), list(sys.path)) == before
assert verifiable.__version__
assert set(dir(verifiable)) >= {"program", "challenge", "trace", "freivalds", "policy", "key"}
assert "jax" not in sys.modules
verifiable.merkle.root_from_leaf_data([b"leaf"])
assert "jax" not in sys.modules
try:
    verifiable.absent
except AttributeError as error:
    assert "'verifiable' has no attribute 'absent'" in str(error)
else:
    raise SystemExit("an attribute that is none")
try:
    verifiable.VerificationError
except AttributeError as error:
    assert "write verifiable.errors.VerificationError" in str(error)
import jax, numpy
before = dict(os.environ)  # importing JAX may change it
for name in dir(verifiable):
    getattr(verifiable, name)
assert jax.config.jax_enable_x64 is False
assert numpy.geterr() == {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
assert dict(os.environ) == before
assert threading.active_count() == 1
assert not logging.getLogger().handlers
assert not jax._src.xla_bridge.backends_are_initialized(), "a device was opened"
print("done")
"""
    assert run(script).strip() == "done"


def test_the_program_loads_as_fast_as_jax():
    """What JAX does not load itself, and is slow to load, is loaded when it is needed."""
    script = "import verifiable.program, sys; print('scipy' in sys.modules)"
    assert run(script).strip() == "False"


def test_the_version_is_that_of_the_distribution():
    text = (ROOT / "pyproject.toml").read_text()
    version = text.partition('\nversion = "')[2].partition('"')[0]
    assert run("import verifiable; print(verifiable.__version__)").strip() == version
