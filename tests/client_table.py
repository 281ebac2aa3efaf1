"""What must come out of each client's program in tests/clients/, as one table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Expected:
    """Values by selector; timers by selector with their count and sum; P stands for the client's prefix."""

    values: dict[str, float] = field(default_factory=dict)
    timers: dict[str, tuple[float, float]] = field(default_factory=dict)
    present: tuple[str, ...] = ()  # timers of real durations
    events: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  # reasons, one for each line that the client should not have sent

    def under(self, prefix: str) -> Expected:
        """The same for a client that sends under a prefix."""

        def named(text: str) -> str:
            return text.replace("P.", f"{prefix}.", 1)

        return Expected(
            {named(selector): value for selector, value in self.values.items()},
            {named(selector): timer for selector, timer in self.timers.items()},
            tuple(map(named, self.present)),
            tuple(map(named, self.events)),
            tuple(map(named, self.checks)),
            self.refused,
        )


HUNDRED = (100, 5050)


def datadog(transport: str) -> Expected:
    """With and without the client's own aggregation; over unix sockets and UDP it sends the same."""
    expected = Expected()
    for name in ("P.on", "P.off"):
        expected.values |= {
            f'{{"{name}.hits", route="/pay", env="test"}}': 12,
            f"{name}.level": 42.5,
            f"{name}.below": -5,
            f"{name}.users": 2,
            f"{name}.rated": 20,
        }
        for metric, scale in (("latency", 1), ("size", 0.5), ("spread", 10)):
            expected.timers[f"{name}.{metric}"] = (100, 5050 * scale)
        expected.events += (f"{name} deploy",)
        expected.checks += (f"{name}.up",)
    return expected


def forks(expected: Expected, tags: str) -> Expected:
    """What the two forks of jsocol's client send."""
    expected.values |= {
        f'{{"P.hits", {tags}}}': 12,
        "P.plain": 2,
        f'{{"P.level", {tags}}}': 12,
        f'{{"P.below", {tags}}}': -5,
        f'{{"P.users", {tags}}}': 2,
        f'{{"P.piped", {tags}}}': 50,
        f'{{"P.rated", {tags}}}': 20,
    }
    expected.timers[f'{{"P.latency", {tags}}}'] = HUNDRED
    return expected


def hot_shots(*ways: str) -> Expected:
    """The same calls over each of its transports."""
    expected = Expected()
    for way in ways:
        name = f"P.{way}"
        expected.values |= {
            f'{{"{name}.hits", route="pay"}}': 12,
            f"{name}.level": 42.5,
            f"{name}.users": 2,
            f"{name}.rated": 20,
        }
        for metric, scale in (("latency", 1), ("size", 0.5), ("spread", 10)):
            expected.timers[f"{name}.{metric}"] = (100, 5050 * scale)
        if way != "telegraf":
            # A sign sets the gauge on the listener of the unix socket, and moves it on the others.
            expected.values[f"{name}.moved"] = -3 if way == "uds" else 7
            expected.events += (f"{name}.deploy",)
            expected.checks += (f"{name}.up",)
        expected.refused += ("non_finite",)
    return expected


def over_a_stream() -> Expected:
    """What hot-shots sends through a unix stream; a sign sets the gauge on that listener."""
    expected = hot_shots("stream")
    expected.values["P.stream.moved"] = -3
    return expected


TAGS = 'route="pay", env="test"'
SLASH = 'route="/pay", env="test"'

# Client -> (program, further arguments, what must come out)
CASES: dict[str, tuple[str, str, list[str], Expected]] = {
    **{
        f"datadog-{transport}": ("pypi/datadog", "datadog_client.py", [transport], datadog(transport))
        for transport in ("udp", "unixgram", "unixstream", "unix")
    },
    "aiodogstatsd": (
        "pypi/aiodogstatsd",
        "aiodogstatsd_client.py",
        [],
        Expected(
            {
                '{"P.hits", env="test"}': 12,
                f'{{"P.tagged", {SLASH}}}': 2,
                "P.level": 42.5,
                "P.rated": 20,
            },
            {"P.latency": HUNDRED, "P.size": (100, 2525), "P.spread": (100, 50500)},
            present=("P.block",),
        ),
    ),
    "aio-statsd-statsd": (
        "pypi/aio-statsd",
        "aio_statsd_client.py",
        ["statsd"],
        Expected(
            {"P.hits": 12, "P.level": 12, "P.users": 2, "P.packed": 5, "P.packed.level": 4},
            {"P.latency": HUNDRED},
        ),
    ),
    "aio-statsd-dogstatsd": (
        "pypi/aio-statsd",
        "aio_statsd_client.py",
        ["dogstatsd"],
        Expected(
            {f'{{"P.hits", {SLASH}}}': 12, f'{{"P.level", {SLASH}}}': 42, "P.users": 1},
            {"P.latency": HUNDRED, "P.size": (100, 2525), "P.spread": (100, 50500)},
        ),
    ),
    "aio-statsd-telegraf": (
        "pypi/aio-statsd",
        "aio_statsd_client.py",
        ["telegraf"],
        Expected({f'{{"P.level", {SLASH}}}': 12}, {f'{{"P.latency", {SLASH}}}': HUNDRED}),
    ),
    "monasca-statsd": (
        "pypi/monasca-statsd",
        "monasca_statsd_client.py",
        [],
        # Its dimensions are a Python dict as text: {'route': 'pay'} is a tag of one odd key and value.
        Expected(
            {"P.hits": 12, "P.tagged": 2, "P.level": 42.5, "P.latency": 7, "P.piped": 120, "P.rated": 20}
        ),
    ),
    "python-statsd": (
        "pypi/python-statsd",
        "python_statsd_client.py",
        [],
        Expected({"P.hits": 12, "P.level": 12, "P.rated": 20}, {"P.latency": HUNDRED}),
    ),
    "statsd-telegraf": (
        "pypi/statsd-telegraf",
        "statsd_fork_client.py",
        ["influx"],
        forks(Expected(), TAGS),
    ),
    "statsd-tags": (
        "pypi/statsd-tags",
        "statsd_fork_client.py",
        ["udp"],
        forks(Expected({f'{{"P.tcp", {TAGS}}}': 20}), TAGS),
    ),
    "markus": (
        "pypi/markus",
        "markus_client.py",
        [],
        Expected(
            {
                '{"P.dd.app.hits", route="pay"}': 12,
                "P.dd.app.level": 42.5,
                "P.etsy.app.hits": 12,
                "P.etsy.app.level": 42.5,
            },
            {
                "P.dd.app.latency": HUNDRED,
                "P.dd.app.size": (100, 2525),
                "P.etsy.app.latency": HUNDRED,
                "P.etsy.app.size": (100, 2525),
            },
            present=("P.dd.app.block", "P.etsy.app.block"),
        ),
    ),
    "sprockets-statsd": (
        "pypi/sprockets-statsd",
        "sprockets_statsd_client.py",
        [],
        Expected(
            {f"P.{way}.{kind}": 12 for way in ("tcp", "udp") for kind in ("counters.hits", "gauges.level")},
            {f"P.{way}.timers.latency": HUNDRED for way in ("tcp", "udp")},
        ),
    ),
    "hot-shots": (
        "npm/hot-shots",
        "hot-shots.js",
        ["udp", "tcp", "buffered", "aggregated", "telegraf"],
        hot_shots("udp", "tcp", "buffered", "aggregated", "telegraf"),
    ),
    "hot-shots-uds": ("npm/hot-shots/node_modules/unix-dgram", "hot-shots.js", ["uds"], hot_shots("uds")),
    "node-statsd": (
        "npm/node-statsd",
        "node-statsd.js",
        [],
        Expected(
            {
                f'{{"P.hits", {TAGS}}}': 12,
                "P.one": 1,
                "P.two": 1,
                "P.level": 42.5,
                "P.users": 2,
                "P.rated": 20,
            },
            {"P.latency": HUNDRED, "P.size": (100, 2525)},
        ),
    ),
    "statsd-client": (
        "npm/statsd-client",
        "statsd-client.js",
        [],
        Expected(
            {
                selector.replace("P.", f"P.{way}."): value
                for way in ("udp", "tcp")
                for selector, value in {
                    f'{{"P.hits", {TAGS}}}': 12,
                    "P.plain": 2,
                    "P.level": 12,
                    "P.users": 2,
                    "P.raw": 8,
                }.items()
            },
            {
                f"P.{way}.{name}": (100, 5050 * scale)
                for way in ("udp", "tcp")
                for name, scale in (("latency", 1), ("size", 0.5), ("spread", 10))
            },
        ),
    ),
    "lynx": (
        "npm/lynx",
        "lynx.js",
        [],
        Expected(
            {"P.hits": 12, "P.one": 1, "P.two": 0, "P.level": 42.5, "P.users": 2, "P.rated": 10},
            {"P.latency": HUNDRED},
            present=("P.block",),
        ),
    ),
    "ruby": (
        "ruby",
        "client.rb",
        [],
        Expected(
            {"P.hits": 12, "P.level": 42.5, "P.users": 2, "P.piped": 55, "P.rated": 20},
            {"P.latency": HUNDRED},
            present=("P.block",),
        ),
    ),
    "perl": (
        "perl",
        "client.pl",
        [],
        Expected(
            {"P.hits": 12, "P.other": -3, "P.one": -2, "P.level": 42.5, "P.below": 0, "P.rated": 20},
            {"P.latency": HUNDRED},
        ),
    ),
    "statsd-unixstream": (
        "pypi/markus",  # where jsocol's client is installed beside
        "statsd_unix_client.py",
        [],
        Expected(
            {"P.hits": 12, "P.level": 42.5, "P.below": -5, "P.users": 2, "P.piped": 50},
            {"P.latency": (100, 5050)},
        ),
    ),
    "hot-shots-unixstream": ("npm/hot-shots", "hot-shots.js", ["stream"], over_a_stream()),
    # A Python dict where tags belong, |#{'route': 'pay'}, costs neither the metric nor its neighbours.
    "monasca-statsd-dimensions": (
        "pypi/monasca-statsd",
        "monasca_statsd_client.py",
        [],
        Expected({'{"P.tagged", route="\'pay\'}"}': 2, "P.hits": 12}),
    ),
    "statsd-tags-tcp": ("pypi/statsd-tags", "statsd_fork_client.py", ["tcp"], forks(Expected(), TAGS)),
    "statsd-telegraf-tcp": (
        "pypi/statsd-telegraf",
        "statsd_fork_client.py",
        ["influx_tcp"],
        forks(Expected(), TAGS),
    ),
    "aio-statsd-sampled": (
        "pypi/aio-statsd",
        "aio_statsd_client.py",
        ["sampled"],
        Expected({f'{{"P.rated", {SLASH}}}': 20}, {"P.latency": (20, 80)}),
    ),
    "aio-statsd-telegraf-types": (
        "pypi/aio-statsd",
        "aio_statsd_client.py",
        ["telegraf-types"],
        Expected(
            {f'{{"P.hits", {SLASH}}}': 12, f'{{"P.users", {SLASH}}}': 2, f'{{"P.rated", {SLASH}}}': 20},
            {f'{{"P.size", {SLASH}}}': (100, 2525), f'{{"P.spread", {SLASH}}}': (100, 50500)},
        ),
    ),
    # An average (|a) and a raw value (|r) are types of none of the dialects.
    "python-statsd-types": (
        "pypi/python-statsd",
        "python_statsd_client.py",
        ["types"],
        Expected({"P.after": 1}, refused=("bad_type", "bad_type")),
    ),
    "lynx-stream": (
        "npm/lynx",
        "lynx.js",
        ["stream"],
        Expected({"P.streamed": 4, "P.hits": 12, "P.rated": 10}, refused=("bad_type",)),
    ),
}
