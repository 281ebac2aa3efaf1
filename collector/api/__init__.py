"""The HTTP API: health, self-metrics, status, queries.

guard        who may ask
prometheus   numbers and histograms as Prometheus prints them
query        selectors answered in Prometheus' shape
app          the routes
"""

from collector.api.app import Source, create_app
from collector.api.query import Reader

__all__ = ["Reader", "Source", "create_app"]
