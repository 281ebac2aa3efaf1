"""The store: what is in Redis, how it is written exactly once, and how it is read.

settings    where the store is
keys        every key and field, drawn
client      a redis-py client for an address, and what its errors mean
encode      points -> operations of one batch
batch.lua   the script that applies a batch, once
writer      points -> batches
shard       the batches of one shard, in memory and on disk
outbox      keeps batches until the server has confirmed them
sender      carries them to the server
backlog     moves them to the disk and back
spool       the file on disk
registry    which series there are
reader      values, ranges, sketches, uniques; reading/ is what it is made of
compaction/ roll-ups: coarser slots out of finished chunks
memory      what is left out when the store is nearly full
"""
