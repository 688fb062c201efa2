"""What people type by habit means what they mean, or is answered with the line to type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.arguments import read_arguments
from pipeline.commands.command_line import read_command_line
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("build web1", "build name=web1"),
        ("build web1 web2", "build name=web1,web2"),
        ("build all", "build"),
        ("web=1 build", "build web=1"),
        ("start web1", "start name=web1"),
        ("shutdown all", "shutdown all=yes"),
        ("build check web1", "build check name=web1"),
        ("create web1 --dist bookworm --dhcp", "create name=web1 dist=bookworm dhcp="),
        ("create --hostname web1 --size=16G", "create hostname=web1 size=16G"),
        ("create --dhcp web1", "create name=web1 dhcp="),
        ("create --dhcp no web1", "create name=web1 dhcp=no"),
        ("create --lvm VG0 --noswap --name a", "create lvm=VG0 noswap= name=a"),
        ("create --boot pygrub a", "create name=a boot=pygrub"),
        ("build --replace web1", "build name=web1 replace="),
        ("build --replace yes web1", "build name=web1 replace=yes"),
        ("create a --extra x=y", "create name=a extra=x=y"),
        ("build -n 2 web1", "-n 2 build name=web1"),
        ("-a build web1", "-a build name=web1"),
        ("volume:web1", "volume:web1"),
        ("volume web1", "volume name=web1"),
        ("list --all", "list --all"),
        ("run --continue build", "run --continue build"),
        ("gc --keep 5G --dry", "gc keep=5G dry="),
        ("prove-cfg --cfg /etc/xen/web1.cfg", "prove-cfg cfg=/etc/xen/web1.cfg"),
        ("", ""),
    ],
)
def test_a_habit_is_understood(typed: str, plain: str) -> None:
    assert read_arguments(typed.split()) == plain.split()


@pytest.mark.parametrize(
    ("typed", "said", "hint"),
    [
        ("biuld web1", "biuld: no such command", "did you mean: doit build name=web1"),
        ("biuld name=web1 size=8G", "biuld", "did you mean: doit build name=web1 ..."),
        ("build chek name=web1", "chek", "did you mean: doit build check name=web1"),
        ("insxtall name=web1", "insxtall", "did you mean: doit install name=web1"),
        ("web1", "web1: no such command", "doit build name=web1"),
        ("gc web1", "web1", "doit help gc"),
        ("tabcompletion", "tabcompletion", "completion"),
        ("build --size --lvm x", "--size needs a value", "--size=4G"),
        ("create --role", "--role needs a value", "role=web"),
        ("build --continue", "--continue is an option of doit's own", "doit run --continue"),
        ("build -x web1", "-x: no such option", "help"),
        ("build ;reboot name=a", ";reboot: no such command", "reboot"),
    ],
)
def test_what_is_not_is_answered_with_the_line_to_type(typed: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_arguments(typed.split())
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_a_secret_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        read_arguments(["biuld", "web1", "mirror=http://me:Kanari3@m/debian"])
    assert "Kanari3" not in f"{caught.value} {caught.value.hint}"


def test_several_guests_are_each_asked_for_once() -> None:
    assert read_command_line(["build", "a", "b", "a"]).guests == ("a", "b")
    assert read_command_line(["build"]).guests == ()
    for names in ("a,", ",a", "a,,b", "a,../b"):
        with pytest.raises(UsageError):
            read_command_line(["build", f"name={names}"])


@given(st.lists(st.sampled_from(["build", "web1", "--size", "--size=8G", "a=b", "-n", "--", "-"])))
def test_a_plain_line_is_left_alone(words: list[str]) -> None:
    try:
        plain = read_arguments(words)
    except UsageError:
        return
    assert read_arguments(plain) == plain
