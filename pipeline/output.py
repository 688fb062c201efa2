"""What a program prints, as it comes and with an end: no wait for ever, no memory that fills up."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

from pipeline.errors import PipelineError

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
