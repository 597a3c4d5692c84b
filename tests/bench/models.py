"""A call to a model: what providers.ask() adds to the bare SDK, which keeps its client and its connection; whole answers, and the first piece of a stream.

Then the whole of it as ftai-exec does it (claim, intent, breaker, rate, outcome, records), and what an outage costs who asks on.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import statistics
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "lib"), os.path.join(ROOT, "tests")]
import asking  # noqa: E402
from serenamaster import models, providers, record, state  # noqa: E402
from vendor import Process  # noqa: E402

RUNS = 300
KEY = "nobody's key"
TALK = [{"role": "user", "text": "hello"}]
SAID = [{"role": "user", "content": "hello"}]


def ask(url: str, kind: str, stream: bool):
    """One call, up to its first piece where it is a stream, as our programs do it."""
    spec = {"name": "there", "kind": kind, "url": url + ("/v1" if kind == "openai" else ""), "privacy": "cloud"}
    how = {"key": KEY, "seconds": 60, "output": 50, "stream": stream, "once": "once", "wait": lambda function, *args: function(*args)}

    def run() -> float:
        begun = time.perf_counter()
        made = providers.ask(spec, {"name": "small"}, TALK, **how)
        next(made)
        if stream:
            took = time.perf_counter() - begun
        for _ in made:
            pass
        return (took if stream else time.perf_counter() - begun) * 1000

    return run


def bare(url: str, kind: str, stream: bool):
    """The same by the SDK alone."""
    if kind == "anthropic":
        import anthropic

        create = anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0).messages.create
        first = lambda event: event.type == "content_block_delta"  # noqa: E731
    else:
        import openai

        create = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0).chat.completions.create
        first = lambda event: bool(event.choices and event.choices[0].delta.content)  # noqa: E731

    def run() -> float:
        begun = time.perf_counter()
        took = 0.0
        got = create(model="small", max_tokens=50, messages=SAID, stream=stream)
        if stream:
            for event in got:
                took = took or (time.perf_counter() - begun if first(event) else 0.0)
        return (took or time.perf_counter() - begun) * 1000

    return run


def p99(values: list) -> float:
    return statistics.quantiles(values, n=100)[98]


def main() -> None:
    os.environ["no_proxy"] = "127.0.0.1"
    with Process("ok:text=It is as you say.*") as vendor:
        for kind in ("anthropic", "openai"):
            for stream in (False, True):
                ours, theirs = ask(vendor.url, kind, stream), bare(vendor.url, kind, stream)
                for run in (ours, theirs) * 5:
                    run()
                # Turn by turn, so that a busy machine slows both.
                pairs = [(ours(), theirs()) for _ in range(RUNS)]
                mine, yardstick = ([pair[n] for pair in pairs] for n in (0, 1))
                tell(f"{kind}: {'first piece' if stream else 'answer'}", mine, yardstick)
        for stream in (False, True):
            act, theirs = whole(vendor.url, stream), bare(vendor.url, "anthropic", stream)
            for run in (act, theirs) * 5:
                run()
            pairs = [(act(), theirs()) for _ in range(RUNS)]
            tell(f"whole act: {'first piece' if stream else 'answer'}", *([pair[n] for pair in pairs] for n in (0, 1)))
        outage(vendor)
        dying(vendor)


def tell(what: str, mine: list, yardstick: list) -> None:
    for name, of in (("median", statistics.median), ("p99", p99)):
        row(f"{what}, {name} / bare SDK", of(mine), of(yardstick))


def row(name: str, value: float, other: float) -> None:
    print(f"{name}\t{value:,.2f}\tms\t{other:,.2f}\t{value / other:.2f}", flush=True)


def home(*urls: str, **how) -> None:
    os.environ["FTAI_HOME"] = tempfile.mkdtemp(dir=FOLDER.name)
    asking.config(*urls, **how)
    asking.agree()


FOLDER = tempfile.TemporaryDirectory(prefix="ftai-bench-")


def whole(url: str, stream: bool):
    """A route to its first piece, or its result, by one Runner."""
    home(url)
    runner = asking.Run().runner(state.Claims("ftai-exec"))

    def run() -> float:
        batch = [(rec, record.encode(rec)) for rec in asking.pair("model:small", body="hello", command={"stream": stream or None})]
        begun, took = time.perf_counter(), 0.0
        for piece in runner.batch(batch):
            if stream and not took and any(rec["@tag"] == "partial" for rec, _ in piece):
                took = time.perf_counter() - begun
        return (took or time.perf_counter() - begun) * 1000

    return run


def outage(near) -> None:
    """A minute by the clock of limits.py, with a request every four seconds: what they take, against those that ask the other one at once."""
    mine, yardstick, tries = [], [], 0
    kept, models.FIRST_S = models.FIRST_S, 0.0
    with Process("reset*") as far:
        far.control(script="reset*", models="reset*")
        for _ in range(5):
            home(far.url, near.url, changes={"big": {"fallback": ["home"]}})
            for _ in range(15):
                for target, into in (("model:big", mine), ("model:home", yardstick)):
                    records, one = asking.pair(target, body="hello"), asking.Run()
                    begun = time.perf_counter()
                    made = one(*records, log=False)
                    into.append((time.perf_counter() - begun) * 1000)
                    assert asking.end(made)["status"] == "done"
                asking.later(4)
        tries = len(far.state()["requests"]) // 5
    models.FIRST_S = kept
    row("an outage of 60 s: median request / the fallback's own", statistics.median(mine), statistics.median(yardstick))
    print(f"an outage of 60 s: tries at the dead target / at most\t{tries}\ttries\t5\t{tries / 5:.2f}", flush=True)


def dying(near) -> None:
    """From the death of a provider in the middle of a call to the answer of the next, without back-off, against the next one's own time."""
    mine, yardstick = [], []
    kept, models.FIRST_S = models.FIRST_S, 0.0
    for _ in range(7):
        with Process("hang*") as far:
            home(far.url, near.url, changes={"big": {"fallback": ["home"]}})
            at: list[float] = []
            killer = threading.Thread(target=lambda far=far, at=at: (far.wait(requests=1), at.append(time.perf_counter()), far.child.kill()))
            killer.start()
            made = asking.Run()(*asking.pair("model:big", body="hello"), log=False)
            mine.append((time.perf_counter() - at[0]) * 1000)
            killer.join()
            assert asking.end(made)["status"] == "done"
        begun = time.perf_counter()
        asking.Run()(*asking.pair("model:home", body="hello"), log=False)
        yardstick.append((time.perf_counter() - begun) * 1000)
    models.FIRST_S = kept
    row("a provider dies in mid-call: median / the next one's own", statistics.median(mine), statistics.median(yardstick))


main()
