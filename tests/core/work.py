"""What the executors' tests have run. Light to import: children do."""

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from omniq_nb.core.context import current_task

PATIENCE = 60.0


class Gate:
    """Lets tasks of this process tell that they started, and wait for leave to end."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.leave = threading.Event()
        self.turns = threading.Barrier(2)


GATES: dict[str, Gate] = {}


def wait_at(name: str) -> str:
    gate = GATES[name]
    gate.started.release()
    gate.leave.wait(PATIENCE)
    return "left"


async def await_at(name: str) -> str:
    gate = GATES[name]
    gate.started.release()
    await asyncio.to_thread(gate.leave.wait, PATIENCE)
    return "left"


def add(a, b):
    return a + b


async def add_later(a, b):
    await asyncio.sleep(0)
    return a + b


class Broken(ValueError):
    pass


def fail(message):
    raise Broken(message)


async def fail_later(message):
    await asyncio.sleep(0)
    raise Broken(message)


def raise_it(name):
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[name]


def a_lock():
    return threading.Lock()


def say(word):
    print(word)
    print(word, file=sys.stderr)


def who():
    task = current_task()
    return task.id, task.name, task.attempt, task.queue, task.batch, task.cancelled


def count_up(total):
    for done in range(1, total + 1):
        current_task().progress(done, total, f"step {done}")


def touch_and_sleep(path):
    """Say which process it is, and sleep until the file is gone."""
    Path(path).write_text(str(os.getpid()))
    deadline = time.monotonic() + PATIENCE
    while Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.05)


async def sleep_and_clean_up(path):
    Path(path).write_text("started")
    try:
        await asyncio.sleep(PATIENCE)
    finally:
        Path(path).write_text("cleaned up")


def sleep_and_clean_up_plainly(path):
    try:
        Path(path).write_text("started")
        time.sleep(PATIENCE)
    finally:
        Path(path).write_text("cleaned up")


def loop_until_cancelled(name):
    gate = GATES[name]
    gate.started.release()
    while not current_task().cancelled:
        gate.leave.wait(0.001)
    current_task().check()


def ignore_cancellation(name):
    return wait_at(name)


def meet(name, word):
    """Print in turns with the other one."""
    gate = GATES[name]
    for _ in range(3):
        gate.turns.wait(PATIENCE)
        print(word, end=" ")


async def swallow(name):
    gate = GATES[name]
    gate.started.release()
    while not gate.leave.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            print("no")


def leave_by_exit(code):
    print("last words", flush=True)
    os._exit(code)


def leave_by_signal(number):
    print("last words", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(PATIENCE)


def crash():
    ctypes.string_at(0)


def megabytes(n):
    return b"x" * (n << 20)


def write_below_python():
    print("python")
    os.write(1, b"descriptor\n")
    subprocess.run(["echo", "child"], check=True)
    os.write(2, b"error\n")
    print("again")


def shout(n):
    print("start" + "." * n + "end")


def defy(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    touch_and_sleep(path)


def start_helper(path):
    helper = subprocess.Popen(["sleep", str(PATIENCE)])
    Path(path).write_text(str(helper.pid))
    helper.wait()


def main_module():
    return getattr(sys.modules["__main__"].__spec__, "name", None)


def command_line_and_environment():
    return Path("/proc/self/cmdline").read_bytes(), Path("/proc/self/environ").read_bytes()


def read_stdin():
    return sys.stdin.read()


def where():
    return os.getcwd()  # noqa: PTH109


def pid():
    return os.getpid()


def write_pid(path):
    Path(path).write_text(str(os.getpid()))


def backtrack(path):
    """Hold Python's lock for ages, inside one call of C code."""
    write_pid(path)
    re.match(r"(a|a)*$", "a" * 99 + "b")


def act(journal, word, seconds, ending):
    """Note that it runs, print, take a while, end like that."""
    with open(journal, "a") as file:  # noqa: PTH123  appends, in one write
        file.write(word + "\n")
    print(word, flush=True)
    time.sleep(seconds)
    if ending == "exit":
        os._exit(3)
    if ending == "raise":
        raise Broken(word)
    return word
