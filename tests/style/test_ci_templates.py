"""The CI templates: what each system's own linter or schema says; they call what is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "ci"
BIN = Path(sys.executable).parent
SCRIPTS = ("prepare", "build", "summary")
TEMPLATES = sorted(path for path in CI.iterdir() if path.name not in SCRIPTS)
JOBS = [CI / name for name in ("Jenkinsfile", "github-actions.yml", "gitlab-guest.yml")]
ALLOWED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
# the schema of each, and a mistake that it finds
SCHEMAS = {
    "github-actions.yml": ("github-workflows", "runs-on", "run-on"),
    "gitlab-ci.yml": ("gitlab-ci", "strategy: depend", "strategy: wait"),
    "gitlab-guest.yml": ("gitlab-ci", "when: always", "when: ever"),
    "woodpecker.yml": ("woodpecker-ci", "image:", "images:"),
}


def lint(path: Path) -> tuple[bool, str]:
    """actionlint, with shellcheck for what its steps run."""
    argv = [str(BIN / "actionlint"), "-no-color", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def validate(path: Path, schema: str) -> tuple[bool, str]:
    """The schema that is published for the system, as check-jsonschema ships it."""
    argv = [str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}"]
    argv += ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    done = subprocess.run([*argv, str(path)], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def test_the_scripts_are_programs() -> None:
    for name in SCRIPTS:
        assert os.access(CI / name, os.X_OK)
    for name in ("prepare", "build"):
        subprocess.run(["sh", "-n", CI / name], check=True)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_calls_what_is_there_and_wants_no_privilege(path: Path) -> None:
    text = path.read_text()
    for called in re.findall(r"\bci/([\w.-]+\w)", text.replace("ci/cd", "")):
        assert called in SCRIPTS or (CI / called).is_file(), f"{path.name} calls ci/{called}"
    code = "".join(line for line in text.splitlines(True) if line.lstrip()[:1] not in "#/")
    assert "--privileged" not in code
    assert "/dev/kvm" not in code


@pytest.mark.parametrize("path", [*JOBS, CI / "woodpecker.yml"], ids=lambda path: path.name)
def test_a_guest_is_prepared_as_root_and_built_as_the_user(path: Path) -> None:
    text = path.read_text()
    assert text.index("ci/prepare") < text.index("runuser -u builder -- ci/build")


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_keeps_its_results_and_shows_each_check(path: Path) -> None:
    text = path.read_text()
    assert all(option in text for option in ALLOWED)
    assert "ci-output" in text
    assert "ci-output/*.xml" in text or "ci/summary" in text


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_template_is_what_its_systems_schema_wants(name: str, tmp_path: Path) -> None:
    schema, right, mistake = SCHEMAS[name]
    path = tmp_path / name
    text = load_text(name).replace("\n.guest:", "\nguest:")  # no schema looks at a hidden job
    path.write_text(text)
    assert validate(path, schema) == (True, "ok -- validation done\n")
    assert right in text
    path.write_text(text.replace(right, mistake))
    assert not validate(path, schema)[0]


def load_text(name: str) -> str:
    return (CI / name).read_text()


def test_github_takes_the_workflow(tmp_path: Path) -> None:
    """What no schema sees: outputs of other jobs, old actions, mistakes in the shell."""
    assert lint(CI / "github-actions.yml") == (True, "")
    text = load_text("github-actions.yml")
    mistakes = {
        "needs.list.outputs.matrix": "needs.guests.outputs.matrix",
        "steps.list.outputs": "steps.lists.outputs",
        "actions/checkout@v6": "actions/checkout@v3",
        '"$GITHUB_OUTPUT"': "$GITHUB_OUTPUT",
        "if: always()": "if: ever()",
    }
    for right, mistake in mistakes.items():
        wrong = tmp_path / "guests.yml"
        assert right in text
        wrong.write_text(text.replace(right, mistake))
        assert not lint(wrong)[0], mistake


def test_jenkins_has_balanced_blocks_and_a_build() -> None:
    """Its own linter is a part of its server."""
    text = (CI / "Jenkinsfile").read_text()
    plain = re.sub(r"'[^'\n]*'|//.*", "", text)
    assert plain.count("{") == plain.count("}") > 5
    assert plain.count("(") == plain.count(")")
    for block in ("agent", "stages", "stage(", "steps", "post", "junit"):
        assert block in plain
