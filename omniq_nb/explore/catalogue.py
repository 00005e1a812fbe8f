"""Fills the views from the stores and runs queries over them.

Only the stores that a query reads are asked, and only for the columns that it reads.

Not here: what a query reads (`omniq_nb.explore.statements`), and what becomes of the stores'
rows (`omniq_nb.explore.session`). Both are loaded with the first query, and DuckDB with them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from omniq_nb.config.sources import nearest
from omniq_nb.errors import ConfigError
from omniq_nb.explore.structure import Structures
from omniq_nb.explore.views import BATCH, RESULTS, TASKS, VIEWS, View, identifier, literal
from omniq_nb.liveness import seen_now
from omniq_nb.models.task import State
from omniq_nb.storage.base import Query, Scan, Stores

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from omniq_nb.explore.session import Session
    from omniq_nb.explore.statements import Needs

T = TypeVar("T")

Connections: TypeAlias = "list[duckdb.DuckDBPyConnection]"
"""Those that a piece of work has opened: they are closed for it, and interrupted."""

UNSETTLED = tuple(str(state) for state in State if state is not State.SUCCEEDED)
"""States of tasks whose stored result may be a zombie's, or an earlier attempt's. A task that
succeeded has no other result than its own: a store keeps the highest token."""

COMBINED = f"""
SELECT {", ".join(f"coalesce(result.{c}, task.{c}) AS {c}" for c in BATCH.names if c != "value")},
    result.value
FROM tasks AS task FULL JOIN results AS result USING (task_id)
"""


EVERYTHING = Query()


class Source(NamedTuple):
    """What a view is made of.

    Attributes
    ----------
    view : View
        The view.
    columns : tuple of str
        Those of its documented columns that are read; the others are NULL.
    scan : Scan
        The store's rows.
    query : Query
        What the store was asked for: it may have given more.
    """

    view: View
    columns: tuple[str, ...]
    scan: Scan
    query: Query


class Scans(NamedTuple):
    """What the stores gave for one query.

    Attributes
    ----------
    sources : sequence of Source
        What the views are made of.
    unsettled : Scan or None
        With results: the tasks that did not succeed.
    """

    sources: Sequence[Source]
    unsettled: Scan | None


class Explorer:
    """Queries over the stores of one omniq.

    Off an event loop its coroutines end without suspending, if the stores are immediate. On one
    they work in a thread, and stop soon after they are cancelled.

    Parameters
    ----------
    stores : Stores
        Open ones.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._structures = Structures()

    async def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> "pa.Table":
        """Run one query that reads.

        Parameters
        ----------
        query : str
            In DuckDB's SQL, over the views of docs/tables.md.
        parameters : sequence or mapping, optional
            For ``?`` or ``$name`` in the query.

        Raises
        ------
        QueryError
            The query is wrong, or is more than reading.
        StoreError
            A store could not be read.
        """
        if isinstance(parameters, str | bytes):
            raise ConfigError("parameters", parameters, "a list for ?, a mapping for $name")
        bound = dict(parameters) if isinstance(parameters, Mapping) else parameters

        def planned(_: Connections) -> "Needs":
            from omniq_nb.explore.statements import plan

            return plan(query, bound)

        needs = await aside(planned)
        scans = await self._scans({VIEWS[name]: columns for name, columns in needs.items()})
        return await aside(lambda open: self._session(open, scans).query(query, bound))

    async def table(
        self,
        view: str,
        *,
        columns: Sequence[str] | None = None,
        since: float | None = None,
        until: float | None = None,
        where: Mapping[str, object] | None = None,
        order: str | Sequence[str] = (),
        limit: int | None = None,
    ) -> "pa.Table":
        """Rows of one view.

        Parameters
        ----------
        view : str
            A view of docs/tables.md.
        columns : sequence of str, optional
            All unless given. Arguments may be among them.
        since, until : float, optional
            Half-open range, in seconds since 1970: when tasks were created, results finished,
            events happened, schedules were made, workers started.
        where : mapping of str to object, optional
            Column to the value that it shall have, or to a list of such values.
        order : str or sequence of str
            Columns to sort by, each with a leading ``-`` for descending; by time unless given.
        limit : int, optional
            At most so many rows.

        Raises
        ------
        ConfigError
            There is no such view.
        QueryError
            There is no such column, or a value has the wrong type.
        """
        described = VIEWS.get(view)
        if described is None:
            raise ConfigError("view", view, ", ".join(VIEWS), nearest(view, VIEWS))
        pushed, conditions, parameters = _conditions(described, where or {})
        sorting = [order] if isinstance(order, str) else list(order) or [described.time]
        query = f"SELECT {', '.join(map(identifier, columns)) if columns else '*'} FROM {view}"
        if conditions:
            query += f" WHERE {' AND '.join(conditions)}"
        directions = (
            identifier(name.removeprefix("-")) + (" DESC" if name.startswith("-") else "")
            for name in sorting
        )
        ordered = f" ORDER BY {', '.join(directions)}"
        limited = "" if limit is None else " LIMIT ?"
        parameters += [] if limit is None else [limit]
        read = described.names
        if columns:
            used = {*columns, *(where or {}), *(name.removeprefix("-") for name in sorting)}
            # What is not documented can only be an argument.
            used |= set(described.typed) if used - set(read) else set()
            read = tuple(name for name in read if name in used)
        scans = await self._scans({described: read}, Query(since=since, until=until, equals=pushed))

        def rows(open: Connections) -> "pa.Table":
            order = "" if sorting == [described.time] and _come_in_order(scans) else ordered
            return self._session(open, scans).query(query + order + limited, parameters)

        return await aside(rows)

    async def batch_table(self, batch: str) -> "pa.Table":
        """One row for each task of a batch, in order: arguments, value, state and times.

        Parameters
        ----------
        batch : str
            Its name. An unknown one has no rows.
        """
        needs = {TASKS.raw: BATCH.names, RESULTS.raw: BATCH.names}
        scans = await self._scans(needs, Query(equals={"batch": (batch,)}))

        def combined(open: Connections) -> "pa.Table":
            # Arguments of tasks and of results become one column, then get their types.
            rows = Scan(self._session(open, scans).query(COMBINED))
            session = self._session(
                open, Scans([Source(BATCH, BATCH.names, rows, EVERYTHING)], None)
            )
            return session.query(_batch_query(session.arguments["batch"]))

        return await aside(combined)

    # ---------------------------------------------------------------- inside

    async def _scans(
        self, needs: Mapping[View, tuple[str, ...]], query: Query = EVERYTHING
    ) -> "Scans":
        """Ask the stores for these columns of these views."""
        unsettled = None
        if any(view.name == "results" for view in needs):
            # Before the results: what has not been settled by now does not count.
            equals = {"state": UNSETTLED} | {
                name: values for name, values in query.equals.items() if name == "batch"
            }
            scan = await self._stores.task_queue.scan(
                Query(columns=("id", "token", "state"), equals=equals)
            )
            unsettled = scan if scan.table.num_rows or scan.files else None
        sources = []
        for view, columns in needs.items():
            used = [name for c in view.columns if c.name in columns for name in c.needs]
            used += query.equals
            if query.since is not None or query.until is not None:
                used.append(view.time_source)
            if view.name == "results" and unsettled:
                used += ["task_id", "token"]
            # A count reads no column, but a table without columns has no rows: a small one.
            used = used or ["type" if view.name == "events" else "state"]
            asked = Query(
                columns=tuple(dict.fromkeys(used)),
                since=query.since,
                until=query.until,
                equals=query.equals,
            )
            sources.append(Source(view, columns, await self._scan(view.name, asked), asked))
        return Scans(sources, unsettled)

    async def _scan(self, view: str, query: Query) -> Scan:
        from omniq_nb.storage import tables

        stores = self._stores
        match view:
            case "tasks":
                return await stores.task_queue.scan(query)
            case "results":
                return await stores.result_storage.scan(query)
            case "events":
                return await stores.event_storage.scan(query)
            case "schedules":
                return Scan(tables.schedules_table(await stores.schedule_storage.list()))
            case _:
                return Scan(tables.workers_table(seen_now(await stores.task_queue.workers())))

    def _session(self, open: Connections, scans: "Scans") -> "Session":
        from omniq_nb.explore.session import Session, locked_connection

        read = [source.scan for source in scans.sources]
        read += [scans.unsettled] if scans.unsettled else []
        connection = locked_connection([file for scan in read for file in scan.files])
        open.append(connection)
        return Session(connection, scans.sources, scans.unsettled, self._structures)


async def aside(work: Callable[[Connections], T]) -> T:
    """Do it in a thread if there is a loop that must go on. Cancelled, interrupt DuckDB."""
    connections: Connections = []

    def done() -> T:
        import duckdb

        from omniq_nb.explore.session import failure

        try:
            return work(connections)
        except duckdb.Error as error:
            raise failure(error) from None
        finally:
            for connection in connections:
                connection.close()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return done()
    thread = asyncio.ensure_future(asyncio.to_thread(done))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        import duckdb

        while not thread.done():
            # Again and again: it may be between two statements. Or it has just ended.
            with contextlib.suppress(duckdb.ConnectionException):
                for connection in connections:
                    connection.interrupt()
            await asyncio.wait([thread], timeout=0.05)
        thread.exception()
        raise


def _conditions(
    view: View, where: Mapping[str, object]
) -> tuple[dict[str, tuple[str, ...]], list[str], list[object]]:
    """Give what the store can select by, then SQL for the rest, with its parameters."""
    sources = {
        column.name: column.needs[0]
        for column in view.columns
        if column.type == "VARCHAR" and column.needs and not column.sql
    }
    pushed: dict[str, tuple[str, ...]] = {}
    conditions: list[str] = []
    parameters: list[object] = []
    for name, wanted in where.items():
        many = isinstance(wanted, Iterable) and not isinstance(wanted, str | bytes | Mapping)
        values = list(wanted) if many else [wanted]  # type: ignore[call-overload]
        if name in sources and values and all(isinstance(value, str) for value in values):
            pushed[sources[name]] = tuple(str(value) for value in values)
        elif wanted is None:
            conditions.append(f"{identifier(name)} IS NULL")
        elif not values:
            conditions.append("false")
        else:
            conditions.append(f"{identifier(name)} IN ({', '.join('?' * len(values))})")
            parameters += values
    return pushed, conditions, parameters


def _come_in_order(scans: Scans) -> bool:
    """Whether the rows of the only view are there by time: to sort wide rows costs more than all.

    DuckDB keeps the order of one table, but not that of a join.
    """
    import pyarrow as pa

    (source,) = scans.sources
    if source.scan.files or scans.unsettled:
        return False
    moments = source.scan.table.column(source.view.time_source)
    if moments.null_count:
        return False
    numbers = moments.cast(pa.int64()).to_numpy()
    return bool((numbers[:-1] <= numbers[1:]).all())


def _batch_query(arguments: Sequence[str]) -> str:
    """Select the columns of ``batch.df()``: an argument never hides one, nor is it hidden."""
    others = (
        *("value", "state", "duration", "error", "attempt", "worker"),
        *("created_at", "started_at", "finished_at", "position", "task_id"),
    )
    taken = {name.casefold() for name in others}
    shown = [
        f"struct_extract(arguments, {literal(name)}) AS "
        + identifier(f"arguments.{name}" if name.casefold() in taken else name)
        for name in arguments
    ]
    columns = [*(shown or ["arguments"]), *others]
    return f"SELECT {', '.join(columns)} FROM batch ORDER BY position, task_id"
