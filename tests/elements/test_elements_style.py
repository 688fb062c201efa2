"""Every element has the field's form, and diskimage-builder skips none of its hooks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = sorted(path for path in (ROOT / "elements").iterdir() if path.is_dir())
PHASES = set(
    "root.d extra-data.d pre-install.d install.d post-install.d post-root.d block-device.d "
    "pre-finalise.d finalise.d cleanup.d".split()
)
each_element = pytest.mark.parametrize("element", ELEMENTS, ids=lambda path: path.name)


def hooks_of(element: Path) -> list[Path]:
    return sorted(file for phase in PHASES for file in element.glob(f"{phase}/*"))


def scripts_of(element: Path) -> list[Path]:
    return hooks_of(element) + sorted(element.glob("bin/*"))


def variables_of(element: Path) -> set[str]:
    text = "".join(file.read_text() for file in element.glob("environment.d/*"))
    return set(re.findall(r"export ([A-Z_]+)=", text))


def test_there_are_elements() -> None:
    assert "domu" in {element.name for element in ELEMENTS}


@each_element
def test_a_hook_has_a_name_that_dib_runs_and_that_no_other_element_uses(element: Path) -> None:
    for hook in hooks_of(element):
        assert re.fullmatch(rf"\d\d-{element.name}(-[a-z-]+)?", hook.name), hook
        assert os.access(hook, os.X_OK), hook
    for file in element.glob("environment.d/*"):
        assert re.fullmatch(rf"\d\d-{element.name}\.bash", file.name), file


@each_element
def test_only_known_folders_and_files(element: Path) -> None:
    known = PHASES | set(
        "environment.d bin host static README.rst element-deps element-provides".split()
    )
    assert {path.name for path in element.iterdir()} <= known


@each_element
def test_a_script_fits_in_a_head_and_stops_at_the_first_error(element: Path) -> None:
    for script in scripts_of(element):
        lines = script.read_text().splitlines()
        assert len(lines) <= 30, script
        assert lines[0] == "#!/bin/bash", script
        head = [
            *('if [ "${DIB_DEBUG_TRACE:-0}" -gt 0 ]; then', "    set -x", "fi", "set -eu"),
            "set -o pipefail",
        ]
        assert lines[3:8] == head, script
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


@each_element
def test_readme_has_a_title_a_text_its_variables_and_its_dependencies(element: Path) -> None:
    text = (element / "README.rst").read_text()
    title, underline, blank, first = text.splitlines()[:4]
    assert (title, underline, blank) == (element.name, "=" * len(element.name), "")
    assert len(first) > 20
    assert text.endswith(".. element_deps::\n")
    documented = re.findall(
        r"^(DIB_\w+|DISTRO_NAME)\n  :Required: (?:Yes|No)\n  :Default: .+\n"
        r"  :Description: (?:.+\n)+?  :Example: .+$",
        text,
        re.M,
    )
    assert set(documented) >= variables_of(element)
    assert len(documented) == len(set(documented))


@each_element
def test_every_variable_is_declared_with_a_default_and_named_after_its_element(
    element: Path,
) -> None:
    declared = variables_of(element)
    own = "DIB_" + element.name.upper().replace("-", "_") + "_"
    family = ("DIB_DOMU_", "DIB_RELEASE", "DIB_INIT_SYSTEM", "DIB_PYTHON_VERSION", "DISTRO_NAME")
    assert all(
        name.startswith((own, *family) if element.name.startswith("domu") else own)
        for name in declared
    )
    used = {
        name
        for script in scripts_of(element)
        for name in re.findall(r"\$\{?(DIB_[A-Z_]+)", script.read_text())
    }
    from_dib = {"DIB_DEBUG_TRACE", "DIB_INIT_SYSTEM", "DIB_RELEASE"}
    assert used - from_dib <= declared


@each_element
def test_dependencies_are_elements_and_not_comments(element: Path) -> None:
    names = {path.name for path in ELEMENTS} | {"no-final-image"}
    file = element / "element-deps"
    wanted = file.read_text().split("\n")[:-1] if file.exists() else []
    assert set(wanted) <= names
    uses_install = any(
        "domu-install-packages" in script.read_text() for script in hooks_of(element)
    )
    assert not uses_install or element.name == "domu-packages" or "domu-packages" in wanted


def test_dib_lint_is_content(tmp_path: Path) -> None:
    tools = Path(sys.executable).parent
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "ELEMENTS_DIR": "elements",
        "LIB_DIR": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [str(tools / "dib-lint")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, "\n".join(
        line for line in done.stdout.splitlines() if not line.startswith("Checking")
    )
