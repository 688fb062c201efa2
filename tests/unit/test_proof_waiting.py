"""How long a proof waits for a guest, and what it makes of a host that stops."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import Broken, CommandFailed, Finding, GuestFailed
from pipeline.proof import console as console_module
from pipeline.proof.console import Console
from pipeline.proof.logins import ConsoleLogin
from pipeline.proof.machine import explain_fault

LOGIN = r"\blogin: ?$"


class Guest:
    """Prints its parts one read after the other, and answers what is typed."""

    def __init__(self, *parts: str, answers: dict[str, str] | None = None) -> None:
        self.parts = list(parts)
        self.answers = answers or {}
        self.printed = b""
        self.typed: list[str] = []

    def read(self, _path: str, *, offset: int = 0, wait_s: float = 0.0) -> bytes:
        if self.parts:
            self.printed += self.parts.pop(0).encode()
        return self.printed[offset:]

    def demand(self, _argv: object) -> str:
        return "/dev/pts/1\n"

    def write(self, _path: str, content: bytes) -> None:
        self.typed.append(content.decode())
        self.parts.append(self.answers.get(content.decode().strip(), ""))


def console_of(guest: Guest) -> Console:
    return Console(cast(Any, guest), "web1")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "UP_S", 0.05)
    monkeypatch.setattr(console_module, "SILENT_S", 0.05)


def test_the_prompt_ends_the_waiting() -> None:
    console_of(Guest("Linux version\n", "web1 login: ")).wait_for_login(LOGIN, timeout_s=5)


def test_a_guest_that_gives_up_is_not_waited_for() -> None:
    console = console_of(Guest("Kernel panic - not syncing: VFS\n"))
    with pytest.raises(GuestFailed, match="the guest gave up: Kernel panic"):
        console.wait_for_login(LOGIN, timeout_s=60)


def test_a_guest_that_is_up_without_a_prompt_is_not_waited_for() -> None:
    console = console_of(Guest("[  OK  ] Reached target multi-user.target\n", *["."] * 10_000))
    with pytest.raises(GuestFailed, match="has started, but there is none"):
        console.wait_for_login(LOGIN, timeout_s=60)


def test_a_silent_guest_is_not_waited_for() -> None:
    with pytest.raises(GuestFailed, match="nothing new on the console"):
        console_of(Guest("GNU GRUB\n")).wait_for_login(LOGIN, timeout_s=60)


def login(answers: dict[str, str], password: bytes = b"") -> tuple[Finding, Guest]:
    guest = Guest("web1 login: ", answers=answers)
    console = console_of(guest)
    console.poll(wait_s=0)
    attempt = ConsoleLogin(console, password)
    attempt.begin()
    attempt.answer()
    return attempt.finish(), guest


REFUSED = {"root": "root\nPassword: ", "not-the-password": "\nLogin incorrect\nweb1 login: "}
ENTERED = {
    "root": "root\nPassword: ",
    "sesame": "\nroot@web1:~# ",
    "echo proof-$((6*7))": "echo proof-$((6*7))\nproof-42\nroot@web1:~# ",
    "exit": "exit\n\nweb1 login: ",
}


def test_a_locked_root_must_be_refused() -> None:
    check, _ = login(REFUSED)
    assert (check.seen, check.level) == ("refused", "ok")
    check, _ = login({**ENTERED, "not-the-password": ENTERED["sesame"]})
    assert (check.seen, check.level) == ("a shell", "error")


def test_a_password_must_open_a_shell() -> None:
    check, guest = login(ENTERED, b"sesame")
    assert (check.seen, check.level) == ("a shell", "ok")
    assert guest.typed[-1] == "exit\n"
    check, _ = login({**REFUSED, "sesame": REFUSED["not-the-password"]}, b"sesame")
    assert (check.seen, check.level) == ("refused", "error")


def test_a_login_that_timed_out_is_begun_again() -> None:
    late = {**REFUSED, "root": "root\nPassword: \nLogin timed out after 60 seconds.\nweb1 login: "}
    guest = Guest("web1 login: ", answers=late)
    console = console_of(guest)
    console.poll(wait_s=0)
    attempt = ConsoleLogin(console, b"")
    attempt.begin()
    console.poll(wait_s=0)
    guest.answers["root"] = REFUSED["root"]
    attempt.answer()
    assert attempt.finish().seen == "refused"
    assert guest.typed == ["root\n", "root\n", "not-the-password\n"]


def test_a_login_that_times_out_behind_its_password_is_begun_again() -> None:
    late = {**ENTERED, "sesame": "\nLogin timed out after 60 seconds.\nweb1 login: "}
    guest = Guest("web1 login: ", answers=dict(late))
    console = console_of(guest)
    console.poll(wait_s=0)
    attempt = ConsoleLogin(console, b"sesame")
    attempt.begin()
    attempt.answer()
    console.poll(wait_s=0)
    guest.answers["sesame"] = ENTERED["sesame"]
    assert attempt.finish().seen == "a shell"
    guest.answers["sesame"] = late["sesame"]
    attempt = ConsoleLogin(console, b"sesame")
    attempt.begin()
    attempt.answer()
    assert attempt.finish().seen == "Login timed out"


def test_a_kernel_that_speaks_behind_a_prompt_hides_none() -> None:
    said = "[   61.234567] hrtimer: interrupt took 3894880 ns\n"
    spoken = {word: f"{text}{said}" for word, text in ENTERED.items()}
    check, _ = login(spoken, b"sesame")
    assert (check.seen, check.level) == ("a shell", "ok")


def test_half_a_line_that_ends_as_a_prompt_does_is_none() -> None:
    guest = Guest("web1 login: ", answers={**ENTERED, "sesame": "\nLinux web1 6.1.0 #"})
    console = console_of(guest)
    console.poll(wait_s=0)
    attempt = ConsoleLogin(console, b"sesame")
    attempt.begin()
    attempt.answer()
    console.poll(wait_s=0)
    guest.parts += ["1 SMP\n", "root@web1:~# "]
    assert attempt.finish().seen == "a shell"
    assert guest.printed.index(b"root@") < guest.printed.index(b"echo")


def machine(state: str | Broken) -> Any:
    def ask(_command: str) -> dict[str, str]:
        if isinstance(state, Broken):
            raise state
        return {"status": state}

    return SimpleNamespace(monitor=SimpleNamespace(ask=ask, limit_patience=lambda _s: None))


def test_what_is_not_the_guests_fault_is_broken() -> None:
    silent = Broken("the test host did not answer within 20 s (run)")
    assert explain_fault(machine("running"), silent) is silent
    full = explain_fault(machine("io-error"), silent)
    assert "no space left" in full.brief
    assert full.details == silent.brief
    assert explain_fault(machine(Broken("QEMU ended")), silent).brief == (
        "the test host's QEMU ended"
    )
    failed = CommandFailed(["mke2fs"], status=1, output="No space left on device")
    assert explain_fault(machine("running"), failed).exit_code == 3
