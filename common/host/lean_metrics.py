"""Of prometheus_client what holds metrics, without what shows them: its package imports two HTTP servers and a client, with e-mail,
hashes and archives behind them, 4 MiB. Whoever shows metrics imports the package as always, and finds the same classes in it.
"""

import sys
from importlib.util import find_spec, module_from_spec

_PACKAGE = "prometheus_client"
_SPEC = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
if _SPEC is not None:
    sys.modules[_PACKAGE] = module_from_spec(_SPEC)  # where its modules are; its own code does not run
try:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector, CollectorRegistry
    from prometheus_client.utils import floatToGoString
finally:
    if _SPEC is not None:
        del sys.modules[_PACKAGE]

__all__ = [
    "Collector",
    "CollectorRegistry",
    "CounterMetricFamily",
    "GaugeMetricFamily",
    "HistogramMetricFamily",
    "Metric",
    "floatToGoString",
]
