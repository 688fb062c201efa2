"""Disk strings of xm: `phy:DEV,VDEV,MODE`, `file:PATH,...` and `tap:TYPE:PATH,...`."""

from __future__ import annotations

from pipeline.xen.devices import Disk
from pipeline.xen.text import SyntaxFault, Unsupported

# blktap's image types: aio, sync, vmdk, ram, qcow in Xen 3.2; vhd and qcow2 by 3.4.
_TAP_SINCE = {"qcow2": (3, 4), "vhd": (3, 4)}


def write_disk(disk: Disk, version: tuple[int, int]) -> str:
    """The disk as xm reads it. Raises Unsupported for formats and characters it cannot carry."""
    shown = ".".join(map(str, version))
    if "," in disk.target:
        raise Unsupported(f"disk {disk.target}: xm splits disk strings at every comma")
    if not disk.target:
        raise Unsupported(f"disk {disk.vdev}: xm has no empty CD drive, name an image")
    since = _TAP_SINCE.get(disk.format)
    if since is not None and version < since:
        raise Unsupported(
            f"disk format {disk.format}: Xen {shown} has no driver for it "
            f"(tap:{disk.format}: came with {since[0]}.{since[1]}); use raw"
        )
    scheme = f"tap:{disk.format}" if since else {"block": "phy", "file": "file"}[disk.kind]
    vdev = f"{disk.vdev}:cdrom" if disk.devtype == "cdrom" else disk.vdev
    return f"{scheme}:{disk.target},{vdev},{'w' if disk.access == 'rw' else 'r'}"


def read_disk(text: str) -> Disk:
    """A disk string of xm. Raises SyntaxFault, or Unsupported for what is no file or device."""
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != 3:
        raise SyntaxFault(f"disk {text!r}: it takes three fields, SOURCE,VDEV,MODE")
    source, vdev, mode = fields
    scheme, colon, path = source.partition(":")
    format_name = "raw"
    if scheme == "tap" and colon:
        kind, _, path = path.partition(":")
        format_name = {"aio": "raw", "qcow2": "qcow2", "vhd": "vhd"}.get(kind, "")
        if not format_name:
            raise Unsupported(f"disk {text!r}: our model has no {kind} images")
    elif scheme not in ("phy", "file") or not colon:
        raise Unsupported(f"disk {text!r}: {scheme}: is not a file or a device of the host")
    if scheme == "phy" and not path.startswith("/"):
        path = f"/dev/{path}"
    if mode not in ("r", "w", "w!"):
        raise SyntaxFault(f"disk {text!r}: mode {mode!r} is not r or w")
    name, _, mark = vdev.partition(":")
    return Disk(
        target=path,
        vdev=name.removeprefix("/dev/"),
        format=format_name,
        access="ro" if mode == "r" or mark == "cdrom" else "rw",
        devtype="cdrom" if mark == "cdrom" else "disk",
    )
