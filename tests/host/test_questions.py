"""What `doit create` asks the person at the terminal: whose keys, which password.

Behind a real terminal of its own; the mirror that the spec names is not there, so that nothing is
built after the questions.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from tests.workshop import ROOT, Workshop

pytestmark = pytest.mark.integration

ASKED = "none \\[1\\]: "


@dataclass
class Person:
    """Somebody with a home, a terminal and no mirror."""

    home: Path
    workshop: Workshop

    def environment(self) -> dict[str, str]:
        # no agent and no sudo but the test's own
        kept = {
            name: text
            for name, text in self.workshop.environment().items()
            if name not in ("SSH_AUTH_SOCK", "SUDO_USER")
        }
        return {**kept, "HOME": str(self.home), "TERM": "dumb"}

    def make_key(self, name: str, kind: str = "ed25519", comment: str = "me@laptop") -> str:
        """A key pair in ~/.ssh; the public line."""
        folder = self.home / ".ssh"
        folder.mkdir(exist_ok=True)
        words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", f"{folder / name}"]
        subprocess.run(words, check=True)
        return (folder / f"{name}.pub").read_text().strip()

    def create(self, *words: str, environment: dict[str, str] | None = None) -> pexpect.spawn:
        """`doit create` of web1 at the terminal."""
        words = ("-m", "pipeline", "create", "name=web1", "mirror=file:/nowhere/at/all", *words)
        return pexpect.spawn(
            sys.executable,
            list(words),
            cwd=str(ROOT),
            env={**self.environment(), **(environment or {})},
            timeout=60,
            encoding="utf-8",
        )

    def keys(self) -> list[str]:
        """What the spec that was written has as authorized_keys."""
        spec = tomllib.loads((self.workshop.guests / "web1.toml").read_text())
        return list(spec.get("authorized_keys", []))


def ended(run: pexpect.spawn) -> tuple[int, str]:
    """Exit code and what was printed since the last question."""
    run.expect(pexpect.EOF)
    said = str(run.before)
    run.close()
    assert "Traceback" not in said
    return int(run.exitstatus or 0), words_of(said)


def words_of(said: str) -> str:
    """What was printed, however it was wrapped."""
    return " ".join(said.split())


@pytest.fixture
def person(tmp_path: Path) -> Person:
    (tmp_path / "guests").mkdir()
    (tmp_path / "home").mkdir()
    return Person(tmp_path / "home", Workshop(tmp_path / "output", tmp_path / "guests"))


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ([""], [0]),
        (["all"], [0, 1]),
        (["none"], []),
        (["\x04"], []),  # Ctrl-D
        (["3", "me", "2, 1"], [1, 0]),
    ],
)
def test_own_keys_are_offered_and_the_chosen_are_written(
    person: Person, answers: list[str], chosen: list[int]
) -> None:
    keys = [person.make_key("id_a"), person.make_key("id_b", "ecdsa")]
    run = person.create("suite=bookworm")
    run.expect(ASKED)
    said = str(run.before)
    for number, (name, key) in enumerate(zip(("id_a", "id_b"), keys, strict=True), start=1):
        asked = ["ssh-keygen", "-l", "-f", f"{person.home}/.ssh/{name}.pub"]
        shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        assert f"{number}  {key.split()[0]} me@laptop" in said
        assert shown[1] in said
        assert f".ssh/{name}.pub" in said
    for number, answer in enumerate(answers):
        if number:
            run.expect(ASKED)
        run.send(answer if answer == "\x04" else f"{answer}\n")
    code, _ = ended(run)
    assert code != 0  # that mirror
    assert person.keys() == [keys[index] for index in chosen]


def test_what_is_no_sound_key_is_told_and_not_offered(person: Person) -> None:
    key = person.make_key("id_good")
    secret = (person.home / ".ssh/id_good").read_text()
    (person.home / ".ssh/id_wrong.pub").write_text(secret)
    (person.home / ".ssh/id_shadow.pub").symlink_to("/etc/shadow")
    os.mkfifo(person.home / ".ssh/fifo.pub")
    run = person.create("suite=bookworm")
    run.expect(ASKED)
    said = str(run.before)
    assert "id_wrong.pub is a private key" in words_of(said)
    assert "root:" not in said
    assert "  2  " not in said
    run.send("all\n")
    ended(run)
    assert person.keys() == [key]


def test_a_release_is_offered_only_what_its_sshd_knows(person: Person) -> None:
    person.make_key("id_new")
    old = person.make_key("id_old", "rsa")
    run = person.create("suite=wheezy")
    run.expect(ASKED)
    assert "knows no ed25519 keys" in str(run.before)
    run.send("\n")
    ended(run)
    assert person.keys() == [old]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    socket = tmp_path / "agent"
    server = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    while not socket.exists():
        assert server.poll() is None
    yield {"SSH_AUTH_SOCK": str(socket)}
    server.terminate()
    server.wait()


def test_the_agents_keys_are_offered_after_those_of_files(
    person: Person, agent: dict[str, str]
) -> None:
    keys = [person.make_key("id_file"), person.make_key("elsewhere", comment="token")]
    private = [person.home / ".ssh/id_file", person.home / ".ssh/elsewhere"]
    add = ["ssh-add", "-q", *map(str, private)]
    subprocess.run(add, env={**person.environment(), **agent}, check=True)
    (person.home / ".ssh/elsewhere.pub").unlink()
    run = person.create("suite=bookworm", environment=agent)
    run.expect(ASKED)
    said = str(run.before)
    assert "2  ssh-ed25519 token" in said
    assert said.count("ssh-agent") == 1  # that of the file is not named twice
    run.send("all\n")
    ended(run)
    assert person.keys() == keys


def test_under_sudo_the_persons_own_keys_are_offered(person: Person) -> None:
    """root's home is not that of who typed the command: `nobody` has one without keys."""
    person.make_key("id_of_root")
    run = person.create("suite=bookworm", environment={"SUDO_USER": "nobody"})
    code, said = ended(run)
    assert code != 0
    assert "Which?" not in said
    assert person.keys() == []


@pytest.mark.parametrize("given", ["authorized_keys=", "defaults"])
def test_nothing_is_asked_where_keys_are_given(person: Person, given: str) -> None:
    key = person.make_key("id_a")
    defaults = person.workshop.guests / "defaults.toml"
    if given == "defaults":
        defaults.write_text(f'authorized_keys = ["{key}"]\n')
    run = person.create(*([given] if given.endswith("=") else []))
    _, said = ended(run)
    assert "Which?" not in said
    assert person.keys() == []


def test_without_a_terminal_nothing_is_asked_and_the_suite_is_named(person: Person) -> None:
    person.make_key("id_a")
    done = subprocess.run(
        [sys.executable, "-m", "doit", "create", "name=web1", "mirror=file:/nowhere"],
        cwd=ROOT,
        env=person.environment(),
        input="\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Which?" not in done.stdout
    assert "suite: bookworm, the default" in done.stdout
    assert person.keys() == []


def test_a_wrong_spec_is_refused_before_anything_is_asked(person: Person) -> None:
    person.make_key("id_a")
    code, said = ended(person.create("size=4X", "passwd="))
    assert code == 2
    assert "Which?" not in said
    assert "password" not in said


def test_an_interrupted_question_leaves_no_spec(person: Person) -> None:
    person.make_key("id_a")
    run = person.create()
    run.expect(ASKED)
    run.sendintr()
    code, _ = ended(run)
    assert code == 130
    assert list(person.workshop.guests.iterdir()) == []


def test_a_password_is_asked_twice_at_the_start_and_not_shown(person: Person) -> None:
    run = person.create("passwd=")
    for typed in ("first-word", "second-word", "first-word", "first-word"):
        run.expect("root's password in web1: |the same again: ")
        run.waitnoecho()
        run.sendline(typed)
    code, said = ended(run)
    assert "wrote " in words_of(said)
    assert "error: web1 mirror" in said  # the first stage, after the password
    assert "-word" not in said
    assert code != 0
    for path in person.home.parent.rglob("*"):
        assert not path.is_file() or b"-word" not in path.read_bytes(), path
    assert 'root_password_file = "-"' in (person.workshop.guests / "web1.toml").read_text()


@pytest.mark.parametrize("typed", [["a", "b"] * 3, [""]])
def test_no_password_is_an_error_at_the_start(person: Person, typed: list[str]) -> None:
    run = person.create("passwd=")
    for text in typed:
        run.expect("root's password in web1: |the same again: ")
        run.waitnoecho()
        run.sendline(text)
    code, said = ended(run)
    assert code == 2
    assert "error: " in said
    assert "root_password_file=FILE" in said or "alone on one line" in said
    assert list(person.workshop.guests.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "code", "expected"),
    [
        ("", 2, "was to come from standard input, where there is none"),
        ("\n", 2, "not one line of text"),
        ("x" * 600, 2, "of 512 bytes at most"),
        ("secret\nnext line\n", 1, "error: web1 mirror"),
    ],
)
def test_a_pipe_gives_one_line_at_the_start(
    person: Person, given: str, code: int, expected: str
) -> None:
    outcome = person.workshop.doit(
        "create", "name=web1", "passwd=", "mirror=file:/nowhere/at/all", stdin=given
    )
    assert outcome.code == code, outcome.said
    assert expected in outcome.said
    assert "Traceback" not in outcome.said
    assert (person.workshop.guests / "web1.toml").exists() == (code == 1)


def test_each_of_several_guests_gets_its_line_and_who_only_looks_is_not_asked(
    person: Person,
) -> None:
    for name in ("web1", "web2"):
        (person.workshop.guests / f"{name}.toml").write_text(
            'root_password_file = "-"\nmirror = "file:/nowhere/at/all"\n'
        )
    refused = person.workshop.doit("build", stdin="one\n")
    assert refused.code == 2, refused.said
    assert "web2: root's password was to come from standard input" in refused.said
    assert "wrote" not in refused.said
    assert "password" not in person.workshop.doit("guests", stdin="").said.split("guests:")[0]
    assert person.workshop.doit("why", "name=web1", stdin="").code == 0
