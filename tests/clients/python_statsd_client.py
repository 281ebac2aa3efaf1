"""python-statsd: an object for each metric, over UDP.

With a second argument, only the two types that it has besides: an average and a raw value.
"""

import json
import random
import sys

import statsd

doors = json.loads(sys.argv[1])
connection = statsd.Connection(host="127.0.0.1", port=doors["udp"])
client = statsd.Client(doors["prefix"], connection)
if sys.argv[2:]:
    client.get_average().send("mean", 5)
    client.get_raw().send("raw", 5, 1656581400)
    client.get_counter().increment("after")
    sys.exit()
counter = client.get_counter()
counter.increment("hits", 15)
counter.decrement("hits", 3)
gauge = client.get_gauge()
gauge.send("level", 10)
gauge.increment("level", 5)
gauge.decrement("level", 3)
timer = client.get_timer()
for value in range(1, 101):
    timer.send("latency", value / 1000)
random.random = lambda: 0.0
sampled = statsd.Client(doors["prefix"], statsd.Connection("127.0.0.1", doors["udp"], sample_rate=0.5))
for _ in range(10):
    sampled.get_counter().increment("rated")
