"""Which restarts were made under an earlier daemon that was killed before it had counted them. Pure.

One that was not made yet is told as an end and counted with that (``actors.untold``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from actors.ledger import ServiceRecord


def uncounted(
    records: Mapping[str, ServiceRecord], policies: Mapping[str, str], untold: Collection[str]
) -> dict[str, int]:
    """For each such service the run whose end is written, which another followed, and whose restart is not counted.

    Args:
        policies: the restart policy of each configured service.
        untold: services whose end the keeper will yet tell: that is counted as any other.
    """
    return {
        name: record.exited_run
        for name, record in records.items()
        if name not in untold
        and record.run > record.exited_run > max(record.counted_run, record.judged_run)
        and _is_restarted(record, policies.get(name))
    }


def _is_restarted(record: ServiceRecord, policy: str | None) -> bool:
    last = record.last_exit or {}
    if record.stopped is not None or last.get("asked"):
        return False
    if policy == "on_failure":
        return last.get("code") != 0
    return policy == "always" or (policy == "unless_stopped" and not last.get("stopped_by_hand"))
