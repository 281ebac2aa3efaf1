"""The backlog's file: batches on disk, in one SQLite database with a write-ahead log.

    <state_dir>/
        backlog.lock       locked by the collector that has the file open; holds its pid
        backlog.db         (and backlog.db-wal, backlog.db-shm)
        backlog.db.damaged-<time>    a file that could not be read; nothing looks at it again

    batch    id        place among all batches of all shards: they are read back in this order
             sequence  key of the last batch applied, `{t}:q:<collector>`: whose it is, and where it goes
             shard     0..63
             seq, closed, points    as in `Batch`
             sum       CRC-32 of all of the above and of data
             data      zlib, level 1, of: length of head (4 bytes), head, tail
    shard    sequence
             confirmed, dropped     as in `Shard`: rows up to the first are there to be repeated only, and
                                    numbers up to the second were counted as lost when they were dropped

A batch carries the name of the collector that made it. So a copy of the file that comes back later, or is
used by two collectors, does no harm: whoever sends a batch a second time is told that it is there.

Everything here blocks. It is called on a thread of its own, one call at a time. What the disk refuses raises
SpoolError and changes nothing; SpoolDamaged says that the file cannot be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from collector.errors import CollectorError, OperatorError
from collector.store.encode import SHA, Batch
from collector.store.keys import SHARDS
from collector.store.shard import Gone, Shard, Tally

# The form of what is stored. To be raised when the script is given other arguments, or the same with another
# meaning: a file of another version is not sent.
VERSION: Final = 1

_FILES: Final = ("", "-wal", "-shm")
_ROW_BYTES: Final = 80  # what a row takes besides its data
_WORTH_SHRINKING: Final = 4 * 2**20  # bytes of an empty file
_DAMAGE: Final = {
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT),
    sqlite3.SQLITE_ERROR,  # no such table, a schema that makes no sense
}
_KEY: Final = re.compile(rb"\{[^{}]+\}:q:[0-9a-f]+")
_TABLES: Final = """
CREATE TABLE batch (id INTEGER PRIMARY KEY, sequence BLOB NOT NULL, shard INTEGER NOT NULL,
    seq INTEGER NOT NULL, closed REAL NOT NULL, points INTEGER NOT NULL, sum INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE TABLE shard (sequence BLOB PRIMARY KEY, confirmed INTEGER NOT NULL, dropped INTEGER NOT NULL)
    WITHOUT ROWID;
"""
_NOTE: Final = "INSERT OR REPLACE INTO shard VALUES (?, ?, ?)"
_SCRIPT: Final = b"\r\nEVALSHA\r\n$40\r\n"  # what stands before the name of the script in a head

Books = tuple[bytes, int, int]  # sequence, confirmed, dropped


class SpoolError(CollectorError):
    """The disk refused; it may go better later."""


class SpoolDamaged(CollectorError):
    """The file is not what was written."""


class Spool:
    """The file of one state directory. `damaged` counts what could not be read: files and single batches."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "backlog.db"
        self.damaged = 0
        self._lock: int | None = None
        self._database: sqlite3.Connection | None = None

    # ------------------------------------------------------------------ open and close

    def open(self) -> tuple[list[Shard], int]:
        """Opens the file, or makes it; a damaged one is set aside. Returns what earlier starts left in it,
        shard by shard, and the first id that is free.

        OperatorError when another collector has it, SpoolError when the disk refuses.
        """
        with _refusals():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            try:
                return self._opened()
            except SpoolDamaged:
                self.put_away()
                return self._opened()

    @property
    def is_open(self) -> bool:
        """Whether batches can be written."""
        return self._database is not None

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        path = self.directory / "backlog.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise OperatorError(
                f"another collector (pid {pid}) already has the backlog in {self.directory}",
                "stop that one, or give this one a `state_dir` of its own",
            ) from None
        self._lock = lock
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.truncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def _opened(self) -> tuple[list[Shard], int]:
        # Metrics are nobody else's business; the two files beside it get the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        database.text_factory = bytes
        self._database = database
        try:
            with _refusals():
                # In the page cache a commit survives the process; with the sync of each checkpoint the file
                # is sound after a power cut, which may cost the newest commits.
                database.executescript(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                    f"PRAGMA journal_size_limit = {_WORTH_SHRINKING};"
                )
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
                elif version != VERSION:
                    raise SpoolDamaged(f"version {version}, where {VERSION} is expected")
                return self._found(database)
        except BaseException:
            self._shut()
            raise

    def _found(self, database: sqlite3.Connection) -> tuple[list[Shard], int]:
        shards = []
        books = {
            one[0]: one[1:] for one in database.execute("SELECT sequence, confirmed, dropped FROM shard")
        }
        query = (
            "SELECT sequence, shard, min(seq), max(seq), count(*), sum(length(data)), sum(points)"
            " FROM batch GROUP BY sequence ORDER BY min(id)"
        )
        for sequence, number, first, last, batches, size, points in database.execute(query):
            if not (_KEY.fullmatch(sequence) and 0 <= number < SHARDS):
                continue  # a damaged row: it will be left out when it is read
            shard = Shard(number, sequence, earlier=True)
            shard.seq, shard.stored_from = last, first
            shard.confirmed, shard.dropped = books.get(sequence, (0, 0))
            shard.stored = Tally(batches, size + batches * _ROW_BYTES, points)
            shards.append(shard)
        (newest,) = database.execute("SELECT max(id) FROM batch").fetchone()
        return shards, (newest or 0) + 1

    def close(self) -> None:
        """Closes the file and lets others have it."""
        self._shut()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _shut(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def put_away(self) -> Path:
        """Renames the file, so that a new one can be opened; its new name."""
        self._shut()
        self.damaged += 1
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns() // 10**6}")
        with _refusals():
            for suffix in _FILES:
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        return aside

    # ------------------------------------------------------------------ batches

    def write(self, rows: list[tuple[Shard, Batch]]) -> list[int]:
        """Writes batches in one transaction; how many bytes each takes."""
        packed = [_packed(shard, batch) for shard, batch in rows]
        books = {(shard.sequence, shard.confirmed, shard.dropped) for shard, _ in rows}
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?)", packed)
            database.executemany(_NOTE, books)
        return [len(row[-1]) + _ROW_BYTES for row in packed]

    def read(self, after: int, most: int) -> tuple[list[tuple[bytes, Batch]], int]:
        """The next batches past an id, with their sequence keys, until they have so many bytes in memory; and
        the id to go on after. That stands still when there are no more. A damaged one is left out.
        """
        found: list[tuple[bytes, Batch]] = []
        for row in self._rows("WHERE id > ? ORDER BY id", (after,)):
            after = row[0]
            if (batch := self._unpacked(row)) is not None:
                found.append((row[1], batch))
                most -= batch.size
            if most <= 0:
                break
        return found, after

    def read_these(self, ids: list[int]) -> dict[int, Batch]:
        """Batches by id; those that are not there, or damaged, are left out."""
        found = {}
        for one in ids:
            for row in self._rows("WHERE id = ?", (one,)):
                if (batch := self._unpacked(row)) is not None:
                    found[one] = batch
        return found

    def delete(self, ids: list[int], books: list[Books]) -> int:
        """Deletes batches, and notes the books of shards. Says how many were to be deleted. An empty file is
        made small.
        """
        with self._transaction() as database:
            database.executemany("DELETE FROM batch WHERE id = ?", ((one,) for one in ids))
            database.executemany(_NOTE, books)
            empty = database.execute("SELECT 1 FROM batch LIMIT 1").fetchone() is None
            if empty:
                database.execute("DELETE FROM shard")
        if empty and self.path.stat().st_size > _WORTH_SHRINKING:
            with _refusals():
                database.execute("VACUUM")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(ids)

    def drop(self, after: int, excess: int, horizon: float) -> tuple[dict[bytes, Gone], int]:
        """Deletes the oldest batches past an id: so many bytes of them, and all that were closed before
        `horizon`.

        Returns what went, by sequence key, and the last id that went.
        """
        gone: dict[bytes, Gone] = {}
        last = after
        with self._transaction() as database:
            confirmed: dict[bytes, int] = dict(database.execute("SELECT sequence, confirmed FROM shard"))
            query = (
                "SELECT id, sequence, seq, closed, points, length(data) FROM batch WHERE id > ? ORDER BY id"
            )
            for one, sequence, seq, closed, points, length in database.execute(query, (after,)):
                if excess <= 0 and closed >= horizon:
                    break
                last = one
                excess -= length + _ROW_BYTES
                of_shard = gone.setdefault(sequence, Gone())
                of_shard.last = seq
                of_shard.all.batches += 1
                of_shard.all.bytes += length + _ROW_BYTES
                of_shard.all.points += points
                if seq > confirmed.get(sequence, 0):
                    of_shard.lost_up_to = seq
                    of_shard.lost_points += points
            database.execute("DELETE FROM batch WHERE id > ? AND id <= ?", (after, last))
            lost = [(sequence, one.lost_up_to) for sequence, one in gone.items() if one.lost_up_to]
            database.executemany(
                "INSERT INTO shard VALUES (?, 0, ?) ON CONFLICT DO UPDATE SET dropped = excluded.dropped",
                lost,
            )
        return gone, last

    # ------------------------------------------------------------------ rows

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._database
        if database is None:
            raise SpoolError("the file is not open")
        with _refusals():
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                    database.execute("ROLLBACK")
                raise

    def _rows(self, where: str, values: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
        if self._database is None:
            raise SpoolError("the file is not open")
        with _refusals():
            yield from self._database.execute(f"SELECT * FROM batch {where}", values)

    def _unpacked(self, row: tuple[Any, ...]) -> Batch | None:
        """The batch of a row; None, and counted, when it is not what was written."""
        one, sequence, shard, seq, closed, points, total, data = row
        try:
            if total != _sum(one, sequence, shard, seq, closed, points, data):
                raise ValueError
            text = zlib.decompress(data)
        except (ValueError, TypeError, zlib.error):
            self.damaged += 1
            return None
        end = 4 + int.from_bytes(text[:4], "big")
        batch = Batch(seq, closed, points, _with_script_of_today(text[4:end]), text[end:], one)
        batch.stored = len(data) + _ROW_BYTES
        return batch


def _packed(shard: Shard, batch: Batch) -> tuple[int, bytes, int, int, float, int, int, bytes]:
    text = b"".join((len(batch.head).to_bytes(4, "big"), batch.head, batch.tail))
    data = zlib.compress(text, 1)
    columns = (batch.id, shard.sequence, shard.number, batch.seq, batch.closed, batch.points)
    return (*columns, _sum(*columns, data), data)


def _sum(*columns: object) -> int:
    *small, data = columns
    if not isinstance(data, bytes):
        raise TypeError
    return zlib.crc32(data, zlib.crc32(repr(small).encode()))


def _with_script_of_today(head: bytes) -> bytes:
    """A head with the name of the script that we know; an older collector may have had another."""
    start = head.index(_SCRIPT) + len(_SCRIPT)
    return head[:start] + SHA + head[start + len(SHA) :]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns what SQLite and the system say into SpoolError or SpoolDamaged."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        short = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ
        if code in _DAMAGE or short:
            raise SpoolDamaged(str(error)) from error
        raise SpoolError(str(error)) from error
    except OSError as error:
        raise SpoolError(str(error)) from error
    except (TypeError, ValueError) as error:  # a column that holds another type
        raise SpoolDamaged(str(error)) from error
