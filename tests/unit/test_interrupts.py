import signal
import threading

import pytest

from geotag.interrupts import Interrupts


def test_a_signal_strikes_at_once_outside_of_held() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_waits_for_the_end_of_held() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
            with interrupts.held():
                signal.raise_signal(signal.SIGINT)
                done.append("written")
        with interrupts.held():
            done.append("again")
    assert done == ["written", "again"]


def test_a_second_signal_does_not_wait() -> None:
    with Interrupts() as interrupts, interrupts.held():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupts._is_pending = False  # else the end of the block raises the first one


def test_signals_at_the_very_end_have_no_effect() -> None:
    with Interrupts() as interrupts, interrupts.held(forget=True):
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_changes_no_handler() -> None:
    def work() -> None:
        with Interrupts() as interrupts, interrupts.held():
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[object] = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
