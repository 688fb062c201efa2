"""An administrator's machine of 2009 around one command, in namespaces of its own.

`python -m tests.host.old.lab FOLDER COMMAND...`: the mirror of FOLDER/srv is http://monmiroir:9999/,
FOLDER/boot is /boot, FOLDER/xen-tools is /etc/xen-tools where the machine has one, FOLDER/ring.gpg
is the keyring of archived releases; every request is noted in FOLDER/requests. Mounts and network
end with the command.
"""

import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.workshop import run_program

PORT = 9999
KEYRING = "/usr/share/keyrings/debian-archive-removed-keys.gpg"


def run_in_lab(folder: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command's end; its output and errors together."""
    inside = [sys.executable, "-m", "tests.host.old.lab", str(folder), *words]
    apart = ["unshare", "--mount", "--net", "--propagation", "private", "--"]
    return run_program([*apart, *inside], env, cwd=Path.cwd())


def main(folder: Path, words: list[str]) -> int:
    """Set the stage, run the command; its exit code."""
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost monmiroir\n")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for source, target in (
        (hosts, "/etc/hosts"),
        (folder / "boot", "/boot"),
        (folder / "ring.gpg", KEYRING),
        (folder / "xen-tools", "/etc/xen-tools"),
    ):
        if Path(target).exists():
            subprocess.run(["mount", "--bind", str(source), target], check=True)
    with open(folder / "requests", "a") as log:
        server = ThreadingHTTPServer(
            ("127.0.0.1", PORT), partial(_Answerer, log, directory=str(folder / "srv"))
        )
        Thread(target=server.serve_forever, daemon=True).start()
        code = subprocess.run(words, check=False).returncode
        server.shutdown()
    return code


class _Answerer(SimpleHTTPRequestHandler):
    def __init__(self, log: object, *arguments: object, **options: object) -> None:
        self._log = log
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def log_message(self, format: str, *arguments: object) -> None:
        """One line a request."""
        print(format % arguments, file=self._log, flush=True)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
