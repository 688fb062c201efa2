"""How approx(8) and apt-cacher-ng(8) are configured and started.

Both answer http://127.0.0.1:PORT/debian, /debian-security and /ubuntu, and keep a copy of each file
at the same path below their cache folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.mirror.proxy.settings import LOCALHOST, Engine

PACKAGES = {"approx": "approx", "apt-cacher-ng": "apt-cacher-ng"}
# the package makes it, owned by a user of the engine's name: that user can reach it
HOMES = {"approx": Path("/var/cache/approx"), "apt-cacher-ng": Path("/var/cache/apt-cacher-ng")}
CONF = {"approx": "approx.conf", "apt-cacher-ng": "conf/acng.conf"}


@dataclass(frozen=True)
class Plan:
    """One proxy to run: what it is, where it listens, which names stand for which archives.

    `folder` is the cache as the proxy sees it, `user` whom it runs as ("" for who starts it),
    `bind` the address of its port ("" for all), `logs` a folder apart from the cache.
    """

    engine: Engine
    port: int
    folder: str
    upstreams: Mapping[str, str]
    user: str = ""
    bind: str = LOCALHOST
    logs: str = ""

    @property
    def conf(self) -> Path:
        """The configuration file, inside the cache folder."""
        return Path(self.folder) / CONF[self.engine]

    def render(self, owner: tuple[str, str]) -> str:
        """The configuration; `owner` is the user and group that the files belong to."""
        if self.engine == "approx":
            lines = [f"$cache {self.folder}", f"$user {owner[0]}", f"$group {owner[1]}"]
            # 0: a Release file or index is always asked for again, with If-Modified-Since
            lines += ["$interval 0", "$max_wait 30"]
            lines += [f"{name} {url}" for name, url in self.upstreams.items()]
        else:
            logs = self.logs or f"{self.folder}/conf/log"
            lines = [f"CacheDir: {self.folder}", f"LogDir: {logs}"]
            lines += [f"Port: {self.port}", "ForeGround: 1"]
            lines += [f"BindAddress: {self.bind}"] if self.bind else []
            lines += ["SupportDir: /usr/lib/apt-cacher-ng", "ReportPage: acng-report.html"]
            lines += ["PidFile:", "ExThreshold: 30", "DontCacheResolved:"]
            lines += [f"Remap-{name}: /{name} ; {url}" for name, url in self.upstreams.items()]
        return "".join(f"{line}\n" for line in lines)

    def argv(self) -> list[str]:
        """The command line: approx for one connection, apt-cacher-ng for all."""
        if self.engine == "approx":
            return ["approx", "-c", str(self.conf)]
        return ["apt-cacher-ng", "-c", str(self.conf.parent)]
