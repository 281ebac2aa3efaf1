"""Several collectors on one store: what adds up, what the clock decides, and how to tell them apart."""

from __future__ import annotations

import asyncio
import socket
from array import array
from functools import partial
from pathlib import Path

import pytest
import uvloop
from clusters import alone
from engines import make_engine
from harness import DaemonProcess, wait_for
from stores import NOW, RESOLUTION, Store, gauge, opened

from collector.config import ConfigError, load
from collector.daemon import Daemon
from collector.listeners import create
from collector.listeners.base import profile_of
from collector.model import CounterPoint, Kind, Series, SetPoint, TimerPoint
from collector.sketch import Sketch

HITS = Series(Kind.COUNTER, "hits")
LATENCY = Series(Kind.TIMER, "latency")
USERS = Series(Kind.SET, "users")
LEVEL = Series(Kind.GAUGE, "level")
QUEUE = Series(Kind.GAUGE, "queue")


def sketch_of(*values: float) -> Sketch:
    """A sketch of these."""
    sketch = Sketch()
    sketch.add(list(values))
    return sketch


def test_collectors_add_up(tmp_path: Path) -> None:
    """Counters, sketches, sets and moves of gauges are summed; of set gauges the latest counts, whoever is
    last to write it. Both write at the same time, for many flushes.
    """

    async def run(port: int) -> None:
        url = f"redis://127.0.0.1:{port}"
        async with opened(url) as one, opened(url) as two:

            async def write(store: Store, numbers: range) -> None:
                for n in numbers:
                    await store.put(
                        CounterPoint(HITS, n),
                        TimerPoint(LATENCY, sketch_of(n).encode(), array("d", [n])),
                        SetPoint(USERS, [b"u%d" % (n // 2)]),
                        gauge("queue", None, 1),
                    )

            await asyncio.gather(write(one, range(1, 101, 2)), write(two, range(2, 101, 2)))
            await one.write(gauge("level", 5, at=NOW + 2))
            await two.write(gauge("level", 3, at=NOW + 1))  # it comes later and is older
            assert await one.sender.wait_idle(20)
            assert await two.sender.wait_idle(20)
            assert await one.reader.totals([HITS]) == [5050]
            ((_, merged),) = (await one.reader.sketches([LATENCY], NOW, NOW + RESOLUTION))[0]
            assert merged == sketch_of(*range(1, 101))
            minute = int(NOW) // 60 * 60
            ((_, members),) = (await two.reader.uniques([USERS], minute, minute + 60))[0]
            assert members == pytest.approx(51, abs=1)
            assert await two.reader.gauges([LEVEL, QUEUE], NOW) == [(NOW + 2, 5), (NOW, 100)]

    with alone("valkey", tmp_path) as server:
        uvloop.run(run(server.port))


CONFIG = """\
listen: ["udp://127.0.0.1:0"]
flush_interval: 1s
state_dir: {directory}/state
http: {{listen: "127.0.0.1:0"}}
redis: {{url: "redis://127.0.0.1:{port}"}}
node_tag: {node_tag}
"""


def test_the_values_of_each_collector_are_seen_by_its_tag(tmp_path: Path) -> None:
    """On request: `true` is the host's name; a line's own tag `node` counts instead; events have it too."""
    with alone("valkey", tmp_path / "server") as server:
        daemons = []
        for name in ("true", "second"):
            directory = tmp_path / name
            directory.mkdir()
            config = CONFIG.format(directory=directory, port=server.port, node_tag=name)
            daemons.append(DaemonProcess(directory, config))
        try:
            for daemon in daemons:
                daemon.wait_ready()
                daemon.send_udp("hits:2|c", "hits:1|c|#node:other", "_e{1,0}:e|")
            first, second = daemons
            host = socket.gethostname()
            for node, value in ((host, 2), ("second", 2), ("other", 2)):
                selector = f'hits{{node="{node}"}}'
                wait_for(partial(_is, first, selector, value), selector)
            assert second.value(f'hits{{node="{host}"}}') == 2
            assert {tag for one in first.get("/api/v1/events") for tag in one["tags"]} == {
                f"node:{host}",
                "node:second",
            }
        finally:
            for daemon in daemons:
                daemon.stop()


def _is(daemon: DaemonProcess, selector: str, value: float) -> bool:
    return daemon.value(selector) == value


@pytest.mark.usefixtures("each_engine")
@pytest.mark.parametrize("name", ["true", "web-1", "false"])
def test_both_engines_tag_with_the_node(name: str, tmp_path: Path) -> None:
    """The tag is that of the listeners, which is in a head's meaning: lines cost the same."""
    config = tmp_path / "collector.yaml"
    config.write_text(f"listen: [{{url: 'udp://127.0.0.1:0', tags: {{env: prod}}}}]\nnode_tag: {name}\n")
    settings = load(config, {"HOME": str(tmp_path)})
    daemon = Daemon(settings)
    engine = make_engine(NOW)
    listener = create(daemon._tagged(settings.listen[0]), engine, settings.limits, lambda: NOW)
    profile = engine.add_profile(profile_of(listener.settings, settings.limits))
    engine.ingest(profile, b"hits:1|c\nhits:1|c|#node:own", "test", NOW)
    found = {
        point.series.tags
        for one in engine.close(NOW + 10)
        for _, points in one.chunks(10)
        for point in points
    }
    node = {"true": (f"node:{socket.gethostname()}",), "web-1": ("node:web-1",), "false": ()}[name]
    assert found == {("env:prod", *node), ("env:prod", "node:own")}


@pytest.mark.parametrize("name", ["''", "'a,b'", "'a|b'", "[a]"])
def test_a_name_that_no_tag_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    """With its key."""
    config = tmp_path / "collector.yaml"
    config.write_text(f"node_tag: {name}\n")
    with pytest.raises(ConfigError, match="node_tag"):
        load(config, {"HOME": str(tmp_path)})
