"""Why something was done as it was: a past decision for people, told from the records of its thread alone.

What comes in are records as they were journaled, opened as far as they can be; nothing in them can steer a terminal.
"""

import re

from .views import cut, gist, local_time, marker, one_line, plain

WORDS = 200  # columns of a text of a record
END = re.compile(r"[0-9A-Fa-f-]{6,36}\Z")
KNOWN = ("breaker", "budget", "estimate", "price_row", "trouble")  # fields of a route, and of its alternatives, that tell how a target stood
COUNTS = ("input_tokens", "cached_tokens", "output_tokens")


def is_end(word: str) -> bool:
    """True for an id, or its last six digits or more."""
    return END.match(word) is not None


def subject(records: list[dict], own: str) -> tuple[dict | None, list[dict]] | None:
    """(the command or task that a record of this thread goes back to, the routes that it goes back to); None where nobody decided about it.

    Of a command these are all its routes. None in its place: the journal does not hold it.
    """
    known: dict = {None: None}
    for rec in records:
        known.setdefault(_word(rec.get("id")), rec)
    here, seen = known.get(own), set()
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        if here.get("@tag") == "route":
            return known.get(_word(here.get("parent"))), [here]
        routes = [rec for rec in records if rec.get("@tag") == "route" and rec.get("parent") == here.get("id")]
        if routes or here.get("@tag") == "command":
            return here, routes
        here = known.get(_word(here.get("parent")))
    rec = known.get(own, {})
    if rec.get("@tag") not in ("error", "attempt", "result", "decision"):
        return None
    # Its parent is not there: then it is of the last route before it.
    before = [other for other in records[: records.index(rec)] if other.get("@tag") == "route"]
    return (known.get(_word(before[-1].get("parent"))), before[-1:]) if before else None


def entry(text, at, name) -> list[str]:
    """The lines of the entry of this name at this place (`rule_at` of a route) in the text of a `specs` record; none where it is not there."""
    if type(text) is not str or type(at) is not str or type(name) is not str:
        return []
    file, _, number = at.rpartition(":")
    heads = {f"// {file}", f"// shipped/{file}", f"// rules/{file.rpartition('/')[2]}"}
    lines = text.split("\n")
    for start, line in enumerate(lines):
        if line not in heads or not number.isdigit():
            continue
        first = start + int(number)
        found = lines[first : first + 200]
        last = next((n for n, other in enumerate(found) if other.strip() == "@end"), None)
        if last is not None and found[0].startswith("@") and any(re.fullmatch(r'\s*name:\s*"?' + re.escape(name) + r'"?\s*', other) for other in found[:last]):
            return found[: last + 1]
    return []


def told(command: dict | None, routes: list[dict], records: list[dict], texts) -> str:
    """The whole story of a command. texts(digest) -> the text of the specs with that digest, None where the journal has none."""
    lines = _asked(command)
    if not routes:
        lines.append("  no route: nobody decided about it")
    for route in routes:
        lines += _routed(route, texts(route.get("specs")))
        lines += _happened(route, records)
    shown = [command or {}, *routes, *(rec for route in routes for rec in _caused(route, records))]
    lines += [f"  {line}" for line in _hidden(shown)]
    return "".join(line.rstrip() + "\n" for line in lines)


def others(command: dict | None, records: list[dict]) -> str:
    """The other commands of the thread, for people; "" where there are none."""
    found = [rec for rec in records if rec.get("@tag") == "command" and command is not None and rec.get("id") != command.get("id")]
    return "".join(f"  also in this thread: {marker(rec.get('id'))}  {_short(rec.get('body'))}\n" for rec in found[:20])


def _asked(command: dict | None) -> list[str]:
    if command is None:
        return ["the journal does not hold what was asked"]
    get = command.get
    lines = [f"{one_line(str(get('@tag')))} {marker(get('id'))}  {local_time(get('ts'))}  {_short(get('body') or get('title'))}"]
    fields = [f"{name} {_short(get(name))}" for name in ("via", "privacy", "confidence", "capability", "target", "deadline") if name in command]
    documents = [_short(block.get("title") or block.get("path")) for block in get("@blocks", ()) if block.get("@tag") == "document"]
    fields += [f"document {title}" for title in documents]
    return [*lines, f"  id {_short(get('id'))}", f"  thread {_short(get('thread'))}", *([f"  {', '.join(fields)}"] if fields else [])]


def _routed(route: dict, text) -> list[str]:
    get = route.get
    lines = [f"-> {_short(get('target'))}  route {marker(get('id'))}  {local_time(get('ts'))}", f"  because: {_short(get('reason'))}"]
    if get("rule") is None:
        lines.append("  rule: none")
    else:
        lines.append(f"  rule: {_short(get('rule'))}  {_short(get('rule_at'))}  specs {_short(get('specs'))}")
        found = entry(text, get("rule_at"), get("rule"))
        lines += [f"    {plain(line.rstrip().expandtabs(4))}" for line in found]
        if text is None:
            lines.append("    the journal does not hold the specs of that time")
        elif str(text).startswith("[sealed:"):
            lines.append("    the specs of that time are sealed, and could not be opened here")
        elif not found:
            lines.append("    it is not at that line of the specs that the journal holds")
    lines += [f"  {name}: {_short(get(name))}" for name in ("confidence", "privacy", "deadline", "hint", "fallback", *KNOWN) if name in route]
    for block in get("@blocks", ()):
        if block.get("@tag") == "slots":
            lines += [f"  {_short(name)}: {_short(value)}" for name, value in block.items() if name[:1] != "@"]
    for block in get("@blocks", ()):
        if block.get("@tag") == "alternative":
            known = [f"{name} {_short(block[name])}" for name in KNOWN if name in block]
            lines.append(f"  not {_short(block.get('target'))}  {_short(block.get('why_not'))}: {_short(block.get('reason'))}")
            lines += [f"      {', '.join(known)}"] if known else []
    return lines


def _caused(route: dict, records: list[dict]) -> list[dict]:
    """What came of a route, as time went by: what it caused, what that caused, and errors behind it whose parent is nowhere."""
    ids = {_word(rec.get("id")) for rec in records}
    children: dict[str | None, list[dict]] = {}
    last: dict | None = None
    for rec in records:
        if rec.get("@tag") == "route":
            last = rec
        elif rec.get("@tag") not in ("command", "specs"):
            parent = _word(rec.get("parent"))
            if rec.get("@tag") == "error" and parent not in ids and last is not None:
                parent = _word(last.get("id"))
            children.setdefault(parent, []).append(rec)
    found: set[int] = set()
    ask = [_word(route.get("id"))]
    while ask:
        # Each once, as it is taken out.
        fresh = [rec for own in ask for rec in children.pop(own, ())]
        found |= set(map(id, fresh))
        ask = [own for rec in fresh if (own := _word(rec.get("id"))) is not None]
    # In the journal an `audit` stands before what was said earlier in the same run.
    return sorted((rec for rec in records if id(rec) in found), key=lambda rec: str(rec.get("ts")))


def _happened(route: dict, records: list[dict]) -> list[str]:
    lines, ended, queued = [], False, False
    for rec in _caused(route, records):
        said = _event(rec)
        if said:
            lines.append(f"  {_later(route.get('ts'), rec.get('ts'))}  {said[0]}")
            lines += [f"{' ' * 14}{more}" for more in said[1:]]
        ended = ended or rec.get("@tag") == "result"
        queued = rec.get("recovery") == "queue" or (queued and rec.get("@tag") != "result")
    if not ended:
        waits = f"it waits in the queue: ftai-queue show {one_line(str(route.get('id')))}"
        lines.append(f"  no result: {waits if queued else 'it is being done, was never done, or its end was not journaled'}")
    return lines


def _event(rec: dict) -> list[str]:
    """What a record tells of what happened: a line, and more below it; nothing where it only says what another says too."""
    get, tag = rec.get, rec.get("@tag")
    if tag == "attempt":
        status = _short(get("status")) + (f" ({_short(get('class'))})" if "class" in rec else "")
        lines = [f"try {_short(get('n', 1))} of {_short(get('target'))}: {status}, {_short(get('ms', '?'))} ms"]
        told_by = [_short(get("model"))] if "model" in rec else []
        told_by += [f"{_short(get(name))} {name.replace('_', ' ')}" for name in COUNTS if name in rec]
        if "cost" in rec:
            told_by += [f"cost {_short(get('cost'))} {_short(get('currency', ''))}".rstrip(), f"price {_short(get('price_row', '-'))}"]
        elif "model" in rec:
            told_by.append("unpriced")
        return lines + ([", ".join(told_by)] if told_by else [])
    if tag == "error":
        then = f", next {_short(get('next'))}" if "next" in rec else ""
        return [f"error {_short(get('class'))}: {_short(get('message'))}", f"recovery {_short(get('recovery', 'none'))}{then}"]
    if tag == "decision":
        lines = [f"{_short(get('agent', 'somebody'))} decides: {_short(get('decision'))}", f"because: {_short(get('reasoning'))}"]
        blocks = [block for block in get("@blocks", ()) if block.get("@tag") == "alternative"]
        return lines + [f"not {_short(block.get('target'))}  {_short(block.get('why_not'))}: {_short(block.get('reason'))}" for block in blocks]
    if tag == "result":
        took = f", {_short(get('ms'))} ms" if "ms" in rec else ""
        return [f"result {_short(get('status'))}{took}: {_short(get('body', '-'))}"]
    if tag == "audit":
        # Intents are told by their outcomes, and calls of models by their tries.
        return [] if get("outcome") == "intended" or get("act") == "ask" else [f"{_short(get('act'))} {_short(get('subject'))}: {_short(get('outcome'))}"]
    return [f"{one_line(str(tag))}: {cut(gist(rec), WORDS)}"]


def _hidden(records: list[dict]) -> list[str]:
    """What is to be said of texts that are not there."""
    held = {mark for rec in records for mark in ("sealed", "withheld", "damaged", "redacted") if _holds(rec, f"[{mark}{']' if mark == 'damaged' else ':'}")}
    said = {
        "sealed": "some of its texts are sealed, and could not be opened here",
        "withheld": "some of its texts are withheld: only the fact was to be kept, or they were too long",
        "damaged": "some of its texts are damaged",
        "redacted": "some of its texts were redacted before they were journaled",
    }
    return [said[mark] for mark in said if mark in held]


def _holds(value, mark: str) -> bool:
    if type(value) is str:
        return mark in value if mark == "[redacted:" else value.startswith(mark)
    if type(value) is dict:
        return any(_holds(inner, mark) for inner in value.values())
    return type(value) is list and any(_holds(inner, mark) for inner in value)


def _word(value) -> str | None:
    return value if type(value) is str else None


def _short(value) -> str:
    """A value on one line, cut."""
    if type(value) is list:
        return cut(", ".join(map(_short, value)), WORDS)
    if value is None:
        return "-"
    # No more than is shown is looked at.
    return cut(one_line((str(value).lower() if type(value) is bool else str(value))[: 8 * WORDS]), WORDS)


def _later(first, then) -> str:
    """How long after the route something was, 10 columns wide."""
    from datetime import datetime

    try:
        seconds = (datetime.fromisoformat(then) - datetime.fromisoformat(first)).total_seconds()
    except (TypeError, ValueError):
        return " " * 10
    return (f"{seconds:+.3f} s" if abs(seconds) < 1000 else f"{seconds:+.0f} s").rjust(10)
