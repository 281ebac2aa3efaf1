"""monasca-statsd, which writes dimensions as Python writes a dict: |#{'route': 'pay'}."""

import json
import random
import sys

import monascastatsd

doors = json.loads(sys.argv[1])
client = monascastatsd.Client(name=doors["prefix"], host="127.0.0.1", port=doors["udp"])
counter = client.get_counter("hits")
counter.increment(15)
counter.decrement(3)
client.get_counter("tagged").increment(2, dimensions={"route": "pay"})
client.get_gauge().send("level", 42.5)
client.get_timer().timing("latency", 7)  # a gauge on the wire, in this client
with client.connection:
    for _ in range(120):
        counter = client.get_counter("piped")
        counter.increment()
random.random = lambda: 0.0
for _ in range(10):
    client.get_counter("rated").increment(sample_rate=0.5)
