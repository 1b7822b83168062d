"""Processes that others are forked from, and what signals do to them."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import multiprocessing
import os
import signal

from speechattn.jobs.processes import SIGNALS, start_forkserver


def double(connection):
    while True:
        connection.send(2 * connection.recv())


def started(context):
    here, there = context.Pipe()
    worker = context.Process(target=double, args=(there,), daemon=True)
    worker.start()
    there.close()
    return here


if __name__ == "__main__":
    received = []
    for number in SIGNALS:
        signal.signal(number, lambda number, _: received.append(number))
    start_forkserver()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(SIGNALS)
    connections = []
    for number in (*SIGNALS, None):  # to the forkserver, and to a worker, as they begin, and later on
        connections.append(started(multiprocessing.get_context("forkserver")))
        if number is not None:
            os.killpg(0, number)
        for connection in connections:
            connection.send(21)
            assert connection.recv() == 42
    assert received == list(SIGNALS)
    print("all answered", flush=True)  # and are still there
"""


def test_signals_to_all_spare_workers_and_the_exit_does_not_wait_for_them(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    assert (process.returncode, process.stdout) == (0, "all answered\n"), process.stderr
