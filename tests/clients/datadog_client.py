"""datadog over every transport that it has; the second argument names it."""

import json
import sys

from datadog.dogstatsd import base

doors = json.loads(sys.argv[1])
transport = sys.argv[2]
where = {
    "udp": {"host": "127.0.0.1", "port": doors["dogstatsd"]},
    "unixgram": {"socket_path": f"unixgram://{doors['unixgram']}"},
    "unixstream": {"socket_path": f"unixstream://{doors['unixstream']}"},
    "unix": {"socket_path": f"unix://{doors['unixgram']}"},
}[transport]
prefix = doors["prefix"]
for aggregate in (False, True):
    name = "on" if aggregate else "off"
    client = base.DogStatsd(
        namespace=f"{prefix}.{name}",
        constant_tags=["env:test"],
        disable_aggregation=not aggregate,
        telemetry_min_flush_interval=3600,
        socket_timeout=10,  # wait while the socket is full; by default the client drops
        **where,
    )
    for _ in range(5):
        client.increment("hits", tags=["route:/pay"])
    client.increment("hits", 10, tags=["route:/pay"])
    client.decrement("hits", 3, tags=["route:/pay"])
    client.gauge("level", 41.5)
    client.gauge("level", 42.5)
    client.gauge("below", -5)
    for value in range(1, 101):
        client.timing("latency", value)
        client.histogram("size", value / 2)
        client.distribution("spread", value * 10)
    for user in ("ada", "grace", "ada"):
        client.set("users", user)
    client.event(f"{prefix}.{name} deploy", "line one\nline two", alert_type="warning", tags=["a:1"])
    client.service_check(f"{prefix}.{name}.up", 1, message="slow | late")
    client.flush()
    base.random = lambda: 0.0
    for _ in range(10):
        client.increment("rated", sample_rate=0.5)
    client.flush()
    client.stop()
