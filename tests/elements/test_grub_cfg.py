"""Every grub.cfg that we write is one to GRUB itself, whatever kernel arguments a spec may hold."""

import shutil
import string
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import WrongValueError
from pipeline.spec.values import check_cmdline
from pipeline.xen.grub_menu import parse_grub_cfg
from tests.conftest import require

pytestmark = pytest.mark.integration

ELEMENT = Path(__file__).resolve().parents[2] / "elements/grub-menus"


def is_accepted(cmdline: str) -> bool:
    try:
        return check_cmdline(cmdline) == cmdline
    except WrongValueError:
        return False


def write_menus(folder: Path, options: str) -> str:
    """Run the guest's own script on a /boot below `folder`; the grub.cfg."""
    boot, settings = folder / "boot", folder / "settings"
    boot.mkdir(exist_ok=True)
    (boot / "vmlinuz-6.1.0-1-amd64").touch()
    (boot / "initrd.img-6.1.0-1-amd64").touch()
    # what install.d/50-grub-menus writes
    settings.write_text(f'ROOT="/dev/xvda2"\nOPTIONS="{options}"\nPREFIX="/boot"\nTIMEOUT="1"\n')
    script = (ELEMENT / "static/usr/local/sbin/xen-grub-menus").read_text()
    script = script.replace("/etc/default/xen-grub-menus", str(settings))
    script = script.replace("cd /boot", f"cd {boot}").replace("/boot/grub", f"{boot}/grub")
    script = script.replace('"/boot/initrd', f'"{boot}/initrd')
    subprocess.run(["sh", "-s"], input=script, text=True, check=True)
    return (boot / "grub/grub.cfg").read_text()


def test_grub_reads_a_menu_with_any_kernel_arguments_that_a_spec_may_hold(tmp_path: Path) -> None:
    require(shutil.which("grub-script-check") is not None, "needs grub-script-check")
    odd = [
        text
        for letter in string.printable
        for text in (f"a{letter}b", f"a {letter}b", f"{letter}b", f"a{letter}")
        if is_accepted(text)
    ]
    assert {"a=b", "a,b", "a#b"} <= set(odd)
    for number, text in enumerate(["", " ".join(odd), *odd[:: max(1, len(odd) // 20)]]):
        cfg = write_menus(tmp_path, f"ro console=hvc0 {text}".rstrip())
        path = tmp_path / f"{number}.cfg"
        path.write_text(cfg)
        done = subprocess.run(
            ["grub-script-check", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text!r}: {done.stderr}"
        (entry,) = parse_grub_cfg(cfg).entries
        expected = f"root=/dev/xvda2 ro console=hvc0 {text}"
        assert entry.args.split() == expected.split()


@pytest.mark.parametrize(
    "text", ["a|b", "a&b", "a<b", "a>b", "a;b", "a #b", "#b", "{a}", "a$b", 'a"b']
)
def test_what_grub_or_a_shell_would_read_otherwise_is_refused(text: str) -> None:
    assert not is_accepted(text)
