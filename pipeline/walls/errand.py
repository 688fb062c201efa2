"""A part of this program that works in a cage: told by a file, answering by its last line.

The outer half is `send`, the inner one `carry_out`: what went wrong inside and can be mended comes
out as the same error. No program that runs beside it in the cage can say so in its place: the line
begins with a token that is in the order alone.
"""

import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.errors import (
    CommandFailed,
    EnvironmentFault,
    PipelineError,
    UsageError,
    VerificationError,
)
from pipeline.namespace import Mount
from pipeline.process import Walled
from pipeline.walls.cage import caged, caged_reader, place_in_cage

_TOKEN = "token"
_KEYS = ("brief", "details", "hint", "exit_code")
_KINDS = {
    kind.exit_code: kind
    for kind in (PipelineError, UsageError, EnvironmentFault, VerificationError)
}


def send(
    module: str,
    order: Mapping[str, Any],
    *,
    file: Path,
    room: Path,
    run: Callable[..., str],
    readable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
    mounts: Sequence[Mount] = (),
    keep_open: Sequence[int] = (),
    on_line: Callable[[str], None] | None = None,
    rights: Sequence[str] = (),
    after: Sequence[Sequence[object]] = (),
    mounts_files: bool = False,
) -> None:
    """Run a module of ours in a builder's cage with `order`, written to `file`.

    `rights` is a command line in front that takes rights away from it; the commands of `after` run
    in the same cage when it has ended well; `mounts_files` is that of `caged`. Raises the
    PipelineError that it ended with, or CommandFailed.
    """
    steps = [["cd", place_in_cage(ROOT)], [*rights, *_command(module, file)], *after]
    words = caged(
        steps[-1],
        room=room,
        readable=[file, *readable],
        writable=writable,
        mounts=mounts,
        before=steps[:-1],
        mounts_files=mounts_files,
    )
    with _told(order, file, words, is_shown=not mounts_files):
        run(words, on_line=on_line, keep_open=keep_open)


def send_reader(
    module: str,
    order: Mapping[str, Any],
    *,
    file: Path,
    run: Callable[..., str],
    writable: Iterable[Path],
    keep_open: Sequence[int] = (),
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a module of ours that only reads, as `send` does: in a reader's cage, where files of any
    size may be made in `writable`, and nothing else is possible.
    """
    words = caged_reader(
        _command(module, file), readable=[file], writable=writable, folder=ROOT, is_own=True
    )
    with _told(order, file, words, is_shown=False):
        run(words, on_line=on_line, keep_open=keep_open)


def _command(module: str, file: Path) -> list[object]:
    return [sys.executable, "-m", module, file]


@contextmanager
def _told(order: Mapping[str, Any], file: Path, words: Walled, *, is_shown: bool) -> Iterator[None]:
    """The order is written for a command that runs meanwhile; its error becomes ours."""
    token = f"{secrets.token_hex(16)} "
    file.write_text(json.dumps({**_rename(order, words.rename), _TOKEN: token}))
    if is_shown:
        file.chmod(0o644)  # the cage's root is nobody here
    try:
        yield
    except CommandFailed as error:
        last = error.details.splitlines()[-1:] or [""]
        if not last[0].startswith(token):
            raise
        table = json.loads(last[0].removeprefix(token))
        kind = _KINDS.get(table["exit_code"], PipelineError)
        raise kind(table["brief"], details=table["details"], hint=table["hint"]) from error


def _rename(value: Any, rename: Callable[[str], str]) -> Any:
    """The same order with paths as they are in the cage."""
    if isinstance(value, str):
        return rename(value)
    if isinstance(value, Mapping):
        return {key: _rename(inner, rename) for key, inner in value.items()}
    return [_rename(inner, rename) for inner in value] if isinstance(value, list | tuple) else value


def carry_out(work: Callable[[dict[str, Any]], None]) -> int:
    """The inner half: call `work` with the order of the command line; returns the exit status."""
    order = json.loads(Path(sys.argv[1]).read_text())
    token = order.pop(_TOKEN)
    try:
        work(order)
    except PipelineError as error:
        failure = error
    except OSError as error:  # of a tree that strangers made, or of a disk that is full
        failure = PipelineError(str(error))
    else:
        return 0
    table: dict[str, object] = {key: getattr(failure, key) for key in _KEYS}
    print(f"{token}{json.dumps(table)}", flush=True)
    return 1
