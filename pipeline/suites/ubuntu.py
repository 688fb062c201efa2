"""Ubuntu's long-term releases, newest first; each says what was different from the one after.

All four were built and booted (docs/reference/suites.md).
"""

from pipeline.suites.debian import SID, SYSTEMD, SYSTEMD_RESOLVED, older
from pipeline.suites.suite import KEYRINGS

_VIRTUAL = ("linux-image-virtual", "linux-image-generic")
_NOBLE = older(
    *(SID, "noble", "24.04", "2029-05-31", (6, 8), (9, 6)),
    has_parallel_bootstrap=True,
    distribution="ubuntu",
    inits=("systemd",),
    kernels={"amd64": _VIRTUAL},
    system_packages={"systemd": ("apt", *SYSTEMD_RESOLVED, "ubuntu-keyring")},
    keyring=f"{KEYRINGS}/ubuntu-archive-keyring.gpg",
    keyring_package="ubuntu-keyring",
    components=("main", "universe"),
    security_path="ubuntu",
)
_JAMMY = older(
    *(_NOBLE, "jammy", "22.04", "2027-06-01", (5, 15), (8, 9)),
    has_parallel_bootstrap=False,
    system_packages={"systemd": ("apt", *SYSTEMD, "ubuntu-keyring")},
    sources_form="one-line",
    nic_naming="eth",
)
_FOCAL = older(
    *(_JAMMY, "focal", "20.04", "2025-05-31", (5, 4), (8, 2)),
    compressions=("lz4", "lz4"),
    password_hash="sha512",  # its libcrypt is glibc's
    hash_prefixes=("$6$", "$5$", "$1$"),
)

_RESOLUTE = older(
    *(_NOBLE, "resolute", "26.04", "2031-05-31", (7, 0), (10, 2)),
    script="gutsy",  # what debootstrap's scripts of all Ubuntu releases are links to
)

UBUNTU = (_RESOLUTE, _NOBLE, _JAMMY, _FOCAL)
