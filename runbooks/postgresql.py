"""What runbooks do with PostgreSQL (14 or later), over psycopg's libpq.

libpq's own calls are used without waiting, so that each wait ends with the call's deadline whatever the server does: a
stopped server accepts connections and never answers.
"""

from __future__ import annotations

import json
import selectors
from types import TracebackType
from typing import Any, Final, Self

from psycopg import Error as PsycopgError
from psycopg import pq

from runbooks.database_urls import POSTGRESQL, Deadline, Reached, address_of, knock
from runbooks.database_words import (
    Database,
    DatabaseLimits,
    DatabaseTrouble,
    DatabaseView,
    SessionRules,
    Sessions,
    SessionsEnded,
)
from runbooks.ports import PortError

NAME: Final = "selfheal"
"""Our sessions' application_name."""
GONE_WITHIN_S: Final = 5.0
_FULL: Final = ("too many clients", "slots are reserved", "too many connections")
_STARTING: Final = (
    "starting up",
    "shutting down",
    "recovery mode",
    "not accepting connections",
    "not yet accepting",
)
"""PostgreSQL's words in English: libpq gives no SQLSTATE of a connection that failed. In other languages: denied."""

_FIGURES: Final = """
with waiting as (
  select pid, extract(epoch from clock_timestamp() - min(waitstart)) as seconds
  from pg_locks where not granted group by pid)
select json_build_object(
  'sessions', (select count(*) from pg_stat_activity where pid <> pg_backend_pid()
    and (backend_type = 'client backend' or (backend_type is null and usesysid is not null))),
  'most', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0),
  'waiting', (select count(*) from waiting where seconds > $1::float8),
  'longest', (select max(seconds) from waiting),
  'recovery', pg_is_in_recovery(),
  'read_only', current_setting('default_transaction_read_only') = 'on')::text
"""

_END: Final = """
with recursive waiting as (
  select distinct pid from pg_locks
  where not granted and waitstart < clock_timestamp() - make_interval(secs => $2::float8)),
chain(pid) as (
  select blocker from waiting, unnest(pg_blocking_pids(waiting.pid)) as blocker
  union select blocker from chain, unnest(pg_blocking_pids(chain.pid)) as blocker),
roots as materialized (select pid from chain where pid <> 0 and cardinality(pg_blocking_pids(pid)) = 0),
seen as materialized (
  select activity.pid, backend_start, usename, application_name, state, rolsuper, rolreplication,
    extract(epoch from clock_timestamp() - state_change) as seconds, backend_type, query,
    rolname is not null and (pg_has_role(usesysid, 'USAGE') or pg_has_role('pg_signal_backend', 'USAGE')
      or (select rolsuper from pg_roles where rolname = current_user)) as may_end
  from pg_stat_activity as activity left join pg_roles on pg_roles.oid = usesysid
  where activity.pid <> pg_backend_pid() and usesysid is not null),
found as materialized (
  select *, case
      when backend_type <> 'client backend' then 'no session of a client'
      when application_name = $5 then 'ours'
      when coalesce(rolsuper, true) then 'a superuser''s'
      when rolreplication then 'a replication role''s'
      when usename = any(array(select json_array_elements_text($4::json)))
        or application_name = any(array(select json_array_elements_text($4::json))) then 'to be kept'
      when not may_end then 'may not be ended by us'
    end as why
  from seen
  where ($3 in ('blocking', 'holding') and pid in (select pid from roots))
    or ($3 in ('idle', 'holding') and backend_type = 'client backend' and state like 'idle%'
      and seconds > $1::float8
      and ($3 = 'idle' or pid in (select pid from pg_locks where locktype = 'advisory' and granted)))),
done as materialized (
  select *, case
      when why is not null then false
      when state like 'idle%' then pg_terminate_backend(pid)
      else pg_cancel_backend(pid)
    end as is_done
  from found)
select json_build_object(
  'sessions', (select coalesce(json_agg(json_build_object(
      'pid', pid, 'began', backend_start::text, 'user', usename, 'application', application_name, 'state', state,
      'seconds', round(seconds::numeric, 1), 'why', coalesce(why, case when not is_done then 'was gone already' end)
    ) order by pid), '[]') from done),
  'hidden', (select count(*) from seen where backend_type is null),
  'prepared', exists (select from chain where pid = 0),
  'me', current_user)::text
"""

_LEFT: Final = """
select json_build_object('left', count(*))::text from pg_stat_activity
where pid::text || backend_start::text in (select json_array_elements_text($1::json))
"""


class _Refused(Exception):
    """The server said no."""


class _Silent(Exception):
    """The server said nothing in time."""


class _Session:
    """One connection, without a transaction."""

    def __init__(self, database: Database, deadline: Deadline) -> None:
        self._deadline = deadline
        try:
            pq.Conninfo.parse(database.url.encode())
        except Exception:
            raise PortError("its url cannot be read by PostgreSQL's client") from None
        self._libpq = pq.PGconn.connect_start(database.url.encode())
        try:
            self._connect()
            self.ask(
                "select json_build_array(set_config('application_name', $1, false),"
                " set_config('statement_timeout', $2, false), set_config('client_encoding', 'UTF8', false))::text",
                NAME,
                str(max(1, int(deadline.left_s * 1000))),
            )
        except BaseException:
            self._libpq.finish()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._libpq.finish()

    def ask(self, sql: str, *values: str) -> Any:
        """The JSON value that ``sql`` gives as one text.

        Raises:
            _Refused, _Silent: as they say.
        """
        self._libpq.nonblocking = 1
        try:
            self._libpq.send_query_params(sql.encode(), [value.encode() for value in values])
            while self._libpq.flush():
                self._wait(selectors.EVENT_READ | selectors.EVENT_WRITE)
            results = []
            while (result := self._result()) is not None:
                results.append(result)
        except PsycopgError as error:
            raise _Refused(f"{error}") from None
        for result in results:
            if result.status != pq.ExecStatus.TUPLES_OK:
                text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
                raise _Refused(text.decode(errors="replace"))
        value = results[0].get_value(0, 0) if results else None
        return json.loads(value) if value is not None else None

    def _connect(self) -> None:
        while True:
            if self._libpq.status == pq.ConnStatus.BAD:
                raise _Refused(self._libpq.get_error_message())
            match self._libpq.connect_poll():
                case pq.PollingStatus.OK:
                    return
                case pq.PollingStatus.READING:
                    self._wait(selectors.EVENT_READ)
                case pq.PollingStatus.WRITING:
                    self._wait(selectors.EVENT_WRITE)
                case _:
                    raise _Refused(self._libpq.get_error_message())

    def _result(self) -> pq.abc.PGresult | None:
        self._libpq.consume_input()
        while self._libpq.is_busy():
            self._wait(selectors.EVENT_READ)
            self._libpq.consume_input()
        return self._libpq.get_result()

    def _wait(self, event: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._libpq.socket, event)
            if not selector.select(self._deadline.left_s):
                raise _Silent


def view(database: Database, limits: DatabaseLimits, deadline: Deadline) -> DatabaseView:
    """As ``ports.Databases``."""
    try:
        with _Session(database, deadline) as session:
            found = session.ask(_FIGURES, str(limits.blocked_for_s))
    except _Silent:
        return _outside(
            database, deadline, DatabaseTrouble.HUNG, f"accepts, and answers nothing within {deadline.timeout_s:g} s"
        )
    except _Refused as error:
        return _outside(database, deadline, _trouble_in(str(error)), str(error))
    sessions, most, waiting, longest_s = found["sessions"], found["most"], found["waiting"], found["longest"]
    writable = not found["recovery"] and not found["read_only"]
    told = f"{sessions} of {most} sessions"
    if waiting:
        told += f", {waiting} waiting for locks, the longest for {longest_s:.1f} s"
    if not writable:
        told += ", takes no writes: a standby" if found["recovery"] else ", takes no writes: read-only by default"
    trouble = DatabaseTrouble.NONE
    if waiting:
        trouble = DatabaseTrouble.BLOCKED
    elif sessions >= most * limits.share:
        trouble = DatabaseTrouble.EXHAUSTED
    return DatabaseView(POSTGRESQL, trouble, told, sessions, most, waiting, longest_s, writable)


def _trouble_in(text: str) -> DatabaseTrouble:
    if any(words in text for words in _FULL):
        return DatabaseTrouble.FULL
    return DatabaseTrouble.STARTING if any(words in text for words in _STARTING) else DatabaseTrouble.DENIED


def _outside(database: Database, deadline: Deadline, trouble: DatabaseTrouble, text: str) -> DatabaseView:
    """We did not get in: whether anything is there at all decides first."""
    if trouble in (DatabaseTrouble.DENIED, DatabaseTrouble.HUNG):
        reached, _ = knock(address_of(database), deadline)
        if reached is Reached.REFUSES:
            return DatabaseView(POSTGRESQL, DatabaseTrouble.DOWN, "nothing accepts connections")
        if reached is Reached.SILENT:
            trouble = DatabaseTrouble.HUNG
    return DatabaseView(POSTGRESQL, trouble, " ".join(text.split()))


def end_sessions(database: Database, which: Sessions, rules: SessionRules, deadline: Deadline) -> SessionsEnded:
    """As ``ports.Databases``. Who runs a statement has only that cancelled: its transaction fails, its locks go."""
    try:
        with _Session(database, deadline) as session:
            found = session.ask(
                _END, str(rules.idle_for_s), str(rules.blocked_for_s), which.value, json.dumps(rules.keep), NAME
            )
            sessions = found["sessions"]
            done = [one for one in sessions if one["why"] is None]
            ended = [one for one in done if _is_idle(one)]
            _wait_gone(session, [f"{one['pid']}{one['began']}" for one in ended], deadline)
    except _Silent:
        raise PortError(f"it does not answer within {deadline.timeout_s:g} s") from None
    except _Refused as error:
        raise PortError(str(error)) from None
    left = [_named(one) | {"why": one["why"]} for one in sessions if one["why"] is not None]
    if found["prepared"]:
        left.append({"why": "a prepared transaction blocks: see pg_prepared_xacts"})
    if not done and (found["hidden"] or any("by us" in one["why"] for one in left)):
        raise PortError(
            f"user {found['me']} may not see or end others' sessions; grant it pg_monitor and pg_signal_backend"
        )
    return SessionsEnded(
        tuple(map(_named, ended)),
        tuple(_named(one) for one in done if not _is_idle(one)),
        tuple(left),
    )


def _is_idle(one: dict[str, Any]) -> bool:
    return str(one["state"]).startswith("idle")


def _named(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("pid", "user", "application", "state", "seconds")}


def _wait_gone(session: _Session, ended: list[str], deadline: Deadline) -> None:
    patience = Deadline(min(GONE_WITHIN_S, deadline.left_s))
    while ended:
        left = session.ask(_LEFT, json.dumps(ended))["left"]
        if not left:
            return
        if patience.is_over:
            raise PortError(f"{len(ended)} sessions were told to end, and {left} are still there")
        session.ask("select json_build_array(pg_sleep(0.05)::text)::text")
