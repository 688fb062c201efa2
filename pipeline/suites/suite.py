"""What a suite's facts are: the fields of `Suite`, with the meaning of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

InitName = Literal["systemd", "sysvinit"]
Bootstrap = Literal["parallel", "mmdebstrap", "debootstrap"]
HashName = Literal["yescrypt", "sha512", "md5"]

KEYRINGS = "/usr/share/keyrings"
# mke2fs -O wants the whole list: without "none" it would add the build host's own defaults.
EXT4_MODERN = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
# e2fsprogs before 1.43 (stretch) refuses metadata_csum.
EXT4_OLD = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,uninit_bg"
)
EXT3 = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file"
EXT2 = "none,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file"

# for every day, and for the day on which nothing can be installed any more
COMFORT = (
    *("vim-tiny", "less", "iputils-ping", "cron", "logrotate"),
    *("lsof", "rsync", "tcpdump"),
)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The facts of one release.

    `needs_merged_usr`: the bootstrap makes the links, else usrmerge brings perl (40 MB, 4 s).
    `kernels` maps an architecture to (lean kernel package, generic one), if it has any.
    `compressions` are those of the two on amd64, "" for not known: read in the packages of
    bullseye to trixie and focal to resolute, November 2026, which have the PVH note too.
    `hash_prefixes`: what its crypt() understands.
    `has_parallel_bootstrap`: its tree is known to be mmdebstrap's, on amd64.
    `supported_until`, an ISO date or "", is the last day that anybody is known to publish free
    security updates, LTS included. `xen_modules` maps an architecture to the package with the
    modules of its Xen kernel, where that is one of its own. `has_inrelease` is false where the
    signature is apart, in Release.gpg. `script` is debootstrap's.
    `own_xen` is the Xen that it shipped where that was xend's (3.0, 3.2). `has_run`: there is /run.
    `log_package` is the syslog daemon of sysvinit's guests with comfort.
    `has_old_tools`: module-init-tools before 3.5 (modules.dep names whole paths), mktemp without
    long options, find without -executable.
    """

    name: str
    distribution: Literal["debian", "ubuntu"]
    version: str
    init_default: InitName
    inits: tuple[InitName, ...]
    kernels: dict[str, tuple[str, str]]
    system_packages: dict[InitName, tuple[str, ...]]
    keyring: str = f"{KEYRINGS}/debian-archive-keyring.gpg"
    keyring_package: str = "debian-archive-keyring"
    components: tuple[str, ...] = ("main",)
    is_archived: bool = False
    security_suite: str = ""
    security_path: str = "debian-security"
    updates_suite: str = ""
    sources_form: Literal["one-line", "deb822"] = "one-line"
    console: str = "hvc0"
    disk_device: str = "xvda"
    nic_naming: Literal["eth", "enX"] = "eth"
    has_networkd: bool = False
    needs_merged_usr: bool = False
    password_hash: HashName = "sha512"
    hash_prefixes: tuple[str, ...] = ("$6$", "$5$", "$1$")
    ext4_features: str = EXT4_MODERN
    inode_size: int = 256
    default_fs: str = "ext4"
    filesystems: tuple[str, ...] = ("ext4", "ext3", "ext2", "xfs", "btrfs")
    default_locale: str = "C.UTF-8"
    openssh: tuple[int, int] = (9, 2)
    needs_vsyscall: bool = False
    libc_xen_package: str = ""
    has_parallel_bootstrap: bool = False
    supported_until: str = ""
    xen_modules: Mapping[str, str] = field(default_factory=dict)
    has_inrelease: bool = True
    script: str = ""
    kernel_version: tuple[int, int] = (6, 1)
    compressions: tuple[str, str] = ("", "")
    own_xen: str = ""
    has_run: bool = True
    has_old_tools: bool = False
    log_package: str = "rsyslog"

    def partition(self, number: int) -> str:
        """The name that its kernel gives a DomU's disk: /dev/xvda1, or /dev/sda1 in etch."""
        return f"/dev/{self.disk_device}{number}"

    def whole_disk(self, number: int) -> str:
        """The same for a full PC (HVM), whose disks are whole: 1 is /dev/xvda, 2 /dev/xvdb.

        Xen's QEMU has drives for the first four, none for partitions (xl-disk-configuration(5)).
        """
        return f"/dev/{self.disk_device[:-1]}{chr(ord('a') + number - 1)}"

    @property
    def checks_valid_until(self) -> bool:
        """Whether an outdated Release file is refused: always, but for archived suites."""
        return not self.is_archived

    @property
    def backports_suite(self) -> str:
        """The suite of its backports; archived releases and sid have none."""
        return f"{self.name}-backports" if self.updates_suite else ""

    @property
    def apt_knows_signed_by(self) -> bool:
        """Whether its sources.list may have signed-by= and check-valid-until=: apt 1.1, stretch."""
        return self.kernel_version >= (4, 9)

    @property
    def debootstrap_script(self) -> str:
        return self.script or self.name

    @property
    def accepts_sha1(self) -> bool:
        """Whether a signature with SHA-1 is taken: archived releases have no other."""
        return self.is_archived

    @property
    def has_path_filters(self) -> bool:
        """Whether its dpkg knows path-exclude: from 1.15.8, squeeze on (its changelog)."""
        return not self.has_old_tools

    @property
    def understands_ed25519(self) -> bool:
        """Whether sshd accepts ed25519 keys: from OpenSSH 6.5 (its release notes)."""
        return self.openssh >= (6, 5)

    @property
    def understands_security_keys(self) -> bool:
        """Whether sshd accepts FIDO keys (sk-...): from OpenSSH 8.2 (its release notes)."""
        return self.openssh >= (8, 2)

    def default_bootstrap(self, arch: str) -> Bootstrap:
        """The fastest program that is known to make the right base tree.

        docs/explanation/bootstrap.md says how that is known.
        Releases before wheezy have debootstrap's own scripts, which know their order of unpacking.
        """
        if not self.has_inrelease:
            return "debootstrap"
        return "parallel" if self.has_parallel_bootstrap and arch == "amd64" else "mmdebstrap"

    def merged_folders(self, arch: str) -> tuple[str, ...]:
        """The links into /usr that the bootstrap has to make, as debootstrap does; often none."""
        extra = {"amd64": ("lib32", "lib64", "libx32"), "i386": ("lib64", "libx32")}.get(arch, ())
        return ("bin", "sbin", "lib", *extra) if self.needs_merged_usr else ()

    def network_tool(self, init: InitName) -> Literal["networkd", "ifupdown"]:
        """What configures the network of a guest with this init."""
        return "networkd" if self.has_networkd and init == "systemd" else "ifupdown"

    def default_kernel(self, arch: str) -> str:
        """The leanest kernel package for a DomU; empty when the architecture has none."""
        return self.kernels.get(arch, ("", ""))[0]

    def generic_kernel(self, arch: str) -> str:
        """The kernel package that PV GRUB can load (the lean one may be LZ4, which it cannot)."""
        return self.kernels.get(arch, ("", ""))[1]

    def compression_of(self, kernel: str, arch: str) -> str:
        """How the payload of its kernel package is compressed; "" where that is not known."""
        if arch != "amd64" or not kernel.startswith("linux-image-"):
            return ""
        return self.compressions["-cloud-" not in kernel and self.distribution == "debian"]

    def base_packages(self, init: InitName, arch: str = "amd64") -> tuple[str, ...]:
        """What a lean DomU holds besides the essential packages; raises KeyError for no such init.

        On i386 old releases get libc6-xen too: their libc's TLS is slow under PV (Debian's wiki).
        """
        extra = (self.libc_xen_package,) if self.libc_xen_package and arch == "i386" else ()
        return self.system_packages[init] + extra

    def comfort_packages(self, init: object) -> tuple[str, ...]:
        """What `profile = "comfort"` adds: of the same name in every release from etch on.

        Under systemd the journal is the log.
        """
        return (*COMFORT, self.log_package) if init == "sysvinit" else COMFORT

    def mke2fs_features(self, fs: str) -> str:
        """The argument of `mke2fs -O` for ext2, ext3 or ext4; raises KeyError otherwise."""
        return {"ext4": self.ext4_features, "ext3": EXT3, "ext2": EXT2}[fs]
