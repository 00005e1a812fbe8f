"""A function is pickled once, and anew as soon as anything that it is made of changes."""

from types import FunctionType

from omniq_nb.codec import Codec

CODEC = Codec(b"k" * 32)


def cell(source: str, names: dict[str, object]) -> FunctionType:
    """Run a notebook cell that defines `f`."""
    names.setdefault("__name__", "__main__")
    exec(source, names)
    made = names["f"]
    assert isinstance(made, FunctionType)
    return made


def value(function: FunctionType, *args: object) -> object:
    """Send a call of the function, and make it where it arrives."""
    payload = CODEC.encode_call(CODEC.pack_function(function), args, {}, context="c")
    arrived, arguments, _ = CODEC.decode_call(payload, context="c")
    return arrived(*arguments)


def test_the_same_function_is_the_same_bytes() -> None:
    f = cell("def f(x: int, y=2): return x + y", {})
    assert CODEC.pack_function(f) is not None
    assert CODEC.pack_function(f) == CODEC.pack_function(f)
    assert value(f, 1) == 3


def test_data_of_the_notebook_travels_as_it_is_at_each_call() -> None:
    names: dict[str, object] = {"factor": 2, "items": [1]}
    f = cell("def f(x): return x * factor, list(items)", names)
    assert value(f, 3) == (6, [1])
    names["factor"] = 5
    names["items"].append(2)  # type: ignore[attr-defined]
    assert value(f, 3) == (15, [1, 2])


def test_changed_defaults_code_and_attributes_are_noticed() -> None:
    f = cell("def f(x=1): return x", {})
    assert value(f) == 1
    f.__defaults__ = (True,)
    assert value(f) is True
    f.__code__ = cell("def f(x=1): return -x", {}).__code__
    assert value(f, 4) == -4
    f.note = "kept"  # type: ignore[attr-defined]
    arrived, _, _ = CODEC.decode_call(
        CODEC.encode_call(CODEC.pack_function(f), (), {}, context="c"), context="c"
    )
    assert arrived.note == "kept"  # type: ignore[attr-defined]


def test_a_name_that_becomes_data_is_noticed_within_inner_functions_too() -> None:
    names: dict[str, object] = {}
    f = cell("def f(x): return (lambda: x + offset)()", names)
    CODEC.pack_function(f)
    names["offset"] = 10
    assert value(f, 1) == 11
    names["offset"] = 20
    assert value(f, 1) == 21


def test_a_closure_travels_with_its_present_values() -> None:
    names: dict[str, object] = {}
    source = (
        "def make():\n  kept = []\n  def f(x):\n    kept.append(x)\n    return kept\n  return f"
    )
    f = cell(source + "\nf = make()", names)
    assert value(f, 1) == [1]
    f(7)
    assert value(f, 1) == [7, 1]
