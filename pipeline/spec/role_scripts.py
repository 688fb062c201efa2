"""xen-tools' role scripts that a spec names: where they are, and what they cannot have here.

They run on a guest's tree as xen-create-image runs them (elements/xen-tools-roles). The tree
becomes a golden image, which is nobody's in particular: a script that asks for its guest's name or
address is refused, where xen-create-image would have exported it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import Finding, UsageError
from pipeline.files import read_named_text
from pipeline.spec.model import Spec
from pipeline.spec.xen_create_image.roles import ROLE_FOLDER

# what xen-create-image 4.9.2 exports, and a golden image has not
_OF_ONE_GUEST = (
    *("hostname", "ip", "ips", "netmask", "gateway", "broadcast", "nameserver", "dhcp", "mac"),
    *("p2p", "bridge", "vifname", "vlan", "lvm", "dir", "zpool", "size", "swap", "memory"),
    *("maxmem", "vcpus", "password", "output", "mirror", "partitions", "kernel", "initrd"),
)
_NAMED = re.compile(rf"\$(?:ENV)?\{{?['\"]?({'|'.join(_OF_ONE_GUEST)})\b")


def find_scripts(spec: Spec) -> list[Path]:
    """The scripts in their order; raises UsageError for one that is not there or cannot run."""
    return [_find_script(name, spec.roles_path) for name in spec.role]


def _find_script(name: str, folders: Sequence[str]) -> Path:
    places = [Path(folder, name) for folder in folders or (ROLE_FOLDER,)]
    path = next((place for place in places if os.path.isfile(place)), None)
    if path is None:
        raise UsageError(
            f"{name}: no script {' nor '.join(map(str, places))}",
            hint="correct `role` or `roles_path`",
        )
    if not os.access(path, os.X_OK):
        raise UsageError(f"{path} is not executable", hint=f"chmod +x {path}")
    return path


def sed_folders(scripts: Sequence[Path]) -> list[Path]:
    """The sed.d beside role.d, which xen-tools' role `editor` reads; none where there is none."""
    folders = dict.fromkeys(script.parent.parent / "sed.d" for script in scripts)
    return [folder for folder in folders if folder.is_dir()][:1]


def find_role_problems(spec: Spec, *, source: str) -> Iterator[Finding]:
    """A problem for each script that is missing, or asks for what it cannot have."""
    for name in spec.role:
        try:
            path = _find_script(name, spec.roles_path)
            missed = find_missed(read_named_text(path))
        except UsageError as error:
            yield Finding("error", "role", error.brief, error.hint, source=source)
            continue
        if missed:
            message = f"{path} reads ${', $'.join(missed)}, and a golden image is no one guest's"
            hint = "let the guest ask itself when it starts, or say it in the spec"
            yield Finding("error", "role", message, hint, source=source)


def find_missed(text: str) -> list[str]:
    """The variables of one guest that a script reads and does not set itself."""
    code = re.sub(r"(?m)^\s*#.*$", "", text)
    names = dict.fromkeys(match[1] for match in _NAMED.finditer(code))
    return [
        name
        for name in names
        if not re.search(rf"\b{name}\s*=|\b(for|read|my)\s+\$?{name}\b", code)
    ]


def settings_of(spec: Spec) -> dict[str, str]:
    """The variables that a script is given."""
    return {
        "dist": spec.suite,
        "arch": spec.arch,
        "fs": spec.fs,
        "install_method": "debootstrap",
        "install": "1",
        "hooks": "1",
        "verbose": "1",
        "serial_device": spec.console,
        "disk_device": spec.root_device.removeprefix("/dev/").rstrip("0123456789"),
        "pygrub": "1" if spec.is_kernel_inside else "0",
        "role": ",".join(spec.role),
        "role_args": spec.role_args,
        "roledir": (spec.roles_path or (ROLE_FOLDER,))[0],
    }
