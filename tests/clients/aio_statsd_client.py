"""aio-statsd: etsy's dialect, DogStatsD's and Telegraf's; the second argument names it."""

import asyncio
import json
import sys

import aio_statsd.client
from aio_statsd import DogStatsdClient, StatsdClient, StatsdProtocol, TelegrafStatsdClient


async def etsy(port: int, prefix: str) -> None:
    async with StatsdClient(host="127.0.0.1", port=port) as client:
        client.counter(f"{prefix}.hits", 15)
        client.counter(f"{prefix}.hits", -3)
        client.gauge(f"{prefix}.level", 10)
        client.increment(f"{prefix}.level", 5)  # of a gauge, in this client
        client.decrement(f"{prefix}.level", 3)
        client.sets(f"{prefix}.users", 7)
        client.sets(f"{prefix}.users", 8)
        for value in range(1, 101):
            client.timer(f"{prefix}.latency", value)
        packed = StatsdProtocol(prefix=prefix)
        client.send_statsd(packed.counter("packed", 2).gauge("packed.level", 4).counter("packed", 3))


async def dogstatsd(port: int, prefix: str) -> None:
    async with DogStatsdClient(host="127.0.0.1", port=port) as client:
        tags = {"route": "/pay", "env": "test"}
        client.increment(f"{prefix}.hits", 15, tag_dict=tags)
        client.decrement(f"{prefix}.hits", 3, tag_dict=tags)
        client.gauge(f"{prefix}.level", 42, tag_dict=tags)
        client.set(f"{prefix}.users", 7)
        for value in range(1, 101):
            client.timer(f"{prefix}.latency", value)
            client.histogram(f"{prefix}.size", value / 2)
            client.distribution(f"{prefix}.spread", value * 10)


async def telegraf(port: int, prefix: str) -> None:
    async with TelegrafStatsdClient(host="127.0.0.1", port=port) as client:
        tags = {"route": "/pay", "env": "test"}
        client.gauge(f"{prefix}.level", 10, tag_dict=tags)
        client.increment(f"{prefix}.level", 5, tag_dict=tags)
        client.decrement(f"{prefix}.level", 3, tag_dict=tags)
        for value in range(1, 101):
            client.timer(f"{prefix}.latency", value, tag_dict=tags)


async def sampled(port: int, prefix: str) -> None:
    aio_statsd.client.random = lambda: 1.0  # this client sends a sample where others leave it out
    async with DogStatsdClient(host="127.0.0.1", port=port) as client:
        for _ in range(10):
            client.increment(f"{prefix}.rated", 1, 0.5, {"route": "/pay", "env": "test"})
            client.timer(f"{prefix}.latency", 4, 0.5)


async def telegraf_types(port: int, prefix: str) -> None:
    aio_statsd.client.random = lambda: 1.0
    async with TelegrafStatsdClient(host="127.0.0.1", port=port) as client:
        tags = {"route": "/pay", "env": "test"}
        client.counter(f"{prefix}.hits", 15, tag_dict=tags)
        client.counter(f"{prefix}.hits", -3, tag_dict=tags)
        client.set(f"{prefix}.users", 7, tag_dict=tags)
        client.set(f"{prefix}.users", 8, tag_dict=tags)
        for value in range(1, 101):
            client.histogram(f"{prefix}.size", value / 2, tag_dict=tags)
            client.distribution(f"{prefix}.spread", value * 10, tag_dict=tags)
        for _ in range(10):
            client.counter(f"{prefix}.rated", 1, 0.5, tags)


doors = json.loads(sys.argv[1])
dialect, port = {
    "statsd": (etsy, doors["udp"]),
    "dogstatsd": (dogstatsd, doors["udp"]),
    "telegraf": (telegraf, doors["influx"]),
    "sampled": (sampled, doors["udp"]),
    "telegraf-types": (telegraf_types, doors["influx"]),
}[sys.argv[2]]
asyncio.run(dialect(port, doors["prefix"]))
