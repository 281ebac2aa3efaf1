"""The HTTP API: health, self-metrics, status, queries.

guard   who may ask
query   selectors answered in Prometheus' shape
app     the routes
"""

from collector.api.app import Source, create_app

__all__ = ["Source", "create_app"]
