"""Metrics: a switch's counters and vitals for Prometheus. It takes the extra `metrics`.

from prometheus_client import REGISTRY
from fastbridge.metrics import collector

REGISTRY.register(collector(switch))
"""

from fastbridge.errors import ConfigError
from fastbridge.extras import way_to

try:
    import prometheus_client as _  # noqa: F401
except ImportError:
    raise ConfigError(f"metrics take the package prometheus-client: {way_to('metrics')}") from None

from .collector import collector as collector
from .collector import plain_text as plain_text
