"""Signals as exceptions, and what they do not break into."""

import signal
import threading

import pytest

from speechattn.jobs.interruption import Interruption

SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


@pytest.mark.parametrize(("number", "kind"), SIGNALS)
def test_a_signal_raises_where_it_arrives(number: int, kind: type) -> None:
    before = signal.getsignal(number)
    with pytest.raises(kind) as stop, Interruption():
        signal.raise_signal(number)
        raise AssertionError("it went on")
    assert signal.getsignal(number) is before
    if kind is SystemExit:
        assert stop.value.code == 143


@pytest.mark.parametrize(("number", "kind"), SIGNALS)
def test_what_is_held_ends_first(number: int, kind: type) -> None:
    done = []
    with pytest.raises(kind), Interruption() as interruption:
        with interruption.held():
            signal.raise_signal(number)
            done.append("all of it")
        done.append("more")
    assert done == ["all of it"]


def test_a_handler_that_was_not_set_from_python_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    before, set_handler = {number: signal.getsignal(number) for number, _ in SIGNALS}, signal.signal

    def foreign(number: int, handler: object) -> None:
        """As `signal.signal` where the handler before is one of C, for which it gives None."""
        set_handler(number, handler)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", foreign)
        with Interruption():
            pass
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_error_within_what_is_held_is_raised_itself() -> None:
    with Interruption() as interruption:
        with pytest.raises(ZeroDivisionError), interruption.held():
            raise ZeroDivisionError
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)


def test_a_deferred_signal_waits_to_be_asked_for() -> None:
    with Interruption(deferred=True) as interruption:
        with interruption.held():
            signal.raise_signal(signal.SIGTERM)
        interruption.raise_if(False)
        assert interruption.received == signal.SIGTERM
        with pytest.raises(SystemExit) as stop:
            interruption.raise_if(True)
    assert stop.value.code == 143


def test_a_signal_of_another_process_counts_as_sigterm() -> None:
    with pytest.raises(SystemExit) as stop:
        Interruption(deferred=True).raise_if(True)
    assert stop.value.code == 143


def test_other_threads_leave_the_handlers_alone() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with Interruption():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
