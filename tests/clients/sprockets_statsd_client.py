"""sprockets-statsd: asyncio, over TCP and over UDP."""

import asyncio
import json
import socket
import sys

from sprockets_statsd import statsd


async def main(doors: dict) -> None:
    for door, protocol in (("tcp", socket.IPPROTO_TCP), ("udp", socket.IPPROTO_UDP)):
        client = statsd.Connector(
            "127.0.0.1", doors[door], prefix=f"{doors['prefix']}.{door}", ip_protocol=protocol
        )
        await client.start()
        client.incr("hits", 15)
        client.decr("hits", 3)
        client.gauge("level", 10)
        client.gauge("level", 5, delta=True)
        client.gauge("level", -3, delta=True)
        for value in range(1, 101):
            client.timing("latency", value / 1000)
        await client.stop()


asyncio.run(main(json.loads(sys.argv[1])))
