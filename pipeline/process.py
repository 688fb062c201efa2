"""run(): the only place that starts a process.

A command is a list, never a shell string; its standard input is closed; it runs with LC_ALL=C.UTF-8
and an explicit PATH in a process group of its own, so that an interruption ends all of it.
"""

import errno
import os
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline import ROOT
from pipeline.console.progress import print_line
from pipeline.diagnosis import explain_failure
from pipeline.errors import CommandFailed, EnvironmentFault, PipelineError
from pipeline.interruption import PROGRAMS, at_interruption, refuse_if_ending

SILENCE_S = 1800.0
REMIND_S = 120.0
MOST_BYTES = 256 << 20
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 16


def read_chunks(
    descriptor: int,
    program: str,
    *,
    silence_s: float | None = None,
    remind: Callable[[str], object] = lambda _line: None,
    remind_s: float = REMIND_S,
    most_bytes: int = MOST_BYTES,
) -> Iterator[bytes]:
    """The output of a program until it is closed; `remind` gets a line in a long silence.

    Raises PipelineError after `silence_s` seconds without a byte (None waits on), and for more than
    `most_bytes`.
    """
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    silent_s, total = 0.0, 0
    while True:
        wait_s = remind_s if silence_s is None else min(remind_s, silence_s - silent_s)
        if not poller.poll(wait_s * 1000):
            silent_s += wait_s
            if silence_s is not None and silent_s >= silence_s:
                raise PipelineError(
                    f"{program} has printed nothing for {silence_s / 60:.0f} minutes and was ended",
                    hint="the end of its log says where it was",
                )
            remind(
                f"     {program}: nothing printed for {silent_s / 60:.0f} minutes, still waiting"
            )
            continue
        silent_s = 0.0
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            return
        total += len(chunk)
        if total > most_bytes:
            raise PipelineError(
                f"{program} printed more than {most_bytes >> 20} MiB and was ended",
                hint="the end of its log says what",
            )
        yield chunk


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same by lines; one that is too long comes in pieces."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
        if len(rest) > _LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READ_BACK = 400  # lines of a failure that are searched for its cause

_PASSED_ON = tuple(
    "HOME USER TMPDIR http_proxy https_proxy no_proxy SSL_CERT_FILE DOMU_OFFLINE".split()
)

# all that a program behind walls gets of the caller's environment: http_proxy may hold a password
_BEHIND_WALLS = {"HOME": "/root", "USER": "root"}

Daemon = subprocess.Popen[bytes]
TimeoutExpired = subprocess.TimeoutExpired


class Walled(list[str]):
    """A command line behind the programs that build its walls; messages and logs show `inner`.

    `rename` gives a text with paths as they are behind them.
    """

    def __init__(
        self, words: Iterable[str], inner: Iterable[object], rename: Callable[[str], str] = str
    ) -> None:
        super().__init__(words)
        self.rename = rename
        self.inner = [str(word) for word in inner]

    def tell(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment that the command gets."""
        return {name: self.rename(value) for name, value in env.items()}


_live: set[subprocess.Popen[bytes]] = set()
_live_lock = threading.RLock()  # a signal's handler may come while its own thread holds it


def environment(
    extra: Mapping[str, str] | None = None, *, is_walled: bool = False
) -> dict[str, str]:
    """The environment of every command: a fixed PATH and locale, the few names that must pass."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    kept = dict(_BEHIND_WALLS) if is_walled else kept
    return {**kept, "PATH": PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC", **(extra or {})}


def find_tool(name: str) -> str | None:
    """The full path of a program on the pipeline's own PATH, or None."""
    return shutil.which(name, path=PATH)


def require_tools(packages: Mapping[str, str]) -> None:
    """Check that programs are there; `packages` maps each to its Debian package.

    Raises EnvironmentFault naming all that are missing at once.
    """
    missing = {tool: package for tool, package in packages.items() if find_tool(tool) is None}
    if missing:
        wanted = " ".join(sorted(set(missing.values())))
        raise EnvironmentFault(
            f"missing programs: {', '.join(sorted(missing))}",
            hint=f"apt-get install --no-install-recommends {wanted}",
        )


def run(
    argv: Sequence[object],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
    accept: tuple[int, ...] = (0,),
    is_cleanup: bool = False,
    keep_open: Sequence[int] = (),
) -> str:
    """Run a command to its end and return its standard output and error, merged.

    `log` is appended to; `on_line` sees each line as it comes; only an `is_cleanup` command still
    starts during an interruption; the descriptors `keep_open` are inherited. Raises CommandFailed
    with the last lines and a cause where one is known, EnvironmentFault without the program. What
    runs behind walls may not be silent for ever.
    """
    words = [str(word) for word in argv]
    is_walled = isinstance(argv, Walled)
    shown = getattr(argv, "inner", words)
    with _live_lock:
        if not is_cleanup:
            refuse_if_ending()
        child = _start(
            words,
            cwd=cwd,
            env=argv.tell(env or {}) if isinstance(argv, Walled) else env,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            keep_open=keep_open,
            is_walled=is_walled,
        )
        _live.add(child)
    with _ending(child):
        lines = _follow(child, shown, log=log, stdin=stdin, on_line=on_line, is_walled=is_walled)
        status = child.wait()
    if status not in accept:
        refuse_if_ending()  # it was killed, it did not fail
        raise _failure(shown, status, deque(lines, _READ_BACK), log)
    return "".join(lines)


@contextmanager
def started(
    argv: Sequence[str | Path], *, log: Path, keep_open: Sequence[int] = ()
) -> Iterator[Callable[[], bool]]:
    """A command that runs while the block does and is killed at its end; yields whether it lives.

    What it prints goes to the end of `log`; it inherits the descriptors `keep_open`.
    """
    words = [str(word) for word in argv]
    with open_log(log) as journal, _live_lock:
        refuse_if_ending()
        journal.write(f"+ {shlex.join(words)}\n".encode())
        journal.flush()
        child = _start(words, cwd=None, env=None, output=journal, keep_open=keep_open)
        _live.add(child)
    with _ending(child):
        yield lambda: child.poll() is None


def serve_connection(argv: Sequence[str | Path], connection: socket.socket) -> None:
    """inetd's way: a program whose standard input and output are an accepted connection."""
    words = [str(word) for word in argv]
    with _live_lock:
        refuse_if_ending()
        child = _start(
            words, cwd=None, env=None, stdin=connection.fileno(), output=connection.fileno()
        )
        _live.add(child)
    with _ending(child):
        child.wait()


@contextmanager
def _ending(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A child that is dead when the block ends, whatever ended it."""
    try:
        yield
    finally:
        _end(child)
        with _live_lock:
            _live.discard(child)


def start_daemon(argv: Sequence[str | Path], *, log: Path, is_tethered: bool) -> Daemon:
    """A program that goes on beside ours, or after it; what it prints goes to `log`.

    A tethered one has a pipe as its standard input that closes when our process ends, however it
    ends: it has to end then (PR_SET_PDEATHSIG would look at the thread that started it).
    """
    words = [str(word) for word in argv]
    refuse_if_ending()
    with open_log(log) as journal:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE if is_tethered else subprocess.DEVNULL,
            stdout=journal,
            stderr=subprocess.STDOUT,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )


def become(argv: Sequence[str], *, keep: Sequence[str] = ()) -> None:
    """Replace this process by a program that talks with the person at the terminal (execve(2)).

    `keep` are further variables of the environment that it gets.
    """
    program = find_tool(argv[0])
    if program is None:
        raise EnvironmentFault(f"{argv[0]} is not installed")
    kept = {name: os.environ[name] for name in ("TERM", *keep) if name in os.environ}
    # handlers of signals go with execve(2); in a thread, where this runs, none can be set
    os.execve(program, [*argv], environment(kept))


def end_all() -> None:
    """Kill every command that runs now; for interruptions, after which no other starts."""
    with _live_lock:
        children = list(_live)
    for child in children:
        _kill(child)  # its pipe is left to the thread that reads it


at_interruption(end_all, PROGRAMS)


def open_log(path: Path, *, is_new: bool = False) -> IO[bytes]:
    """A log to add to, emptied first if it `is_new`; never through a link or into a FIFO."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
        raise PipelineError(f"{path} is no plain file, no log", hint="move it away") from None
    stream = open(descriptor, "ab")  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise PipelineError(f"{path} is no plain file, no log", hint="move it away")
    if is_new:
        stream.truncate(0)
    return stream


def _start(
    words: list[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: int = subprocess.DEVNULL,
    output: int | IO[bytes] = subprocess.PIPE,
    keep_open: Sequence[int] = (),
    is_walled: bool = False,
) -> subprocess.Popen[bytes]:
    program = find_tool(words[0])
    if program is None:
        raise EnvironmentFault(
            f"{words[0]} is not installed", hint="run ./doit once: it names the package"
        )
    # pdeathsig: a command must not outlive a build that was killed
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", program, *words[1:]],
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT if stdin < 0 else None,  # a connection is for the answer alone
        cwd=cwd,
        env=environment(env, is_walled=is_walled),
        start_new_session=True,
        pass_fds=keep_open,
    )


def _follow(
    child: subprocess.Popen[bytes],
    words: list[str],
    *,
    log: Path | None,
    stdin: bytes | None,
    on_line: Callable[[str], None] | None,
    is_walled: bool,
) -> list[str]:
    assert child.stdout is not None
    if stdin is not None and child.stdin is not None:
        feeder = threading.Thread(target=_feed, args=(child, stdin), daemon=True)
        feeder.start()
    parts: list[bytes] = []
    begun = time.monotonic()
    silence_s = SILENCE_S if is_walled else None
    pieces = read_chunks(child.stdout.fileno(), words[0], silence_s=silence_s, remind=print_line)
    with open_log(log) if log else open(os.devnull, "ab") as journal:
        journal.write(f"+ {shlex.join(words)}\n".encode())
        for raw in split_lines(pieces) if on_line else pieces:
            journal.write(raw)
            journal.flush()
            parts.append(raw)
            if on_line:
                on_line(raw.decode("utf-8", "replace"))
        seconds = time.monotonic() - begun
        journal.write(f"= {words[0]}: {seconds:.2f} s\n".encode())
    return b"".join(parts).decode("utf-8", "replace").splitlines(keepends=True)


def _feed(child: subprocess.Popen[bytes], content: bytes) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.write(content)
        child.stdin.close()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the command's whole process group if it still runs, and reap it."""
    _kill(child)
    if child.stdout:
        child.stdout.close()


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _failure(words: list[str], status: int, tail: deque[str], log: Path | None) -> CommandFailed:
    error = CommandFailed(words, status=status, output="".join(tail), log=str(log or ""))
    explain_failure(error)
    return error
