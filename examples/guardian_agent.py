"""A Guardian agent that recovers instead of only alerting: the seed's own snippet with one changed import.

Run it beside a daemon: ``python examples/guardian_agent.py [tcp://127.0.0.1:5570]``
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from guardian_link import AutomatedRecoverySystem


class RiskAgent:
    def __init__(self, address: str | None = None) -> None:
        self.recovery_system = AutomatedRecoverySystem(address)

    async def handle_alert(self, alert_data: Mapping[str, Any]) -> str | None:
        # Instead of just alerting, execute recovery
        return await self.recovery_system.execute_recovery(alert_data["error_id"], alert_data)


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


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
