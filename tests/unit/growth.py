"""How the time of some work grows with what it is given, on a machine that others use as well."""

import time


def linear(work, part, whole, times=8):
    """Asserts that work(whole), `times` as much as work(part), takes about as many times as long; were it quadratic, times * times as long.

    Processor time, the least of several rounds: another process can make a round longer, never shorter. One that fits is enough.
    """
    least = [float("inf")] * 2
    for _ in range(5):
        for n, given in enumerate((part, whole)):
            begun = time.process_time()
            work(given)
            least[n] = min(least[n], time.process_time() - begun)
        if least[1] < 3 * times * max(least[0], 0.002):
            return
    raise AssertionError(f"{times} times as much takes {least[1] / least[0]:.0f} times as long: {least}")
