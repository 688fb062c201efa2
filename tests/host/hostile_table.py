"""The table of hostile guests: what each is, and what `doit check` has to say about it."""

import gzip
import stat

from tests.damages import remove
from tests.host.hostile_images import (
    ABI,
    OUTSIDE,
    PLACEHOLDER,
    Case,
    all_of,
    bombed,
    bz_image,
    chain,
    cpio,
    cut,
    deep,
    elf,
    filled,
    first_entry,
    initrd,
    kernel,
    linked,
    made,
    many,
    many_folders,
    named,
    poked,
    replaced,
    sparse,
    written,
)

_NAMES: dict[str, str | bytes] = {
    "quote": 'x"',
    "a debugfs command": 'x"\ndump -p <12> "OUT',
    "dump by a name": 'x"\ndump <2> "OUT',
    "rdump by a name": 'x"\nrdump <2> ".',
    "quit": '"\nquit "',
    "newline": "a\nb",
    "only newlines": "\n\n",
    "backslash": "a\\nb\\",
    "escape sequence": "\x1b]0;title\x07\x1b[2J",
    "carriage return": "\rroot:x:0:0\r",
    "not UTF-8": b"\xff\xfe\x80",
    "shell": "$(touch OUT);`touch OUT`",
    "options": "-rf --help",
    "format": "%s%n%1000000d",
    "blanks": "   ",
    "like debugfs's own answer": "debugfs: ls -p ",
    "right to left": "\u202egnp.exe",
    "255 bytes": "n" * 255,
    "a question mark and stars": "?*[a-z]{x,y}",
}
_FOLDERS = ("etc", "etc/cron.d", "root/.ssh", "boot", "boot/grub", f"lib/modules/{ABI}", "tmp")
_FORGED = {  # names as long as PLACEHOLDER that only an edited folder can hold
    "way out": "../../../../tmp/",
    "absolute": "/tmp/witness-abc",
    "slashes": "////////////////",
    "one way up": "../etc/passwd/xx",
    "zero bytes": "\0" * 16,
    "zero in it": "passwd\0.........",
}
_SPECIAL = {"pipe": stat.S_IFIFO, "device": stat.S_IFCHR, "disk": stat.S_IFBLK}
_PLACES = ("etc/passwd", "etc/shadow", "etc/hostname", "boot/grub/grub.cfg", "var/lib/dpkg/status")
_ANY_DAMAGE = "no ext2, ext3 or ext4|damaged|behind its end|no /etc|there is no inode|understood"

CASES: dict[str, Case] = {}
for number, (what, name) in enumerate(_NAMES.items()):
    for folder in (_FOLDERS[number % len(_FOLDERS)], _FOLDERS[(number + 3) % len(_FOLDERS)]):
        CASES[f"name: {what} in {folder}"] = Case(tree=named(folder, name))
for what, name in _FORGED.items():
    CASES[f"entry: {what}"] = Case(
        "an entry named", tree=named("etc", PLACEHOLDER), image=replaced(PLACEHOLDER, name)
    )
CASES["entry: way out among the modules"] = Case(
    "an entry named",
    tree=named(f"lib/modules/{ABI}", PLACEHOLDER),
    image=replaced(PLACEHOLDER, "../../../../tmp/"),
)
for what, kind in _SPECIAL.items():
    for place in _PLACES:
        CASES[f"{what}: {place}"] = Case("FAIL", tree=made(place, kind))
for place in (*_PLACES, "etc/fstab"):
    CASES[f"folder: {place}"] = Case("FAIL", tree=made(place, stat.S_IFDIR))
CASES |= {
    f"link to the host: {place}": Case("FAIL", tree=linked(place, f"{OUTSIDE}/secret"))
    for place in (*_PLACES, "etc/ssh/sshd_config", "root/.ssh/authorized_keys", "etc/resolv.conf")
}
CASES |= {
    "link: /etc to the host": Case("no /etc in it", tree=linked("etc", OUTSIDE)),
    "link: /etc to itself": Case("no /etc in it", tree=linked("etc", "etc")),
    "link: /etc is a file": Case(
        "no /etc in it", tree=all_of(lambda tree: remove(tree / "etc"), written("etc", "x"))
    ),
    "link: no /etc": Case("no /etc in it", tree=lambda tree: remove(tree / "etc")),
    "link: above the root": Case(tree=linked("etc/hostname", "../" * 30 + "etc/hosts")),
    "link: a hundred": Case("hostname", tree=chain),
    "link: a loop of two": Case(
        "hostname", tree=all_of(linked("etc/hostname", "other"), linked("etc/other", "hostname"))
    ),
    "link: 980 letters": Case("hostname", tree=linked("etc/hostname", "a/" * 490)),
    "link: to /proc": Case("hostname", tree=linked("etc/hostname", "/proc/self/environ")),
    "link: .ssh to the host": Case(tree=linked("root/.ssh", OUTSIDE)),
    "link: modules to the host": Case("modules", tree=linked("lib/modules", OUTSIDE)),
    "link: modules to the root": Case(tree=linked(f"lib/modules/{ABI}/kernel", "/")),
    "link: home to the host": Case(tree=linked("home/user/.ssh", OUTSIDE)),
    "size: a sparse terabyte": Case(
        "1099511627776 bytes", tree=sparse("etc/passwd", 1 << 40), features="extents,huge_file"
    ),
    "size: a claimed exabyte": Case(
        "/etc/shadow: ", debugfs=("sif /etc/shadow size 0x1000000000000000",)
    ),
    "size: all bits": Case("/etc/passwd: ", debugfs=("sif /etc/passwd size 0xffffffffffffffff",)),
    "size: a sparse kernel": Case(
        "bytes, more than", tree=sparse(f"boot/vmlinuz-{ABI}", 1 << 36), features="extents"
    ),
    "size: a sparse log of packages": Case(
        "bytes, more than", tree=sparse("var/lib/dpkg/status", 1 << 34)
    ),
    "size: a sparse file with indirect blocks": Case(
        "bytes, more than", tree=sparse("etc/passwd", 1 << 32), features="^extents,^64bit"
    ),
    "size: 15 MiB of holes in /etc": Case(tree=all_of(sparse("etc/hosts", 15 << 20))),
    "size: a folder": Case("/etc: |no /etc", debugfs=("sif /etc size 0x100000000",)),
    "size: more holes than may be read": Case(
        "bytes, more than",
        tree=all_of(
            *(all_of(written(f"etc/{n}", ""), sparse(f"etc/{n}", 15 << 20)) for n in "abcdef")
        ),
    ),
    "deep: 300 folders": Case("folders deeper than", tree=deep),
    "many: files in /etc": Case(tree=many("etc/x", 3000)),
    "many: kernels": Case("kernels", tree=many_folders("lib/modules", 300)),
    "many: kernels in /boot": Case("FAIL", tree=many("boot", 1500, "vmlinuz-{}")),
    "folder: a hard link to itself": Case(
        "stands in several places", debugfs=("link /etc /etc/loop",)
    ),
    "folder: a hard link to the root": Case(debugfs=("link / /etc/loop",)),
    "folder: twice": Case(
        "stands in several places",
        debugfs=("link /etc/cron.d /etc/one", "link /etc/cron.d /etc/two"),
    ),
    "folder: an entry without an inode": Case(
        "there is no inode", tree=named("etc", PLACEHOLDER), image=first_entry("<I", 0, 0xFFFFFFF0)
    ),
    "folder: an entry of length 0": Case(
        "damaged folder", tree=named("etc", PLACEHOLDER), image=first_entry("<H", 4, 0)
    ),
    "folder: an entry that is too long": Case(
        "damaged folder", tree=named("etc", PLACEHOLDER), image=first_entry("<H", 4, 0xFFFC)
    ),
    "folder: a name longer than its entry": Case(
        "damaged folder", tree=named("etc", PLACEHOLDER), image=first_entry("<B", 6, 255)
    ),
    "folder: an entry that names a journal": Case(
        tree=named("etc", PLACEHOLDER), image=first_entry("<I", 0, 8)
    ),
    "inode: the root is a file": Case(_ANY_DAMAGE, debugfs=("sif / mode 0100644",)),
    "inode: the root is nothing": Case(_ANY_DAMAGE, debugfs=("clri /",)),
    "inode: /etc is nothing": Case(_ANY_DAMAGE, debugfs=("clri /etc",)),
    "inode: /etc/passwd is nothing": Case("FAIL", debugfs=("clri /etc/passwd",)),
    "inode: a strange kind": Case("FAIL", debugfs=("sif /etc/passwd mode 0170644",)),
    "inode: encrypted": Case("encrypted", debugfs=("sif /etc/passwd flags 0x80800",)),
    "inode: in its inode": Case("in its inode", debugfs=("sif /etc/passwd flags 0x10000000",)),
    "inode: extents without extents": Case(
        "extents are damaged", debugfs=("sif /etc/passwd block[0] 0", "sif /etc/passwd size 9000")
    ),
    "inode: extents of depth 9": Case(
        "extents are damaged", debugfs=("sif /etc/passwd block[1] 0x90004",)
    ),
    "inode: 65535 extents": Case(
        "extents are damaged", debugfs=("sif /etc/passwd block[0] 0xfffff30a",)
    ),
    "inode: extents behind the end": Case(
        "behind its end", debugfs=("sif /etc/passwd block[5] 0x7fffffff",)
    ),
    "inode: an indirect block of itself": Case(
        debugfs=("sif /etc/passwd size 1000000", "sif /etc/passwd block[IND] 300"),
        image=lambda image: poked(300 * 1024, "<256I", *([300] * 256))(image),
        features="^extents,^64bit",
    ),
    "inode: indirect blocks behind the end": Case(
        "behind its end",
        debugfs=("sif /etc/passwd size 9000000", "sif /etc/passwd block[DIND] 0x7fffffff"),
        features="^extents,^64bit",
    ),
    "inode: an empty link": Case(
        tree=linked("etc/hostname", "hosts"), debugfs=("sif /etc/hostname size 0",)
    ),
    "inode: a link of a gigabyte": Case(
        "bytes, more than",
        tree=linked("etc/hostname", "hosts"),
        debugfs=("sif /etc/hostname size 0x40000000",),
    ),
}
for what, change in {
    "no magic": poked(1024 + 0x38, "<H", 0),
    "blocks of 2^41 bytes": poked(1024 + 0x18, "<I", 31),
    "no inodes in a group": poked(1024 + 0x28, "<I", 0),
    "no inodes": poked(1024, "<I", 0),
    "inodes of 0 bytes": poked(1024 + 0x58, "<H", 0),
    "inodes of 64 KiB": poked(1024 + 0x58, "<H", 0xFFFF),
    "unknown features": poked(1024 + 0x60, "<I", 0xFFFFFFFF),
    "descriptors of 0 bytes": poked(1024 + 0xFE, "<H", 0),
    "another first block": poked(1024 + 0x14, "<I", 0xFFFFFFF0),
    "a table behind the end": poked(2048 + 8, "<I", 0xFFFFFFF0),
    "a table of zeros": poked(2048, "<256I", *([0] * 256)),
    "all zeros": filled(b"\0"),
    "all ones": filled(b"\xff"),
    "no superblock": filled(b"\xff", 1024, 2048),
    "text": filled(b"root:x:0:0\n"),
    "empty": cut(0),
    "1 KiB": cut(1024),
    "1500 bytes": cut(1500),
    "2 KiB": cut(2048),
    "10 KiB": cut(10240),
}.items():
    CASES[f"superblock: {what}"] = Case(_ANY_DAMAGE, image=change)
CASES |= {
    "superblock: 2^32 inodes": Case("FAIL", image=poked(1024, "<I", 0xFFFFFFFF)),
    "superblock: 2^32 blocks": Case("FAIL", image=poked(1024 + 4, "<I", 0xFFFFFFFF)),
    "superblock: no blocks in a group": Case("FAIL", image=poked(1024 + 0x20, "<I", 0)),
    "superblock: a volume name of escape sequences": Case(
        image=poked(1024 + 0x78, "<QQ", 0x1B5B324A1B5B324A, 0x0A0A0A0A0A0A0A0A)
    ),
    "superblock: cut in the middle": Case("FAIL|behind its end", image=cut(6 << 20)),
    "text: passwd of newlines": Case(tree=written("etc/passwd", "\n" * 900_000)),
    "text: passwd of colons": Case(tree=written("etc/passwd", ":" * 900_000)),
    "text: passwd too long": Case(
        "too long", tree=written("etc/passwd", "a:x:1:1:a:/a:/a\n" * 90_000)
    ),
    "text: passwd not UTF-8": Case(tree=written("etc/passwd", b"\xff\xfe:x:1:1::/\xff:\n" * 100)),
    "text: homes": Case(
        tree=written(
            "etc/passwd",
            'a:x:1:1::/"\nb:x:1:1::/../../..:\nc:x:1:1::' + "/a" * 9000 + ":\nd:x:2:2::/\x1b[2J:\n",
        )
    ),
    "text: shadow of 20000 accounts": Case(
        "has a password",
        tree=written("etc/shadow", "".join(f"u{n}:x\x1b[2J:\n" for n in range(20_000))),
    ),
    "text: apt.conf of newlines": Case(tree=written("etc/apt/apt.conf.d/x", "\n" * 900_000)),
    "text: resolv.conf of newlines": Case(tree=written("etc/resolv.conf", "\n" * 900_000)),
    "text: a line of sshd_config of blanks": Case(
        tree=written("etc/ssh/sshd_config", "A " + " " * 400_000 + "x\n")
    ),
    "text: sshd_config includes itself": Case(
        "with all that it includes",
        tree=all_of(
            written("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*\n"),
            *(
                written(f"etc/ssh/sshd_config.d/{n}", "Include /etc/ssh/sshd_config.d/*\n" * 9)
                for n in range(9)
            ),
        ),
    ),
    "text: fstab of digits": Case(
        tree=written("etc/fstab", "/dev/" + "1" * 400_000 + "x / ext4 a 0 0\n")
    ),
    "text: a line of grub.cfg of quotes": Case(
        "more than 4096", tree=written("boot/grub/grub.cfg", 'menuentry "' + '" "' * 100_000 + "\n")
    ),
    "text: grub.cfg with an index of 5000 digits": Case(
        tree=written(
            "boot/grub/grub.cfg", f'set default={"9" * 4000}\nmenuentry "x" {{\n linux /x\n}}\n'
        )
    ),
    "text: grub.cfg names the way out": Case(
        tree=written("boot/grub/grub.cfg", 'menuentry "x" {\n linux /../../../../host/secret\n}\n')
    ),
    "text: menu.lst of braces": Case(tree=written("boot/grub/menu.lst", "}\n" * 300_000)),
    "text: modules.dep not UTF-8": Case(
        tree=written(f"lib/modules/{ABI}/modules.dep", b"\xff/\xfe.ko:\n" * 50)
    ),
    "text: modules.dep leads out": Case(
        tree=written(f"lib/modules/{ABI}/modules.dep", "../../../../../host/x.ko:\n/a\0b/c.ko:\n")
    ),
    "text: modules.dep of 90000 folders": Case(
        "it names 90000 folders",
        tree=written(
            f"lib/modules/{ABI}/modules.dep", "".join(f"{n}/x.ko:\n" for n in range(90_000))
        ),
    ),
    "text: modules.dep of one path": Case(
        tree=written(f"lib/modules/{ABI}/modules.dep", "../" * 300_000 + "x.ko:\n")
    ),
    "text: a package without a name": Case(
        "a package without", tree=written("var/lib/dpkg/status", "Status: install ok installed\n")
    ),
    "text: status of newlines": Case(tree=written("var/lib/dpkg/status", "\n" * 3_000_000)),
    "text: 60000 packages": Case(
        tree=written(
            "var/lib/dpkg/status",
            "".join(
                f"Package: p{n}\nStatus: a b installed\nVersion: 1\nArchitecture: a\n\n"
                for n in range(60_000)
            ),
        )
    ),
    "text: debconf of newlines": Case(
        tree=written("var/cache/debconf/config.dat", "\n" * 3_000_000)
    ),
    "text: a network file of brackets": Case(
        tree=written("etc/systemd/network/10-card0.network", "[" * 900_000 + "\n=\n=\n")
    ),
    "text: hosts of 200000 lines": Case(tree=written("etc/hosts", "::1 a\n" * 170_000)),
    "key: a host key with a password": Case(
        "host keys",
        tree=all_of(
            written(
                "etc/ssh/ssh_host_rsa_key",
                "-----BEGIN " + "RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
                "DEK-Info: AES-128-CBC,00000000000000000000000000000000\n\nAAAA\n"
                "-----END RSA PRIVATE KEY-----\n",
            ),
            written("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA x\n"),
        ),
    ),
    "key: a host key of a megabyte": Case(
        "host keys",
        tree=all_of(
            written(
                "etc/ssh/ssh_host_rsa_key", "-----BEGIN " + "PRIVATE KEY-----\n" + "A" * 900_000
            ),
            written("etc/ssh/ssh_host_rsa_key.pub", "\x1b[2J\n"),
        ),
    ),
    "kernel: garbage": Case("the kernel: ", tree=kernel(b"\x90" * 4096)),
    "kernel: empty": Case("no /boot", tree=kernel(b"")),
    "kernel: a bzImage cut off": Case(
        "the kernel: |no /boot|notes", tree=kernel(b"\0" * 0x202 + b"HdrS")
    ),
    "kernel: a bzImage of its head": Case("cut off", tree=kernel(b"\0" * 0x202 + b"HdrS\x0f\x02")),
    "kernel: 65535 note segments": Case(
        "more ELF segments", tree=kernel(bz_image(elf(65535, 1 << 16)))
    ),
    "kernel: a note of exabytes": Case("more ELF notes", tree=kernel(bz_image(elf(1, 1 << 62)))),
    "kernel: half an xz": Case("damaged|notes", tree=kernel(bz_image(b"\xfd7zXZ\0\0\4" * 9))),
    "kernel: a version of escape sequences": Case(
        tree=kernel(bz_image(b"", setup=b"\x1b[2J" * 120))
    ),
    "initrd: a negative size": Case("damaged cpio header", tree=initrd(cpio("-0000100"))),
    "initrd: a name of a negative length": Case(
        "damaged cpio header", tree=initrd(cpio("00000000", "-000006e"))
    ),
    "initrd: a huge size": Case("ends behind the archive", tree=initrd(cpio("ffffffff"))),
    "initrd: garbage": Case("the initrd: ", tree=initrd(b"\x90" * 99)),
    "initrd: packed 50 times": Case(
        "more than once", tree=initrd(gzip.compress(gzip.compress(gzip.compress(b"x"))))
    ),
    **{
        f"kernel: a bomb of {kind}": Case("more than 512 MiB", tree=bombed(kind))
        for kind in ("gzip", "xz", "zstd", "lz4")
    },
}
