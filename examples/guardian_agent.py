"""A Guardian agent that recovers instead of only alerting, in two ways: the seed's own snippet with one changed import,
and the base agent that tells people what nobody recovers.

Run it beside a daemon: ``python examples/guardian_agent.py [tcp://127.0.0.1:5570]``
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from guardian_link import Alert, AutomatedRecoverySystem, GuardianAgent


class RiskAgent:
    def __init__(self, address: str | None = None) -> None:
        self.recovery_system = AutomatedRecoverySystem(address)

    async def handle_alert(self, alert_data: Mapping[str, Any]) -> str | None:
        # Instead of just alerting, execute recovery
        return await self.recovery_system.execute_recovery(alert_data["error_id"], alert_data)


class TransportAgent(GuardianAgent):
    def map_issue(self, issue: Any) -> Any:
        return {**issue, "service": "transport-router"}


def page(alert: Alert) -> None:
    print(f"people were told: {alert.type} of {alert.service}, {alert.severity}")


async def main(address: str | None) -> None:
    agent = RiskAgent(address)
    alert = {
        "error_id": "risk_manager_silent",
        "error_message": "no heartbeat for 10 s",
        "system": "service",
        "service_name": "risk-manager",
    }
    execution_id = await agent.handle_alert(alert)
    print(f"Recovery started: {execution_id}")
    print(agent.recovery_system.get_recovery_statistics())
    agent.recovery_system.close()

    with TransportAgent(address, alerting=page, severity_threshold="medium") as transport:
        for severity in ("HIGH", "LOW"):
            issue = {"type": "COMPONENT_FAILURE", "component": "transport_layer", "severity": severity}
            handled = await transport.handle_issue(issue)
            print(f"{severity}: {handled.outcome or handled.why}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
