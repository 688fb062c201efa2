"""Chromium without a screen and without a network, told what to do by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/: JSON between zero bytes, by two pipes.
"""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WORDS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-breakpad", "--disable-crash-reporter", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "about:blank"),
)
_SEEN = ("Network.requestWillBeSent", "Log.entryAdded", "Runtime.exceptionThrown")
# the least contrast of all texts that show, as WCAG 2.2 computes it: ratio, text, colours
_CONTRAST = """(() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => { for (let n = node; n; n = n.parentElement) {
      if (n.tagName === 'text')
        return parts(getComputedStyle(n.parentElement.querySelector('rect')).fill);
      const c = parts(getComputedStyle(n).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c.slice(0, 3); }
    return [255, 255, 255]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = [99, '', '', ''];
  for (let t = walker.nextNode(); t; t = walker.nextNode()) {
    const e = t.parentElement, style = getComputedStyle(e);
    if (!t.data.trim() || !e.getClientRects().length || e.tagName === 'title') continue;
    const front = parts(e.tagName === 'text' ? style.fill : style.color), back = ground(e);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, t.data.trim().slice(0, 60), String(front), String(back)];
  }
  return worst; })()"""
# what stands out of the window to the right, but in a box that scrolls by itself
_WIDE = """(() => [...document.querySelectorAll('body *')].filter((e) =>
    !e.closest('.scroll, svg') && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map((e) => e.outerHTML.slice(0, 120)))()"""


class Browser:
    """One page of a Chromium; `seen` are the requests and complaints since it was opened."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, os.fdopen(back, "rb")
        self._number, self._session, self._rest = 0, "", b""
        self.seen: list[dict[str, Any]] = []
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        order: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._to, json.dumps(order).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._back.fileno(), 1 << 16)
            assert more, "the browser has ended"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") in _SEEN or message.get("method") == "Runtime.consoleAPICalled":
            self.seen.append(message)
        return message

    def open(self, path: Path, *, width: int, theme: str = "light", media: str = "") -> None:
        self.seen.clear()
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=path.as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    @property
    def requests(self) -> list[str]:
        """What was asked for, pictures within the page apart."""
        sent = [one for one in self.seen if one["method"] == "Network.requestWillBeSent"]
        urls = [str(one["params"]["request"]["url"]) for one in sent]
        return [url for url in urls if not url.startswith("data:")]

    @property
    def complaints(self) -> list[dict[str, Any]]:
        return [one for one in self.seen if one["method"] != "Network.requestWillBeSent"]

    @property
    def least_contrast(self) -> tuple[float, str, str, str]:
        ratio, text, front, back = self.evaluate(_CONTRAST)
        return float(ratio), text, front, back

    @property
    def too_wide(self) -> list[str]:
        found = self.evaluate(_WIDE)
        width, room = self.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        return [*found, *([f"the page is {width} wide, its window {room}"] if width > room else [])]

    def open_details(self) -> None:
        self.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")

    def print(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF")["data"])

    def picture(self) -> bytes:
        """The whole page as a PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium in a network namespace without an interface; gone at the end with all its own."""
    there, back = os.pipe(), os.pipe()

    def place() -> None:
        copy = os.dup(back[1])
        os.dup2(there[0], 3)
        os.dup2(copy, 4)

    child = subprocess.Popen(
        ["unshare", "-rn", "chromium", f"--user-data-dir={profile}", *_WORDS],
        env={**os.environ, "TMPDIR": str(profile), "HOME": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=place,
        pass_fds=(3, 4),
        start_new_session=True,
    )
    os.close(there[0])
    os.close(back[1])
    try:
        yield Browser(there[1], back[0])
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        os.close(there[1])
