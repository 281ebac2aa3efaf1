"""A metrics daemon: StatsD, DogStatsD and OpenTelemetry in, Redis or Valkey out, exactly once."""

__version__ = "0.1.0"
