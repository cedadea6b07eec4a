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
