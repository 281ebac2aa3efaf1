"""aiodogstatsd: DogStatsD over UDP from asyncio."""

import asyncio
import json
import sys

from aiodogstatsd import Client


async def main(doors: dict) -> None:
    client = Client(
        host="127.0.0.1",
        port=doors["udp"],
        namespace=doors["prefix"],
        constant_tags={"env": "test"},
        read_timeout=0.05,
    )
    async with client:
        client.increment("hits")
        client.increment("hits", value=14)
        client.decrement("hits", value=3)
        client.increment("tagged", value=2, tags={"route": "/pay"})
        client.gauge("level", value=42.5)
        for value in range(1, 101):
            client.timing("latency", value=value)
            client.histogram("size", value=value / 2)
            client.distribution("spread", value=value * 10)
        with client.timeit("block"):
            await asyncio.sleep(0.01)
        sys.modules["aiodogstatsd.client"].random = lambda: 0.0
        for _ in range(10):
            client.increment("rated", sample_rate=0.5)


asyncio.run(main(json.loads(sys.argv[1])))
