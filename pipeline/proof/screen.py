"""The screen of a guest: a VNC client fetches it as the emitted configuration serves it."""

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Finding, GuestFailed
from pipeline.files import write_durably
from pipeline.proof.agent import Agent
from pipeline.proof.checks import holds, unasked
from pipeline.proof.names import ROOM, SCREENSHOT
from pipeline.xen.devices import Framebuffer

SCREEN = "VNC shows the screen"
FIRST_PORT = 5900
_JPEG, _PIXELS = f"{ROOM}/screen.jpg", f"{ROOM}/screen.ppm.gz"


@dataclass(frozen=True)
class Picture:
    """Pixels of three bytes, red, green and blue, line by line."""

    width: int
    height: int
    pixels: bytes

    @property
    def colours(self) -> int:
        """How many different ones there are, 256 at most."""
        found: set[bytes] = set()
        for start in range(0, len(self.pixels), 3):
            found.add(self.pixels[start : start + 3])
            if len(found) >= 256:
                break
        return len(found)


@dataclass(frozen=True)
class Viewer:
    """A VNC client in the host; `place` is the server, ADDRESS:DISPLAY."""

    agent: Agent
    place: str

    def take(self) -> Picture:
        """What the screen shows now; raises GuestFailed when it shows nothing."""
        words = ["vncsnapshot", "-quiet", "-quality", "100", self.place, _JPEG]
        taken = self.agent.run(words, timeout_s=120)
        if taken.status:
            raise GuestFailed(f"vncsnapshot {self.place}: {taken.output[-300:]}")
        self.agent.demand(["sh", "-c", f"djpeg -pnm {_JPEG} | gzip -1 >{_PIXELS}"])
        return read_pixels(zlib.decompress(self.agent.read_whole(_PIXELS), wbits=31))


def look(agent: Agent, domain: str, screen: Framebuffer, folder: Path) -> list[Finding]:
    """The checks of a guest with a screen; its picture is written to `folder`."""
    display, viewer = find_display(agent, domain, screen)
    return [display, _look_once(viewer, folder)] if viewer else [display]


def find_display(agent: Agent, domain: str, screen: Framebuffer) -> tuple[Finding, Viewer | None]:
    """The check of where VNC is, and the client there, if it is right and the host has one."""
    if agent.run(["sh", "-c", "command -v vncsnapshot && command -v djpeg"]).status:
        why = "the host has no vncsnapshot and djpeg (vncsnapshot, libjpeg-turbo-progs)"
        return unasked(SCREEN, why, "asked by a VNC client"), None
    ask = 'xenstore-read "/local/domain/$(xl domid "$1")/console/vnc-port"'
    told = agent.run(["sh", "-c", ask, "sh", domain])
    port = told.output.strip()
    fixed = screen.vncdisplay is not None
    wanted = str(FIRST_PORT + (screen.vncdisplay or 0)) if fixed else f"{FIRST_PORT} or above"
    ok = port == wanted if fixed else port.isdigit() and int(port) >= FIRST_PORT
    display = holds("VNC display", f"port {wanted}", f"port {port}", ok=told.status == 0 and ok)
    if display.level != "ok":
        return display, None
    address = screen.vnclisten or "127.0.0.1"
    address = "127.0.0.1" if address in ("0.0.0.0", "::") else address
    return display, Viewer(agent, f"{address}:{int(port) - FIRST_PORT}")


def _look_once(viewer: Viewer, folder: Path) -> Finding:
    """A console has letters on it: a picture of one colour shows that nothing is drawn."""
    wanted = "a picture with something on it"
    try:
        picture = viewer.take()
    except GuestFailed as error:
        return holds(SCREEN, wanted, error.brief, ok=False)
    keep_picture(picture, folder)
    seen = f"{SCREENSHOT}, {picture.width}x{picture.height}, {picture.colours} colours"
    return holds(SCREEN, wanted, seen, ok=picture.colours > 1)


def keep_picture(picture: Picture, folder: Path) -> None:
    """The picture beside the proof."""
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / SCREENSHOT, render_png(picture))


def read_pixels(content: bytes) -> Picture:
    """A PPM of djpeg, ppm(5) with one byte a colour, or a PGM; ValueError for anything else."""
    head = re.match(rb"(P[56])\s(\d+) (\d+)\s255\s", content)
    if head is None:
        raise ValueError("not a picture as djpeg writes it")
    width, height, pixels = int(head[2]), int(head[3]), content[head.end() :]
    if head[1] == b"P5":
        pixels = bytes(value for value in pixels for _ in range(3))
    if len(pixels) != width * height * 3:
        raise ValueError("a picture that is cut off")
    return Picture(width, height, pixels)


def render_png(picture: Picture) -> bytes:
    """The picture as PNG (RFC 2083): 8 bits a colour, no filter."""
    row = picture.width * 3
    lines = (picture.pixels[at : at + row] for at in range(0, len(picture.pixels), row))
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
