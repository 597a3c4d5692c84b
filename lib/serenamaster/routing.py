"""Who does what was asked: decided from the phrases and rules of the specs alone, in their order, the same way each time.

Order: the owner's phrases and rules, the shipped phrases and rules, and behind them the rules with `any`. See ftai-specs(5).
"""

import os

from . import paths, phrases, specs
from .errors import CONFIG, NOINPUT, Failure
from .record import clean, is_history, make, shown

SOURCES = ("system", "commands", "config", "mcp")
PATTERN_TEXT = 16_384  # characters of a command that a pattern is tried on
TARGET_TEXT = 200  # characters of a target that a task names
HINT_TEXT = 200  # characters of a command that near phrases are looked for with
NEAR = 0.12  # of the letters that two have together: 0.5 is the same, and what shares less than this has nothing to do with it
PLANS = 1_000  # decisions that are kept in mind
ATOMIC, PIECES = 4_096, 4  # bytes that a pipe takes whole or not at all; how many reads a longer write may end in
KEPT = 10_000  # ids that are kept in mind, at least
# How sure a route is, by what matched; ftai-route(1) has the same table.
SURE = {"phrase": 1.0, "say": 1.0, "task": 1.0, "capability": 0.9, "pattern": 0.8, "any": 0.5, "ask": 0.0}
TAKEN = ["name", "target", "at", "reason", "privacy", "confidence", "deadline", "tag", "optional", "any", "capability", "pattern", "blocked", "kept"]
TAKEN += ["fallback", "quality"]


# --- the table of all phrases and rules


class Table:
    """Everything that a decision needs: what compile_() made, the digest of the specs, and what the config says.

    notes: what was left out of the specs of a project that is not trusted, a line each.
    """

    def __init__(self, data: dict, digest: str, extra: tuple[str, ...] = ()):
        self.digest, self.extra = digest, extra
        self.automaton, self.manners, self.entries = data["automaton"], data["manners"], data["entries"]
        self.templates, self.texts, self.verbatim = data["templates"], data["texts"], frozenset(data["verbatim"])
        self.examples, self.targets, self.notes, self.models = data["examples"], data["targets"], data["notes"], data.get("models", {})
        self.anyway = [number for number, entry in enumerate(self.entries) if entry.get("any")]
        self.patterns = [(number, entry["pattern"]) for number, entry in enumerate(self.entries) if "pattern" in entry]
        self.capable = [(number, entry["capability"]) for number, entry in enumerate(self.entries) if "capability" in entry]
        self.privacy = "cloud" if specs.setting("privacy") == "cloud" else "local"
        self.plans: dict[tuple, tuple] = {}
        self.announced = False
        self.near: tuple = ()


def load(rules: str = "") -> Table:
    """The table of the specs as they are; with `rules`, as they would be with that file in place of the owner's own.

    Raises Failure (78) for a broken spec, 66 where `rules` is missing.
    """
    if rules:
        return Table(compile_(rules), specs.digest((rules,)), (rules,))
    if "@" not in specs.loaded:
        specs.loaded["@"] = Table(specs.cached("routes", specs.files(*SOURCES), compile_), specs.digest())
    return specs.loaded["@"]


def _with(rules: str) -> dict:
    """The specs with the phrases and rules of one more file laid over the shipped ones, where the owner's own would be."""
    if not os.path.exists(rules):
        raise Failure(f"cannot read '{rules}': no such file", NOINPUT)
    held = specs.tags(rules)
    found: dict = {}
    for name in ("commands", "mcp"):
        if held & specs.TAGS[name].keys():
            sources = [("rules", rules) if layer == "user" else (layer, path) for layer, path in specs.files(name)]
            found[name] = specs.compile_(name, sources, found)
    if not found:
        raise Failure(f"'{rules}' holds neither phrases nor rules", CONFIG)
    return found


def compile_(rules: str = "") -> dict:
    """All phrases and rules in their order and one automaton of all their templates, as plain data."""
    loaded = {name: specs.load(name) for name in SOURCES} | (_with(rules) if rules else {})
    tongue = specs.language(loaded["commands"])
    phrased, ruled = loaded["commands"]["phrase"], loaded["mcp"]["rule"]
    inner = [entry for front in (True, False) for of in (phrased, ruled) for entry in of if entry["front"] is front and not entry.get("any")]
    ordered = [*inner, *(entry for entry in ruled if entry.get("any"))]
    say: dict[str, list] = {entry["name"]: entry["say"] for entry in loaded["system"]["capability"]}
    numbers: dict[str, list[int]] = {}  # template -> entries that have it
    verbatim = set()
    for number, entry in enumerate(ordered):
        for template in (*entry.get("say", ()), *say.get(entry.get("capability", ""), ())):
            # The same words may keep all of themselves in one phrase and not in another.
            numbers.setdefault(f"{bool(entry.get('verbatim')):d}{template}", []).append(number)
    for place, key in enumerate(numbers):
        if key[0] == "1":
            verbatim.add(place)
    entries = []
    for entry in ordered:
        made = {key: entry[key] for key in TAKEN if key in entry}
        made["how"] = "phrase" if entry in phrased else next((key for key in ("say", "capability", "pattern") if key in entry), "any")
        entries.append(made)
    targets = {target: _standing(target, loaded) for target in sorted({entry["target"] for entry in ordered} | _doers(loaded))}
    kept = ("name", "provider", "id", "window", "output", "quality", "fallback")
    models = {f"model:{entry['name']}": {key: entry[key] for key in kept if key in entry} for entry in loaded["config"]["model"]}
    return {
        "automaton": phrases.build([phrases.parse(key[1:]) for key in numbers], tongue),
        "templates": list(numbers.values()),
        "texts": [key[1:] for key in numbers],
        "verbatim": sorted(verbatim),
        "entries": entries,
        "manners": tongue.manners,
        "examples": [[number, example] for number, entry in enumerate(ordered) if not entry.get("any") for example in entry.get("match", ())],
        "targets": targets,
        "models": models,
        "notes": [note for name in SOURCES for note in loaded[name]["notes"]],
    }


def _doers(loaded) -> set[str]:
    names = {f"skill:{entry['name']}" for entry in loaded["system"]["skill"]} | {f"cmd:{entry['name']}" for entry in loaded["commands"]["program"]}
    names |= {f"skill:{name}" for name in loaded["system"]["gone"].get("skill", ())} | {f"cmd:{name}" for name in loaded["commands"]["gone"].get("program", ())}
    return names | {f"agent:{entry['name']}" for entry in loaded["system"]["agent"]} | {f"model:{entry['name']}" for entry in loaded["config"]["model"]}


def _standing(target: str, loaded: dict) -> list:
    """[why it can't be taken or "", the reason, its privacy] of a target: "off", "missing", or "blocked" by a project."""
    kind, _, name = target.partition(":")
    if kind == "mcp":
        name = name.partition(".")[0]
    where = {"skill": ("system", "skill"), "cmd": ("commands", "program"), "agent": ("system", "agent"), "model": ("config", "model"), "mcp": ("mcp", "server")}
    if kind not in where:
        return ["", "", "local"]
    spec, tag = where[kind]
    entry = next((other for other in loaded[spec][tag] if other["name"] == name), None)
    if target == "model:*" and loaded[spec][tag]:
        return ["", "", "local"]  # each of them is looked at by itself
    if entry is None:
        gone = loaded[spec]["gone"].get(tag, {}).get(name)
        if gone:
            return ["off", f"{tag} '{name}' is turned off at {gone}", "local"]
        return ["missing", f"{tag} '{name}' is not set up" if loaded[spec][tag] else f"no {tag} is set up", "local"]
    privacy = "local"
    if kind == "model":
        provider = next((other for other in loaded["config"]["provider"] if other["name"] == entry["provider"]), None)
        if provider is None:
            return ["off", f"provider '{entry['provider']}' is turned off", "local"]
        # A model is where its provider is: it can be called more private than that by nobody.
        privacy = "local" if provider.get("privacy") == "local" and entry.get("privacy") != "cloud" else "cloud"
        entry = provider if "blocked" in provider else entry
    elif kind == "mcp":
        privacy = entry["privacy"]
    if "blocked" in entry:
        return ["blocked", f"turned off by {entry['blocked']}", privacy]
    return ["", "", privacy]


# --- deciding


def decide(rec: dict, table: Table, simulated: dict | None = None) -> dict:
    """Who does this command (or task): target, rule, rule_at, reason, confidence, privacy, deadline, slots, hint, and the others as `alternatives`.

    An alternative is (target, why_not, reason, rule, rule_at); why_not is order, off, missing or privacy, and of models also quality, cost, consent,
    offline, breaker, rate or budget. Where models can do it, `fallback` has those that are asked next, and `standing` what was known of the one that
    was taken. simulated: {provider: what it does when it is asked}, in place of what is known of it (models.rehearsed()); then `steps` has what would
    happen, as models.rehearse() tells it.
    """
    body, sentence, found, hits = rec.get("body"), None, {}, {}
    task = rec.get("@tag") == "task"
    if not task and type(body) is str and body:
        sentence = phrases.Sentence(body, table.manners)
        if sentence.said:
            found = phrases.matches(table.automaton, sentence, table.verbatim)
        for number, pattern in table.patterns:
            if hit := _search(pattern, body[:PATTERN_TEXT]):
                hits[number] = hit.groupdict()
    # What was said decides by the templates that it matches: the same ones lead to the same plan.
    key = (tuple(found), tuple(hits), rec.get("target") if task else rec.get("capability"), task, rec.get("privacy"), _is_local(rec))
    try:
        plan = table.plans.get(key)
    except TypeError:  # a list where a word should be
        plan = _plan(rec, table, found, hits)
    else:
        if plan is None:
            plan = _plan(rec, table, found, hits)
            if len(table.plans) < PLANS:
                table.plans[key] = plan
    made, template, number = plan
    slots = {}
    if sentence is not None and template is not None:
        verbatim = template in table.verbatim
        for name, first, stop in found[template]:
            text = sentence.text(first, stop, verbatim)
            slots[name] = text if text.isprintable() and text.isascii() else clean(text)
    elif number in hits:
        slots = {name: clean(text) for name, text in hits[number].items() if text}
    if made["target"] in table.models:
        made = _chosen(made, rec, table, simulated)
    elif made["target"] == "ask" and (barred := [other[0] for other in made["alternatives"] if other[1] == "privacy" and other[0] in table.models]):
        from . import models

        made = {**made, "cloud": models.lifted(barred, rec)}
    made = {**made, "slots": slots, "hint": nearest(body, table) if made["target"] == "ask" and type(body) is str else []}
    heard = rec.get("confidence")
    if type(heard) is float and 0 <= heard <= 1:
        made["confidence"] = round(made["confidence"] * heard, 3)
    return made


def _plan(rec, table, found, hits) -> tuple:
    """(the decision without what depends on the words, the template or None, the number of the entry or None)."""
    entries = table.entries
    kind = "task" if rec.get("@tag") == "task" else "command"
    matched: dict[int, int | None] = {}
    for template in sorted(found):
        for number in table.templates[template]:
            matched.setdefault(number, template)
    for number, capability in table.capable:
        if "capability" in rec and rec["capability"] == capability:
            matched.setdefault(number, None)
    for number in (*hits, *table.anyway):
        matched.setdefault(number, None)
    written, kept = rec.get("privacy"), _is_local(rec)
    taken, made, template, alternatives = None, {}, None, []
    chosen: int | None = None
    for number in sorted(matched):
        entry = entries[number]
        if entry.get("tag", "command") != kind:
            continue
        target = _named(rec) if entry["target"] == "{target}" else entry["target"]
        kept = kept or "kept" in entry
        if kept:
            privacy = "local"
        elif written is None:
            privacy = entry.get("privacy", table.privacy)
        else:
            privacy = "local" if entry.get("privacy") == "local" else written
        why, reason = _against(entry, target, privacy, kept, table)
        others: list[str] = []
        if target.startswith("model:") and taken is None and (line := _line(entry, target, table)) != [target]:
            named = [(other, *(_too_low(entry, other, table) or _against(entry, other, privacy, kept, table))) for other in line]
            fit = [other for other, code, _ in named if not code]
            alternatives += [(other, "off" if code == "blocked" else code, said, entry["name"], entry["at"]) for other, code, said in named if code]
            if not fit:
                continue
            target, others, why, reason = fit[0], fit[1:], "", ""
        if taken is not None:
            why, reason = ("off" if why == "blocked" else why, reason) if why else ("order", f"matches, but stands behind {taken['name']}")
        if why == "blocked":
            alternatives.append((target, "off", reason, entry["name"], entry["at"]))
            target = "ask"
        elif why:
            # That a rule for all that is left could have asked says nothing.
            if (target != "ask" or not entry.get("any")) and not any(other[:3] == (target, why, reason) for other in alternatives):
                alternatives.append((target, why, reason, entry["name"], entry["at"]))
            continue
        taken, template = entry, matched[number]
        because = entry.get("reason") or f"phrase '{table.texts[template]}'"  # only a phrase can be without a reason
        made = {"target": target, "rule": entry["name"], "rule_at": entry["at"], "reason": reason if why else because}
        made["confidence"] = _sure(entry, target, template)
        made["privacy"] = written if kept and type(written) is str and written != "cloud" else privacy
        made["deadline"] = entry.get("deadline")
        made["fallback"], made["by_cost"] = others, "quality" in entry or "model:*" in (entry["target"], *entry.get("fallback", ()))
        chosen = number
    if taken is None:
        said = alternatives[0][2] if alternatives else "no rule matches"
        made = {"target": "ask", "rule": None, "rule_at": None, "reason": said, "confidence": SURE["ask"], "deadline": None}
        made["privacy"] = "local" if kept else table.privacy if written is None else written
        made["fallback"], made["by_cost"] = [], False
    made["alternatives"] = alternatives
    made["blocks"] = [{"@tag": "alternative", "target": target, "why_not": why, "reason": reason} for target, why, reason, *_ in alternatives]
    return made, template, chosen


def _line(entry, target: str, table) -> list[str]:
    """The targets that a rule for models names, in its order: its own and those that come in its place; `model:*` are all that are set up."""
    more = entry.get("fallback") or [f"model:{name}" for name in table.models.get(target, {}).get("fallback", ())]
    found = [other for each in (target, *more) for other in (table.models if each == "model:*" else (each,))]
    return list(dict.fromkeys(found)) or [target]


def _too_low(entry, target: str, table) -> tuple | None:
    least = entry.get("quality", 0)
    has = table.models.get(target, {}).get("quality", 0)
    return ("quality", f"{target} has quality {has}, the rule wants {least}") if has < least else None


def _chosen(made: dict, rec: dict, table: Table, simulated: dict | None) -> dict:
    """A decision for models with the one that is asked first as its target: who can be had now, by cost where the rule leaves that open.

    Who can't be had stands last in `fallback`: it may be back when it is its turn. Where nobody can, the first stays: ftai-exec tells or queues it.
    """
    from . import models

    by_cost = made["by_cost"] and bool(made["fallback"])
    found = [models.standing(target.partition(":")[2], rec, simulated, by_cost) for target in (made["target"], *made["fallback"])]
    if by_cost:
        # Where nobody knows the price it may be the dearest.
        found.sort(key=lambda one: (one["estimate"] is None, one["estimate"] or 0))
    found, barred = _within(found)
    ready = [one for one in found if not one["why_not"]]
    first = (ready or found)[0]
    others = [one for one in ready if one is not first] + [one for one in found if one["why_not"] and one is not first]
    blocks, alternatives = [*made["blocks"]], [*made["alternatives"]]
    for one in [*others, *barred]:
        why = one["why_not"] or ("cost" if by_cost and one["estimate"] != first["estimate"] else "order")
        reason = one["reason"] or (f"costs more than {first['target']}" if why == "cost" else f"is asked where {first['target']} can't be had")
        blocks.append({"@tag": "alternative", "target": one["target"], "why_not": why, "reason": reason, **one["known"]})
        alternatives.append((one["target"], why, reason, made["rule"], made["rule_at"]))
    made = {**made, "target": first["target"], "fallback": [one["target"] for one in others], "blocks": blocks, "alternatives": alternatives}
    if simulated is not None:
        made["steps"] = models.rehearse(made, rec, simulated)
    return made | {"standing": first["known"] | ({"trouble": first["reason"]} if first["why_not"] else {})}


def _within(found: list[dict]) -> tuple[list[dict], list[dict]]:
    """(who may be asked, who may not) of some standings, in order, by what the budgets of those that stand before anybody who can be had say."""
    from . import models

    found, barred = [*found], []
    for one in found:
        if not one["why_not"]:
            break
        if "over" in one:
            rest = found[found.index(one) + 1 :]
            spared = models.spared(one["target"].partition(":")[2], one["over"], [other["target"].partition(":")[2] for other in rest])
            for other in rest:
                if other["target"] not in spared:
                    found.remove(other)
                    said = f"the budget that is used up for {one['target']} says '{one['over']}'"
                    barred.append(other if other["why_not"] else {**other, "why_not": "budget", "reason": said})
    return found, barred


def _named(rec: dict) -> str:
    target = rec.get("target")
    return clean(target[:TARGET_TEXT]) if type(target) is str else ""


def _search(pattern, text):
    import re

    return re.search(pattern, text, re.IGNORECASE)


def _is_local(rec: dict) -> bool:
    """True for what says that it is local, or holds a block that does: nothing lifts that."""
    if rec.get("privacy", "cloud") != "cloud":
        return True
    return "@blocks" in rec and any(_is_local(block) for block in rec["@blocks"])


def _against(entry, target, privacy, kept, table) -> tuple[str, str]:
    """Why a rule that matches can't be taken: (code, reason), ("", "") where nothing is against it."""
    if "blocked" in entry:
        return "blocked", f"turned off by {entry['blocked']}"
    if entry.get("privacy") == "cloud" and kept:
        return "privacy", "the rule lets go to the cloud, the command is local"
    standing = table.targets.get(target)
    if standing is None:
        standing = _unknown(target)
    why, reason, reach = standing
    if why and (why != "missing" or entry.get("optional")):
        return why, reason
    if reach == "cloud" and privacy != "cloud":
        return "privacy", f"{target} is in the cloud, the command is local"
    return "", ""


def _unknown(target: str) -> list:
    """The standing of a target that a task names and no spec knows: models, tools and agents are for ftai-exec to refuse."""
    kind, _, name = target.partition(":")
    if target == "ask" or (kind in ("mcp", "model", "agent") and name and (kind != "mcp" or all(name.partition(".")))):
        return ["", "", "local"]
    if kind in ("skill", "cmd") and name:
        return ["off", f"'{target}' does not exist", "local"]
    return ["off", f"'{target}' is no target", "local"]


def _sure(entry, target, template) -> float:
    if "confidence" in entry:
        return float(entry["confidence"])
    if entry.get("any"):
        return SURE["task" if entry.get("tag") == "task" else "ask" if target == "ask" else "any"]
    return SURE["pattern" if template is None and "pattern" in entry else entry["how"]]


def nearest(body: str, table: Table) -> list[str]:
    """The examples that are most like what was said, one of a phrase, the best first: by the groups of three letters that they share.

    Where none is like it, what the setting `hint` has.
    """
    if not table.near:
        index: dict[str, list[int]] = {}
        sizes = []
        for place, (_, example) in enumerate(table.examples):
            parts = _threes(example)
            sizes.append(len(parts))
            for part in parts:
                index.setdefault(part, []).append(place)
        # What stands in very many says little about any of them, and costs the most.
        index = {part: places for part, places in index.items() if len(places) <= 4 + len(sizes) // 5}
        table.near = index, sizes, specs.setting("hints", 3), specs.setting("hint", "")
    index, sizes, most, other = table.near
    parts = _threes(body[:HINT_TEXT])
    shared: dict[int, int] = {}
    for part in parts:
        for place in index.get(part, ()):
            shared[place] = shared.get(place, 0) + 1
    ranked = sorted(shared, key=lambda place: (-shared[place] / (sizes[place] + len(parts)), place))
    found: dict[int, str] = {}
    for place in ranked:
        number, example = table.examples[place]
        if len(found) >= most or shared[place] < NEAR * (sizes[place] + len(parts)):
            break
        # What only asks, or waits for an agent or a model that nobody has made, is no way out.
        target = table.entries[number]["target"]
        if "blocked" not in table.entries[number] and target.startswith(("skill:", "cmd:")) and table.targets.get(target, [""])[0] == "":
            found.setdefault(number, example)
    return list(found.values()) or ([other] if other and most else [])


def _threes(text: str) -> set[str]:
    text = f" {' '.join(phrases.words(text))} "
    return {text[at : at + 3] for at in range(len(text) - 2)}


# --- trying rules on the past

PENDING = 10_000  # commands that wait for their route, which the journal holds right behind them
PASSING = frozenset(("offline", "breaker", "rate", "budget", "credential"))  # why_not of who may be had another time


def changed(rec: dict, before: dict, table: Table, well: dict) -> str:
    """What would be other about the route of a command by the rules of `table`: target, rule and privacy, in words; "" where nothing is.

    Who of the models could not be had then counts as not to be had; all others can. well: untroubled().
    """
    made = decide(rec, table, well)
    gone = {block.get("target") for block in before.get("@blocks", ()) if block.get("@tag") == "alternative" and block.get("why_not") in PASSING}
    target = next((other for other in (made["target"], *made["fallback"]) if other not in gone), made["target"])
    pairs = [("", before.get("target"), target), ("rule ", before.get("rule"), made["rule"]), ("privacy ", before.get("privacy"), made["privacy"])]
    return ", ".join(f"{name}{old or '-'} -> {new or '-'}" for name, old, new in pairs if old != new)


def replayed(pages, table: Table):
    """Yields (seq, record, kind, words) for the commands and tasks with a target of the journal, each once; (seq, None, "", "") behind each page.

    pages: lists of (seq, record) in the order of the journal. kind: "changed" (words: how) or "same"; "unrouted" where the journal has no route
    of it, or not among what follows; "unread" where the texts it was routed by are not there, or not open.
    """
    well = untroubled()
    pending: dict[str, tuple] = {}
    for page in pages:
        for seq, rec in page:
            tag, own = rec.get("@tag"), rec.get("id")
            if tag in ("command", "task") and type(own) is str and not rec.get("provisional") and (tag == "command" or "target" in rec):
                pending[own] = seq, rec
                if len(pending) > PENDING:
                    yield *pending.pop(next(iter(pending))), "unrouted", ""
            elif tag == "route" and rec.get("parent") in pending:
                at, asked = pending.pop(rec["parent"])
                if unread(asked) or unread(rec):
                    yield at, asked, "unread", ""
                else:
                    words = changed(asked, rec, table, well)
                    yield at, asked, "changed" if words else "same", words
        if page:
            yield page[-1][0], None, "", ""
    for at, asked in pending.values():
        yield at, asked, "unrouted", ""


def untroubled() -> dict:
    """`simulated` of decide() for the case that nothing is wrong with any provider."""
    from . import models

    return models.rehearsed(",".join(f"{entry['name']}=ok" for entry in specs.load("config")["provider"]))


def unread(rec: dict) -> bool:
    """True for a record that does not tell what it was routed by, or to: it is sealed, or only its fact was kept."""
    texts = [rec.get(key) for key in ("body", "title", "target", "rule", "privacy", "capability")]
    return any(type(text) is str and text.startswith(("[sealed:", "[withheld:", "[damaged]")) for text in texts)


# --- records


def route(rec: dict, *, stage: str, table: Table | None = None, decision: dict | None = None) -> dict:
    """The `route` record of a command (or a task with a target) that has an id. `decision`: what decide() said, if it was asked before."""
    table = table or load()
    made = decision or decide(rec, table)
    blocks = [{"@tag": "slots", **made["slots"]}] if made["slots"] else []
    return make(
        "route",
        stage,
        parent=rec,
        target=made["target"],
        rule=made["rule"],
        rule_at=made["rule_at"],
        specs=table.digest,
        reason=made["reason"],
        confidence=made["confidence"],
        privacy=made["privacy"],
        deadline=None if made["deadline"] is None else _later(made["deadline"]),
        hint=made["hint"] or None,
        cloud=made.get("cloud") or None,
        fallback=made["fallback"] or None,
        **made.get("standing", {}),
        blocks=blocks + made["blocks"],
    )


def _later(seconds: float) -> str:
    import time

    at = time.time() + seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"


def announce(rec: dict, *, stage: str, table: Table | None = None) -> dict | None:
    """The `specs` record that goes before the first route of a process, as long as the journal does not hold these specs; else None."""
    table = table or load()
    if table.announced:
        return None
    table.announced = True
    if os.path.exists(os.path.join(paths.where("state"), "specs", table.digest)):
        return None
    texts = make("specs", stage, parent=rec, digest=table.digest, body=specs.source_text(table.extra), privacy="local")
    texts.pop("log", None)  # it holds no text of the command, and is journaled only once
    return texts


def explain(rec: dict, decision: dict) -> str:
    """The decision and each candidate, for people."""
    said = rec.get("body") or rec.get("title") or rec.get("id")
    lines = [f"{said!s:.200}"]
    at = f"  {decision['rule_at']}" if decision["rule_at"] else ""
    lines.append(f"  -> {decision['target']}  {decision['rule'] or '(no rule)'}{at}  confidence {decision['confidence']:g}  {decision['privacy']}")
    lines.append(f"     {decision['reason']}")
    lines += [f"     {name}: {value}" for name, value in decision["slots"].items()]
    lines += [f"     near: {phrase}" for phrase in decision["hint"]]
    lines += [f"     {decision['cloud']} may have it with --privacy cloud"] if decision.get("cloud") else []
    lines += [f"     {name}: {', '.join(value) if type(value) is list else value}" for name, value in decision.get("standing", {}).items()]
    lines += [f"  not {target}  {why}: {reason}  ({rule}, {place})" for target, why, reason, rule, place in decision["alternatives"]]
    lines += [f"  {n}. {step.words}" for n, step in enumerate(decision.get("steps", ()), 1)]
    return "".join(shown(line.replace("\n", " ")) + "\n" for line in lines)


# --- streams


class Watch:
    """Which commands and tasks of a stream are to be routed: history, parts, and what has a route are not.

    A route is seen where it stands before its command, or behind it within what was read so far; see ahead().
    """

    def __init__(self) -> None:
        self.routed: list[set] = [set(), set()]
        self.provisional: list[set] = [set(), set()]

    def look(self, batch) -> None:
        """Keeps in mind whose routes stand in this batch."""
        found = {rec.get("parent") for rec, _ in batch if rec.get("@tag") == "route"}
        if found:
            self._keep(self.routed, found)

    @staticmethod
    def _keep(sets, found) -> None:
        sets[0].update(found)
        if len(sets[0]) > KEPT:
            sets[1], sets[0] = sets[0], set()

    def due(self, rec: dict) -> bool:
        """True for a command, or an open task with a target, that has no route yet. It counts as routed from then on."""
        own = rec.get("id")
        if rec.get("@tag") == "task" and ("target" not in rec or rec.get("status", "open") != "open"):
            return False
        if is_history(rec):
            return False
        if type(own) is not str:
            return not rec.get("provisional")
        if rec.get("provisional"):
            self._keep(self.provisional, (own,))
            return False
        if own in self.routed[0] or own in self.routed[1]:
            return False
        # What updates another record changes how that is shown; only the end of a provisional one is new.
        older = rec.get("updates")
        if older is not None and older not in self.provisional[0] and older not in self.provisional[1]:
            return False
        self._keep(self.routed, (own,))
        return True


def ahead(batches, ready):
    """Yields (batch, following): the batch behind it where ready(patient) says that it is there, else ().

    patient: the batch ends where a route could be missing, and it or one of the few before it is longer than what a pipe takes at once, so
    that the writer may be in the middle of its write. What is shorter came in one piece, and nobody is to wait for it.
    """
    batches = iter(batches)
    held = next(batches, None)
    pieces = 0  # that the rest of a long write may still come in
    while held is not None:
        pieces = PIECES if sum(len(line) for _, line in held) >= ATOMIC else pieces - 1
        if ready(pieces > 0 and held[-1][0].get("@tag") in ("command", "task", "specs")):
            try:
                following = next(batches, None)
            except Failure:
                yield held, ()
                raise
            yield held, following or ()
            held = following
        else:
            yield held, ()
            held = next(batches, None)
