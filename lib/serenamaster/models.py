"""Acting on models: who of several candidates gets what was asked, how often each is tried, and what becomes of it when none can be had.

One policy for all providers. What it has to remember is in state.db (limits.py), so that a hundred short-lived processes act as one.
"""

import time
from collections import namedtuple

from . import limits, prices, providers, specs, state
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOPERM, SOFTWARE, SOME, TEMPFAIL, UNAVAILABLE, USAGE, Failure
from .record import new_id, now

TRIES = 3  # of one candidate
FIRST_S, MOST_S = 0.5, 8.0  # of the back-off, which doubles
PATIENCE_S = 60.0  # of a Retry-After that is waited for; what is longer is for the next candidate, or for the queue
SECONDS = {"cloud": 120.0, "local": 600.0}  # that one candidate may take in all, where neither spec nor record says
WINDOW, OUTPUT = 8192, 2048  # tokens, of a model whose entry does not say
ANSWER = 500  # tokens of an answer of ordinary length, by which costs are compared
TRANSIENT = frozenset(("network", "timeout", "rate"))
CODES = {"credential": UNAVAILABLE, "spec": UNAVAILABLE, "policy": NOPERM, "unknown": SOFTWARE}  # of what failed for good; every other kind is SOME
CLASS = {"length": "request", "unknown": "bug"}  # of error records, where the kind is not one itself

# Who could answer. reach: "cloud" where what it gets leaves the machine, else "local".
Candidate = namedtuple("Candidate", "target model provider reach")

# Why a candidate did not answer. code: as in the `why_not` of a route; kind: class of what went wrong. later: it may be had another time; until:
# when, in seconds since the epoch, or 0. over: what a budget that is used up says of the others. hint: what may be typed. tried: it was asked.
Miss = namedtuple("Miss", "code reason kind later until over hint tried", defaults=("network", False, 0.0, "", "", False))


# --- who could answer


def candidate(name: str, config: dict | None = None) -> Candidate | Miss:
    """The model of this name with its provider; a Miss (missing, off) where it can't be had. Raises Failure 78 for a broken spec."""
    config = config or specs.load("config")
    entry = next((entry for entry in config["model"] if entry["name"] == name), None)
    if entry is None:
        if name in config["gone"].get("model", ()):
            return Miss("off", f"the model '{name}' is turned off", "policy")
        return Miss("missing", f"the model '{name}' is not set up", "spec")
    found = next((other for other in config["provider"] if other["name"] == entry["provider"]), None)
    if found is None or "blocked" in found or "blocked" in entry:
        return Miss("off", f"the model '{name}' is turned off" if "blocked" in entry else f"the provider '{entry['provider']}' is turned off", "policy")
    # A model is where its provider is: it can be called more private than that by nobody.
    reach = "local" if found.get("privacy") == "local" and entry.get("privacy") != "cloud" else "cloud"
    return Candidate(f"model:{name}", entry, found, reach)


def line(target: str, fallback=()) -> list[str]:
    """The names of the models that a route names, in their order: of its target, of its `fallback`, else of the fallback of its target's entry.

    `model:*` names all that are set up. Raises Failure 78 for a broken spec.
    """
    known = specs.load("config")["model"]
    own: dict = next((entry for entry in known if f"model:{entry['name']}" == target), {})
    more = [str(other) for other in fallback] or [f"model:{name}" for name in own.get("fallback", ())]
    named = [other.removeprefix("model:") for other in (target, *more) if other.startswith("model:")]
    return list(dict.fromkeys(found for name in named for found in ([entry["name"] for entry in known] if name == "*" else [name])))


def price(one: Candidate, model: str | None = None):
    """The prices.Row of a candidate now, by the name of the model that answered, or None where nobody knows it; what is local costs nothing."""
    if one.provider.get("privacy") == "local":
        return prices.LOCAL
    return prices.row(prices.vendor(one.provider), model or one.model.get("id", one.model["name"]), now())


# --- how a candidate stands, for the router


def standing(name: str, rec: dict, simulated: dict | None = None, priced: bool = False) -> dict:
    """How the model of this name stands for a command now, without asking anybody: {target, why_not, reason, estimate, known}.

    why_not: "" where it can be had, else missing, off, consent, credential, offline, breaker, rate or budget. estimate: what an answer of
    ordinary length would cost, with `priced`; None where nobody knows. known: fields of a record. simulated: see rehearsed(); of whoever is in
    there it counts only what the owner said, and nothing of what is known.
    """
    target = f"model:{name}"
    one = candidate(name)
    if isinstance(one, Miss):
        return {"target": target, "why_not": one.code, "reason": one.reason, "estimate": None, "known": {}}
    provider, config = one.provider["name"], specs.load("config")
    made: dict = {"target": target, "why_not": "", "reason": "", "estimate": None, "known": {}}
    if priced:
        row, words = price(one), rec.get("body") or rec.get("title") or ""
        made["estimate"] = prices.cost(row, tokens(words if type(words) is str else ""), 0, ANSWER)
        made["known"] |= {} if made["estimate"] is None else {"estimate": made["estimate"]}
        made["known"]["price_row"] = row.source if row else "unpriced"
    budgets = [budget for budget in config["budget"] if all(budget.get(key, own) == own for key, own in (("provider", provider), ("model", name)))]
    breakers, used = limits.standings([f"{provider}/{one.model.get('id', name)}/"], budgets)
    (about,) = breakers.values()
    if simulated and provider in simulated:
        about = {"breaker": "closed"}
    made["known"]["breaker"] = f"{about['breaker']} until {about['until']}" if about.get("until") else about["breaker"]
    if used:
        made["known"]["budget"] = [f"{own}: {each['used']:g} of {each['value']:g} {each['unit']} a {each['per']}" for own, each in used.items()]
    spent = next((budget for budget in budgets if used[budget["name"]]["used"] >= budget["value"]), None)
    if one.reach == "cloud" and (why := next(filter(None, (_consent(who, rec) for who in consent_names(one))), "")):
        made["why_not"], made["reason"] = "consent", f"there is no consent to {provider}: {why}"
    elif about.get("up") is False:
        made["why_not"], made["reason"] = "offline", f"{provider} could not be reached {about['age']:.0f} s ago"
    elif about["breaker"] == "open":
        made["why_not"], made["reason"] = "breaker", f"left alone until {about['until']}: {about.get('reason', '')}"
    elif about.get("wait", 0) > PATIENCE_S:
        made["why_not"], made["reason"] = "rate", f"{provider} takes no more requests for {about['wait']:.0f} s"
    elif spent:
        made["why_not"], made["reason"], made["over"] = "budget", _used_up(spent), spent.get("over", "cheaper")
    return made


def spared(name: str, over: str, others: list[str]) -> set[str]:
    """Of these names of models the targets that may be asked where a budget of this one is used up, which says `over` of the others."""
    one, found = candidate(name), [candidate(other) for other in others]
    if isinstance(one, Miss):
        return {f"model:{other}" for other in others}
    return {other.target for other in _rest(one, Miss("budget", "", over=over), [other for other in found if isinstance(other, Candidate)])}


def _consent(name: str, rec: dict) -> str:
    return state.consent(name, rec, specs.load("config")["consent"])


# What a provider is to do in a rehearsal. said: as it was typed; kind: of the Trouble, "" for an answer; status: of HTTP, 0 where there is none.
Fault = namedtuple("Fault", "said kind status after")

# A line of a rehearsal. target: who is asked, "" where nobody is. words: what happens then.
Step = namedtuple("Step", "target words")


def rehearsed(words: str) -> dict[str, Fault]:
    """{provider: Fault} of what --simulate was told: `anthropic=429:Retry-After=30,openai=down`.

    After `=` stands `down`, `ok` or a status of HTTP, behind a colon what a header says. Raises Failure 2 for anything else, and for a
    provider that no spec knows.
    """
    known = [entry["name"] for entry in specs.load("config")["provider"]]
    found: dict[str, Fault] = {}
    for part in filter(None, (part.strip() for part in words.split(","))):
        name, _, said = part.partition("=")
        how, _, header = said.partition(":")
        what, _, seconds = header.partition("=")
        if name not in known:
            raise Failure(f"'{name}' is no provider: expected {', '.join(known)}", USAGE)
        if how not in ("ok", "down") and not (how.isascii() and how.isdigit() and 400 <= int(how) <= 599):
            raise Failure(f"'{part}' says nothing that a provider can do", USAGE, "--simulate 'anthropic=429:Retry-After=30,openai=down'")
        if header and (what.lower() != "retry-after" or not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10) or not how.isdigit()):
            raise Failure(f"'{header}' is no header that counts", USAGE, "Retry-After=SECONDS, behind a status")
        status = int(how) if how.isdigit() else 0
        kind = "" if how == "ok" else "network" if status >= 500 or not status else providers.KINDS.get(status, "unknown")
        found[name] = Fault(how, kind, status, float(seconds) if header else None)
    return found


def rehearse(made: dict, rec: dict, simulated: dict[str, Fault]) -> list[Step]:
    """What Models.act() would do with a decision for models, where providers do what is said of them: a Step for each try, and how it ends.

    Nobody is asked. Who is not in `simulated` answers, as long as nothing is known against it; keys, and the conversation so far, are not looked at.
    """
    steps: list[Step] = []
    found: list[Candidate] = []
    missed: list[tuple[str, Miss]] = []
    # As execution.Job has it: the route grants nothing.
    local = made["privacy"] != "cloud" or not _open(rec, "cloud")
    for name in line(made["target"], made["fallback"]):
        one = candidate(name)
        if isinstance(one, Candidate) and one.reach == "cloud":
            if local:
                one = Miss("privacy", f"'{one.target}' may take this off the machine, and it is local", "policy")
            elif why := next(filter(None, (_consent(who, rec) for who in consent_names(one))), ""):
                one = Miss("consent", f"there is no consent to {one.provider['name']}: {why}", "policy")
        if isinstance(one, Miss):
            missed.append((f"model:{name}", one))
        else:
            found.append(one)
    steps += [Step("", f"{target} is not asked: {miss.reason}") for target, miss in missed]
    if not found:
        bad = _refusal(missed)
        return [*steps, Step("", f"{'refused' if bad.code == NOPERM else 'failed'}, exit {bad.code}: {bad.message}")]
    try:
        words = asked(rec)
    except Failure as bad:
        return [*steps, Step("", f"failed, exit {bad.code}: {bad.message}")]
    held: dict[str, float] = {}  # provider -> seconds that it takes nothing for
    while found:
        one = found.pop(0)
        messages = cut(one.model.get("system") or specs.setting("system", ""), [], words, one.model)
        if messages is None:
            outcome: Miss | None = _no_room(one)
        else:
            outcome = _against(one, messages, simulated, held)
        if outcome is not None:
            steps.append(Step("", f"{one.target} is not asked: {outcome.reason}"))
        else:
            fault = simulated.get(one.provider["name"]) or Fault("ok", "", 0, None)
            outcome = _played(one, fault, steps)
            if outcome is None:
                return [*steps, Step("", "failed, exit 70: nobody knows what that status means" if fault.kind else "done")]
            if outcome.until:
                held[one.provider["name"]] = outcome.until - time.time()
        missed.append((one.target, outcome))
        found = _rest(one, outcome, found)
    (status, body, code, _, fields), _, _ = _outcome(missed)
    if status != "queued":
        return [*steps, Step("", f"{status}, exit {code}: {body}")]
    if rec.get("log") == "fact":
        return [*steps, Step("", f"failed, exit {TEMPFAIL}: what is kept out of the journal is not queued either")]
    return [*steps, Step("", f"queued, exit {code}: tried again {f'from {at} on' if (at := fields.get('not_before')) else 'with the next drain'}")]


def _played(one: Candidate, fault: Fault, steps: list[Step]) -> Miss | None:
    """Adds the tries of one candidate to the steps; None where it answers, or fails in a way that ends it all."""
    left, n, before = float(one.provider.get("deadline", SECONDS[one.reach])), 0, ""
    while True:
        n += 1
        kind = f" ({fault.kind})" if fault.kind and fault.status else ""
        steps.append(Step(one.target, f"{before}ask {one.target}{' again' if n > 1 else ''}: {fault.said}{kind}"))
        if not fault.kind or fault.kind == "unknown":
            return None
        wait = min(MOST_S, FIRST_S * 2 ** (n - 1)) if fault.after is None else fault.after
        if not _again(fault.kind, n, wait, left):
            said = "it is down" if fault.said == "down" else f"it answered with {fault.status}"
            return _miss(fault.kind, fault.status, fault.after, f"'{one.target}': {said}")
        before = f"wait {'about ' if fault.after is None else ''}{wait:g} s, "
        left -= wait


def _against(one: Candidate, messages: list, simulated: dict, held: dict) -> Miss | None:
    """Why a candidate is not even asked, from what is known now, or in the rehearsal; None where it is."""
    provider, budgets = one.provider["name"], specs.load("config")["budget"]
    name = f"{provider}/{one.model.get('id', one.model['name'])}/"
    about = {} if provider in simulated else limits.standings([name])[0][name]
    if about.get("up") is False:
        return Miss("offline", f"'{provider}' can't be reached", "network", True)
    if over := limits.overrun(budgets, _spend(one, messages, None)):
        return Miss("budget", _used_up(over), "policy", over=over.get("over", "cheaper"))
    if about.get("breaker") == "open":
        return Miss("breaker", f"its breaker is open until {about['until']}: {about.get('reason', '')}", "network", True)
    if (wait := max(about.get("wait", 0), held.get(provider, 0))) > PATIENCE_S:
        return Miss("rate", f"'{provider}' takes no more requests for {wait:.0f} s", "rate", True, time.time() + wait)
    return None


# --- what it is told


def tokens(text: str) -> int:
    """About how many tokens a text has: a token of ordinary text has three bytes or more."""
    return len(text.encode("utf-8", "replace")) // 3 + 8


def asked(command: dict) -> str:
    """What a model is asked: the words of a command or task, with its documents. Raises Failure 65 for a document whose text is not in it."""
    words = command.get("body") if command.get("@tag") == "command" else "\n".join(filter(None, (command.get("title"), command.get("body"))))
    parts = [words if type(words) is str else ""]
    for block in command.get("@blocks", ()):
        if block.get("@tag") == "document":
            if type(block.get("body")) is not str:
                said = f"the document '{block.get('title')}' is not text of at most 1 MiB, and can't be given to a model"
                raise Failure(said, DATAERR, "ftai-listen --file with a part of it")
            parts.append(f"<document title={block.get('title')!r}>\n{block['body']}\n</document>")
    return "\n\n".join(parts)


def conversation(records: list[dict], thread: str) -> list[dict]:
    """Of the records of a thread, in the order of the journal, those that a model may be told of: what was imported into a thread of the owner's is
    not part of it. All of a thread that was imported as a whole are: its first record, which it has its name of, and what came from the same journal.
    """
    first = records[0] if records else {}
    home = _home(first) if first.get("id") == thread else None
    return [rec for rec in records if "origin" not in rec or _home(rec) == home]


def _home(rec: dict) -> str | None:
    """The journal, or the file, that a record was imported from; None for one of our own."""
    return str(rec["origin"]).partition(" ")[0] if "origin" in rec else None


def history(records: list[dict], command: dict, cloud: bool, default: str) -> tuple[list[dict], list[dict]]:
    """(messages of the conversation before this command, the records that they come from).

    records: of the thread, in the order of the journal. cloud: only what says itself that it may go there; default: the privacy of what says
    nothing. Of an answer that came later than the next question (it waited in the queue) the place is that of its question.
    """
    asks: dict[str, dict] = {}
    answers: dict[str, dict] = {}
    routes: dict[str, str] = {}
    before = True
    for rec in records:
        tag, own, parent = rec.get("@tag"), rec.get("id"), rec.get("parent")
        before = before and own != command.get("id")
        if tag == "command" and type(own) is str and before:
            asks[own] = rec
        elif tag == "route" and parent in asks:
            routes[str(own)] = parent
        elif tag == "result" and rec.get("status") == "done" and parent in routes:
            answers[routes[parent]] = rec
    told: list[dict] = []
    used: list[dict] = []
    for own, ask in asks.items():
        pair = [rec for rec in (ask, answers.get(own)) if rec and _readable(rec.get("body"))]
        # A question without its answer, or an answer without its question, would be read as something else.
        if len(pair) < 2 or (cloud and not all(_open(rec, default) for rec in pair)):
            continue
        told += [{"role": "user", "text": pair[0]["body"]}, {"role": "assistant", "text": pair[1]["body"]}]
        used += pair
    return told, used


def _readable(body) -> bool:
    """True for text that a model can read: not for what is sealed, where its key is not at hand."""
    return type(body) is str and bool(body.strip()) and not body.startswith("[sealed:")


def _open(rec: dict, default: str) -> bool:
    """True for a record that may leave the machine as far as privacy goes, with all the blocks in it."""
    return rec.get("privacy", default) == "cloud" and all(_open(block, "cloud") for block in rec.get("@blocks", ()))


def most(model: dict) -> int:
    """The tokens that an answer of a model may have: what its entry says, and half of its window at most."""
    return min(model.get("output", OUTPUT), max(model.get("window", WINDOW) // 2, 1))


def cut(system: str, told: list[dict], words: str, model: dict) -> list[dict] | None:
    """The messages for a model, the oldest of the conversation left out until all fits into its window; None where the question alone does not.

    The system part and the question stay whole.
    """
    room = model.get("window", WINDOW) - most(model) - tokens(system) - tokens(words)
    if room < 0:
        return None
    kept: list[dict] = []
    for at in range(len(told) - 2, -1, -2):
        room -= tokens(told[at]["text"]) + tokens(told[at + 1]["text"])
        if room < 0:
            break
        kept[:0] = told[at : at + 2]
    return [*([{"role": "system", "text": system}] if system else []), *kept, {"role": "user", "text": words}]


# --- the policy


def pause(n: int, after: float | None = None) -> float:
    """Seconds before try n + 1 (n from 1): what the provider asked for, else twice as long each time, by chance a quarter more or less.

    So that a hundred that failed together do not come back together: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """
    import random

    back = min(MOST_S, FIRST_S * 2 ** (n - 1)) * random.uniform(0.75, 1.25)
    return back if after is None else max(after, 0.0)


def _until(at: float) -> str:
    """A time as records hold it, not before it is there."""
    whole, ms = divmod(-int(-at * 1000 // 1), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{ms:03d}Z"


def _again(kind: str, n: int, wait: float, left: float) -> bool:
    """True where a call that failed the nth time is tried again: after `wait`, in the seconds that are left."""
    return kind in TRANSIENT and n < TRIES and wait <= min(PATIENCE_S, left)


def _miss(kind: str, status: int, after: float | None, said: str, hint: str = "") -> Miss:
    """The Miss of a candidate that was asked and is not asked again."""
    code = {"length": "window", "network": "network" if status else "offline"}.get(kind, kind)
    return Miss(code, said, kind, kind in TRANSIENT, time.time() + after if after else 0.0, hint=hint, tried=True)


def _rest(one: Candidate, outcome: Miss, found: list[Candidate]) -> list[Candidate]:
    """Who of the others may still be asked after this one did not answer."""
    if outcome.code in ("request", "unknown") or outcome.over == "stop":
        return []
    if outcome.code == "window":
        return [other for other in found if other.model.get("window", WINDOW) > one.model.get("window", WINDOW)]
    if outcome.code == "policy":
        return [other for other in found if other.model["name"] in one.model.get("refused", ())]
    if outcome.over == "local":
        return [other for other in found if other.reach == "local"]
    if outcome.over:
        return [other for other in found if _cheaper(other, one)]
    if outcome.code == "offline":
        return [other for other in found if other.provider["name"] != one.provider["name"]]
    return found


def _refusal(missed) -> Failure:
    """The failure of a route of whose candidates none may be asked."""
    for code in ("consent", "privacy", "off"):
        for _, miss in missed:
            if miss.code == code:
                return Failure(miss.reason, NOPERM, miss.hint)
    return Failure(missed[0][1].reason if missed else "no model is set up", UNAVAILABLE, "ftai-doctor tells what is set up")


def _outcome(missed, left: float = 1.0, deadline: str = "") -> tuple[tuple, Miss, str]:
    """How a route ends that nobody answered: (the fields of its End, the Miss that decided it, the reason in words).

    left: seconds until the deadline of the route.
    """
    final = next((miss for _, miss in missed if miss.code in ("request", "policy", "unknown") or miss.over == "stop"), None)
    later = [miss for _, miss in missed if miss.later]
    if final is None and later and left > 0:
        # Where one of them may be had at any time, it is not put off.
        at = min(miss.until for miss in later)
        last = later[-1]
        return ("queued", last.reason, TEMPFAIL, last.kind, {"not_before": _until(at)} if at else {}), last, last.reason
    worst = final or missed[-1][1]
    code, kind, reason = NOPERM if worst.over else CODES.get(worst.kind, SOME), CLASS.get(worst.kind, worst.kind), worst.reason
    if final is None and later:
        code, kind, reason = TEMPFAIL, "timeout", f"it was to be done before {deadline}, and {later[-1].reason}"
    body = f"{reason[:1].upper()}{reason[1:]}."
    return ("refused" if code == NOPERM else "failed", body, code, kind, {"hint": worst.hint}), worst, reason


def _no_room(one: Candidate) -> Miss:
    return Miss("window", f"'{one.target}' has no room for that: it takes {one.model.get('window', WINDOW)} tokens", "length")


def _spend(one: Candidate, messages: list[dict], agent) -> dict:
    """The largest spend that a call can come to: a token has one byte at least."""
    size, row, output = sum(len(message["text"].encode("utf-8", "replace")) + 16 for message in messages), price(one), most(one.model)
    spend = {"provider": one.provider["name"], "model": one.model["name"], "agent": agent, "calls": 1, "tokens": size + output}
    return spend | {"amount": prices.largest(row, size, output), "currency": row.currency if row else None}


class Models:
    """What acts on `model:NAME` (kinds["model"] of an execution.Runner). What it needs of its own floor it is given:

    key(name, tell) -> the value of a key, after tell(act, subject, outcome, because) of each look; raises Failure. thread(id) -> the records of
    a thread as they are now, opened, none where the archive can't be read. clear(texts) -> the texts as the journal would keep them, redacted:
    what goes to a cloud says no more than that.
    """

    def __init__(self, key, thread, clear):
        self.key, self.thread, self.clear = key, thread, clear

    def named(self, _name: str) -> tuple:
        """What execution.Act holds for a model, or for `*`, all of them. That it is there is looked at when it acts: what comes in its place may be."""
        return self.act, "cloud", self.plan, False, True

    def plan(self, job) -> str:
        """Who would be asked, in words. Raises Failure as act() does."""
        found, missed = self._candidates(job)
        if not found:
            raise _refusal(missed)
        return f"ask: {', else '.join(one.target for one in found)}"

    def _candidates(self, job) -> tuple[list[Candidate], list[tuple[str, Miss]]]:
        """Who may be asked, in order, and who may not, with the reason. A route grants nothing: privacy and consent are looked at here."""
        found: list[Candidate] = []
        missed: list[tuple[str, Miss]] = []
        fallback = job.route.get("fallback")
        for name in line(job.target, fallback if type(fallback) is list else ()):
            one = candidate(name)
            if isinstance(one, Miss) or isinstance(one := self._barred(job, one) or one, Miss):
                missed.append((f"model:{name}", one))
            else:
                found.append(one)
        return found, missed

    @staticmethod
    def _barred(job, one: Candidate) -> Miss | None:
        """Why a candidate may not have this, None where it may. Asked again before each call, as consent may be withdrawn in between."""
        bad = job.barred(one.target, *consent_names(one)) if one.reach == "cloud" else None
        return bad and Miss("consent" if "consent" in bad.hint else "privacy", bad.message, "policy", hint=bad.hint)

    def act(self, job):
        """An act (execution.py): asks the candidates in turn, until one answers or something that no other would do better stops it."""
        found, missed = self._candidates(job)
        if not found:
            raise _refusal(missed)
        words, given = asked(job.command), job.privacy
        records = self.thread(job.command["thread"]) if job.command.get("thread") else []
        while found:
            one = found.pop(0)
            # What an earlier one was told of the thread is not in the answer of this one.
            job.privacy = given
            if missed and one.target != job.target:
                yield self._turned(job, one.target, missed)
            outcome = yield from self._ask(job, one, words, records, found)
            if type(outcome) is not Miss:
                return outcome
            missed.append((one.target, outcome))
            found = _rest(one, outcome, found)
        end, worst, reason = _outcome(missed, job.left(), job.route.get("deadline"))
        if end[0] != "queued" and not worst.tried:
            yield job.error(end[3], reason, then=worst.hint or None) | {"parent": job.route["id"]}
        return job.end(*end)

    @staticmethod
    def _turned(job, target: str, missed) -> dict:
        """The router's decision to ask another than the route says."""
        blocks = [{"@tag": "alternative", "target": other, "why_not": miss.code, "reason": miss.reason} for other, miss in missed]
        return job.make("decision", agent="router", decision=target, reasoning=missed[-1][1].reason, blocks=blocks)

    def _ask(self, job, one: Candidate, words: str, records: list, others: list[Candidate]):
        """Asks one candidate, up to three times. Yields the records of that and returns an End, or a Miss: then it is for the next."""
        system = one.model.get("system") or specs.setting("system", "")
        before, used = history(records, job.command, one.reach == "cloud", job.default)
        said = [message["text"] for message in before]
        if one.reach == "cloud":
            words, *said = self.clear([words, *said])
        messages = cut(system, [message | {"text": text} for message, text in zip(before, said, strict=True)], words, one.model)
        if messages is None:
            return _no_room(one)
        looks: list[tuple] = []
        key, why = None, None
        try:
            if "key" in one.provider:
                key = self.key(one.provider["key"], lambda *look: looks.append(look))
        except Failure as bad:
            if bad.code in (CANTCREAT, IOERR, CONFIG):
                raise
            why = bad
        for act, subject, outcome, because in looks:
            yield job.audit(act, subject, outcome=outcome) | {"because": because}
        if why is not None:
            # A keychain that is locked now may be open when the queue is drained.
            return Miss("key", why.message, "credential", later=why.code == TEMPFAIL, hint=why.hint)
        # The oldest were left out.
        kept = len(messages) - (1 + bool(system))
        for rec in used[len(used) - kept :]:
            job.holds(rec)
        return (yield from self._tries(job, one, key, messages, others))

    def _tries(self, job, one: Candidate, key, messages, others):
        provider, model, output = one.provider["name"], one.model.get("id", one.model["name"]), most(one.model)
        name = f"{provider}/{model}/{limits.mark(key)}"
        spend = _spend(one, messages, job.route.get("agent"))
        about = sum(tokens(message["text"]) for message in messages) + output
        seconds = float(one.provider.get("deadline", SECONDS[one.reach]))
        end, n = time.monotonic() + min(seconds, job.left()), 0
        while True:
            if not n and (reason := (yield from self._offline(job, one, key))):
                return Miss("offline", reason, "network", True)
            left = end - time.monotonic()
            if job.stopped():
                return job.end("cancelled", "It was ended by a signal before it was answered.")
            if barred := self._barred(job, one):
                return barred
            if left <= 0:
                return Miss("timeout", f"'{provider}' did not answer within {seconds:g} s", "timeout", True)
            own = new_id()
            standing = limits.begin(name, one.provider, specs.load("config")["budget"], spend, own, left, about)
            if standing.budget:
                return Miss("budget", _used_up(standing.budget), "policy", over=standing.budget.get("over", "cheaper"))
            if standing.why or standing.wait > min(left, PATIENCE_S):
                reason = f"'{provider}': {standing.why}" if standing.why else f"'{provider}' takes no more requests for {standing.wait:.0f} s"
                return Miss("breaker" if standing.why else "rate", reason, "network" if standing.why else "rate", True, time.time() + standing.wait)
            wait = standing.wait
            if not wait:
                n += 1
                wait = yield from self._try(job, one, name, own, n, key, messages, left, output, spend, others)
                if type(wait) is not float:
                    return wait
            job.wait(time.sleep, wait)

    @staticmethod
    def _offline(job, one: Candidate, key):
        """Why a provider is not asked at all, "" where it is: what is known is at most 30 s old, and older news of an outage is looked at again."""
        name = one.provider["name"]
        up, _, reason = limits.net(name)
        if up is None and reason:
            intent = job.audit("probe", name)
            yield intent
            up, reason = job.wait(providers.probe, one.provider, key) or (None, "")
            yield job.audit("probe", name, outcome="cancelled" if up is None else "done" if up else "failed", intent=intent)
            if up is not None and limits.seen(name, up, "" if up else reason):
                yield _network(job, name, up, reason)
        return f"'{name}' can't be reached: {reason}" if up is False else ""

    def _try(self, job, one: Candidate, name, own, n, key, messages, left, output, spend, others):
        """One call. Yields its records; returns an End, a Miss, or the seconds to wait before the next try."""
        provider, stream, began, clock = one.provider["name"], job.command.get("stream") is True, now(), time.monotonic()
        subject = f"{provider}/{one.model.get('id', one.model['name'])}"
        intent = job.audit("ask", subject)
        shown: list[str] = []
        answer, trouble, sent, ended = None, None, False, False
        try:
            yield intent
            sent = True
            asking = providers.ask(one.provider, one.model, messages, key=key, seconds=left, output=output, stream=stream, once=job.route["id"], wait=job.wait)
            try:
                while True:
                    piece = next(asking)
                    if stream and piece:
                        shown.append(piece)
                        yield job.make("partial", target=one.target, n=len(shown), body=piece)
            except StopIteration as done:
                answer = done.value
            except providers.Trouble as bad:
                trouble = bad
            except Failure as bad:
                # What it runs on is not installed, or its address is none.
                trouble, sent = Unset(bad), False
            finally:
                asking.close()
            fields, ending, unkept = {}, limits.Ending(False, False, None), None
            if sent:
                fields, ending, unkept = self._ended(job, one, name, own, answer, trouble, spend)
                ended = True
        finally:
            if sent and not ended:
                # Nobody knows what it cost: all that was reserved counts.
                limits.end(name, own, None, "stopped")
            elif not sent:
                limits.release(own)
        ms = round((time.monotonic() - clock) * 1000)
        status = "done" if answer else "failed" if trouble else "cancelled"
        yield job.audit("ask", subject, outcome=status, intent=intent)
        wrong = CLASS.get(trouble.kind, trouble.kind) if trouble else None
        attempt = job.make("attempt", target=one.target, n=n, status=status, class_=wrong, ms=ms, provider=provider, **fields)
        job.about = own
        yield attempt | {"id": own, "ts": began}
        if unkept:
            yield job.error("storage", unkept.message)
        if ending.changed:
            yield _network(job, provider, ending.up, trouble.plain if trouble else "it answered")
        if ending.opened and trouble:
            yield job.make("decision", agent="router", decision=f"{subject} is left alone until {limits.breaker(name).until}", reasoning=trouble.message)
        if answer:
            return job.end("done", answer.text)
        if trouble is None:
            return job.end("cancelled", "\n".join(filter(None, ("".join(shown), "It was ended by a signal."))))
        return (yield from self._failed(job, one, trouble, n, "".join(shown), others, left - (time.monotonic() - clock)))

    def _ended(self, job, one: Candidate, name: str, own: str, answer, trouble, spend) -> tuple:
        """Keeps how a call ended: (what its `attempt` says of the answer, limits.Ending, the Failure where that can't be kept)."""
        fields, spent = self._counted(one, answer, trouble, spend)
        kind, heard, after = "" if answer else "stopped", (answer or trouble) and (answer or trouble).limits, None
        said = ""
        if trouble:
            # Who asks next is told of it, in other threads: so none of the words of the provider, who may quote what it was asked.
            kind, said, after = trouble.kind, trouble.plain, trouble.retry_after
        # Who answers that it is overloaded was reached: it is for the breaker to count that, and no reason to leave all of it alone.
        up = True if trouble and trouble.status >= 400 else None
        try:
            return fields, limits.end(name, own, spent, kind, said, heard, retry_after=after, up=up), None
        except Failure as bad:
            # An answer that is there, and paid for, is not lost for that; what was reserved counts in full.
            return fields, limits.Ending(False, False, None), bad

    def _failed(self, job, one, trouble, n, shown, others, end):
        """What becomes of a call that failed: its `error` record, and an End, a Miss, or the seconds to wait before the next try."""
        kind, said, wait = trouble.kind, trouble.message, pause(n, trouble.retry_after)
        wrong = CLASS.get(kind, kind)
        hint = trouble.hint if isinstance(trouble, Unset) else f"ftai-keys set {one.provider['key']}" if kind == "credential" and "key" in one.provider else ""
        miss = _miss(kind, trouble.status, trouble.retry_after, said, hint)
        again = not shown and _again(kind, n, wait, end)
        rest = [] if again or shown else _rest(one, miss, others)
        recovery, then = ("retry", None) if again else ("fallback", rest[0].target) if rest else ("none", hint or None)
        yield job.error(wrong, said, recovery=recovery, then=then) | {"where": one.target}
        if kind == "credential":
            yield job.make("alert", rule="credential", level="error", subject=one.provider["name"], value=trouble.status, body=said)
        if shown:
            # What was shown can't be taken back: another answer behind it would be a second one, from the queue too.
            body = f"{shown}\n[the answer ends here: {trouble.message}]"
            return job.end("failed", body, CODES.get(kind, SOME), wrong)
        return wait if again else miss

    @staticmethod
    def _counted(one: Candidate, answer, trouble, spend: dict) -> tuple[dict, dict | None]:
        """(what an `attempt` says of the answer, what is spent): the tokens as the provider counts them, priced by the model that answered.

        None spent: nobody knows, as it took too long, was cut or left; then the largest possible stays. What failed before anything was
        answered costs nothing.
        """
        known = answer or (trouble and trouble.answer)
        if known is None:
            # Headers came, and then no answer: it may have been made all the same.
            begun = trouble is None or not trouble.status and (trouble.kind == "timeout" or bool(trouble.limits))
            return {}, None if begun else spend | {"tokens": 0, "amount": 0.0}
        row = price(one, known.model)
        counts = (known.input_tokens, known.cached_tokens, known.output_tokens)
        fields = {"model": known.model or None, "input_tokens": counts[0], "cached_tokens": counts[1], "output_tokens": counts[2]}
        if known.stop and known.stop != "end":
            fields["stop"] = known.stop
        cost = prices.cost(row, *counts)
        # Of an answer that was cut the provider counts more than it could tell.
        if not answer and trouble.kind in TRANSIENT:
            return fields, None
        if cost is not None:
            fields |= {"cost": cost, "currency": row.currency or None, "price_row": row.source}
        total = None if counts[0] is None or counts[2] is None else sum(count or 0 for count in counts)
        return fields, spend | {"tokens": total, "amount": cost}


class Unset(providers.Trouble):
    """A call that could not even be made: of something that has to be installed or set up first."""

    def __init__(self, bad: Failure):
        super().__init__("spec", bad.message)
        self.hint = bad.hint


def _network(job, name: str, up: bool, reason: str) -> dict:
    """The router's record that a provider went out of reach, or is back: it is asked, or not, from here on."""
    return job.make("decision", agent="router", decision=f"{name} is {'back' if up else 'offline'}", reasoning=reason)


def _cheaper(other: Candidate, one: Candidate) -> bool:
    """True where an answer of the other costs less than one of this; of a price that nobody knows it is not said."""
    mine, theirs = (prices.cost(price(each), ANSWER, 0, ANSWER) for each in (one, other))
    return theirs is not None and (mine is None or theirs < mine)


def consent_names(one: Candidate) -> tuple:
    """By what consent to a model is asked: its own name where the owner said something of that, else its provider's; what is withdrawn of that holds."""
    said = state.consents(specs.load("config")["consent"])
    name, provider = one.model["name"], one.provider["name"]
    return (name,) if name in said and not said.get(provider, {}).get("withdrawn") else (provider,)


def lifted(targets, rec: dict) -> str:
    """The first of these models that may have a record as far as consent goes: where only its privacy is against it, a person can lift that; else ""."""
    for target in targets:
        one = candidate(target.removeprefix("model:"))
        if isinstance(one, Candidate) and not any(_consent(who, rec) for who in consent_names(one)):
            return target
    return ""


def _used_up(budget: dict) -> str:
    return f"the budget '{budget['name']}' of {budget['value']:g} {budget['unit']} a {budget['per']} would be overrun"
