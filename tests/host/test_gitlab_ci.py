"""The GitLab templates, run without a GitLab: gitlab-ci-local's shell executor is the runner.

`pytest -m matrix tests/host/test_gitlab_ci.py` runs them with nothing replaced: in a copy of this
machine's root that is thrown away, ci/prepare installs packages and makes a user, and that user
builds a guest from the mirror.
"""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, require
from tests.host.test_ci_scripts import DOIT

HERE = Path(__file__).with_name("gitlab")
OWN = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b"}
OWN |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
MATRIX = """ci-matrix)
    export DOMU_CALLER="$here" DOMU_GUESTS="$here/guests"
    cd {root} && exec {python} -m doit "$@" ;;"""
STUBS = {
    "apt-get": 'echo "apt-get $*" >>"$CALLS"',
    "useradd": 'echo "useradd $*" >>"$CALLS"',
    "id": "exit 1",
    "chown": 'echo "chown $*" >>"$CALLS"',
    "runuser": 'echo "runuser $*" >>"$CALLS"; shift 3; exec "$@"',
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of gitlab-ci-local, from npm by its locked digest."""
    for program in ("node", "npm", "rsync"):
        require(shutil.which(program) is not None, f"gitlab-ci-local needs {program}")
    folder = tmp_path_factory.mktemp("gitlab")
    for path in HERE.iterdir():
        shutil.copy(path, folder)
    argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    subprocess.run([*argv, "--cache", folder / "cache"], cwd=folder, check=True, timeout=300)
    script = folder / "node_modules/gitlab-ci-local/dist/index.js"
    return ["node", str(folder / "run.mjs"), str(script), "--force-shell-executor", "--no-color"]


def run_git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-C", folder, *words], check=True, capture_output=True, env={**os.environ, **OWN}
    )


def make_project(folder: Path, *guests: str) -> Path:
    """A repository with our templates; its doit is that of DOIT, and ours for ci-matrix."""
    shutil.copytree(ROOT / "ci", folder / "ci")
    shutil.copy(ROOT / "ci/gitlab-ci.yml", folder / ".gitlab-ci.yml")
    shutil.copy(ROOT / "system-packages.txt", folder)
    (folder / ".gitignore").write_text(
        "/ci-output/\n/output/\n/guests.yml\n/.gitlab-ci-local/\n/calls\n"
    )
    (folder / "guests").mkdir()
    for guest in guests:
        (folder / f"guests/{guest}.toml").write_text("")
    matrix = MATRIX.format(root=ROOT, python=sys.executable)
    (folder / "doit").write_text(DOIT.replace("case $1 in", f"here=$PWD\ncase $1 in\n{matrix}"))
    (folder / "doit").chmod(0o755)
    run_git(folder, "init", "--quiet", "--initial-branch=main")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message=project")
    run_git(folder, "remote", "add", "origin", "git@gitlab.example.org:team/guests.git")
    return folder


def run_pipeline(
    runner: list[str], project: Path, environment: Mapping[str, str]
) -> tuple[int, str]:
    done = subprocess.run(
        [*runner, "--shell-isolation", "--home", str(project.parent / "home")],
        cwd=project,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.integration
def test_each_guest_gets_a_job_and_leaves_its_results(runner: list[str], tmp_path: Path) -> None:
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, script in STUBS.items():
        (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
        (stubs / name).chmod(0o755)
    environment = {"PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    project = make_project(tmp_path / "project", "cache", "web-bad", "web1.example.org")
    code, said = run_pipeline(runner, project, environment)
    assert code == 0, said  # what becomes of a child does not reach its parent here
    verdicts = {line.strip() for line in said.splitlines()}
    assert "PASS  [guests] -> guest web1.example.org" in verdicts, said
    assert "PASS  [guests] -> guest cache" in verdicts
    assert "FAIL  guest web-bad" in verdicts
    calls = (tmp_path / "calls").read_text()
    assert "apt-get install --quiet=2 --yes --no-install-recommends python3-venv\n" in calls
    assert "runuser -u builder -- ci/build web1.example.org\n" in calls
    left = {path.name for path in (project / "ci-output").iterdir()}
    assert {"web1.example.org.tar", "web1.example.org-check.xml", "cache.tar"} <= left
    assert "web-bad.tar" not in left


# a mount namespace whose root is a copy of this machine's: what is written there is nowhere else
INSIDE = """set -eu
mount -t overlay overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work $1/root
for folder in proc sys dev; do mount --rbind /$folder $1/root/$folder; done
cp -a "$2" "$1/root/builds" # where an ordinary user may come
cd "$1/root"
pivot_root . mnt
umount -l /mnt
cd /builds
shift 2
exec "$@"
"""


@pytest.mark.matrix
def test_the_templates_build_a_guest_with_nothing_replaced(
    runner: list[str], tmp_path: Path
) -> None:
    require(os.geteuid() == 0, "the runner of a container is root")
    project = tmp_path / "project"
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    run_git(project, "remote", "set-url", "origin", "git@gitlab.example.org:team/guests.git")
    shutil.copy(ROOT / "ci/gitlab-ci.yml", project / ".gitlab-ci.yml")
    for path in (project / "guests").glob("*.toml"):
        if path.stem not in ("defaults", "test-drbd"):
            path.unlink()
    run_git(project, "add", "--all")
    run_git(project, "commit", "--quiet", "--message=ours")
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    inside = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(tmp_path), str(project)]
    code, said = run_pipeline([*inside, *runner], project, {})
    print(said)
    assert code == 0, said
    left = tmp_path / "upper/builds/ci-output"
    assert (left / "test-drbd.tar").stat().st_size > 1 << 20
    (suite,) = ET.parse(left / "test-drbd-check.xml").getroot()
    assert (suite.get("failures"), suite.get("name")) == ("0", "test-drbd")
    subprocess.run(["rm", "-rf", tmp_path / "upper", tmp_path / "work"], check=True)
