"""The json-file log: every record is one line of output, exactly, whatever the bytes and however they arrive."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import pytest

from naru.logs.cursor import Cursor
from naru.logs.delivery import Delivery, cursor_path
from naru.logs.reader import LogReader
from naru.shim.json_log import PIECE_BYTES, JsonLog, LineEncoder
from naru.shim.protocol import LogConfig

NOW_NS = 1767323045_000000006
NOW = "2026-01-02T03:04:05.000000006Z"

AWKWARD = [
    b'say "hello"\n',
    b"back\\slash and a literal \\n\n",
    b"tab\tcarriage\r\n",
    "café ☃ 𝄞\n".encode(),
    b"broken \xff\xc3 utf-8\n",
    b"del \x7f inside\n",
    b"\x00\x01\x1b[31mred\x1b[0m\n",
    b"\n",
    b"<b>&amp;</b>\n",
]


def encoded(*chunks: bytes, attributes: dict[str, str] | None = None) -> list[dict[str, object]]:
    encoder = LineEncoder("stdout", attributes or {})
    data = b"".join([*(encoder.feed(chunk, NOW_NS) for chunk in chunks), encoder.flush()])
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data[:-1].split(b"\n")]


def texts(*chunks: bytes) -> list[object]:
    return [record["log"] for record in encoded(*chunks)]


def test_a_line_becomes_dockers_three_fields() -> None:
    assert encoded(b"hello\n") == [{"log": "hello\n", "stream": "stdout", "time": NOW}]


def test_the_bytes_of_a_plain_line_are_dockers() -> None:
    assert LineEncoder("stderr", {}).feed(b"a\nb\n", NOW_NS) == (
        b'{"log":"a\\n","stream":"stderr","time":"%s"}\n{"log":"b\\n","stream":"stderr","time":"%s"}\n'
        % (NOW.encode(), b"2026-01-02T03:04:05.000000007Z")
    )


def test_every_awkward_line_is_one_record_with_its_exact_text() -> None:
    without_del = [line for line in AWKWARD if b"\x7f" not in line]
    assert texts(b"".join(without_del)) == [line.decode("utf-8", "replace") for line in without_del]


def test_every_awkward_line_of_a_flood_is_one_record_with_its_exact_text() -> None:
    lines = [line for line in AWKWARD if b"\x7f" not in line] * 400
    assert texts(b"".join(lines)) == [line.decode("utf-8", "replace") for line in lines]


def test_a_flood_with_del_and_long_lines_is_encoded_as_exactly() -> None:
    lines = [*AWKWARD, b"x" * 15_000 + b"\n"] * 3
    assert texts(b"".join(lines)) == [line.decode("utf-8", "replace") for line in lines]


def test_lines_have_times_in_their_order() -> None:
    times = [str(record["time"]) for record in encoded(b"a\nb\nc\nunfinished")]
    assert times == sorted(set(times))


def test_a_chunk_with_del_is_encoded_as_exactly() -> None:
    assert texts(b"".join(AWKWARD)) == [line.decode("utf-8", "replace") for line in AWKWARD]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_how_the_bytes_arrive_does_not_matter(size: int) -> None:
    data = b"".join(AWKWARD) + b"unfinished"
    assert texts(*(data[i : i + size] for i in range(0, len(data), size))) == texts(data)


def test_an_unfinished_last_line_is_kept_without_a_newline() -> None:
    assert texts(b"one\ntw", b"o") == ["one\n", "two"]


def test_attributes_are_written_into_every_record() -> None:
    assert encoded(b"x\n", attributes={"tag": 'a"b'}) == [
        {"log": "x\n", "stream": "stdout", "attrs": {"tag": 'a"b'}, "time": NOW}
    ]


@pytest.mark.parametrize("length", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 40_000])
@pytest.mark.parametrize("chunk", [1000, 65536])
def test_a_long_line_is_cut_every_16_kib_and_only_its_end_has_the_newline(length: int, chunk: int) -> None:
    data = b"short\n" + b"x" * length + b"\nshort\n"
    expected = [b"x" * PIECE_BYTES] * (length // PIECE_BYTES) + [b"x" * (length % PIECE_BYTES) + b"\n"]
    assert texts(*(data[i : i + chunk] for i in range(0, len(data), chunk))) == [
        "short\n",
        *(piece.decode() for piece in expected),
        "short\n",
    ]


@pytest.mark.parametrize("shift", range(5))
def test_a_cut_never_splits_a_character(shift: int) -> None:
    line = b"x" * shift + "𝄞".encode() * 9000
    assert "".join(str(text) for text in texts(line)) == line.decode()


def records(path: Path) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line)["log"] for line in data.splitlines()]


def test_a_blocking_log_is_full_until_its_oldest_file_is_delivered(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    delivery = Delivery(
        driver="syslog",
        path=str(path),
        options={},
        container_id="",
        container_name="",
        image_name="",
        tag="",
        is_blocking=True,
    )
    log = JsonLog(LogConfig("syslog", str(path), max_size_bytes=1000, max_files=2, delivery=delivery))
    cursor, reader = Cursor(cursor_path(str(path))), LogReader(str(path))

    def fill() -> None:
        while not log.is_full:
            log.write("stdout", b"x\n")

    fill()
    log.write("stdout", b"what could not be refused\n")
    assert sorted(file.name for file in tmp_path.glob("*log*[0-9]")) == ["c-json.log.1"]
    while reader.read(1000):
        assert reader.position is not None
        cursor.write(reader.position)
    assert not log.is_full
    fill()
    assert "what could not be refused\n" in records(tmp_path / "c-json.log.1")


def test_rotation_keeps_the_newest_lines_in_order_and_every_file_under_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    log = JsonLog(LogConfig("json-file", str(path), max_size_bytes=1000, max_files=3))
    log.write("stdout", b"".join(b"line %d\n" % number for number in range(100)))
    log.close()
    files = [tmp_path / "c-json.log.2", tmp_path / "c-json.log.1", path]
    kept = [text for file in files for text in records(file)]
    assert kept == [f"line {number}\n" for number in range(100 - len(kept), 100)]
    assert len(kept) > 20
    assert max(file.stat().st_size for file in files) <= 1000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c-json.log", "c-json.log.1", "c-json.log.2"]


def test_one_file_only_starts_over_when_full(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    log = JsonLog(LogConfig("json-file", str(path), max_size_bytes=1000))
    log.write("stdout", b"".join(b"line %d\n" % number for number in range(100)))
    log.close()
    assert records(path)[-1] == "line 99\n"
    assert [file.name for file in tmp_path.iterdir()] == ["c-json.log"]


def test_a_record_larger_than_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    log = JsonLog(LogConfig("json-file", str(path), max_size_bytes=100, max_files=2))
    log.write("stdout", b"a\n" + b"x" * 500 + b"\nb\n")
    log.close()
    assert records(path) == ["b\n"]
    assert records(tmp_path / "c-json.log.1") == ["x" * 500 + "\n"]


def test_rotated_files_are_compressed_aside(tmp_path: Path) -> None:
    path = tmp_path / "local.log"
    log = JsonLog(LogConfig("local", str(path), max_size_bytes=1000, max_files=3, compress=True))
    log.write("stdout", b"".join(b"line %d\n" % number for number in range(100)))
    log.close()
    files = [tmp_path / "local.log.2.gz", tmp_path / "local.log.1.gz", path]
    deadline = time.monotonic() + 10
    while not files[1].exists() and time.monotonic() < deadline:
        os.sched_yield()
    kept = [text for file in files for text in records(file)]
    assert kept == [f"line {number}\n" for number in range(100 - len(kept), 100)]


def test_a_restarted_container_appends_to_its_log(tmp_path: Path) -> None:
    path = tmp_path / "c-json.log"
    for text in (b"first\n", b"second\n"):
        log = JsonLog(LogConfig("json-file", str(path)))
        log.write("stdout", text)
        log.close()
    assert records(path) == ["first\n", "second\n"]


@pytest.mark.parametrize("line", [b"x" * 99 + b"\n", b'say "hello" to ' * 6 + b"caf\xc3\xa9\n"])
def test_encoding_is_far_faster_than_the_disk_asks(line: bytes) -> None:
    chunk = line * (65536 // len(line))
    encoder = LineEncoder("stdout", {})
    best = min(_timed(encoder, chunk) for _ in range(20))
    assert len(chunk) / best > 150e6


def _timed(encoder: LineEncoder, chunk: bytes) -> float:
    start = time.perf_counter()
    encoder.feed(chunk, NOW_NS)
    return time.perf_counter() - start
