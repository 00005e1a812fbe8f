"""`%%task` in a notebook: what travels, what comes back, what is said."""

import pytest
from IPython.core.error import UsageError

from omniq_nb import Handle, OmniQ, errors
from omniq_nb.models.task import State
from omniq_nb.notebook.cells import Run, plain, variables
from tests.notebook.shells import notebook, until

PATIENCE = 60


@pytest.fixture
def nb(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with notebook() as shell:
        shell.run("%omniq connect memory://")
        yield shell


@pytest.fixture
def working(nb):
    nb.run("%omniq workers start 2")
    return nb


def value(nb, cell):
    return nb.run(cell).result(PATIENCE)


class TestRunning:
    def test_the_value_is_that_of_the_last_expression(self, working):
        assert value(working, "%%task\nx = 20\nx + 1\n") == 21
        assert value(working, "%%task\nx = 20\nx + 1;\n") == 21
        assert value(working, "%%task\nx = 20\n") is None

    def test_variables_travel_by_value(self, working):
        working.run("rows = [1, 2]; double = lambda x: x * factor; factor = 2")
        cell = "%%task\nrows.append(3)\n[double(x) for x in rows]"
        assert value(working, cell) == [2, 4, 6]
        assert working.values["rows"] == [1, 2]

    def test_the_values_are_those_at_submission(self, nb):
        nb.run("x = 1")
        handle = nb.run("%%task\nx")
        nb.run("x = 2\n%omniq workers start 1")
        assert handle.result(PATIENCE) == 1

    @pytest.mark.parametrize("kind", ["thread", "async", "process"])
    def test_functions_see_the_variables_of_the_cell(self, nb, kind):
        nb.run(f"%omniq workers start 1 --kind {kind}")
        nb.run("count = 0\ndef add():\n    global count\n    count += step\nstep = 1")
        assert value(nb, "%%task\nstep = 10\nadd(); add()\ncount") == 20

    def test_classes_and_decorated_functions_of_the_notebook_travel(self, working):
        working.run(
            "from dataclasses import dataclass\nfrom functools import lru_cache, partial\n"
            "@dataclass\nclass Point:\n    x: int\n"
            "@lru_cache\ndef scaled(p): return p.x * scale\n"
            "@oq.task\ndef moved(p): return Point(p.x + shift)\n"
            "scale, shift = 3, 4\nlater = partial(moved, Point(1))"
        )
        assert value(working, "%%task\nscaled(5 and later()) if 0 else later()").x == 5

    def test_a_cell_may_await(self, working):
        cell = (
            "%%task -o x\nimport asyncio\nx = await asyncio.sleep(0, 5)\nawait asyncio.sleep(0, 6)"
        )
        assert value(working, cell) == 6
        assert working.values["x"] == 5

    def test_what_it_prints_is_its_output(self, working):
        assert working.run("%%task\nprint('said')").output(PATIENCE) == "said\n"

    def test_a_look_at_the_queue_leaves_the_end_to_who_knows_all_of_it(self, working):
        # The queue knows that a task failed a moment before its traceback is told.
        handle = working.run("%%task\n1 / 0")
        assert handle.exception(PATIENCE)
        run = Run(working.shell, handle, [])
        look = handle._caller.stores(run._look())
        assert look.task.task.state is State.QUEUED and not look.over

    def test_the_line_says_how_it_is_run(self, nb):
        nb.run("first = oq.submit(len, 'a'); seconds = 30")
        line = "%%task fit --queue slow --retries 2 --timeout {seconds} --after first"
        handle = nb.run(f"{line}\n1")
        task = handle.info()
        assert (task.name, task.queue, task.retry.limit, task.timeout) == ("fit", "slow", 2, 30)
        assert task.depends_on == (nb.values["first"].id,)
        assert nb.values["fit"] is handle
        assert isinstance(handle, Handle)

    def test_a_cell_without_a_name_is_called_by_its_number(self, nb):
        number = nb.shell.execution_count
        assert nb.run("%%task\n1").info().name == f"cell {number}"

    def test_tables_show_the_code_but_no_variables(self, nb):
        nb.run("password = 'hunter2'")
        nb.run("%%task\npassword; 1")
        (arguments,) = nb.values["oq"].tasks.df().arguments
        assert arguments["source"] == "password; 1\n"
        assert "hunter2" not in str(arguments)


class TestFailing:
    def test_lines_are_those_of_the_notebooks_cell(self, working):
        handle = working.run("%%task\nx = 1\n\ndef f():\n    return x / 0\nf()")
        error = handle.exception(PATIENCE)
        assert isinstance(error, ZeroDivisionError)
        traceback = error.__notes__[1]
        assert "line 6, in <module>\n    f()\n" in traceback
        assert "line 5, in f\n    return x / 0\n" in traceback
        assert "omniq_nb" not in traceback

    @pytest.mark.parametrize(
        ("cell", "error", "said"),
        [
            ("%%task\n1\nx = = 2", errors.ConfigError, r"line 3: got 'x = = 2'.*invalid syntax"),
            ("%%task\nreturn 1", errors.ConfigError, r"line 2: got 'return 1'.*outside function"),
            ("%%task\n1\n!ls", errors.ConfigError, r"line 3: got '!ls'.*use subprocess.run"),
            ("%%task\n%time 1", errors.ConfigError, r"line 2: got '%time 1'"),
            ("%%task -i nope\n1", errors.ConfigError, "-i: got 'nope'"),
            ("%%task -o 1a\n1", errors.ConfigError, "-o: got '1a'"),
            ("%%task a-b\n1", errors.ConfigError, "NAME: got 'a-b'"),
            ("%%task rows\n1", errors.ConfigError, "NAME: got 'rows'.*yours is a list"),
            ("%%task --after nobody\n1", errors.UnknownTask, "'nobody' is neither"),
            ("%%task --timeout -1\n1", errors.ConfigError, "timeout: got -1"),
            ("%%task --colour red\n1", UsageError, "--colour"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_submitted(self, nb, cell, error, said):
        nb.run("rows = []")
        with pytest.raises(error, match=said):
            nb.run(cell)
        assert nb.values["oq"].counts() == {}
        assert "omniq_nb/" not in nb.printed

    def test_all_that_cannot_travel_is_named(self, nb):
        nb.run(
            "import sqlite3, threading\n"
            "db = sqlite3.connect(':memory:')\n"
            "lock = threading.Lock()\n"
            "def f(): return lock\n"
        )
        with pytest.raises(errors.NotSerializable) as caught:
            nb.run("%%task\ndb, f, oq")
        first, *rest = str(caught.value).splitlines()
        assert first == "this cell was not submitted:"
        assert [line.partition(":")[0] for line in rest] == [
            "- db (sqlite3.Connection)",
            "- oq (omniq_nb.sync.OmniQ)",
            "- lock (_thread.lock, needed by f)",
        ]
        assert "Make it inside" in rest[0]
        nb.run("db.close()")
        assert nb.values["oq"].counts() == {}

    def test_handles_stay_and_say_what_to_pass(self, nb):
        nb.run("one = oq.submit(len, 'a'); many = oq.map(len, ['a'])")
        for name in ("one", "many"):
            with pytest.raises(errors.NotSerializable, match=rf"- {name} .*pass what it gives"):
                nb.run(f"%%task\n{name}")

    def test_what_is_large_travels_only_if_it_is_asked_for(self, working):
        working.run("import numpy as np\ndata = np.zeros(2_000_000)\ndef f(): return data.size")
        with pytest.raises(
            errors.NotSerializable,
            match=r"data \(numpy.ndarray, needed by f\): it is 16 MB.*-i data",
        ):
            working.run("%%task\nf()")
        assert value(working, "%%task -i data\nf()") == 2_000_000
        working.run("text = ['x' * 1_000_000 for _ in range(11)]")
        with pytest.raises(errors.NotSerializable, match=r"text \(list\): it is 11 MB|more than"):
            working.run("%%task\nlen(text)")

    def test_what_the_cell_sets_itself_need_not_travel(self, working):
        working.run("import threading\nlock = threading.Lock()")
        assert value(working, "%%task\nlock = 5\nlock") == 5

    def test_strict_mode_runs_no_cells(self, nb, monkeypatch):
        monkeypatch.setenv("OMNIQ_STRICT", "true")
        nb.run("%omniq connect memory://")
        with pytest.raises(errors.PayloadRefused, match="strict mode does not allow"):
            nb.run("%%task\n1")


class TestComingBack:
    def test_variables_are_there_when_the_task_is_over(self, working):
        for number in range(20):
            working.run(f"%%task -o x,f\nx = {number}\ndef f(): return x\n'value'")
            assert value(working, "_") == "value"
            assert working.run("x, f()") == (number, number)

    def test_what_was_assigned_meanwhile_is_kept(self, nb):
        nb.run("x = 1; y = 1")
        handle = nb.run("%%task -o x,y,z\nx = y = 2\nif 0: z = 2")
        nb.run("x = 'mine'\n%omniq workers start 1")
        handle.result(PATIENCE)
        assert nb.run("x, y") == ("mine", 2)
        assert "z" not in nb.values
        assert variables(handle) == {"x": 2, "y": 2}

    def test_nothing_comes_back_from_a_task_that_failed(self, working):
        working.run("x = 1")
        handle = working.run("%%task -o x\nx = 2\n1/0")
        assert isinstance(handle.exception(PATIENCE), ZeroDivisionError)
        assert working.values["x"] == 1

    def test_what_cannot_come_back_fails_the_task(self, working):
        handle = working.run("%%task -o lock\nimport threading\nlock = threading.Lock()")
        with pytest.raises(errors.NotSerializable, match="attribute `variables` -> key 'lock'"):
            handle.result(PATIENCE)

    def test_they_are_found_again_by_another_client(self, nb, tmp_path):
        nb.run("%omniq connect sqlite:///lab.db\noq.workers.start(1)")
        handle = nb.run("%%task -o x\nx = [1]\n'value'")
        handle.result(PATIENCE)
        nb.run("%omniq disconnect")
        with OmniQ("sqlite:///lab.db") as other:
            again = other.handle(handle.id)
            assert variables(again) == {"x": [1]}
            assert again.result(PATIENCE) == "value"


class TestAgain:
    def test_a_cell_that_waits_is_replaced(self, nb):
        first = nb.run("%%task\n1")
        second = nb.run("%%task\n1")
        assert first.status() is State.CANCELLED
        assert second.status() is State.QUEUED

    def test_a_name_is_replaced_whatever_the_code(self, nb):
        first = nb.run("%%task fit\n1")
        second = nb.run("%%task fit\n2")
        assert first.status() is State.CANCELLED
        assert nb.values["fit"] is second

    def test_other_cells_run_beside(self, nb):
        nb.run("%%task\n1")
        nb.run("%%task\n2")
        assert nb.values["oq"].counts() == {"default": {State.QUEUED: 2}}

    def test_a_running_cell_is_cancelled(self, working):
        cell = "%%task\nfrom omniq_nb import current_task\nwhile True: current_task().check()"
        first = working.run(cell)
        until(lambda: first.status() is State.RUNNING)
        second = working.run(cell)
        assert isinstance(first.exception(PATIENCE), errors.TaskCancelled)
        assert second.cancel()

    def test_what_is_over_is_left_alone(self, working):
        first = working.run("%%task\n1")
        assert first.result(PATIENCE) == 1
        assert value(working, "%%task\n1") == 1
        assert first.status() is State.SUCCEEDED

    def test_a_cell_of_a_client_that_was_closed_is_replaced_too(self, nb):
        nb.run("%omniq connect sqlite:///lab.db")
        first = nb.run("%%task\n1")
        nb.run("%omniq connect sqlite:///lab.db")
        nb.run("%%task\n1")
        assert nb.values["oq"].handle(first.id).status() is State.CANCELLED

    def test_one_that_was_not_submitted_replaces_nothing(self, nb):
        first = nb.run("%%task fit\n1")
        with pytest.raises(errors.ConfigError):
            nb.run("%%task fit\n1 +")
        assert first.status() is State.QUEUED


def test_nothing_is_followed_when_it_is_over(working):
    handle = working.run("%%task -o x\nx = 1")
    handle.result(PATIENCE)
    assert not handle._caller.engine.outputs._followed
    assert not handle._caller.engine.outcomes._waiting


def test_options_and_variables_are_offered(nb):
    nb.run("sweeping = 1")
    assert "%%task -o sweeping" in nb.complete("%%task -o sw")
    assert "%%task --timeout" in nb.complete("%%task --tim")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r50%\r100%\n", "100%\n"),
        ("10%\r50%\r", "50%"),
        ("a\r\nb", "a\nb"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_output_is_shown_as_a_terminal_would(text, shown):
    assert plain(text) == shown
