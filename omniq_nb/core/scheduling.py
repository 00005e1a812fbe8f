"""When schedules fire, and which task a fire time enqueues. Pure: the time is given.

Each fire time that comes due enqueues one task. After a time in which nobody ticked, only the
most recent of the missed fire times does; the earlier ones are skipped.

Cron expressions are read in the schedule's time zone, as Debian's cron does: at a change of the
clock, a rule for a certain time of day fires once that day (just after the gap if the clock
skips it, the first time if the clock repeats it), and a rule for every minute or hour goes on
by the elapsed time.

Not here: who ticks (`omniq_nb.core.ticker`).
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypedDict
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import msgspec
from cronsim import CronSim, CronSimError

from omniq_nb.codec import Codec
from omniq_nb.config.sources import nearest
from omniq_nb.errors import ScheduleError
from omniq_nb.models.schedule import Schedule, ScheduleState, ScheduleType
from omniq_nb.models.task import State, Task

SHORTEST = 0.001
"""Seconds; the shortest interval, so that two fire times never share a task id."""

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_UNITS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_SPAN = re.compile(r"(?:(\d+(?:\.\d+)?)\s*([wdhms])\s*)+", re.IGNORECASE)
_SPAN_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([wdhms])", re.IGNORECASE)


class Trigger(TypedDict):
    """The fields of a `Schedule` that say when it fires."""

    type: ScheduleType
    cron: str | None
    every: float | None
    at: float | None
    timezone: str


def next_fire(schedule: Schedule, after: float) -> float | None:
    """Find the first fire time later than `after`, whatever the schedule's state. None: none.

    Parameters
    ----------
    schedule : Schedule
        Its rule and `starts_at` count.
    after : float
        Seconds since 1970 in UTC, as is the answer.
    """
    return next(_fire_times(schedule, after), None)


def fire_times(schedule: Schedule, after: float, n: int) -> list[float]:
    """List the first `n` fire times later than `after`, or fewer if there are fewer."""
    return list(islice(_fire_times(schedule, after), n))


def fired(schedule: Schedule, now: float) -> Schedule:
    """Move the schedule on as it fires at `now`: what is due becomes `last_fire_at`.

    If several fire times have passed, the last of them counts.
    """
    last = _latest(schedule, now)
    coming = next_fire(schedule, now)
    return msgspec.structs.replace(
        schedule,
        last_fire_at=schedule.last_fire_at if last is None else last,
        next_fire_at=coming,
        state=ScheduleState.DONE if coming is None else schedule.state,
    )


def task_for(schedule: Schedule, fire_time: float, codec: Codec) -> Task:
    """Make the task of one fire time. Whoever makes it, it has the same id.

    Delay and ttl of the template count from the fire time.
    """
    moment = datetime.fromtimestamp(fire_time, UTC).isoformat()
    task_id = f"{schedule.id}@{moment.removesuffix('+00:00')}Z"
    template = schedule.template
    shift = fire_time - template.created_at
    return msgspec.structs.replace(
        template,
        id=task_id,
        call=codec.rebind(template.call, old=f"schedule:{schedule.id}", new=f"call:{task_id}"),
        created_at=fire_time,
        available_at=max(fire_time, template.available_at + shift),
        expires_at=None if template.expires_at is None else template.expires_at + shift,
        schedule=schedule.id,
        state=State.QUEUED,
    )


def parse_trigger(
    *,
    cron: str | None = None,
    every: float | str | timedelta | None = None,
    at: datetime | str | float | None = None,
    timezone: str = "UTC",
) -> Trigger:
    """Check a rule and give it the form in which it is stored.

    Parameters
    ----------
    cron : str, optional
        Five fields: minute, hour, day, month, weekday.
    every : float, str or timedelta, optional
        Seconds, or ``"90s"``, ``"5m"``, ``"1h30m"``, ``"1d"``, ``"2w"``.
    at : datetime, str or float, optional
        A moment, as datetime, in ISO 8601, or in seconds since 1970. Without a time zone it is
        read in `timezone`.
    timezone : str
        An IANA name.

    Raises
    ------
    ScheduleError
        Not exactly one of cron, every and at is given, or it is wrong.
    """
    given = {"cron": cron, "every": every, "at": at}
    chosen = [key for key, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise ScheduleError("schedule", chosen, "exactly one of cron, every and at")
    zone = _zone(timezone)
    trigger = Trigger(type=ScheduleType.CRON, cron=None, every=None, at=None, timezone=timezone)
    if cron is not None:
        trigger["cron"] = _cron(cron)
    elif every is not None:
        trigger["type"], trigger["every"] = ScheduleType.INTERVAL, _every(every)
    elif at is not None:
        trigger["type"], trigger["at"] = ScheduleType.ONCE, _at(at, zone)
    return trigger


# ---------------------------------------------------------------- fire times


def _fire_times(schedule: Schedule, after: float) -> Iterator[float]:
    """Fire times later than `after`, strictly ascending."""
    # No fire time is earlier than starts_at, which may be one itself.
    after = max(after, math.nextafter(schedule.starts_at, -math.inf))
    match schedule.type:
        case ScheduleType.CRON:
            assert schedule.cron is not None
            yield from _cron_times(schedule.cron, _zone(schedule.timezone), after)
        case ScheduleType.INTERVAL:
            assert schedule.every is not None
            yield from _interval_times(schedule.starts_at, schedule.every, after)
        case ScheduleType.ONCE:
            if schedule.at is not None and schedule.at > after:
                yield schedule.at


def _cron_times(cron: str, zone: ZoneInfo, after: float) -> Iterator[float]:
    # Whole seconds, downwards: CronSim starts at the next second.
    start = datetime.fromtimestamp(math.floor(after), UTC).astimezone(zone)
    for moment in _Cron(cron, start):
        # By the wall clock it may step back an hour, or name a moment of the gap twice.
        time = moment.timestamp()
        if time > after:
            after = time
            yield time


class _Cron(CronSim):
    """CronSim, also where clocks change by half an hour (Australia/Lord_Howe).

    It goes on by many minutes of elapsed time at once, and there steps over what is wanted.
    """

    def advance_hour(self) -> bool:
        """Go on to the beginning of the next hour that is wanted. False: this one is."""
        if self.dt.hour in self.hours:
            return False
        while self.dt.hour not in self.hours:
            self.tick(3600 - 60 * self.dt.minute - self.dt.second)
            if self.dt.hour == 0:
                break  # another day, which may not be wanted
        return True

    def advance_minute(self) -> bool:
        """Go on to the next minute that is wanted. False: this one is."""
        if self.dt.minute in self.minutes:
            return False
        self.dt = self.dt.replace(second=0)
        while self.dt.minute not in self.minutes:
            self.tick(60)
            if self.dt.minute == 0:
                break  # another hour, which may not be wanted
        return True


def _interval_times(starts_at: float, every: float, after: float) -> Iterator[float]:
    # Multiples of the interval, never sums: sums drift.
    count = max(0, math.floor((after - starts_at) / every))
    while True:
        time = starts_at + count * every
        if time > after:
            yield time
        count += 1


def _latest(schedule: Schedule, now: float) -> float | None:
    """Find the last fire time up to `now` that has not fired. None: nothing is due."""
    due = schedule.next_fire_at
    if due is None or due > now:
        return None
    if schedule.type is ScheduleType.INTERVAL:
        assert schedule.every is not None
        after = max(due, now - 2 * schedule.every)
        missed = [time for time in islice(_fire_times(schedule, after), 4) if time <= now]
        return missed[-1] if missed else due
    if schedule.type is ScheduleType.CRON:
        # Look back over ever longer spans rather than walk through a year of minutes.
        span = 3_600.0
        while True:
            after = max(due, now - span)
            last = None
            for time in _fire_times(schedule, after):
                if time > now:
                    break
                last = time
            if last is not None:
                return last
            if after == due:
                return due
            span *= 8
    return due


# ---------------------------------------------------------------- what users write


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        zones = {zone.lower(): zone for zone in available_timezones()}
        close = nearest(str(name).lower(), zones)
        allowed = 'the IANA name of a time zone, such as "Europe/Berlin"'
        raise ScheduleError("timezone", name, allowed, zones.get(close or "")) from None


def _cron(cron: str) -> str:
    allowed = "five fields (minute hour day month weekday), such as '30 7 * * mon-fri'"
    if not isinstance(cron, str) or len(cron.split()) != 5:
        nearest = _NICKNAMES.get(cron.strip().lower()) if isinstance(cron, str) else None
        raise ScheduleError("cron", cron, allowed, nearest)
    try:
        next(CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ScheduleError("cron", cron, f"{allowed}; {error}") from None
    except StopIteration:
        raise ScheduleError("cron", cron, f"{allowed}, for a day that exists") from None
    return " ".join(cron.split())


def _every(every: float | str | timedelta) -> float:
    seconds: object = every
    if isinstance(every, timedelta):
        seconds = every.total_seconds()
    elif isinstance(every, str) and _SPAN.fullmatch(every.strip()):
        parts = _SPAN_PART.findall(every)
        seconds = sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)
    if (
        not isinstance(seconds, int | float)
        or isinstance(seconds, bool)
        or not SHORTEST <= seconds < math.inf
    ):
        allowed = "seconds above 0, a timedelta, or spans such as '90s', '5m', '1h30m', '1d'"
        raise ScheduleError("every", every, allowed)
    return float(seconds)


def _at(at: datetime | str | float, zone: ZoneInfo) -> float:
    moment: object = at
    if isinstance(at, str):
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            moment = None
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
    if isinstance(moment, int | float) and not isinstance(moment, bool) and math.isfinite(moment):
        return float(moment)
    allowed = "a datetime, ISO 8601 such as '2030-01-31T09:00', or seconds since 1970"
    raise ScheduleError("at", at, allowed)
