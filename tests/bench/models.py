"""A call to a model: what providers.ask() adds to the bare SDK, which keeps its client and its connection; whole answers, and the first piece of a stream.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "lib"), os.path.join(ROOT, "tests")]
from serenamaster import providers  # noqa: E402
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
                what = f"{kind}: {'first piece' if stream else 'answer'}"
                for name, of in (("median", statistics.median), ("p99", p99)):
                    value, other = of(mine), of(yardstick)
                    print(f"{what}, {name} / bare SDK\t{value:,.2f}\tms\t{other:,.2f}\t{value / other:.2f}", flush=True)


main()
