"""Fetching over HTTP: whole and checked, or one clear error."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from pipeline.canonical import CHUNK, digest_file
from pipeline.errors import PipelineError, VerificationError
from pipeline.progress import progress_bar

T = TypeVar("T")

TIMEOUT_S = (10, 30)
ATTEMPTS = 3
BAR_FROM_BYTES = 4 << 20


class NotFound(PipelineError):
    """The mirror has no such file."""


def without_credentials(url: str) -> str:
    """The URL fit for a log or an error: user and password left out."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host))


def fetch_bytes(url: str, *, limit: int = 16 << 20) -> bytes:
    """A small file's content, at most `limit` bytes; raises PipelineError or NotFound."""
    if url.startswith("file:"):
        return _local(url).read_bytes()
    return _retry(url, lambda: _collect(url, limit))


def fetch_file(url: str, target: Path, *, size: int, sha256: str) -> Path:
    """Fetch into `target`; VerificationError unless size in bytes and sha256 (hex) match.

    Nothing appears at `target` unless it is right.
    """
    if target.is_file() and target.stat().st_size == size and digest_file(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        if url.startswith("file:"):
            shutil.copyfile(_local(url), part)
        else:
            _retry(url, lambda: _download(url, part, size))
        _check(url, part, size=size, sha256=sha256)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _collect(url: str, limit: int) -> bytes:
    sink = io.BytesIO()
    _get(url, limit, sink.write)
    return sink.getvalue()


def _download(url: str, part: Path, size: int) -> None:
    with open(part, "wb") as stream:
        if size < BAR_FROM_BYTES:
            _get(url, size, stream.write)
            return
        name = url.rpartition("/")[2]
        with progress_bar(f"fetching {name}", total=size, unit="B") as bar:

            def write(piece: bytes) -> None:
                stream.write(piece)
                bar.advance(len(piece))

            _get(url, size, write)


def _check(url: str, part: Path, *, size: int, sha256: str) -> None:
    got, found = part.stat().st_size, digest_file(part)
    if got != size or found != sha256:
        seen = f"{got} of {size} bytes" if got != size else f"sha256 {found[:16]}..."
        raise VerificationError(
            f"{without_credentials(url)}: wrong bytes ({seen}, expected {sha256[:16]}...)",
            hint="the mirror or its proxy served something else than it signed; purge the proxy's "
            "copy, or build again with snapshot_max_age=0",
        )


def _retry(url: str, attempt: Callable[[], T]) -> T:
    """Try again on network trouble, three times at most."""
    import requests  # 90 ms, only where something is fetched

    trouble = ""
    for number in range(ATTEMPTS):
        time.sleep(number * 0.5)
        try:
            return attempt()
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            trouble = type(error).__name__
        except requests.RequestException as error:
            raise PipelineError(
                f"{without_credentials(url)}: {type(error).__name__}", hint="check mirror="
            ) from error
    raise PipelineError(
        f"{without_credentials(url)}: no answer ({trouble}, tried {ATTEMPTS} times)",
        hint="check that the mirror or its proxy runs, or choose another with mirror=URL",
    )


def _get(url: str, limit: int, write: Callable[[bytes], object]) -> None:
    import requests

    shown = without_credentials(url)
    with requests.get(url, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == 404:
            raise NotFound(
                f"{shown}: not found (404)",
                hint="check mirror= and suite=; a suite past its life is in the archive",
            )
        if response.status_code != 200:
            raise PipelineError(
                f"{shown}: the mirror answers {response.status_code} {response.reason}",
                hint="check the mirror, or choose another with mirror=URL",
            )
        total = 0
        for piece in response.iter_content(CHUNK):
            total += len(piece)
            if total > limit:
                raise VerificationError(f"{shown}: more than the expected {limit} bytes")
            write(piece)


def _local(url: str) -> Path:
    path = Path(urlsplit(url).path)
    if not path.is_file():
        raise NotFound(f"{path}: not found", hint="check mirror=file:/...")
    return path
