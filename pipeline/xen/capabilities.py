"""What a host's Xen can, by what it tells: xen_caps and virt_caps of `xl info`, words of sysfs.

Live migration logs which pages a guest changes: libxenguest's enable_logdirty (xg_sr_save.c) asks,
paging_log_dirty_enable (xen/arch/x86/mm/paging.c) answers. For PVH and HVM the processor's own page
tables do it (hap). A PV guest needs shadow page tables, which Debian builds Xen without since
XSA-495 deprecated them (4.17.7, 4.20.4; CONFIG_SHADOW_PAGING): mm/shadow/none.c answers EOPNOTSUPP,
and shadow_domctl EINVAL to the try after it, which is what xl shows. `xl info` has a word for them
since 4.13, when it learnt the word pv too.
"""

from collections.abc import Collection, Iterator, Mapping

from pipeline.errors import Finding

# where Linux shows them to whoever runs below Xen (its sysfs-hypervisor-xen)
PATH = "sys/hypervisor/properties/capabilities"


def read_info(text: str) -> dict[str, str]:
    """`xl info` or `xm info`: each line's word and what stands behind its colon."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def find_no_live(kind: str, info: Mapping[str, str]) -> Iterator[Finding]:
    """Why this Xen moves no guest of a type while it runs; nothing where `xl info` does not say."""
    words = info.get("virt_caps", "").split()
    if kind == "pv" and "pv" in words and "shadow" not in words:
        yield Finding(
            "error",
            "type",
            "this Xen has no shadow page tables (virt_caps of xl info), without which it cannot "
            "move a PV guest while it runs",
            "doit save and doit restore move it while it stands still; type = 'pvh' moves live",
        )


def find_unable(kind: str, arch: str, caps: Collection[str]) -> Iterator[Finding]:
    """Why this Xen starts no guest of a type and architecture; nothing where no caps are known."""
    if not caps:
        return
    if kind != "pv" and not has_hvm(caps):
        yield Finding(
            "error",
            "type",
            f"type {kind} needs VT-x or AMD-V, which Xen does not see here",
            "switch it on in the firmware (Intel VT-x, AMD SVM), or type=pv",
        )
    if kind == "pv" and arch == "i386" and not any(cap.endswith("x86_32p") for cap in caps):
        yield Finding(
            "error",
            "arch",
            "this Xen runs no 32-bit PV guests",
            "arch=amd64, type=pvh, or boot Xen with pv=32 where it was built with it",
        )


def has_hvm(caps: Collection[str]) -> bool:
    """Whether Xen uses the processor's virtualisation: PVH and HVM guests start."""
    return any(cap.startswith("hvm") for cap in caps)
