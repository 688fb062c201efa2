"""What our own elements have apt install, as far as the base lacks it, in the scripts' order.

It is said here beforehand what elements/*/install.d and post-install.d do; the stage rootfs
compares the list of the finished tree with it.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pipeline.spec import Spec

# stock ones that run nothing in the tree
_HARMLESS = frozenset({"no-final-image"})


def find_unforeseen(elements: Mapping[str, Path], own: Path) -> str:
    """The first element that may install what is not known beforehand: one that is not ours."""
    return next(
        (
            name
            for name, folder in sorted(elements.items())
            if folder.parent != own and name not in _HARMLESS
        ),
        "",
    )


def find_loaders(spec: Spec) -> list[str]:
    """The packages of GRUB that a whole disk's boot loaders are made of."""
    return ["grub-pc-bin", *(["grub-efi-amd64-bin"] if spec.has_efi_loader else [])]


def list_requests(
    spec: Spec, elements: Collection[str], packages: Sequence[str]
) -> list[Sequence[str]]:
    """Each with the words of one apt-get install; `packages` are those of the spec."""
    requests = [packages]
    if spec.suite_facts.network_tool(spec.init) == "ifupdown":
        requests.append(["ifupdown"])
    if {"drbd", "drbd-service"} & set(elements):
        requests.append(["drbd-utils"])
    if "grub-menus" in elements:
        requests += [["initramfs-tools"], [spec.kernel]]
    requests += [["openssh-server"], ["tzdata"]]
    if spec.locale not in ("C", "POSIX") and not spec.locale.startswith("C."):
        requests.append(["locales"])
    if "cloud-init" in elements:
        requests.append(["cloud-init", "cloud-guest-utils", "sudo"])
    if "whole-disk" in elements:
        requests += [[package] for package in find_loaders(spec)]
    return requests
