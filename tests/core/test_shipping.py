"""Modules that a worker cannot import travel with the tasks."""

import importlib
import sys
from types import SimpleNamespace

import cloudpickle
import pytest

from omniq_nb import AsyncOmniQ, OmniQ, errors
from omniq_nb.codec import shipping

FORMULAS = """
from dataclasses import dataclass

FACTOR = {factor}

@dataclass
class Point:
    x: float

def scaled(x):
    return _inner(x)

def _inner(x):
    return x * FACTOR

def doubled(point):
    return Point(point.x * 2)
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module that only this process can import, and import it; it is gone afterwards."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within one second
    written = set()

    def write(file, text, name=None):
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        written.add(file.partition("/")[0].removesuffix(".py"))
        importlib.invalidate_caches()
        return importlib.import_module(name) if name else None

    yield write
    for name in [known for known in sys.modules if known.partition(".")[0] in written]:
        cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES.discard(name)
        shipping._shipped.pop(name, None)
        del sys.modules[name]


@pytest.fixture
def oq(tmp_path, monkeypatch):
    """A client with background workers that do not find what `write` writes."""
    with OmniQ(f"sqlite:///{tmp_path}/tasks.db") as oq:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(sys, "path", [p for p in sys.path if not p.endswith("mine")])
            oq.workers.start(1, kind="background")
        yield oq
        oq.workers.stop(kind="background", timeout=0)


def test_a_module_travels_to_a_background_worker_and_again_when_edited(write, oq):
    formulas = write("my_formulas.py", FORMULAS.format(factor=3), "my_formulas")
    lost = oq.submit(formulas.scaled, 2)
    with pytest.raises(errors.PayloadError, match="my_formulas:scaled cannot be imported"):
        lost.result(timeout=60)

    oq.ship(formulas)
    assert oq.submit(formulas.scaled, 2).result(timeout=60) == 6
    assert oq.submit(lambda: formulas.scaled(5)).result(timeout=60) == 15
    point = oq.submit(formulas.doubled, formulas.Point(2.0)).result(timeout=60)
    assert point == formulas.Point(4.0)
    assert isinstance(point, formulas.Point)

    write("my_formulas.py", FORMULAS.format(factor=10))
    oq.ship(formulas)
    assert oq.submit(formulas.scaled, 2).result(timeout=60) == 20


def test_a_package_travels_with_what_is_below_it(write, oq):
    write("my_package/constants.py", "FACTOR = 3\n")
    write("my_package/formulas.py", "from .constants import FACTOR\ndef f(x): return x * FACTOR\n")
    package = write("my_package/__init__.py", "from .formulas import f\n", "my_package")
    oq.ship(package)
    assert oq.submit(package.f, 2).result(timeout=60) == 6
    assert oq.submit(lambda: package.formulas.f(3)).result(timeout=60) == 9
    write("my_package/constants.py", "FACTOR = 10\n")
    oq.ship(package)
    assert oq.submit(package.f, 2).result(timeout=60) == 20
    assert oq.submit(lambda: package.formulas.f(3)).result(timeout=60) == 30


@pytest.mark.parametrize("given", ["json", SimpleNamespace(), sys, sys.modules["__main__"]])
def test_only_modules_written_in_python_can_be_shipped(given):
    with OmniQ("memory://") as oq, pytest.raises(errors.ConfigError, match=r"^module: got"):
        oq.ship(given)


async def test_strict_mode_ships_nothing(monkeypatch):
    monkeypatch.setenv("OMNIQ_STRICT", "1")
    async with AsyncOmniQ("memory://") as oq:
        with pytest.raises(errors.PayloadRefused, match="install their package"):
            oq.ship(shipping)
