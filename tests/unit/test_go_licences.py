"""What is built into our programs in Go is told with its licence."""

import re
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_every_module_that_a_program_needs_has_its_licence_in_the_copyright_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    import go_licences  # noqa: PLC0415 - scripts are no package

    modules = go_licences.modules()
    stanzas = go_licences.stanzas()
    for program, place in go_licences.PROGRAMS.items():
        required = (SCRIPTS.parent / place / "go.mod").read_text().partition("require (")[2].partition(")")[0]
        direct = re.findall(r"^\s+(\S+) (v\S+)$", required, re.MULTILINE)
        told = {(module.path, module.version) for module in modules if module.program == program}
        assert direct
        assert set(direct) <= told
    for module in modules:
        assert f"\nLicense: {module.path}-{module.version}\n LICENSE" in stanzas
    assert not re.search(r"^ *$\n ", stanzas, re.MULTILINE), "an empty line in a text ends it"
