"""What pip and uv install: no extra asks for the frameworks that packages of weights require."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]

# Frameworks that uv leaves out by an override, which pip does not know.
FRAMEWORKS = {
    re.split(r"[ ;<>=]", override)[0]
    for override in PROJECT["tool"]["uv"]["override-dependencies"]
    if "python_version < '0'" in override
}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[ ;<>=\[]", requirement)[0] for requirement in requirements}


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_asks_for_a_framework_or_for_weights(extra: str):
    assert "torch" in FRAMEWORKS
    assert not names(EXTRAS[extra]) & (FRAMEWORKS | names(GROUPS["weights"]))


def test_a_checkout_installs_the_weights_and_the_demo_by_default():
    # Without `default-groups`, uv installs the group `dev`.
    assert "default-groups" not in PROJECT["tool"]["uv"]
    assert {"include-group": "weights"} in GROUPS["dev"]
    assert any("demo" in r and "evm" in r for r in GROUPS["dev"] if isinstance(r, str))


@pytest.mark.parametrize("package", ["verifiable", "protocols"])
def test_both_packages_are_marked_as_typed(package: str):
    assert (ROOT / package / "py.typed").exists()
    assert package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
