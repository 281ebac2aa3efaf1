"""markus, through its back ends for DogStatsD and for StatsD."""

import json
import sys

import markus

doors = json.loads(sys.argv[1])
markus.configure(
    [
        {
            "class": "markus.backends.datadog.DatadogMetrics",
            "options": {
                "statsd_host": "127.0.0.1",
                "statsd_port": doors["dogstatsd"],
                "statsd_namespace": f"{doors['prefix']}.dd",
            },
        },
        {
            "class": "markus.backends.statsd.StatsdMetrics",
            "options": {
                "statsd_host": "127.0.0.1",
                "statsd_port": doors["udp"],
                "statsd_prefix": f"{doors['prefix']}.etsy",
            },
        },
    ]
)
metrics = markus.get_metrics("app")
metrics.incr("hits", value=12, tags=["route:pay"])
metrics.gauge("level", value=42.5, tags=["route:pay"])
for value in range(1, 101):
    metrics.timing("latency", value=value, tags=["route:pay"])
    metrics.histogram("size", value=value / 2, tags=["route:pay"])
with metrics.timer("block"):
    pass
for backend in markus.main._get_metrics_backends() if hasattr(markus.main, "_get_metrics_backends") else []:
    getattr(backend.client, "flush", lambda: None)()
