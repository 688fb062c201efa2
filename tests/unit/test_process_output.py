"""What a program prints is read with an end."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.errors import PipelineError
from pipeline.process import read_chunks, split_lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            assert end == ends[1], "the writer may have closed its end"


def test_all_is_read_until_it_is_closed(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"one\ntwo")
    os.close(pipe[1])
    assert b"".join(read_chunks(pipe[0], "x")) == b"one\ntwo"


def test_silence_has_an_end_and_says_so_before(pipe: tuple[int, int]) -> None:
    said: list[str] = []
    with pytest.raises(PipelineError, match="x has printed nothing for"):
        list(read_chunks(pipe[0], "x", silence_s=0.3, remind=said.append, remind_s=0.1))
    assert len(said) == 2 and "still waiting" in said[0]


def test_a_word_in_time_ends_the_silence(pipe: tuple[int, int]) -> None:
    def speak() -> None:
        for _ in range(4):
            time.sleep(0.1)
            os.write(pipe[1], b".")
        os.close(pipe[1])

    speaker = threading.Thread(target=speak)
    speaker.start()
    assert b"".join(read_chunks(pipe[0], "x", silence_s=5)) == b"...."
    speaker.join()


def test_endless_output_has_an_end(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x" * 5000)
    with pytest.raises(PipelineError, match="x printed more than 0 MiB"):
        list(read_chunks(pipe[0], "x", most_bytes=4999))


def test_lines_come_whole_whatever_the_chunks_are() -> None:
    assert list(split_lines(iter([b"a\nb", b"c\n\n", b"d"]))) == [b"a\n", b"bc\n", b"\n", b"d"]


def test_a_line_without_end_comes_in_pieces() -> None:
    pieces = list(split_lines(b"x" * 40000 for _ in range(4)))
    assert len(pieces) > 1 and sum(map(len, pieces)) == 160000
