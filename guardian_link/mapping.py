"""Which alert type other programs' words stand for. Data people can read and change; pure."""

from __future__ import annotations

from typing import Final

TYPE_OF_SYSTEM: Final = {
    # the plan's ``system`` and the bridge's
    "database": "database_connection_failure",
    "cpu": "high_cpu_usage",
    "memory": "memory_exhaustion",
    "disk": "disk_space_low",
    "network": "network_connectivity",
    "service": "service_failure",
    "api": "service_failure",
    "mql4": "bridge_mql4_failure",
    "powershell": "bridge_powershell_failure",
    "python": "bridge_python_failure",
    "config_sync": "bridge_config_sync_failure",
}
TYPE_OF_COMPONENT: Final = {
    # Guardian's six components (COMPONENT_FAILURE)
    "dde_connection": "bridge_mql4_failure",
    "ea_bridge": "bridge_mql4_failure",
    "transport_layer": "network_connectivity",
    "database": "database_connection_failure",
    "disk_space": "disk_space_low",
    "memory_usage": "memory_exhaustion",
}
TYPE_OF_CONSTRAINT: Final = {
    "position_limit": "position_limit_exceeded",
    "margin_requirement": "margin_call_recovery",
    "drawdown_limit": "drawdown_exceeded_recovery",
    "cpu_usage_limit": "high_cpu_usage",
    "memory_usage_limit": "memory_exhaustion",
    "disk_space_limit": "disk_space_low",
    "service_availability": "service_down",
}
DEFAULT_TYPE: Final = "service_failure"
TYPE_OF_ALERTNAME: Final = {
    # the platform's Prometheus rules; a name that is not here is taken in snake_case
    "ServiceDown": "service_down",
    "RiskManagerUnresponsive": "service_failure",
    "HighErrorRate": "high_error_rate",
    "HighLatency": "high_latency",
    "TradingHalted": "trading_halted",
    "PriceDataStale": "price_data_stale",
    "HighMemoryUsage": "memory_exhaustion",
    "HighCPUUsage": "high_cpu_usage",
    "DiskSpaceLow": "disk_space_low",
}
SERVICE_OF_ALERTNAME: Final = {
    # which service an alert is about, whatever its labels say
    "RiskManagerUnresponsive": "risk-manager",
}
SERVICE_LABELS: Final = ("service", "job", "container", "instance")
"""Where an alert's service is looked for, in this order."""
MACHINE_TYPES: Final = frozenset({"memory_exhaustion", "high_cpu_usage", "disk_space_low"})
"""Often about a whole machine: the exporter that noticed (`job="node"`) is not the service at fault."""
SEVERITY_OF_LABEL: Final = {
    "critical": "critical",
    "page": "critical",
    "emergency": "critical",
    "high": "high",
    "error": "high",
    "major": "high",
    "warning": "medium",
    "medium": "medium",
    "minor": "low",
    "low": "low",
    "info": "low",
    "none": "low",
}
"""Any other `severity` label, and none at all, is high."""
