"""Reading a log: in order, each line once, across rotation and compression, from any place on, up to any."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from naru.logs.cursor import Cursor, Position
from naru.logs.reader import LogReader
from naru.logs.record import decode
from naru.shim.json_log import JsonLog
from naru.shim.protocol import LogConfig


def opened(path: Path, *, size: int = 1000, files: int = 5, compress: bool = False) -> JsonLog:
    return JsonLog(LogConfig("json-file", str(path), max_size_bytes=size, max_files=files, compress=compress))


def write(log: JsonLog, numbers: range) -> None:
    for number in numbers:
        log.write("stdout", b"line %d\n" % number)


def read_all(reader: LogReader, limit: int = 300) -> list[int]:
    data = b"".join(iter(lambda: reader.read(limit), b""))
    return [int(record.log.split()[1]) for line in data.splitlines() if (record := decode(line))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


@pytest.mark.parametrize("compress", [False, True])
def test_all_files_are_read_oldest_first(path: Path, compress: bool) -> None:
    log = opened(path, compress=compress)
    write(log, range(40))
    log._await_compressor()
    assert len(list(path.parent.iterdir())) > 3
    assert read_all(LogReader(str(path))) == list(range(40))


def test_a_line_that_is_not_finished_is_not_read_yet(path: Path) -> None:
    path.write_bytes(b'{"log":"line 1\\n"}\n{"log":"li')
    reader = LogReader(str(path))
    assert read_all(reader) == [1]
    with path.open("ab") as file:
        file.write(b'ne 2\\n"}\n')
    assert read_all(reader) == [2]


def test_a_line_longer_than_the_limit_is_read_whole(path: Path) -> None:
    log = opened(path, size=1 << 30)
    log.write("stdout", b"\x01" * 16_000 + b"\n" + b"line 1\n")
    reader = LogReader(str(path))
    first = decode(reader.read(10))
    assert first is not None and len(first.log) == 16_001
    assert read_all(reader) == [1]


@pytest.mark.parametrize("compress", [False, True])
def test_a_reader_follows_through_every_rotation(path: Path, compress: bool) -> None:
    log = opened(path, files=8, compress=compress)
    reader = LogReader(str(path))
    seen = []
    for start in range(0, 200, 20):
        write(log, range(start, start + 20))
        seen += read_all(reader)
    assert seen == list(range(200)) and not reader.has_gap


def test_a_reader_beside_a_writer_that_rotates_all_the_time_misses_nothing(path: Path) -> None:
    log = opened(path, files=1000)
    writer = threading.Thread(target=write, args=(log, range(800)))
    reader = LogReader(str(path))
    seen: list[int] = []
    writer.start()
    while writer.is_alive():
        seen += read_all(reader)
    seen += read_all(reader)
    assert seen == list(range(800))


def test_what_was_removed_before_it_was_read_is_a_gap(path: Path) -> None:
    log = opened(path, files=3)
    write(log, range(5))
    reader = LogReader(str(path))
    reader.read(80)
    write(log, range(5, 200))
    seen = read_all(reader)
    assert reader.has_gap and seen[-1] == 199 and seen == sorted(seen)


@pytest.mark.parametrize("compress", [False, True])
def test_reading_goes_on_from_a_position_after_rotation(path: Path, compress: bool) -> None:
    log = opened(path, files=9, compress=compress)
    write(log, range(10))
    reader = LogReader(str(path))
    reader.read(300)
    seen, position = read_all(LogReader(str(path), reader.position))[0], reader.position
    write(log, range(10, 60))
    log._await_compressor()
    assert read_all(LogReader(str(path), position)) == list(range(seen, 60))


def test_a_position_whose_file_is_gone_is_a_gap(path: Path) -> None:
    write(opened(path), range(5))
    reader = LogReader(str(path), Position(12345, 0))
    assert reader.has_gap and read_all(reader) == list(range(5))


@pytest.mark.parametrize("written", [3, 100])
def test_what_is_written_after_the_end_was_set_is_not_read(path: Path, written: int) -> None:
    log = opened(path, files=99)
    write(log, range(40))
    reader = LogReader(str(path))
    reader.end_here()
    write(log, range(40, 40 + written))
    assert read_all(reader) == list(range(40))


def test_what_is_held_is_read_though_the_log_is_removed(path: Path) -> None:
    log = opened(path, files=99)
    write(log, range(60))
    reader = LogReader(str(path))
    reader.read(100)
    reader.hold()
    for file in path.parent.iterdir():
        file.unlink()
    assert read_all(reader)[-1] == 59


def odd(line: bytes) -> bool:
    record = decode(line)
    return record is not None and int(record.log.split()[1]) % 2 == 1


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("count", "passes", "first"), [(3, None, 97), (50, None, 50), (3, odd, 95), (500, None, 0)])
def test_the_tail_is_found_across_files(
    path: Path, compress: bool, count: int, passes: Callable[[bytes], bool] | None, first: int
) -> None:
    log = opened(path, files=99, compress=compress)
    write(log, range(100))
    log._await_compressor()
    reader = LogReader(str(path))
    reader.start_at_tail(count, passes)
    assert read_all(reader) == list(range(first, 100))


def test_the_tail_of_a_large_file_is_found_from_its_end(path: Path) -> None:
    write(opened(path, size=1 << 30), range(5000))
    reader = LogReader(str(path))
    reader.start_at_tail(2500, None)
    assert read_all(reader, 1 << 20) == list(range(2500, 5000))


def test_no_tail_is_the_end(path: Path) -> None:
    log = opened(path)
    write(log, range(5))
    reader = LogReader(str(path))
    reader.start_at_tail(0, None)
    write(log, range(5, 8))
    assert read_all(reader) == [5, 6, 7]


def test_a_log_that_is_not_there_is_empty_until_it_is(path: Path) -> None:
    reader = LogReader(str(path))
    assert read_all(reader) == []
    write(opened(path), range(2))
    assert read_all(reader) == [0, 1]


def test_a_cursor_is_what_was_written_last(tmp_path: Path) -> None:
    cursor = Cursor(str(tmp_path / "cursor"))
    assert cursor.read() is None
    cursor.write(Position(4_294_967_295, 1 << 40))
    cursor.write(Position(7, 12))
    assert Cursor(str(tmp_path / "cursor")).read() == Position(7, 12)


def test_a_compressed_file_is_known_by_the_same_line(path: Path) -> None:
    path.write_bytes(b'{"log":"line 1\\n"}\n{"log":"line 2\\n"}\n')
    reader = LogReader(str(path))
    reader.read(10)
    position = reader.position
    Path(f"{path}.1.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.write_bytes(b'{"log":"line 3\\n"}\n')
    assert read_all(LogReader(str(path), position)) == [2, 3]
