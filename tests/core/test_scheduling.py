"""When schedules fire. Held against a plain enumeration of the wall clock's minutes."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_nb.codec import Codec
from omniq_nb.core.scheduling import fire_times, fired, next_fire, parse_trigger, task_for
from omniq_nb.errors import ScheduleError
from omniq_nb.models.schedule import Schedule, ScheduleState, ScheduleType
from omniq_nb.models.task import State, Task

TEMPLATE = Task(id="s", name="f")
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def schedule(starts_at: float = 0.0, **rule) -> Schedule:
    made = Schedule(id="s", template=TEMPLATE, starts_at=starts_at, **parse_trigger(**rule))
    made.next_fire_at = next_fire(made, starts_at)
    return made


def stamp(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def utc(*times: float) -> list[str]:
    return [f"{datetime.fromtimestamp(time, UTC):%m-%d %H:%M}" for time in times]


class TestCron:
    @pytest.mark.parametrize(
        ("zone", "cron", "after", "expected"),
        [
            # Berlin skips 02:00 to 03:00 on 30 March 2025 and repeats it on 26 October.
            (BERLIN, "30 2 * * *", "2025-03-29T12:00", ["03-30 01:00", "03-31 00:30"]),
            (BERLIN, "0,30 2 * * *", "2025-03-29T12:00", ["03-30 01:00", "03-31 00:00"]),
            (BERLIN, "30 2 * * *", "2025-10-25T12:00", ["10-26 00:30", "10-27 01:30"]),
            (BERLIN, "0 * * * *", "2025-10-26T01:30", ["10-26 00:00", "10-26 01:00"]),
            (BERLIN, "*/30 * * * *", "2025-03-30T01:00", ["03-30 00:30", "03-30 01:00"]),
            # New York skips 02:00 to 03:00 on 9 March 2025 and repeats 01:00 on 2 November.
            (NEW_YORK, "15 2 * * *", "2025-03-08T12:00", ["03-09 07:00", "03-10 06:15"]),
            (NEW_YORK, "15 1 * * *", "2025-11-01T12:00", ["11-02 05:15", "11-03 06:15"]),
            (NEW_YORK, "0 9 * * mon-fri", "2025-03-07T12:00", ["03-10 13:00", "03-11 13:00"]),
        ],
    )
    def test_is_right_when_the_clocks_change(self, zone, cron, after, expected):
        rule = schedule(cron=cron, timezone=zone)
        assert utc(*fire_times(rule, stamp(after, zone), 2)) == expected

    def test_does_not_fire_again_in_the_repeated_hour(self):
        rule = schedule(cron="30 2 * * *", timezone=BERLIN)
        (first,) = fire_times(rule, stamp("2025-10-25T12:00", BERLIN), 1)
        for minutes in range(0, 120, 5):
            assert utc(next_fire(rule, first + 60 * minutes)) == ["10-27 01:30"]

    @pytest.mark.parametrize(
        ("cron", "after", "expected"),
        [
            # 02:00 becomes 01:30, and the hour of two o'clock is whole.
            ("* 2 * * *", "2025-04-06T00:00", ["04-05 15:30", "04-05 15:31"]),
            ("*/20 3 * * *", "2025-04-06T01:45", ["04-05 16:30", "04-05 16:50"]),
            # Half past one comes twice.
            ("30 * * * *", "2025-04-06T01:00", ["04-05 14:30", "04-05 15:00"]),
            # 02:00 becomes 02:30, and so is that of three o'clock.
            ("* 3 * * *", "2025-10-05T00:00", ["10-04 16:00", "10-04 16:01"]),
            ("* 3 * * *", "2025-10-05T02:45", ["10-04 16:00", "10-04 16:01"]),
        ],
    )
    def test_misses_nothing_where_the_clock_changes_by_half_an_hour(self, cron, after, expected):
        lord_howe = "Australia/Lord_Howe"
        rule = schedule(cron=cron, timezone=lord_howe)
        assert utc(*fire_times(rule, stamp(after, lord_howe), 2)) == expected

    def test_counts_fractions_of_a_second(self):
        rule = schedule(cron="* * * * *")
        assert next_fire(rule, 59.999_999_9) == 60.0
        assert next_fire(rule, 60.0) == 120.0
        assert next_fire(rule, 60.000_000_1) == 120.0

    def test_never_fires_before_it_starts(self):
        rule = schedule(cron="0 * * * *", starts_at=7200.0)
        assert fire_times(rule, 0.0, 2) == [7200.0, 10800.0]

    @settings(max_examples=60)
    @given(
        zone=st.sampled_from([BERLIN, NEW_YORK, "UTC", "Asia/Kolkata", "Australia/Lord_Howe"]),
        minute=st.sampled_from(["*", "0", "30", "*/15", "5,35", "10-20"]),
        hour=st.sampled_from(["*", "2", "0", "*/6", "1-3", "23"]),
        day=st.sampled_from(["*", "1", "30", "26"]),
        weekday=st.sampled_from(["*", "0", "mon-fri"]),
        start=st.sampled_from(
            ["2025-03-08", "2025-03-29", "2025-04-05", "2025-10-04", "2025-10-25", "2025-11-01"]
        ),
        offset=st.integers(0, 86_400),
    )
    def test_equals_an_enumeration_of_all_minutes(
        self, zone, minute, hour, day, weekday, start, offset
    ):
        cron = f"{minute} {hour} {day} * {weekday}"
        after = stamp(start, zone) + offset
        until = after + 2 * 86_400
        expected = enumerated(cron, ZoneInfo(zone), after, until)
        *found, later = fire_times(schedule(cron=cron, timezone=zone), after, len(expected) + 1)
        assert found == expected
        assert later > until


def enumerated(cron: str, zone: ZoneInfo, after: float, until: float) -> list[float]:
    """Fire times by walking over every minute of elapsed time.

    A rule for certain times of day (neither minute nor hour begins with a star) fires once for
    each of them: the first time if it is repeated, and just after the gap if it is skipped.
    """
    minute, hour, day, _, weekday = cron.split()
    minutes, hours = numbers(minute, 60), numbers(hour, 24)
    weekdays = {"*": set(range(7)), "0": {6}, "mon-fri": set(range(5))}[weekday]
    days = numbers(day, 32)

    def wanted(moment: datetime) -> bool:
        in_month, in_week = moment.day in days, moment.weekday() in weekdays
        either = day != "*" and weekday != "*"
        return (in_month or in_week) if either else (in_month and in_week)

    fixed = not minute.startswith("*") and not hour.startswith("*")
    times = []
    time = (after - 86_400) // 60 * 60
    while time <= until:
        moment = datetime.fromtimestamp(time, zone)
        if moment.minute in minutes and moment.hour in hours and wanted(moment):
            if not (fixed and moment.fold):
                times.append(time)
        elif fixed and skipped(moment, minutes, hours, wanted):
            times.append(time)
        time += 60
    return [time for time in times if after < time <= until]


def skipped(moment, minutes, hours, wanted) -> bool:
    """Whether the clock has just jumped over a time of day that is wanted."""
    before = datetime.fromtimestamp(moment.timestamp() - 60, moment.tzinfo)
    lost = before.replace(tzinfo=None) + timedelta(minutes=1)
    while lost < moment.replace(tzinfo=None):
        if lost.minute in minutes and lost.hour in hours and wanted(lost):
            return True
        lost += timedelta(minutes=1)
    return False


def numbers(field: str, end: int) -> set[int]:
    if field.startswith("*"):
        return set(range(0, end, int(field[2:] or 1)))
    if "-" in field:
        first, last = field.split("-")
        return set(range(int(first), int(last) + 1))
    return {int(part) for part in field.split(",")}


class TestInterval:
    @given(
        starts_at=st.floats(0, 4e9),
        every=st.floats(0.001, 1e7),
        elapsed=st.floats(0, 1e8),
    )
    def test_fires_at_multiples_without_drift(self, starts_at, every, elapsed):
        rule = schedule(every=every, starts_at=starts_at)
        after = starts_at + elapsed
        times = fire_times(rule, after, 3)
        assert times == sorted(set(times))
        assert times[0] > after
        # Clocks of today's size count in steps of half a microsecond.
        assert times[0] - after <= every + 2e-6
        for time in times:
            count = round((time - starts_at) / every)
            assert time == starts_at + count * every

    def test_fires_first_one_interval_after_it_was_made(self):
        assert next_fire(schedule(every=60, starts_at=1000.0), 1000.0) == 1060.0


class TestOnce:
    def test_fires_at_that_time_and_no_more(self):
        rule = schedule(at=5000.0)
        assert fire_times(rule, 0.0, 3) == [5000.0]
        assert next_fire(rule, 5000.0) is None

    def test_is_done_after_it_fired(self):
        after = fired(schedule(at=5000.0), 5000.5)
        assert (after.state, after.last_fire_at, after.next_fire_at) == (
            ScheduleState.DONE,
            5000.0,
            None,
        )


class TestFired:
    @pytest.mark.parametrize("rule", [{"every": 60}, {"cron": "* * * * *"}])
    def test_moves_on_by_one(self, rule):
        after = fired(schedule(**rule), 60.5)
        assert (after.last_fire_at, after.next_fire_at) == (60.0, 120.0)
        assert after.state is ScheduleState.ACTIVE

    @pytest.mark.parametrize("rule", [{"every": 60}, {"cron": "* * * * *"}])
    @pytest.mark.parametrize("late", [200.0, 86_400.0, 400 * 86_400.0])
    def test_after_a_downtime_only_the_latest_missed_one_fires(self, rule, late):
        after = fired(schedule(**rule), late + 1)
        assert after.last_fire_at == late // 60 * 60
        assert after.next_fire_at == late // 60 * 60 + 60

    def test_a_rare_cron_rule_finds_its_latest_missed_one(self):
        rule = schedule(cron="0 0 29 2 *", starts_at=stamp("2001-01-01"))
        after = fired(rule, stamp("2025-06-01"))
        assert after.last_fire_at == stamp("2024-02-29")
        assert after.next_fire_at == stamp("2028-02-29")

    def test_what_is_not_due_does_not_fire(self):
        rule = schedule(every=60, starts_at=1000.0)
        after = fired(rule, 1010.0)
        assert (after.last_fire_at, after.next_fire_at) == (None, 1060.0)

    @given(
        every=st.floats(0.01, 1e6), gaps=st.lists(st.floats(0.001, 1e7), min_size=1, max_size=20)
    )
    def test_however_late_the_ticks_no_fire_time_comes_twice_or_early(self, every, gaps):
        rule, now, seen = schedule(every=every), 0.0, []
        for gap in gaps:
            now += gap
            if rule.next_fire_at <= now:
                rule = fired(rule, now)
                seen.append(rule.last_fire_at)
                assert rule.last_fire_at <= now < rule.next_fire_at
                assert next_fire(rule, rule.last_fire_at) == rule.next_fire_at
        assert seen == sorted(set(seen))


class TestTask:
    def template(self, codec, **fields) -> Task:
        packed = codec.pack_function(len)
        call = codec.encode_call(packed, ("abc",), {}, context="schedule:nightly")
        return Task(id="nightly", name="len", call=call, **fields)

    def test_has_an_id_that_every_ticker_finds(self):
        codec = Codec(b"k" * 32)
        rule = Schedule(
            id="nightly",
            type=ScheduleType.ONCE,
            at=0.0,
            template=self.template(codec, queue="q", state=State.FAILED, created_at=50.0),
        )
        task = task_for(rule, stamp("2025-01-31T09:30"), codec)
        assert task.id == "nightly@2025-01-31T09:30:00Z"
        assert (task.schedule, task.queue, task.state) == ("nightly", "q", State.QUEUED)
        assert task.created_at == task.available_at == stamp("2025-01-31T09:30")
        function, args, _ = codec.decode_call(task.call, context=f"call:{task.id}")
        assert function(*args) == 3

    def test_counts_delay_and_ttl_from_the_fire_time(self):
        codec = Codec(b"k" * 32)
        template = self.template(codec, created_at=50.0, available_at=60.0, expires_at=150.0)
        rule = Schedule(id="nightly", type=ScheduleType.ONCE, at=0.0, template=template)
        task = task_for(rule, 1000.0, codec)
        assert (task.available_at, task.expires_at) == (1010.0, 1100.0)


class TestParsing:
    @pytest.mark.parametrize(
        ("given", "seconds"),
        [
            (90, 90.0),
            (0.5, 0.5),
            (timedelta(minutes=5), 300.0),
            ("90s", 90.0),
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("1.5 h", 5400.0),
            ("1D 2h", 93_600.0),
            ("2w", 1_209_600.0),
        ],
    )
    def test_understands_spans(self, given, seconds):
        trigger = parse_trigger(every=given)
        assert (trigger["type"], trigger["every"]) == (ScheduleType.INTERVAL, seconds)

    @pytest.mark.parametrize(
        ("given", "zone", "expected"),
        [
            (5000, "UTC", 5000.0),
            ("2025-07-01T09:00", "UTC", stamp("2025-07-01T09:00")),
            ("2025-07-01T09:00", BERLIN, stamp("2025-07-01T07:00")),
            ("2025-07-01T09:00+05:00", BERLIN, stamp("2025-07-01T04:00")),
            (datetime(2025, 7, 1, 9), NEW_YORK, stamp("2025-07-01T13:00")),
            (datetime(2025, 7, 1, 9, tzinfo=UTC), NEW_YORK, stamp("2025-07-01T09:00")),
        ],
    )
    def test_understands_moments(self, given, zone, expected):
        assert parse_trigger(at=given, timezone=zone)["at"] == expected

    @pytest.mark.parametrize(
        ("rule", "key"),
        [
            ({}, "schedule"),
            ({"cron": "* * * * *", "every": 5}, "schedule"),
            ({"cron": "* * * *"}, "cron"),
            ({"cron": "61 * * * *"}, "cron"),
            ({"cron": "0 0 30 2 *"}, "cron"),
            ({"cron": "0 0 0 * * *"}, "cron"),
            ({"cron": ""}, "cron"),
            ({"cron": 5}, "cron"),
            ({"every": 0}, "every"),
            ({"every": -1}, "every"),
            ({"every": True}, "every"),
            ({"every": float("nan")}, "every"),
            ({"every": float("inf")}, "every"),
            ({"every": "soon"}, "every"),
            ({"every": ""}, "every"),
            ({"every": "5m tomorrow"}, "every"),
            ({"every": timedelta(seconds=-1)}, "every"),
            ({"at": "tomorrow"}, "at"),
            ({"at": float("nan")}, "at"),
            ({"at": True}, "at"),
            ({"every": 5, "timezone": "Europe/Berln"}, "timezone"),
            ({"every": 5, "timezone": "../../etc/passwd"}, "timezone"),
            ({"every": 5, "timezone": ""}, "timezone"),
        ],
    )
    def test_refuses_what_is_wrong_and_names_it(self, rule, key):
        with pytest.raises(ScheduleError, match="Allowed: ") as caught:
            parse_trigger(**rule)
        assert caught.value.key == key

    @pytest.mark.parametrize(
        ("rule", "nearest"),
        [
            ({"cron": "@daily"}, "0 0 * * *"),
            ({"every": 5, "timezone": "Europe/Berln"}, "Europe/Berlin"),
            ({"every": 5, "timezone": "europe/berlin "}, "Europe/Berlin"),
        ],
    )
    def test_suggests_what_was_meant(self, rule, nearest):
        with pytest.raises(ScheduleError) as caught:
            parse_trigger(**rule)
        assert caught.value.nearest == nearest

    def test_gives_the_fields_of_a_schedule(self):
        fields = {field.name for field in msgspec.structs.fields(Schedule)}
        assert set(parse_trigger(every=5)) <= fields
