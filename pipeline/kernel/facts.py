"""What a kernel file says of itself: its version, compression and ELF notes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class KernelFacts:
    """What a kernel file says. `elf_notes` is None when the payload could not be unpacked.

    `compression` is that of the payload: none, gzip, bzip2, lzma, xz, lzo, lz4, zstd or unknown;
    `release` is what `uname -r` will say; `unread` says why there are no notes; sizes in bytes.
    """

    is_bzimage: bool
    version: str = ""
    compression: str = "none"
    elf_notes: Mapping[str, str] | None = None
    bits: int = 0
    size: int = 0
    unpacked_size: int = 0
    unread: str = field(default="", compare=False)

    @property
    def release(self) -> str:
        """The first word of the version, which names the module directory."""
        return self.version.split(" ")[0]
