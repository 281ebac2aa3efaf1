"""Roll-ups: finished chunks become slots of the next coarser resolution.

Roll-ups are recomputed, never incremented. One collector at a time, the holder of a shard's lease, goes along
the chain of each kind, say 10 s -> 1 min -> 1 h, and for each chunk that has ended

    1  moves `begun` of the watermark behind the chunk; from now on a sample that enters it marks it dirty
    2  lets the script sum up the chunk of each series, set the coarser slots, and set the chunk's real expiry
    3  moves `done` behind the chunk: readers take the coarser slots up to there, and finer ones after it

and then rolls dirty chunks up again. Each step is one call of `compact.lua`, done whole or not at all, and
doing it again changes nothing. So a crash, a repeat or two collectors change nothing either: whoever comes
next begins with the chunk after `done`.

Which chunks there may be is known from the registry: every series that was seen since the chunk began has
one, at most. Nothing looks for keys.

    done            begun          now - GRACE
     |                |                |
     |== being done ==|---- waiting ---|---- being written

edges       the steps of a chain, and how far each has come
lease       who may do them
turn        all that is due in one shard
compactor   one shard after another, for ever
"""

from __future__ import annotations

from collector.store.compaction.compactor import Compactor
from collector.store.compaction.lease import LeaseLostError
from collector.store.compaction.turn import Counts

__all__ = ["Compactor", "Counts", "LeaseLostError"]
