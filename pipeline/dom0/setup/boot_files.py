"""[boot]: the lines of Xen and of dom0's kernel, and who can log in on the line Xen prints on."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.dom0.setup import grub, serial_login
from pipeline.dom0.setup.host_file import Command, HostFile, Part
from pipeline.dom0.setup.host_settings import Boot, HostSettings
from pipeline.dom0.setup.host_view import HostView
from pipeline.dom0.setup.reader import read_by, refusals, refused
from pipeline.errors import Finding, PipelineError
from pipeline.files import read_bytes

_TRIAL = "/etc/domu-grub.cfg"  # in the staged tree: grub-mkconfig writes a file only


def _render(settings: HostSettings, host: HostView) -> Iterator[HostFile]:
    boot = settings.boot
    if boot is None:
        return
    if grub.xen_words(boot, host) or grub.linux_words(boot):
        if host.loader == "grub2":
            yield HostFile(grub.OURS, grub.render_grub2(boot, host).encode())
        else:
            text = grub.render_menu_lst(host.read(grub.MENU_LST) or "", boot, host)
            yield HostFile(grub.MENU_LST, text.encode(errors="surrogateescape"))
    yield from serial_login.render_login(boot, host)


def _check(settings: HostSettings, host: HostView, tree: Path) -> Iterator[Finding]:
    boot = settings.boot
    if boot is None:
        return
    if host.loader == "grub2":
        yield from _check_grub2(boot, host, tree)
    else:
        menu = _text(tree, grub.MENU_LST)
        yield from _judge_lines(boot, host, grub.read_menu_lst(menu), path=grub.MENU_LST)
    if boot.serial and host.init == "sysvinit":
        if "hvc0" not in serial_login.gettys_of(_text(tree, serial_login.INITTAB)):
            yield Finding("error", serial_login.INITTAB, "no getty on hvc0", "another line co:?")
    elif boot.serial:
        unit = serial_login.UNIT
        verify = ("systemd-analyze", "verify", "--man=no", unit)
        yield from refusals(verify, host, tree, path=f"{serial_login.WANTS}/{unit}")
    if boot.serial and host.suite == "etch":
        yield Finding(
            "warning",
            "serial",
            "the kernel of etch has no hvc0: Xen 3.0 and dom0 cannot share a serial line",
            'xencons = "tty6" instead leaves the line to dom0 and its getty',
        )


def _check_grub2(boot: Boot, host: HostView, tree: Path) -> Iterator[Finding]:
    folder = str(Path(grub.GRUB_CFG).parent)
    if not host.exists(folder):
        yield Finding(
            "error",
            "boot",
            f"{folder} is not there: GRUB does not start this host",
            "apt-get install grub-pc (grub-efi-amd64 with UEFI), grub-install; another loader's "
            "lines are yours to write",
        )
        return
    try:
        read_by(("grub-mkconfig", "-o", _TRIAL), host, tree)
        lines = grub.read_entries(_text(tree, _TRIAL))
    except PipelineError as error:
        yield refused("grub-mkconfig", grub.OURS, error)
        return
    finally:
        (tree / _TRIAL.lstrip("/")).unlink(missing_ok=True)
    if lines is None:
        yield Finding(
            "warning",
            grub.GRUB_CFG,
            "no entry boots Xen: the lines wait for it",
            "apt-get install xen-system-amd64",
        )
    else:
        yield from _judge_lines(boot, host, lines, path=grub.GRUB_CFG)


def _judge_lines(
    boot: Boot, host: HostView, lines: tuple[str, str], *, path: str
) -> Iterator[Finding]:
    if missing := grub.lacking(boot, host, lines):
        yield Finding(
            "error",
            path,
            f"would not say {' '.join(missing)}, but {' | '.join(lines)}",
            f"which file in {grub.DEFAULTS}.d comes after {Path(grub.OURS).name}?",
        )


def _text(tree: Path, path: str) -> str:
    return read_bytes(tree / path.lstrip("/")).decode(errors="surrogateescape")


def _after(_settings: HostSettings, _host: HostView) -> Iterator[Command]:
    yield ("update-grub",)


BOOT = Part(
    "boot",
    places=(
        grub.OURS,
        grub.MENU_LST,
        serial_login.INITTAB,
        f"{serial_login.WANTS}/serial-getty@*.service",
    ),
    render=_render,
    check=_check,
    after=_after,
    generated=(grub.GRUB_CFG, grub.MENU_LST),
    later="from the next start of the host on",
)
