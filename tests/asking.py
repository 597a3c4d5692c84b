"""For tests of models: a home whose specs name servers to rehearse with (vendor.py), and the real Runner of the stages over it, in this process.

    python tests/asking.py URL...      writes that config spec into $FTAI_HOME, for tests of the stages
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
from serenamaster import acting, archive, canonical, execution, journal, limits, paths, record, seal, specs, state, waiting  # noqa: E402


def entry(tag: str, **fields) -> str:
    return f"@{tag}\n" + "".join(f"  {name}: {json.dumps(value)}\n" for name, value in fields.items() if value is not None) + "@end\n"


def config(*urls: str, changes: dict | None = None, more: str = "", rules: str = "") -> None:
    """Writes the specs: far (cloud, Anthropic's protocol) at the first URL, other (cloud, OpenAI's) at the second, near (local) at the last.

    Models: big and small of far, other, home of near. changes: {name of a provider or model: fields}.
    """
    far, other, near = urls[0], urls[1 % len(urls)], urls[-1]
    changes = changes or {}
    made = [entry(tag, name=name, off=True) for tag, name in (("model", "claude"), ("model", "gpt"))]
    for tag, name, fields in (
        ("provider", "far", {"kind": "anthropic", "privacy": "cloud", "url": far}),
        ("provider", "other", {"kind": "openai", "privacy": "cloud", "url": other + "/v1"}),
        ("provider", "near", {"kind": "openai", "privacy": "local", "url": near + "/v1"}),
        ("model", "big", {"provider": "far", "id": "big-1", "window": 100000, "output": 50, "quality": 3, "fallback": ["other", "home"]}),
        ("model", "small", {"provider": "far", "id": "small-1", "window": 4000, "output": 50, "quality": 1}),
        ("model", "other", {"provider": "other", "id": "other-1", "window": 8000, "output": 50, "quality": 2}),
        ("model", "home", {"provider": "near", "id": "home-1", "window": 8000, "output": 50, "quality": 1}),
    ):
        made.append(entry(tag, name=name, summary="x", **(fields | changes.get(name, {}))))
    folder = os.path.join(os.environ["FTAI_HOME"], "config")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(os.environ["FTAI_HOME"], 0o700)
    # Tests of what an answer costs name its price: the table that is shipped changes.
    prices = "".join(
        entry("price", name=name, vendor=vendor, model=model, unit=1000000, input=1, output=cost, currency="USD")
        for name, vendor, model, cost in (("big", "far", "big-1", 10), ("bigger", "far", "big-1-20260101", 10), ("other", "other", "other-1", 2))
    )
    for name, text in (("config", "".join(made) + more), ("prices", prices), ("mcp", rules)):
        if text:
            with open(os.path.join(folder, f"serenamaster.{name}.ftai"), "w") as file:
                file.write("@ftai v2.0\n" + text)
    specs.forget()


def agree(*names: str) -> None:
    for name in names or ("far", "other"):
        state.agree(name)


class Context:
    """What stage.Context is, that keeps what it is told."""

    def __init__(self, name: str = "ftai-exec"):
        self.name, self.failures, self.warnings, self.codes = name, [], [], []

    def fail(self, bad) -> None:
        self.failures.append(bad)
        self.codes.append(bad.code)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    note = error = warn


def pair(target: str = "model:big", body: str = "what is it", *, thread: str | None = None, command: dict | None = None, route: dict | None = None) -> tuple:
    """A command that may go to the cloud, and its route."""
    asked = record.make("command", "ftai-listen", body=body, via="text", tz="UTC", **({"privacy": "cloud"} | (command or {})))
    if thread:
        asked["thread"] = thread
    routed = record.make("route", "ftai-route", parent=asked, target=target, rule="r", **(route or {}))
    return asked, routed


def enter(records) -> None:
    """What ftai-log does with them."""
    for kind, _, reason in journal.append(paths.journal(), list(records), stage="ftai-log"):
        assert kind in ("written", "repeat", "skipped"), reason


class Run:
    """One run of ftai-exec: `records = run(command, route)`; run.codes, run.failures, run.warnings."""

    def __init__(self, *, stop=None, again: bool = False, name: str = "ftai-exec"):
        self.ctx, self.stop, self.again = Context(name), stop, again

    def __call__(self, *records, log: bool = True) -> list[dict]:
        claims = state.Claims("ftai-exec")
        made: list = []
        try:
            for piece in self.runner(claims).batch([(rec, record.encode(rec)) for rec in records]):
                made += [rec for rec, _ in piece]
        finally:
            claims.close()
        if log:
            enter(made)
        return made

    def runner(self, claims):
        return acting.runner(self.ctx, stage=self.ctx.name, stop=self.stop, claims=claims, again=self.again)

    def plan(self, *records) -> list[str]:
        claims = state.Claims("ftai-exec")
        try:
            return [said for _, said in self.runner(claims).plan([(rec, record.encode(rec)) for rec in records])]
        finally:
            claims.close()

    codes = property(lambda self: self.ctx.codes)
    failures = property(lambda self: self.ctx.failures)
    warnings = property(lambda self: self.ctx.warnings)


def drain(ctx=None, stop=None) -> list[dict]:
    """One round of ftai-queue drain: what it hands over."""
    ctx = ctx or Context("ftai-queue")
    runner = acting.runner(ctx, stage=ctx.name, stop=stop, claims=None, journal=ctx.name)
    made: list[dict] = []
    ways = {"show": made.append, "flush": lambda: None, "stopped": lambda: bool(stop and stop.number)}
    with waiting.Drain() as work:
        for item in work.tasks(stop or type("", (), {"number": 0})()):
            specs.forget()
            route, command = (record.decode(line) for line in item.lines)
            stored = lambda recs: [record.encode(rec) for rec in seal.cover(canonical.cleared(recs))]  # noqa: E731
            waiting.once(work, item, route, runner.drained(route, command), ctx.name, stored=stored, **ways)
    put = lambda recs, known: journal.append(paths.journal(), recs, stage=ctx.name, known=known, clear=recs, covered=True)  # noqa: E731
    return made + waiting.hand_over((), put, archive.lookup, lambda: journal.read(paths.journal()))


def only(records, tag: str) -> list[dict]:
    return [rec for rec in records if rec["@tag"] == tag]


def end(records) -> dict:
    """The one result."""
    (result,) = only(records, "result")
    return result


def bodies(state: dict) -> list[str]:
    """What a server was asked, as text."""
    return [json.dumps(request["body"], ensure_ascii=False) for request in state["requests"] if request["method"] == "POST"]


def later(seconds: float) -> None:
    """As if so many seconds were over, for all that limits.py keeps: what stands in state.db is made older."""
    ms = round(seconds * 1000)
    limits.mark("x")
    with state.Write(db := state.connect(paths.state_db()), paths.state_db()):
        for table, columns in (("breakers", ("until", "probe", "at")), ("quotas", ("until", "asked")), ("nets", ("at",))):
            db.execute(f"UPDATE {table} SET " + ", ".join(f"{column} = {column} - {ms}" for column in columns))
        db.execute("UPDATE OR REPLACE rates SET second = second - ?", (round(seconds),))
    db.close()


if __name__ == "__main__":
    config(*sys.argv[1:])

__all__ = ["agree", "bodies", "config", "drain", "end", "entry", "enter", "execution", "later", "only", "pair", "Context", "Run"]
