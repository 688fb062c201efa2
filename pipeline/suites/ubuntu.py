"""Ubuntu's long-term releases, newest first; each says what was different from the one after.

All four were built and booted (docs/reference/suites.md).
"""

from dataclasses import replace

from pipeline.suites.debian import SID, SYSTEMD, SYSTEMD_RESOLVED
from pipeline.suites.suite import KEYRINGS

_VIRTUAL = ("linux-image-virtual", "linux-image-generic")
_NOBLE = replace(
    SID,
    name="noble",
    has_parallel_bootstrap=True,
    supported_until="2029-05-31",
    kernel_version=(6, 8),
    distribution="ubuntu",
    version="24.04",
    inits=("systemd",),
    kernels={"amd64": _VIRTUAL},
    system_packages={"systemd": ("apt", *SYSTEMD_RESOLVED, "ubuntu-keyring")},
    keyring=f"{KEYRINGS}/ubuntu-archive-keyring.gpg",
    keyring_package="ubuntu-keyring",
    components=("main", "universe"),
    security_suite="noble-security",
    security_path="ubuntu",
    updates_suite="noble-updates",
    openssh=(9, 6),
)
_JAMMY = replace(
    _NOBLE,
    name="jammy",
    has_parallel_bootstrap=False,
    supported_until="2027-06-01",
    kernel_version=(5, 15),
    version="22.04",
    security_suite="jammy-security",
    updates_suite="jammy-updates",
    system_packages={"systemd": ("apt", *SYSTEMD, "ubuntu-keyring")},
    sources_form="one-line",
    nic_naming="eth",
    openssh=(8, 9),
)
_FOCAL = replace(
    _JAMMY,
    name="focal",
    version="20.04",
    supported_until="2025-05-31",
    kernel_version=(5, 4),
    compressions=("lz4", "lz4"),
    security_suite="focal-security",
    updates_suite="focal-updates",
    password_hash="sha512",  # its libcrypt is glibc's
    hash_prefixes=("$6$", "$5$", "$1$"),
    openssh=(8, 2),
)

_RESOLUTE = replace(
    _NOBLE,
    name="resolute",
    version="26.04",
    supported_until="2031-05-31",
    kernel_version=(7, 0),
    security_suite="resolute-security",
    updates_suite="resolute-updates",
    openssh=(10, 2),
    script="gutsy",  # what debootstrap's scripts of all Ubuntu releases are links to
)

UBUNTU = (_RESOLUTE, _NOBLE, _JAMMY, _FOCAL)
