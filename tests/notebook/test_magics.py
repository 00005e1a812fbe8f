"""`%omniq` and `%omniq_sql` in a notebook: what they give, say, offer and bind."""

import pytest
from IPython.core.error import UsageError

from omniq_nb import Batch, Handle, OmniQ, OmniQConfig, errors
from omniq_nb.models.task import State
from omniq_nb.notebook import magics as magics_module
from tests.notebook.shells import notebook, until


@pytest.fixture
def nb(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    with notebook() as shell:
        yield shell


@pytest.fixture
def connected(nb):
    nb.run("%omniq connect memory://")
    return nb


class TestConnecting:
    def test_connect_gives_the_client_and_puts_it_under_a_name(self, nb):
        client = nb.run("%omniq connect memory://")
        assert isinstance(client, OmniQ)
        assert nb.values["oq"] is client
        assert client.config.resolve("task_queue").backend_type == "memory"

    def test_connect_takes_a_yaml_file_whose_path_has_blanks(self, nb, tmp_path):
        (tmp_path / "my lab").mkdir()
        OmniQConfig.from_dict({"task_queue_backend": "memory://", "project_name": "lab"}).to_yaml(
            tmp_path / "my lab" / "omniq.yaml"
        )
        assert nb.run("%omniq connect 'my lab/omniq.yaml'").config.project_name == "lab"

    def test_connecting_again_closes_what_the_magic_had_made(self, connected):
        first = connected.values["oq"]
        second = connected.run("%omniq connect memory://")
        assert connected.values["oq"] is second
        with pytest.raises(errors.StoreClosed):
            first.counts()

    def test_a_client_that_the_user_made_is_left_open(self, nb):
        with OmniQ("memory://") as mine:
            nb.values["oq"] = mine
            assert nb.run("%omniq status") is mine
            nb.run("%omniq connect memory://")
            assert mine.counts() == {}

    def test_a_connection_that_fails_leaves_the_old_one(self, connected):
        before = connected.values["oq"]
        with pytest.raises(errors.ConfigError):
            connected.run("%omniq connect nothing://")
        assert connected.values["oq"] is before
        assert before.counts() == {}

    def test_the_name_is_a_trait(self, nb):
        nb.run("%config OmniqMagics.variable = 'queue'")
        client = nb.run("%omniq connect memory://")
        assert nb.values["queue"] is client
        assert "oq" not in nb.values

    def test_a_name_that_means_something_else_is_not_taken(self, nb):
        nb.run("oq = [1, 2]")
        with pytest.raises(errors.ConfigError, match=r"'oq'.*yours is a list.*%config"):
            nb.run("%omniq connect memory://")
        assert nb.values["oq"] == [1, 2]

    def test_without_connect_it_is_the_only_client_of_the_notebook(self, nb):
        with OmniQ("memory://") as mine:
            nb.values["laboratory"] = mine
            assert nb.run("%omniq") is mine
            assert "oq" not in nb.values

    def test_of_several_clients_none_is_guessed(self, nb):
        with OmniQ("memory://") as one, OmniQ("memory://") as two:
            nb.values.update(one=one, two=two)
            with pytest.raises(errors.ConfigError, match="one of one, two: say which"):
                nb.run("%omniq status")
            nb.run("%config OmniqMagics.variable = 'two'")
            assert nb.run("%omniq status") is two

    def test_without_any_client_the_environment_says(self, nb, monkeypatch):
        monkeypatch.setenv("OMNIQ_TASK_QUEUE_URL", "memory://")
        client = nb.run("%omniq status")
        assert client.config.resolve("task_queue").backend_type == "memory"
        assert nb.values["oq"] is client
        assert nb.run("%omniq status") is client

    def test_disconnect_closes_and_forgets(self, connected):
        client = connected.values["oq"]
        assert connected.run("%omniq disconnect") is None
        assert "oq" not in connected.values
        with pytest.raises(errors.StoreClosed):
            client.counts()
        with pytest.raises(errors.ConfigError, match="%omniq connect"):
            connected.run("%omniq disconnect")

    def test_nothing_is_printed(self, nb):
        for line in ["connect memory://", "workers start 1", "tasks", "config", "workers stop"]:
            assert nb.run(f"x = %omniq {line}") is None
            assert nb.printed == ""


class TestCommands:
    def test_workers_start_scale_and_stop(self, connected):
        workers = connected.run("%omniq workers start 2 --kind async --queues a,b")
        assert workers is connected.values["oq"].workers
        (info,) = workers.list()
        assert (info.kind, info.queues, info.concurrency) == ("async", ("a", "b"), 2)
        connected.run("%omniq workers start 3 -k async -q a,b")
        assert connected.run("%omniq workers") is workers
        until(lambda: workers.list()[0].concurrency == 3)
        connected.run("%omniq workers stop")
        assert workers.list()[0].state == "stopped"

    def test_tasks_are_listed_newest_first_and_filtered(self, connected):
        oq = connected.values["oq"]
        oq.map(len, ["a", "bc"], name="words")
        oq.submit(print)
        frame = connected.run("%omniq tasks")
        assert list(frame.name) == ["print", "len", "len"]
        assert len(connected.run("%omniq tasks batch=words state=queued,running position=1")) == 1
        assert len(connected.run("%omniq tasks --limit 2")) == 2
        with pytest.raises(errors.QueryError, match="colour"):
            connected.run("%omniq tasks colour=red")
        with pytest.raises(UsageError, match="'red' is no filter"):
            connected.run("%omniq tasks red")

    def test_cancel_and_retry_take_ids_batches_and_names(self, connected):
        connected.run("one = oq.submit(len, 'a'); many = oq.map(len, ['a', 'b'], name='words')")
        single, batch = connected.values["one"], connected.values["many"]
        assert connected.run(f"%omniq cancel {single.id} many") == 3
        assert single.status() is State.CANCELLED
        assert connected.run("%omniq retry one words") == 3
        assert batch.counts() == {State.QUEUED: 2}
        with pytest.raises(errors.UnknownTask, match=r"'nobody' is neither .* %omniq tasks"):
            connected.run("%omniq cancel nobody")

    def test_config_gives_the_configuration(self, connected):
        assert connected.run("%omniq config") is connected.values["oq"].config

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("fly", "no such command. There are: connect, disconnect, status"),
            ("workers fly", "workers fly: no such command"),
            ("workers start many", "invalid int value: 'many'"),
            ("retry", "the following arguments are required"),
            ("connect 'open", "No closing quotation"),
        ],
    )
    def test_wrong_words_give_one_line(self, connected, line, said):
        with pytest.raises(UsageError, match=said):
            connected.run(f"%omniq {line}")

    def test_the_panel_is_given_the_client_or_nothing(self, nb, monkeypatch):
        import sys
        from types import ModuleType

        module = ModuleType("omniq_nb.notebook.panel")
        module.panel = lambda oq=None: ("panel", oq)
        monkeypatch.setitem(sys.modules, "omniq_nb.notebook.panel", module)
        assert nb.run("%omniq panel") == ("panel", None)
        client = nb.run("%omniq connect memory://")
        assert nb.run("%omniq panel") == ("panel", client)

    def test_help_names_every_command_and_option(self, nb):
        text = nb.shell.object_inspect_text("%omniq")
        for name, command in magics_module.COMMANDS.items():
            assert f"%omniq {name}" in text
            assert all(
                option in text for option in magics_module.parser_of(command)._option_string_actions
            )
        assert "-o NAME" in nb.shell.object_inspect_text("%omniq_sql")


class TestSql:
    def test_the_views_can_be_queried(self, connected):
        connected.run("h = oq.submit(len, 'abc')")
        frame = connected.run("%omniq_sql select name, state from tasks")
        assert frame.values.tolist() == [["len", "queued"]]
        for view in ("results", "events", "schedules", "workers"):
            connected.run(f"%omniq_sql from {view}")

    def test_a_cell_is_a_query_too(self, connected):
        frame = connected.run(
            "%%omniq_sql\nselect 1 as a -- one\n\nunion all select 2\norder by 1;"
        )
        assert frame.a.tolist() == [1, 2]

    @pytest.mark.parametrize(
        "cell",
        [
            "%omniq_sql -o df select 1 as a",
            "%omniq_sql df << select 1 as a",
            "%omniq_sql df <<select 1 as a",
            "%%omniq_sql --out=df\nselect 1 as a",
            "%%omniq_sql df <<\nselect 1 as a",
        ],
    )
    def test_a_variable_gets_the_frame_instead(self, connected, cell):
        if "<<select" in cell:
            cell = cell.replace("<<select", "<< select")
        assert connected.run(cell) is None
        assert connected.values["df"].a.tolist() == [1]

    def test_at_most_so_many_rows(self, connected):
        line = "%omniq_sql --limit 2 select * from range(10) order by 1 desc; -- all"
        assert connected.run(line).iloc[:, 0].tolist() == [9, 8]

    def test_variables_are_bound_not_pasted(self, connected):
        connected.run("""name = "x' or 1=1 --"; n = 2; many = ["a", "len"]; Name = "other" """)
        frame = connected.run("%omniq_sql select :name as a, {n}::varchar as b, $Name as c")
        assert frame.values.tolist() == [["x' or 1=1 --", "2", "other"]]
        connected.run("h = oq.submit(len, 'abc')")
        assert len(connected.run("%omniq_sql select * from tasks where name in {many}")) == 1
        assert len(connected.run("%omniq_sql select * from tasks where name = :name")) == 0

    def test_numbers_of_numpy_are_numbers(self, connected):
        connected.run("import numpy as np; n = np.int64(3); x = np.arange(2); s = {4}")
        frame = connected.run("%omniq_sql select :n + 1 as a, :x as b, :s as c")
        assert [frame.a[0], list(frame.b[0]), list(frame.c[0])] == [4, [0, 1], [4]]

    def test_what_only_looks_like_a_variable_is_left_alone(self, connected):
        frame = connected.run(
            "%%omniq_sql\nselect ':a' as a, '1'::int as b, {'k': b} as c, [1, 2, 3][1:b] as d, "
            "$$ {a} $$ as e -- :a {a}\n/* :a */"
        )
        assert frame.iloc[0].tolist()[:3] == [":a", 1, {"k": 1}]
        assert frame.e[0] == " {a} "

    def test_a_functions_own_variables_count(self, connected):
        connected.run(
            "def f(n):\n    return get_ipython().run_line_magic('omniq_sql', 'select :n as n')"
        )
        assert connected.run("f(5)").n.tolist() == [5]

    @pytest.mark.parametrize(
        ("cell", "error", "said"),
        [
            ("%omniq_sql select :nope", errors.QueryError, ":nope stands for.* called 'nope'"),
            ("%omniq_sql select {nope}", errors.QueryError, "{nope} stands for"),
            ("%omniq_sql select :nb", errors.ConfigError, "nb.*got 'object'.*a number, a text"),
            ("%omniq_sql select nope from tasks", errors.QueryError, "nope"),
            ("%omniq_sql drop table tasks", errors.QueryError, "DROP is not allowed"),
            ("%omniq_sql -o 1a select 1", errors.ConfigError, "-o: got '1a'"),
            ("%omniq_sql", UsageError, "there is no query"),
            ("%omniq_sql --colour red select 1", UsageError, "--colour"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_message(self, connected, cell, error, said):
        connected.values["nb"] = object()
        with pytest.raises(error, match=said):
            connected.run(cell)
        assert "omniq_nb/" not in connected.printed
        assert "line" not in connected.printed.partition("LINE")[0]


class TestErrors:
    def test_ours_are_one_message_and_the_users_line(self, connected):
        with pytest.raises(errors.ConfigError):
            connected.run("def f():\n    return 1\n\noq.task(timeout=-1)(f)")
        place, code, message = connected.printed.strip().split("\n")
        assert place.endswith("line 4")
        assert code.strip() == "oq.task(timeout=-1)(f)"
        assert "ConfigError" in message
        assert "timeout: got -1" in message

    def test_a_lost_tasks_traceback_is_kept(self, connected):
        connected.run("%omniq workers start 1")
        with pytest.raises(ZeroDivisionError):
            connected.run("def f():\n    return 1/0\nh = oq.submit(f)\nh.result(60)")
        assert "line 2, in f\nZeroDivisionError: division by zero" in connected.printed
        assert "portal.py" not in connected.printed


class TestCompletion:
    def test_commands_and_options(self, connected):
        assert connected.complete("%omniq wo") == ["%omniq workers"]
        assert set(connected.complete("%omniq workers st")) == {
            "%omniq workers start",
            "%omniq workers stop",
        }
        assert "%omniq workers start 2 --queues" in connected.complete("%omniq workers start 2 --q")
        assert connected.complete("%omniq workers start --kind th") == [
            "%omniq workers start --kind thread"
        ]
        assert connected.complete("%omniq tasks fin") == ["%omniq tasks finished_at="]
        assert "%omniq_sql --limit" in connected.complete("%omniq_sql --li")

    def test_paths_of_yaml_files(self, nb, tmp_path):
        (tmp_path / "lab").mkdir()
        for name in ("lab/omniq.yaml", "lab/omniq.txt"):
            (tmp_path / name).touch()
        assert nb.complete("%omniq connect la") == ["%omniq connect lab/"]
        assert nb.complete("%omniq connect lab/om") == ["%omniq connect lab/omniq.yaml"]

    def test_tasks_that_can_be_meant(self, connected):
        connected.run("oqs = 1; sweep = oq.map(len, ['a'], name='sweep-1')")
        assert set(connected.complete("%omniq cancel sw")) == {
            "%omniq cancel sweep",
            "%omniq cancel sweep-1",
        }
        assert connected.complete("%omniq retry sw") == ["%omniq retry sweep"]


def test_the_extension_can_be_unloaded_and_loaded_again(connected):
    client = connected.values["oq"]
    connected.run("%reload_ext omniq_nb")
    assert connected.run("%omniq status") is client
    connected.run("%unload_ext omniq_nb")
    with pytest.raises(UsageError, match="not found"):
        connected.shell.run_line_magic("omniq", "status")
    assert not any(
        kind.__class__.__name__ == "OmniqMagics" for kind in connected.shell.configurables
    )
    assert client.counts() == {}
    connected.run("%load_ext omniq_nb")
    assert connected.run("%omniq status") is client


def test_handles_and_batches_are_what_they_are(connected):
    connected.run("h = oq.submit(len, 'a'); b = oq.map(len, ['a'])")
    assert isinstance(connected.values["h"], Handle)
    assert isinstance(connected.values["b"], Batch)
