"""A guest that starts from its CD or the network: nobody can log in, so its first screen is read.

What SeaBIOS and QEMU's iPXE print themselves proves nothing, their words of failure are known, and
all else on the screen is of what they started.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import Finding
from pipeline.proof.agent import Agent
from pipeline.proof.checks import equal, holds, unasked
from pipeline.proof.names import SCREENSHOT
from pipeline.proof.screen import SCREEN, Picture, Viewer, keep_picture
from pipeline.proof.timeouts import patient
from pipeline.proof.vga_text import FONT_FILE, Font, read_font, read_lines

LOADED_S = 240.0
POLL_S = 3.0
# a loader's greeting stays for 15 s before its menu is drawn
STILL_S, SETTLED_S = 20.0, 90.0
OFFERED = "netboot.ipxe"
_OFFERED_LINE = "domu: {address} gave this script to {mac}"
_FIRMWARE = re.compile(
    r"SeaBIOS|Machine UUID|iPXE |//ipxe\.org|Press ESC|Press Ctrl-B|Booting from (DVD|ROM)"
    r"|Guest has not init|^Features:|^net\d: |^ +\[(Link|RXE|TXE):|^Configuring \(|^Next server:"
    r"|^Filename:|^tftp:|^\S+ : \d+ bytes|^Waiting for link"
)
_FAULT = re.compile(
    r"Boot failed|No bootable device|Booting from Hard|No more network|Nothing to boot"
    r"|\(http://ipxe\.org/[0-9a-f]{8}"
)
_TEXT_MODES = ((720, 400), (640, 400))
_LINES_SHOWN = 3


@dataclass(frozen=True)
class Screen:
    """Whose it is, the firmware's alone or of what it loaded, and what it says."""

    kind: Literal["firmware", "loaded", "failed"]
    said: str


def judge_screen(picture: Picture, lines: list[str]) -> Screen:
    """A picture and the lines that were read off it."""
    for line in lines:
        if _FAULT.search(line):
            return Screen("failed", line.strip())
    size = f"{picture.width}x{picture.height}, {picture.colours} colours"
    if not lines:
        is_drawn = (picture.width, picture.height) not in _TEXT_MODES and picture.colours > 1
        return Screen("loaded" if is_drawn else "firmware", f"graphics of {size}")
    loaded = [line.strip() for line in lines if not _FIRMWARE.search(line)]
    if not loaded:
        return Screen("firmware", lines[-1].strip())
    return Screen("loaded", " / ".join(loaded[:_LINES_SHOWN]))


def watch(viewer: Viewer, place: str, folder: Path, wanted: str = "") -> Finding:
    """What stands on the screen once it stands still; `wanted` must be on it. Kept as a picture."""
    font = read_font(viewer.agent.read_whole(FONT_FILE))
    name = f"VNC shows that it starts from {place}"
    expected = f"the line {wanted}" if wanted else "a screen that is not the firmware's"
    picture, screen = _wait_until_still(viewer, font)
    keep_picture(picture, folder)
    ok = screen.kind == "loaded" and wanted in screen.said
    return holds(name, expected, f"{SCREENSHOT}: {screen.said}", ok=ok)


def _wait_until_still(viewer: Viewer, font: Font) -> tuple[Picture, Screen]:
    """The screen that stays, the one of a failure, or the last one when the time is over."""
    end = time.monotonic() + patient(LOADED_S)
    last, since, loaded_at = Screen("firmware", ""), 0.0, 0.0
    while True:
        picture = viewer.take()
        screen, now = judge_screen(picture, read_lines(picture, font)), time.monotonic()
        if screen.kind == "loaded" and not loaded_at:
            loaded_at = now
        if screen != last:
            last, since = screen, now
        is_still = screen.kind == "loaded" and now - since > STILL_S
        if is_still or screen.kind == "failed" or (loaded_at and now - loaded_at > SETTLED_S):
            return picture, screen
        if now > end:
            return picture, screen
        time.sleep(POLL_S)


def offered_line(address: str, mac: str) -> str:
    """What the script that the test host offers says on the guest's screen."""
    return _OFFERED_LINE.format(address=address, mac=mac.lower())


def judge_service(log: str, mac: str, file: str) -> Iterator[Finding]:
    """dnsmasq's log of a guest that starts from the network."""
    granted = re.findall(rf"DHCPACK\(\S+\) (\S+) {re.escape(mac.lower())}", log)
    address = granted[-1] if granted else ""
    yield holds("address by DHCP", "a lease", address, ok=bool(granted))
    sent = re.findall(rf"sent \S*/(\S+) to {re.escape(address)}$", log, re.MULTILINE)
    first = sent[0] if address and sent else ""
    yield equal("TFTP", file, first)


def note_unseen(place: str, *, has_screen: bool, is_alone: bool) -> Iterator[Finding]:
    """What is not asked of such a guest, and why."""
    why = f"it starts from {place}: what is there lets nobody in"
    for name in ("SSH with the key", "system state", "kernel, modules, mounts, settings"):
        yield unasked(name, why)
    yield unasked(
        "xl shutdown", f"it starts from {place}: what is there may not know of Xen", "gone"
    )
    if not has_screen:
        yield unasked(SCREEN, "it has none: vnc = true gives it one", "its first screen")
    if place == "the network" and not is_alone:
        yield unasked("TFTP", "on a real dom0 its network is the host's own", "what it loads")


def see_runs(agent: Agent, domain: str) -> Finding:
    """The domain is there still, and goes now, without being asked."""
    reply = agent.run(["xl", "domid", domain])
    ended = agent.run(["xl", "destroy", domain])
    seen = "it runs" if reply.status == ended.status == 0 else reply.output.strip()
    return equal("xl create", "it runs", seen)
