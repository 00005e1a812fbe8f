"""Waiting in a script: a bar in a terminal, nothing elsewhere, and Ctrl-C ends only the wait."""

import os
import pty
import signal
import subprocess
import sys

SCRIPT = """
import os, sys, threading, time
from omniq_nb import OmniQ, gather
oq = OmniQ("memory://")
GO = {go!r}
def task(x):
    import os, time
    while not os.path.exists({go!r}):
        time.sleep(0.01)
    return x
batch = oq.map(task, range(8), name="sweep [bold]1")
oq.workers.start(2)
"""


def start(tmp_path, code, stderr):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(go=str(tmp_path / "go")) + code)
    return subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


OPEN_LATER = "threading.Timer(2.0, lambda: open(GO, 'w').close()).start()\n"


def on_terminal(tmp_path, code):
    """What a script writes to a terminal, and to its output."""
    ours, theirs = pty.openpty()
    process = start(tmp_path, code, theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the other end was closed
        pass
    finally:
        os.close(ours)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return shown.decode(), printed


def test_a_long_wait_shows_a_bar_in_a_terminal(tmp_path):
    shown, printed = on_terminal(tmp_path, OPEN_LATER + "print(batch.results())")
    assert printed == "[0, 1, 2, 3, 4, 5, 6, 7]\n"
    assert "sweep [bold]1" in shown
    assert "0/8" in shown
    assert "8/8" in shown


def test_gathering_handles_shows_one_too(tmp_path):
    shown, printed = on_terminal(tmp_path, OPEN_LATER + "print(gather(*batch))")
    assert printed == "[0, 1, 2, 3, 4, 5, 6, 7]\n"
    assert "8 tasks" in shown


def test_a_short_wait_shows_nothing(tmp_path):
    code = (
        "open(GO, 'w').close()\n"
        "while batch.counts() != {'succeeded': 8}: time.sleep(0.01)\n"
        "print(len(batch.wait()))"
    )
    shown, printed = on_terminal(tmp_path, code)
    assert (shown, printed) == ("", "8\n")


def test_nothing_is_shown_where_no_terminal_is(tmp_path):
    process = start(tmp_path, OPEN_LATER + "print(len(batch.wait()))", subprocess.PIPE)
    assert process.communicate(timeout=60) == ("8\n", "")


def test_a_bar_that_ran_out_of_time_says_so(tmp_path):
    code = (
        "from omniq_nb.errors import WaitTimeout\n"
        "try: batch.wait(timeout=1.5)\n"
        "except WaitTimeout as error: print(error)\n"
        "open(GO, 'w').close()\nprint(len(batch.wait()))"
    )
    _, printed = on_terminal(tmp_path, code)
    assert printed == (
        "batch 'sweep [bold]1' (8 tasks) is not done after 1.5 s; "
        "the work goes on, ask again whenever you like\n8\n"
    )


def test_ctrl_c_ends_the_waiting_and_the_tasks_run_on(tmp_path):
    code = (
        "threading.Timer(1.5, lambda: print('waiting', flush=True)).start()\n"
        "try: batch.wait()\n"
        "except KeyboardInterrupt: print('interrupted', flush=True)\n"
        "print(batch.counts(), flush=True)\n"
        "open(GO, 'w').close()\n"
        "print(batch.results())\n"
    )
    process = start(tmp_path, code, subprocess.PIPE)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors.strip() == "Only the waiting was stopped: 8 of 8 tasks go on."
    assert "interrupted" in printed
    assert "'running'" in printed
    assert "[0, 1, 2, 3, 4, 5, 6, 7]" in printed
