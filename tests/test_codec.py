"""Payloads come back as what they were, and only to those who hold the key."""

import collections
import dataclasses
import datetime as dt
import decimal
import functools
import importlib
import os
import stat
import subprocess
import sys
import threading
import uuid
import zoneinfo
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from omniq_nb.codec import Codec, arguments_json, project_key, to_json, type_name
from omniq_nb.errors import ConfigError, NotSerializable, PayloadError, PayloadRefused
from tests.core.clients import add

KEY = b"k" * 32
PICKLE = 3


@pytest.fixture
def codec():
    return Codec(KEY)


def round_trip(codec, value, **options):
    return codec.decode(codec.encode(value, context="c", **options), context="c")


def same(one, other):
    """Equal in value and type, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dt.datetime | dt.time):
        # Two ZoneInfos of one name need not be one object, and then a repeated hour is never
        # equal to itself.
        return repr(one) == repr(other)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) for a, b in zip(one.items(), other.items(), strict=True)
        )
    return one == other or one != one


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
keys = (
    st.text(st.characters()) | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
)
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(st.integers())
        | st.frozensets(st.text())
    ),
    max_leaves=12,
)


@given(values)
def test_plain_data_comes_back_exactly(value):
    assert same(round_trip(Codec(KEY), value), value)


@given(values, st.sampled_from(["json", "pickle"]))
def test_however_it_is_packed(value, prefer):
    assert same(round_trip(Codec(KEY), value, prefer=prefer), value)


@given(values)
@example("\udcff")
@example({"\udcff": ["\udcff", 2**80]})
def test_plain_data_is_never_pickled(value):
    assert same(round_trip(Codec(KEY, strict=True), value), value)


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        Point(1, 2),
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        np.float64(1.5),
        np.int8(3),
        np.bool_(True),
        np.datetime64("2026-01-01", "ns"),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.timezone(dt.timedelta(hours=1), "mine"),
        decimal.Decimal("1.10"),
        uuid.UUID(int=1),
        bytearray(b"x"),
        range(3),
        [[1, (2, {3})]],
    ],
    ids=repr,
)
def test_types_are_kept(codec, value):
    assert same(round_trip(codec, value), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.ones((2, 3))),
        np.array([], dtype="f4"),
        np.array(["a", "bc"]),
        np.array([{"a": 1}, None], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(5),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_come_back(codec, array):
    back = round_trip(codec, array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


FRAMES = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")]}),
    "texts": pd.DataFrame({"a": ["x", None]}),
    "named index": pd.DataFrame({"a": [1]}, index=pd.Index([7], name="i")),
    "times": pd.DataFrame({"t": pd.date_range("2026", periods=3, tz="Europe/Berlin")}),
    "frequency": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2026", periods=2, freq="D")),
    "categories": pd.DataFrame({"c": pd.Categorical(["a", "b"], ["b", "a"], ordered=True)}),
    "objects": pd.DataFrame({"o": [[1], {"a": 2}]}),
    "integer columns": pd.DataFrame([[1, 2]]),
    "same names": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "two levels": pd.DataFrame({("a", 1): [1]}).set_index(("a", 1)),
    "empty": pd.DataFrame(),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="int8")}),
    "nullable": pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_data_frames_come_back(codec, name):
    frame = FRAMES[name]
    frame.attrs = {"source": name} if name == "numbers" else {}
    back = round_trip(codec, frame)
    pd.testing.assert_frame_equal(back, frame, check_freq=True, check_flags=True)
    assert back.attrs == frame.attrs
    for column in frame:
        if not isinstance(frame[column], pd.DataFrame):
            pd.testing.assert_series_equal(round_trip(codec, frame[column]), frame[column])


def test_arrow_and_polars_come_back(codec):
    table = pa.table({"a": [1, None], "s": [{"x": 1}, None]})
    assert round_trip(codec, table).equals(table)
    batch = table.to_batches()[0]
    assert round_trip(codec, batch).equals(batch)
    frame = pl.DataFrame({"a": [1, None], "b": [["x"], []]})
    assert round_trip(codec, frame).equals(frame)
    assert round_trip(codec, frame["b"]).equals(frame["b"])


def test_a_record_batch_of_no_rows_comes_back(codec):
    batch = pa.RecordBatch.from_pydict({"a": pa.array([], pa.int64())})
    assert round_trip(codec, batch).equals(batch)


@pytest.mark.parametrize("value", ["\ud800", ["\ud800"], {"a": 2**80}])
def test_what_json_cannot_hold_is_packed_otherwise(codec, value):
    assert round_trip(codec, value, prefer="json") == value


@pytest.mark.parametrize("prefer", ["msgpack", "json"])
def test_a_list_that_holds_itself_comes_back(codec, prefer):
    loop: list[object] = []
    loop.append(loop)
    back = round_trip(codec, loop, prefer=prefer)
    assert back[0] is back


def test_a_time_zone_that_is_unknown_here_says_so(codec, monkeypatch):
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    payload = codec.encode(dt.datetime(2026, 1, 1, tzinfo=zone), context="c")
    monkeypatch.setattr(
        "omniq_nb.codec.plain.ZoneInfo", lambda key: zoneinfo.ZoneInfo(f"{key}/nowhere")
    )
    with pytest.raises(PayloadError, match="Berlin"):
        codec.decode(payload, context="c")


def test_frames_in_containers_are_not_pickled():
    value = {"frame": FRAMES["numbers"], "n": (1, 2)}
    back = round_trip(Codec(KEY, strict=True), value)
    pd.testing.assert_frame_equal(back["frame"], value["frame"])


# ---------------------------------------------------------------- trust


@given(st.data())
def test_any_changed_byte_is_refused(data):
    payload = Codec(KEY).encode({"a": [1, 2]}, context="c")
    place = data.draw(st.integers(0, len(payload) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != payload[place]))
    broken = payload[:place] + bytes([other]) + payload[place + 1 :]
    with pytest.raises(PayloadRefused, match="not signed"):
        Codec(KEY).decode(broken, context="c")


@pytest.mark.parametrize("payload", [b"", b"x", b"\x01\x03" + bytes(32) + b"cos\nsystem\n."])
def test_what_is_not_signed_is_never_opened(codec, payload):
    with pytest.raises(PayloadRefused, match="OMNIQ_SECRET_KEY"):
        codec.decode(payload, context="c")


def test_another_key_or_another_task_is_refused(codec):
    payload = codec.encode(1, context="result:a:1")
    with pytest.raises(PayloadRefused):
        Codec(b"x" * 32).decode(payload, context="result:a:1")
    with pytest.raises(PayloadRefused):
        codec.decode(payload, context="result:a:2")


def test_rebinding_needs_the_old_signature(codec):
    call = codec.encode_call(codec.pack_function(add), (1, 2), {}, context="schedule:s")
    moved = codec.rebind(call, old="schedule:s", new="call:t")
    function, args, _ = codec.decode_call(moved, context="call:t")
    assert function(*args) == 3
    with pytest.raises(PayloadRefused):
        codec.rebind(call, old="schedule:other", new="call:t")


class TestStrict:
    def test_allows_listed_functions_and_plain_data(self):
        for rule in (f"{add.__module__}:add", f"{add.__module__}:*", "tests.*"):
            strict = Codec(KEY, strict=True, allow=[rule])
            call = strict.encode_call(strict.pack_function(add), (1,), {"b": 2}, context="c")
            function, args, kwargs = strict.decode_call(call, context="c")
            assert function(*args, **kwargs) == 3

    @pytest.mark.parametrize(
        "rule", ["os:*", "test.*", "tests.core.clients:ad", "tests.core.client.*"]
    )
    def test_refuses_what_is_not_listed(self, rule):
        with pytest.raises(PayloadRefused, match="allowed_functions"):
            Codec(KEY, strict=True, allow=[rule]).pack_function(add)

    def test_refuses_functions_by_value(self):
        with pytest.raises(PayloadRefused, match="module"):
            Codec(KEY, strict=True, allow=["tests.*"]).pack_function(lambda: 1)

    def test_refuses_to_open_pickles_that_others_signed(self, codec):
        payload = codec.encode(Point(1, 2), context="c")
        assert payload[1] == PICKLE
        with pytest.raises(PayloadRefused, match="strict"):
            Codec(KEY, strict=True).decode(payload, context="c")
        call = codec.encode_call(codec.pack_function(os.getcwd), (), {}, context="c")
        with pytest.raises(PayloadRefused, match=r"os:getcwd|posix:getcwd"):
            Codec(KEY, strict=True).decode_call(call, context="c")

    def test_refuses_what_an_allowed_module_only_imports(self):
        # Whoever can sign could otherwise reach everything from any allowed module.
        strict = Codec(KEY, strict=True, allow=["json:*"])
        for reference in (b"rjson:codecs.open", b"rjson:loads.__globals__.get"):
            call = strict.encode_call(reference, (), {}, context="c")
            with pytest.raises(PayloadRefused, match="json:"):
                strict.decode_call(call, context="c")

    def test_refuses_to_pickle(self):
        with pytest.raises(NotSerializable, match="strict"):
            Codec(KEY, strict=True).encode(Point(1, 2), context="c")


# ---------------------------------------------------------------- functions


class Tool:
    factor = 3

    def times(self, x):
        return self.factor * x

    @classmethod
    def made(cls):
        return cls.factor


@pytest.mark.parametrize(
    ("function", "args", "value"),
    [
        (add, (1, 2), 3),
        (len, ("abc",), 3),
        (lambda x: x + 1, (1,), 2),
        (functools.partial(add, 1), (2,), 3),
        (Tool().times, (2,), 6),
        (Tool.made, (), 3),
        (np.sqrt, (4.0,), 2.0),
        (str.upper, ("a",), "A"),
        (max, (1, 2), 2),
    ],
    ids=["module", "builtin", "lambda", "partial", "bound", "class", "ufunc", "method", "max"],
)
def test_functions_of_all_kinds_travel(codec, function, args, value):
    call = codec.encode_call(codec.pack_function(function), args, {}, context="c")
    opened, arguments, _ = codec.decode_call(call, context="c")
    assert opened(*arguments) == value


def test_importable_functions_travel_by_name(codec):
    assert codec.pack_function(add) == b"rtests.core.clients:add"


def test_a_function_of_the_main_module_travels_by_value(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from omniq_nb.codec import Codec\n"
        "def f(): return 'from main'\n"
        f"c = Codec({KEY!r})\n"
        "import sys\n"
        "sys.stdout.buffer.write(c.encode_call(c.pack_function(f), (), {}, context='c'))\n"
    )
    call = subprocess.run([sys.executable, script], capture_output=True, check=True).stdout
    function, _, _ = Codec(KEY).decode_call(call, context="c")
    assert function() == "from main"


def test_a_function_that_is_missing_here_says_so(codec):
    call = codec.encode_call(b"rno.such.module:f", (), {}, context="c")
    with pytest.raises(PayloadError, match=r"no\.such\.module:f cannot be imported"):
        codec.decode_call(call, context="c")


def test_what_cannot_travel_is_named(codec):
    lock = threading.Lock()
    with pytest.raises(NotSerializable, match=r"the value -> item 1 -> key 'lock' cannot"):
        codec.encode([1, {"lock": lock}], context="c")
    with pytest.raises(NotSerializable, match=r"^<lambda> -> variable `lock` cannot travel"):
        codec.pack_function(lambda: lock)


def test_the_argument_that_cannot_travel_is_named(codec):
    lock, packed = threading.Lock(), codec.pack_function(add)
    with pytest.raises(NotSerializable, match=r"^argument 2 cannot travel"):
        codec.encode_call(packed, (1, lock), {}, context="c")
    with pytest.raises(NotSerializable, match=r"^argument 'b' -> key 'lock' cannot travel"):
        codec.encode_call(packed, (1,), {"b": {"lock": lock}}, context="c")


def test_an_open_file_is_refused_not_read(codec, tmp_path):
    path = tmp_path / "f"
    path.write_text("secret")
    with path.open() as file, pytest.raises(NotSerializable, match="open file"):
        codec.encode(file, context="c")


def test_a_variable_without_a_value_yet_does_not_hide_the_culprit(codec):
    lock = threading.Lock()

    def inner():
        return later, lock

    with pytest.raises(NotSerializable, match=r"^inner -> variable `lock`"):
        codec.pack_function(inner)
    later = 1


def test_the_words_of_what_refuses_to_travel_are_kept(codec):
    class Client:
        def __reduce__(self):
            raise NotSerializable("a client stays in its process")

    oq = Client()
    with pytest.raises(NotSerializable, match="a client stays"):
        codec.pack_function(lambda: oq)


def test_a_reloaded_module_s_function_is_the_new_one(codec, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source = tmp_path / "omniq_reloaded.py"
    source.write_text("def f(): return 'old'\n")
    module = importlib.import_module("omniq_reloaded")
    call = codec.encode_call(codec.pack_function(module.f), (), {}, context="c")
    assert codec.decode_call(call, context="c")[0]() == "old"
    source.write_text("def f(): return 'new'\n")
    importlib.reload(module)
    assert codec.decode_call(call, context="c")[0]() == "new"
    del sys.modules["omniq_reloaded"]


def test_an_exception_that_would_say_something_else_stays(codec):
    class Coded(Exception):
        def __init__(self, code):
            super().__init__(f"code {code}")

    assert codec.encode_exception(Coded(5), context="c") == b""


def test_exceptions_travel_if_they_survive(codec):
    class Picky(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    assert codec.encode_exception(Picky(1, 2), context="c") == b""
    back = codec.decode(codec.encode_exception(ValueError("x"), context="c"), context="c")
    assert repr(back) == "ValueError('x')"


# ---------------------------------------------------------------- JSON for people


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ({"a": np.float64(0.5), "b": (1, 2)}, '{"a":0.5,"b":[1,2]}'),
        (float("nan"), "null"),
        (np.arange(3), "[0,1,2]"),
        (dt.date(2026, 1, 2), '"2026-01-02"'),
        ({1: "a"}, '{"1":"a"}'),
        (object(), None),
        (b"x", None),
        ("x" * 100_000, None),
        (pd.DataFrame({"a": [1]}), None),
        ([[]], "[[]]"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else type(value).__name__,
)
def test_values_as_json(value, json):
    assert to_json(value) == json


def test_json_of_anything_never_fails():
    class Hostile(dict):
        def __repr__(self):
            raise RuntimeError

    loop = []
    loop.append(loop)
    assert to_json(loop) is None
    assert to_json({"h": Hostile()}) == '{"h":{}}'


def test_values_whose_attributes_raise_do_no_harm():
    @dataclasses.dataclass
    class Broken:
        field: int

        @property
        def shape(self):
            raise RuntimeError

    broken = Broken(1)
    del broken.field
    assert to_json(broken) is None
    assert arguments_json(len, (broken,), {}) == f'{{"obj":"<{type_name(broken)}>"}}'


def test_what_pandas_and_numpy_call_times_and_keys_is_natural():
    assert to_json([pd.Timestamp("2026-01-02"), pd.NaT]) == '["2026-01-02T00:00:00",null]'
    assert to_json({np.int64(1): 2}) == '{"1":2}'


def test_arguments_by_name():
    def f(a, b=2, *rest, c=3, **more):
        pass

    assert arguments_json(f, (1,), {}) == '{"a":1}'
    assert arguments_json(f, (1, 2, 3, 4), {"z": 5}) == '{"a":1,"b":2,"rest":[3,4],"z":5}'
    assert arguments_json(len, ([1],), {}) == '{"obj":[1]}'
    frame = pd.DataFrame({"a": [1, 2]})
    assert arguments_json(f, (frame,), {}) == f'{{"a":"<{type_name(frame)} 2x1>"}}'
    assert len(arguments_json(f, ("x" * 10_000, "y" * 10_000), {})) < 16_384


# ---------------------------------------------------------------- the key


@pytest.fixture
def config_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("OMNIQ_SECRET_KEY", raising=False)
    return tmp_path


def test_the_key_is_made_once_and_is_private(config_home):
    key = project_key("../a b/ä")
    assert project_key("../a b/ä") == key != project_key("other")
    files = list(config_home.rglob("*.key"))
    assert len(files) == 2
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_two_who_make_it_at_once_get_the_same(config_home):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(project_key, ["p"] * 32))) == 1


def test_machines_can_share_a_key(config_home, monkeypatch):
    monkeypatch.setenv("OMNIQ_SECRET_KEY", "shared")
    assert project_key("a") == project_key("b")
    assert not list(config_home.rglob("*.key"))


def test_a_damaged_key_is_refused_in_words(config_home):
    project_key("p")
    (file,) = config_home.rglob("*.key")
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="project key"):
        project_key("p")


def test_eight_processes_at_once_make_one_key(config_home):
    script = "from omniq_nb.codec import project_key; print(project_key('p').hex())"
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    makers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(8)
    ]
    keys = {maker.communicate(timeout=120)[0].strip() for maker in makers}
    assert keys == {project_key("p").hex()}
    assert [file.name for file in config_home.rglob("*") if file.is_file()] == ["p.key"]


def test_the_key_does_not_travel_with_a_function(codec):
    with pytest.raises(NotSerializable, match="key"):
        codec.pack_function(lambda: codec)


def test_the_key_is_not_shown(codec):
    assert "kkk" not in repr(codec)
