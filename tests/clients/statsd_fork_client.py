"""statsd-telegraf and statsd-tags: forks of jsocol's client whose lines carry tags, each in its own dialect.

The second argument is the door: all goes over TCP where its name ends so.
"""

import json
import random
import sys

import statsd

doors = json.loads(sys.argv[1])
tags = {"route": "pay", "env": "test"}
kind = statsd.TCPStatsClient if sys.argv[2].endswith("tcp") else statsd.StatsClient
client = kind("127.0.0.1", doors[sys.argv[2]], prefix=doors["prefix"])
client.incr("hits", 15, tags=tags)
client.decr("hits", 3, tags=tags)
client.incr("plain", 2)
client.gauge("level", 10, tags=tags)
client.gauge("level", 5, delta=True, tags=tags)
client.gauge("level", -3, delta=True, tags=tags)
client.gauge("below", -5, tags=tags)
for user in ("ada", "grace", "ada"):
    client.set("users", user, tags=tags)
for value in range(1, 101):
    client.timing("latency", value, tags=tags)
with client.pipeline() as pipe:
    for _ in range(50):
        pipe.incr("piped", tags=tags)
random.random = lambda: 0.0
for _ in range(10):
    client.incr("rated", rate=0.5, tags=tags)
if sys.argv[2] == "udp":
    over_tcp = statsd.TCPStatsClient("127.0.0.1", doors["tcp"], prefix=doors["prefix"])
    for _ in range(20):
        over_tcp.incr("tcp", tags=tags)
    over_tcp.close()
