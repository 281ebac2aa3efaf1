"""statsd (jsocol's) over a unix stream, where its lines end with newlines and have no lengths."""

import json
import sys

import statsd

doors = json.loads(sys.argv[1])
client = statsd.UnixSocketStatsClient(doors["unixstream"], prefix=doors["prefix"])
client.incr("hits", 15)
client.decr("hits", 3)
client.gauge("level", 42.5)
client.gauge("below", -5)
for user in ("ada", "grace", "ada"):
    client.set("users", user)
for value in range(1, 101):
    client.timing("latency", value)
with client.pipeline() as pipe:
    for _ in range(50):
        pipe.incr("piped")
client.close()
