"""Arguments and values of any shape are queryable, and none turns into NULL unseen."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_nb.explore import Explorer
from omniq_nb.explore.structure import joined, typed
from omniq_nb.storage import tables
from tests.explore.history import fakes, parquet, result, valued

I64 = 2**63


async def column(stores: Any, expression: str = "value") -> pa.ChunkedArray:
    return (await Explorer(stores).sql(f"select {expression} as it from results"))["it"]


@pytest.mark.parametrize(
    ("values", "type", "expected"),
    [
        (["1", "2", "null"], pa.int64(), [1, 2, None]),
        (["1", "-2", None], pa.int64(), [1, -2, None]),
        (["1", "2.5"], pa.float64(), [1.0, 2.5]),
        (['"a"', '""'], pa.string(), ["a", ""]),
        (["true", "false"], pa.bool_(), [True, False]),
        (["[1]", "[]"], pa.list_(pa.field("l", pa.int64())), [[1], []]),
        (['{"a": 1}', '{"b": "x"}'], None, [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        (['{"a": {"b": [1, 2.5]}}'], None, [{"a": {"b": [1.0, 2.5]}}]),
        ([str(I64 - 1), str(-I64)], pa.int64(), [I64 - 1, -I64]),
        # What follows has no one type: it is JSON, as it was.
        (["1", '"a"'], pa.string(), ["1", '"a"']),
        (["1", "true"], pa.string(), ["1", "true"]),
        (['{"a": 1}', "[1]"], pa.string(), ['{"a": 1}', "[1]"]),
        ([str(I64)], pa.string(), [str(I64)]),
        ([str(-I64 - 1), "1"], pa.string(), [str(-I64 - 1), "1"]),
        ([str(10**40), "0.5"], pa.string(), [str(10**40), "0.5"]),
        (['{"a": 1, "A": 2}'], pa.string(), ['{"a": 1, "A": 2}']),
        (['{"a": 1}', '{"A": 2}'], pa.string(), ['{"a": 1}', '{"A": 2}']),
        (['{"": 1}'], pa.string(), ['{"": 1}']),
        (['{"a\\u0000b": 1}'], pa.string(), ['{"a\\u0000b": 1}']),
        ([None, "null"], pa.string(), [None, None]),
        (["{}", "1"], pa.string(), ["{}", "1"]),
        (['"\\ud83d"', '"b"'], pa.string(), ['"\\"\\\\ud83d\\""', '"b"']),
    ],
)
async def test_values_get_the_one_type_that_fits_all(
    values: list[str | None], type: pa.DataType | None, expected: list[object]
) -> None:
    found = await column(valued(*values))
    assert type is None or found.type == type
    assert found.to_pylist() == expected


async def test_one_value_among_many_decides(tmp_path: Path) -> None:
    values = [str(i) for i in range(30_000)]
    assert (await column(valued(*values, "0.5"), "max(value)")).to_pylist() == [29_999.0]
    texts = await column(valued(*values, '"x"'), "count(*) filter (where value is null)")
    assert texts.to_pylist() == [0]


async def test_a_huge_integer_makes_only_its_own_field_json() -> None:
    stores = valued('{"id": 1, "n": 1}', f'{{"id": {I64}, "n": 2}}')
    found = await Explorer(stores).sql("select value.id, value.n from results order by value.n")
    assert found["id"].to_pylist() == ["1", str(I64)]
    assert found["n"].to_pylist() == [1, 2]


async def test_long_digits_in_texts_do_not_matter() -> None:
    stores = valued('{"text": ": 99999999999999999999", "n": 1.00012345678901234567}')
    found = await Explorer(stores).sql("select value.text, value.n from results")
    assert found["text"].to_pylist() == [": 99999999999999999999"]
    assert found["n"].type == pa.float64()


async def test_objects_with_very_many_names_are_json() -> None:
    wide = json.dumps({f"k{i}": i for i in range(101)})
    assert (await column(valued(wide))).to_pylist() == [wide]
    assert (await column(valued(wide), "value ->> '$.k100'")).to_pylist() == ["100"]
    each_its_own = [json.dumps({f"id-{i}": i}) for i in range(5_000)]
    assert (await column(valued(*each_its_own))).type == pa.string()


@pytest.mark.parametrize("depth", [30, 500, 3_000, 100_000])
async def test_deeply_nested_values_are_json(depth: int) -> None:
    lists = "[" * depth + "]" * depth
    assert (await column(valued(lists), "count(value)")).to_pylist() == [1]
    objects = '{"a":' * depth + "1" + "}" * depth
    assert (await column(valued(objects), "count(value)")).to_pylist() == [1]


async def test_arguments_with_odd_names_are_columns() -> None:
    name = 'it\'s "odd".🦆'
    stores = fakes(results=[result("a", arguments=json.dumps({name: 1, "Ärger": 2, "select": 3}))])
    found = await Explorer(stores).sql("from results")
    assert found.column_names[-3:] == [name, "Ärger", "select"]
    assert [found[name][0].as_py() for name in found.column_names[-3:]] == [1, 2, 3]


async def test_calls_without_arguments_leave_the_others_typed() -> None:
    stores = fakes(results=[result("a"), result("b", arguments='{"n": 1}')])
    found = await Explorer(stores).sql("select n from results order by n nulls last")
    assert found["n"].to_pylist() == [1, None]


async def test_an_argument_of_several_kinds_is_json() -> None:
    both = [result("a", arguments='{"x": 1}'), result("b", arguments='{"x": "a"}')]
    found = await Explorer(fakes(results=both)).sql("select x from results order by task_id")
    assert found["x"].to_pylist() == ["1", '"a"']


async def test_an_argument_never_hides_a_column_of_a_batch() -> None:
    stores = fakes(results=[result("a", "5", '{"state": 1, "lr": 2}', batch="b")])
    found = await Explorer(stores).batch_table("b")
    assert found.column_names[:4] == ["arguments.state", "lr", "value", "state"]
    assert found["state"].to_pylist() == ["succeeded"]


async def test_a_batch_shows_its_own_arguments_only() -> None:
    stores = fakes(
        results=[
            result("a", arguments='{"x": 1}', batch="one"),
            result("b", arguments='{"y": 1}', batch="two"),
        ]
    )
    assert "y" not in (await Explorer(stores).batch_table("one")).column_names
    only = await Explorer(stores).table("results", where={"batch": "two"})
    assert "y" in only.column_names
    assert "x" not in only.column_names


async def test_files_and_the_rows_in_memory_get_one_type(tmp_path: Path) -> None:
    files = [
        parquet(tmp_path / "1.parquet", [result("a", "1", '{"n": 1}')], tables.RESULTS),
        parquet(tmp_path / "2.parquet", [result("b", "2", '{"m": "x"}')], tables.RESULTS),
        parquet(tmp_path / "3.parquet", [result("c", "3")], tables.RESULTS),
    ]
    stores = fakes(results=[result("d", "0.5", '{"n": 2.5}')], result_files=files)
    explorer = Explorer(stores)
    for _ in range(2):  # the second time from what is known of the files
        found = await explorer.sql("select n, m, value from results order by task_id")
        assert found["n"].to_pylist() == [1.0, None, None, 2.5]
        assert found["m"].to_pylist() == [None, "x", None, None]
        assert found["value"].to_pylist() == [1.0, 2.0, 3.0, 0.5]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def without_nulls(value: object) -> object:
    """What a struct cannot tell apart: a missing name and null."""
    if isinstance(value, dict):
        left = {name: without_nulls(child) for name, child in value.items()}
        return {name: child for name, child in left.items() if child not in (None, {})} or None
    if isinstance(value, list):
        return [without_nulls(child) for child in value]
    return value


def plain(value: object, structure: object) -> object:
    """What DuckDB gave, with its JSON read."""
    if structure == "JSON":
        return None if value is None else json.loads(str(value))
    if isinstance(structure, dict) and isinstance(value, dict):
        return {name: plain(value[name], child) for name, child in structure.items()}
    if isinstance(structure, list) and isinstance(value, list):
        return [plain(child, structure[0]) for child in value]
    return value


@settings(max_examples=30)
@given(values=st.lists(JSON, min_size=1, max_size=4))
async def test_no_value_is_lost_or_changed(values: list[object]) -> None:
    import duckdb

    from omniq_nb.explore.structure import structure_of

    stores = valued(*map(json.dumps, values))
    found = await Explorer(stores).sql("select value from results order by task_id")
    with duckdb.connect() as connection:
        rows = pa.table({"value": [json.dumps(value) for value in values]})
        connection.register("rows", rows)
        structure = typed(joined(structure_of(connection, "rows", "value").values()))
    for value, given_back in zip(values, found["value"].to_pylist(), strict=True):
        assert without_nulls(plain(given_back, structure)) == without_nulls(value)
