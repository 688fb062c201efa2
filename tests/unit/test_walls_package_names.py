"""Names that strangers wrote: dpkg's rules, and what each of them must not let through."""

from collections.abc import Callable

import pytest

from pipeline.errors import PipelineError
from pipeline.walls import package_names as names

RIGHT: dict[Callable[..., str], list[str]] = {
    names.require_package: ["libc6", "g++", "libstdc++-12-dev", "0ad", "libx_1", "a", "Xaw3d.g"],
    names.require_version: "1 2.36-9+deb12u15 1:9.2p1-2~bpo12+1 20230311 1:5.10.0-1:2".split(),
    names.require_architecture: ["amd64", "all", "kfreebsd-amd64"],
    names.require_sha256: ["0" * 64, "abcdef0123456789" * 4],
    names.require_control_file: ["control", "md5sums", "postinst", "symbols", "conffiles"],
    names.require_trigger: "ldconfig /usr/share/man update-initramfs /usr/lib/x..y /a".split(),
    names.require_path: ["/etc/x", "/etc/a b", "/usr/share/ü", "/.", "/etc/..x"],
}
WRONG: dict[Callable[..., str], list[str]] = {
    names.require_package: ["-x", ".x", "+x", "a:b", "a,b", "a=b", "ü"],
    names.require_version: ["-1", ".1", "..", "1_2", "1:", "x y", "1/../2", ":1"],
    names.require_architecture: ["-x", "a_b", "amd64:any", "."],
    names.require_sha256: ["0" * 63, "0" * 65, "A" * 64, "g" * 64],
    names.require_control_file: ["list", "x.list", "sh.x", "-x", "x" * 51],
    names.require_trigger: [
        *("File", "Unincorp", "Lock", "a_b", "/a//b", "/", "/a\x7f", "/ü", "x\ty")
    ],
    names.require_path: ["etc/x", "/..", "/etc/../x", "/x\ny", "/a" * 120, "/" + "x" * 4001],
}
NEVER = [
    "",
    "..",
    "../x",
    "../../etc/passwd",
    "a/b",
    "x\n",
    "\nx",
    "x y",
    "a\0b",
    "x" * 300,
    "\udc80",
]


@pytest.mark.parametrize("require", RIGHT, ids=lambda one: one.__name__)
def test_what_dpkg_accepts_passes_as_it_is(require: Callable[..., str]) -> None:
    for name in RIGHT[require]:
        assert require(name, where="x") == name


@pytest.mark.parametrize("require", RIGHT, ids=lambda one: one.__name__)
def test_everything_else_is_one_line_that_says_where(require: Callable[..., str]) -> None:
    for name in [*WRONG[require], *NEVER]:
        with pytest.raises(PipelineError, match=r"^guests/x\.lock\.json: '") as caught:
            require(name, where="guests/x.lock.json")
        assert caught.value.brief.isascii() and caught.value.brief.isprintable()
        assert len(caught.value.brief) < 200
