"""The clock of a system's work: remembered results are charged again, and programs that were run count."""

import subprocess
import sys
import time

import pytest

from semcast.bench import cost
from semcast.bench.cost import remembered, spent_s


def test_a_remembered_result_costs_as_much_as_the_first_time(monkeypatch):
    clock_s, calls = [0.0], []
    monkeypatch.setattr(cost, "processor_s", lambda: clock_s[0])

    @remembered(maxsize=4)
    def inner(x: int) -> int:
        calls.append(x)
        clock_s[0] += 5
        return x * x

    @remembered(maxsize=4)
    def outer(x: int) -> int:
        clock_s[0] += 1
        return inner(x) + inner(x)  # the second one is remembered, and charged

    def cost_of(function, x):
        start = spent_s()
        assert function(x) == (9 if function is inner else 18)
        return spent_s() - start

    assert [cost_of(function, 3) for function in (inner, inner, outer, outer)] == pytest.approx([5, 5, 11, 11])
    assert calls == [3]


def test_programs_count_and_waiting_does_not():
    start = spent_s()
    time.sleep(0.2)
    assert spent_s() - start < 0.1
    start = spent_s()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert spent_s() - start > 0.25
