"""The check at the end of the tests notices what was left behind."""

import os
import socket
import subprocess
import sys
import tempfile

from omniq_nb.config.options import FileOptions
from omniq_nb.testing import Recipe
from omniq_nb.testing.processes import Process
from tests.conftest import MARK, leftovers
from tests.waiting import until


def test_processes_are_noticed_however_far_down_they_are():
    code = (
        "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=s.DEVNULL).pid, flush=True)"
    )
    parent = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    pid = int(parent.stdout)
    assert any(f"process {pid}:" in one for one in leftovers(os.environ[MARK]))
    os.kill(pid, 9)
    until(lambda: is_gone(pid), "it is gone")


def test_a_child_that_has_a_store_is_noticed(tmp_path):
    recipe = Recipe("omniq_nb.storage.file:FilePlace", (str(tmp_path), FileOptions()))
    with Process(recipe, "task_queue") as child:
        pid = child.run(own_pid)
        assert any(f"process {pid}:" in one for one in leftovers(os.environ[MARK]))
    until(lambda: is_gone(pid), "it is gone")


def is_gone(pid):
    """Whether neither the process is left nor a zombie of it."""
    kinds = tuple(f"{kind} {pid}" for kind in ("process", "zombie"))
    return not any(one.partition(":")[0] in kinds for one in leftovers(os.environ[MARK]))


async def own_pid(queue):
    return os.getpid()


def test_zombies_sockets_and_files_are_noticed():
    child = subprocess.Popen(["true"])
    with socket.create_server(("127.0.0.1", 0)) as listening, tempfile.NamedTemporaryFile() as file:
        until(lambda: f"zombie {child.pid}" in leftovers(os.environ[MARK]), "the zombie is noticed")
        left = leftovers(os.environ[MARK])
        assert any(str(listening.getsockname()[1]) in one for one in left)
        assert f"file {file.name}" in left
    child.wait()
