"""What a store's errors mean: whose fault it is, and what an operator can do.

Whatever it is, the batch is kept; what differs is how much waits, and for how long (see `lane`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final

from redis.exceptions import RedisError

from collector.errors import StoreError


class Fault(Enum):
    """What an error is the fault of."""

    SERVER = "server"  # of the server: away, full, loading, a replica; it may be well in a moment
    SLOT = "slot"  # of where a slot is: it moves, or is nobody's just now; other slots are well
    RIGHTS = "rights"  # of what we may do, which somebody has to change


class RightsError(StoreError):
    """The store does not let us."""


# What an error reply says, or how redis-py words it -> what the operator is told. A script's errors carry the
# code somewhere within, so all of the text is searched.
_REMEDIES: Final = {
    Fault.RIGHTS: {
        r"\bNOAUTH\b|[Aa]uthentication required": "set redis.user and redis.password",
        r"\bWRONGPASS\b|invalid username-password|invalid password": "check the user and password of redis",
        r"\bNOPERM\b|[Nn]o permissions|ACL failure": "give the user the rights listed in docs/store.md",
    },
    Fault.SLOT: {
        r"\bCLUSTERDOWN\b|slot not served|has that slot": "see CLUSTER INFO: a node is away",
        r"\bMOVED |\bASK |\bTRYAGAIN\b": "the slot is elsewhere: a cluster is redis+cluster://",
    },
    Fault.SERVER: {
        r"\bOOM\b|when used memory": "the server is full: raise maxmemory, or shorten what is kept",
        r"\bREADONLY\b|read only replica|previous master is now": "point redis.url at the primary",
        r"\bMISCONF\b": "the server cannot save to disk: look at its log and its free space",
        r"\bNOREPLICAS\b|enough good replicas": "the server wants more replicas: see min-replicas-to-write",
        r"\bLOADING\b|loading the dataset": "it will be tried again",
        r"\bMASTERDOWN\b": "the replica has lost its primary: point redis.url at the primary",
        r"\bBUSY ": "a script blocks the server: it will be tried again",
        r"\bNOSCRIPT\b": "somebody flushed the scripts: ours is loaded again",
        "cluster support": "it is no cluster: write redis:// in redis.url",
        r"\bCROSSSLOT\b": "write redis+cluster:// in redis.url",
        "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE": "the server wants a certificate: set redis.tls.certificate",
        "certificate verify failed": "see redis.tls: ca has to name who issued the server's certificate",
        "WRONG_VERSION_NUMBER|RECORD_LAYER": "the server speaks no TLS there: write redis://, not rediss://",
        "Timeout connecting": "nobody answers there; what speaks no TLS does not answer rediss://",
    },
}
_MEANINGS: Final = [
    (re.compile(pattern), fault, remedy)
    for fault, remedies in _REMEDIES.items()
    for pattern, remedy in remedies.items()
]

# Of an operation within the script that there is no right to, behind its key: Redis 6.2, 7 and 8, Valkey.
_NO_RIGHT: Final = re.compile(rb": -?(?:ERR )?(?:NOPERM|ACL failure|The user executing the script)")


def fault_of(error: BaseException) -> Fault:
    """Whose fault an error is."""
    if isinstance(error, RightsError):
        return Fault.RIGHTS
    meaning = _meaning(error)
    return Fault.SERVER if meaning is None else meaning[0]


def explain(error: BaseException) -> str:
    """What went wrong, with the remedy where there is one."""
    text = str(error) or type(error).__name__
    meaning = None if isinstance(error, StoreError) else _meaning(error)
    return text if meaning is None else f"{text} ({meaning[1]})"


def lacks_right(error: bytes) -> bool:
    """Whether an operation of a batch, `<key>: <error>`, was refused because there is no right to it."""
    return _NO_RIGHT.search(error) is not None


def _meaning(error: BaseException) -> tuple[Fault, str] | None:
    # redis-py takes the code off the texts that it has a class for, and keeps it beside them.
    text = f"{getattr(error, 'status_code', None) or ''} {error}"
    return next(((fault, remedy) for pattern, fault, remedy in _MEANINGS if pattern.search(text)), None)


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turns what redis-py raises into StoreError, with the remedy."""
    try:
        yield
    except (TimeoutError, RedisError, OSError) as error:
        raise StoreError(explain(error)) from error
