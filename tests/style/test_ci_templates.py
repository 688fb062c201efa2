"""The CI templates: whole YAML with the keys that each system needs, calling scripts that exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "ci"
SCRIPTS = ("prepare", "build")
TEMPLATES = sorted(path for path in CI.iterdir() if path.name not in SCRIPTS)
ALLOWED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")


def load(name: str) -> dict[Any, Any]:
    pipeline: dict[Any, Any] = yaml.safe_load((CI / name).read_text())
    return pipeline


def test_the_scripts_are_programs_that_a_shell_can_read() -> None:
    for name in SCRIPTS:
        assert os.access(CI / name, os.X_OK)
        subprocess.run(["sh", "-n", CI / name], check=True)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_prepares_as_root_and_builds_as_the_user(path: Path) -> None:
    text = path.read_text()
    assert text.index("ci/prepare") < text.index("runuser -u builder -- ci/build")
    for called in re.findall(r"\bci/(\w+)\b(?!\.)", text):
        assert called in SCRIPTS, f"{path.name} calls ci/{called}"
    code = "".join(line for line in text.splitlines(True) if line.lstrip()[:1] not in "#/")
    assert "--privileged" not in code
    assert "/dev/kvm" not in code
    assert "ci-output" in text or path.name == "woodpecker.yml"


def test_github_actions_has_jobs_with_steps() -> None:
    pipeline = load("github-actions.yml")
    assert pipeline[True], "YAML 1.1 reads the key `on` as true; GitHub takes it"
    for job in pipeline["jobs"].values():
        assert job["runs-on"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        said = " ".join(step.get("run", "") for step in job["steps"])
        assert all(f"--security-opt {option}" in said for option in ALLOWED)


def test_gitlab_has_a_job_with_script_and_artifacts() -> None:
    (job,) = load("gitlab-ci.yml").values()
    assert {"image", "script", "before_script", "artifacts", "cache"} <= set(job)
    assert job["artifacts"]["paths"] == ["ci-output"]
    assert all(option in (CI / "gitlab-ci.yml").read_text() for option in ALLOWED)


def test_woodpecker_has_steps_with_commands() -> None:
    pipeline = load("woodpecker.yml")
    assert pipeline["when"]
    assert all({"name", "image", "commands"} <= set(step) for step in pipeline["steps"])


def test_jenkins_has_balanced_blocks_and_a_build() -> None:
    text = (CI / "Jenkinsfile").read_text()
    plain = re.sub(r"'[^'\n]*'|//.*", "", text)
    assert plain.count("{") == plain.count("}") > 5
    assert plain.count("(") == plain.count(")")
    for block in ("agent", "stages", "stage(", "steps", "post"):
        assert block in plain
    assert all(f"--security-opt {option}" in text for option in ALLOWED)
