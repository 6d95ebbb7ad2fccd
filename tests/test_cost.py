"""The clock of a system's work: remembered results are charged again, and programs that were run count."""

import subprocess
import sys
import time

import pytest

from semcast.bench.cost import remembered, spent_s


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_remembered_result_costs_as_much_as_the_first_time():
    calls = []

    @remembered(maxsize=4)
    def inner(x: int) -> int:
        calls.append(x)
        work(0.05)
        return x * x

    @remembered(maxsize=4)
    def outer(x: int) -> int:
        return inner(x) + inner(x)  # the second is remembered, and charged

    def cost(function, x):
        start = spent_s()
        assert function(x) == (9 if function is inner else 18)
        return spent_s() - start

    assert cost(inner, 3) == pytest.approx(0.05, abs=0.02)
    assert cost(inner, 3) == pytest.approx(0.05, abs=0.02)
    assert cost(outer, 3) == pytest.approx(0.10, abs=0.03)
    assert cost(outer, 3) == pytest.approx(0.10, abs=0.03)
    assert calls == [3]


def test_programs_count_and_waiting_does_not():
    start = spent_s()
    time.sleep(0.2)
    assert spent_s() - start < 0.1
    start = spent_s()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert spent_s() - start > 0.25
