"""Processes on this machine that train one model together, in a process group of PyTorch as under torchrun.

On a CPU, two threads of one process wait for each other in every small operator; beside another busy program a step
takes three times as long. Processes wait for each other only once per step.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from speechattn.jobs.processes import end_with_parent, kill_daemons

__all__ = ["default_processes", "local_group"]

LARGE_MODEL = 1_000_000  # parameters; from here on, two processes are as fast as two threads on an idle machine
PATIENCE_S = 30.0
LEAVING_S = 3.0


def default_processes(num_parameters: int) -> int:
    """Choose the number of processes: 2 for a large model on a CPU with two cores or more, else 1."""
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    alone = "WORLD_SIZE" not in os.environ  # not under torchrun
    return 2 if alone and not accelerated and torch.get_num_threads() > 1 and num_parameters >= LARGE_MODEL else 1


@contextmanager
def local_group(number: int, function: Callable[..., object], *arguments: Any) -> Iterator[None]:
    """Start processes that call a function, and form a group with them, in which this process is the first.

    All processes get the same number of this process's threads.

    Args:
        number: Number of processes, including this one; with 1 none is started.
        function: Must take part in the same collective operations as the body of the `with` statement.
        arguments: Arguments of the function.

    Raises:
        ValueError: When another process fails; with its message.
    """
    if number == 1:
        yield
        return
    _leave_group()  # of one: Accelerate remembers an earlier training in this process
    threads, environment = torch.get_num_threads(), dict(os.environ)
    shared = {
        "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": str(max(threads // number, 1)),
    }  # fmt: skip
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    others = [
        context.Process(target=_join, args=(rank, shared, sender, function, arguments)) for rank in range(1, number)
    ]
    try:
        os.environ.update(shared)  # the others inherit it: PyTorch reads OMP_NUM_THREADS when it is imported
        for other in others:
            other.start()
        sender.close()
        os.environ.update(RANK="0", LOCAL_RANK="0")
        torch.set_num_threads(max(threads // number, 1))
        yield
        for other in others:
            other.join(PATIENCE_S)
    except RuntimeError as error:  # of a collective operation, when another process has gone
        message = _message(receiver)
        if message is None:
            raise
        raise ValueError(message) from error
    finally:
        _leave_group()
        for other in others:
            other.join(LEAVING_S)  # time to clean up
            other.kill()
            other.join()
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _join(
    rank: int, shared: dict[str, str], sender: Connection, function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    """Run process `rank` of the group."""
    end_with_parent()
    logging.disable(logging.WARNING)  # the first process logs the same
    os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(int(shared["OMP_NUM_THREADS"]))
    try:
        function(*arguments)
    except (KeyboardInterrupt, SystemExit):
        pass
    except Exception as error:
        sender.send(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
    else:
        _leave_group()
        return
    kill_daemons()  # else the exit would wait for data-loading processes, and the first process for the exit
    sys.exit(1)


def _message(receiver: Connection) -> str | None:
    """The message of a process that failed; None if there is none."""
    try:
        return receiver.recv() if receiver.poll(PATIENCE_S) else None
    except EOFError:
        return "a training process died: was it killed, or out of memory?"


def _leave_group() -> None:
    """End the process group, and reset Accelerate, so that this process can train alone again."""
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
