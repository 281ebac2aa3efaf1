"""The store: what is in Redis, how it is written exactly once, and how it is read.

settings    where the store is
keys        every key and field, drawn
address     redis.url, read
client      redis-py clients for an address
faults      what a store's errors mean, and what to do
topology    the nodes behind an address, and which of them has a key
rights      what we have to be allowed to do, and the question whether we are
server      what a server says of itself
encode      points -> operations of one batch
batch.lua   the script that applies a batch, once
scripts     the texts of the scripts
commands    single commands, and calls of scripts
writer      points -> batches
shard       the batches of one shard, in memory and on disk
outbox      keeps batches until the store has confirmed them
sender      carries them there: a lane for each node
lane        one node's part of that
backlog     moves them to the disk and back
spool       the file on disk
registry    which series there are
reader      values, ranges, sketches, uniques; reading/ is what it is made of
compaction/ roll-ups: coarser slots out of finished chunks
memory      what is left out when the store is nearly full
check       whether a store is fit
usage       what takes its memory
"""
