"""What is done aside."""

import gc
import sys
import threading
from contextlib import suppress

from service.api.swap.aside import YIELD_S, Aside


def test_inside_the_interpreter_is_left_sooner_and_afterwards_all_is_as_before() -> None:
    before, aside = sys.getswitchinterval(), Aside()
    with suppress(ZeroDivisionError), aside:
        assert abs(sys.getswitchinterval() - YIELD_S) < 1e-6 and not gc.isenabled()
        raise ZeroDivisionError
    assert sys.getswitchinterval() == before and gc.isenabled()


def test_one_thread_at_a_time_is_inside() -> None:
    aside, entered = Aside(), threading.Event()

    def other() -> None:
        with aside:
            entered.set()

    thread = threading.Thread(target=other)
    with aside:
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(30)
    thread.join()
