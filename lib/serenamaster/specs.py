"""The spec files: found, laid over each other, checked, and kept compiled in the cache. See ftai-specs(5).

A warm load() is a few stat(2) and one small file; everything else is imported and done only where a file has changed.
"""

import os
from binascii import crc32

import orjson

from . import __version__, paths
from .errors import CONFIG, Failure

PREFIX, SUFFIX = "serenamaster.", ".ftai"
FORMAT = f"1/{__version__}"  # of the cache: another version makes its own
SIZE = 4 * 1024 * 1024  # bytes of one spec file
RACY_NS = 50_000_000  # a file changed so lately could change again and keep its mtime: not cached yet

# What each tag of each spec may hold, as ftai-specs(5) describes it: keys that must be there, and the others.
TAGS: dict[str, dict[str, tuple[str, str]]] = {
    "system": {
        "stage": ("name summary reads writes statuses", ""),
        "agent": ("name title summary", "reads decides"),
        "capability": ("name summary say", ""),
        "skill": ("name summary slots", ""),
    },
    "commands": {
        "phrase": ("name say target", "summary match not_match reason privacy confidence deadline verbatim"),
        "program": ("name summary run timeout output", "env privacy"),
        "list": ("name values", "summary"),
        "expansion": ("name say", "summary"),
        "words": ("name kind values", "summary"),
    },
    "memory": {
        "tier": ("name summary", "keep default"),
        "retention": ("name summary", "rotate size keep_last keep_daily keep_weekly keep_monthly keep_within"),
    },
    "config": {
        "setting": ("name value summary", "choices narrow secret"),
        "limit": ("name value unit summary", "least"),
        "place": ("name value summary", ""),
        "provider": ("name kind summary", "privacy url key api requests tokens deadline"),
        "model": ("name provider", "summary id privacy window output quality system fallback refused"),
        "budget": ("name value unit per", "provider model agent over summary"),
        "key": ("name summary", "env cmd readers max_age grace check header rotate_cmd"),
        "consent": ("name", "summary scope until"),
    },
    "mcp": {
        "server": ("name summary privacy", "run url env timeout tools"),
        "rule": ("name target reason", "say pattern capability any tag optional privacy confidence deadline fallback quality match not_match"),
    },
    "redact": {"pattern": ("name summary pattern", "anchors check before")},
    "prices": {"price": ("name vendor input output currency", "model pattern unit cached valid_from valid_to source")},
    "release": {"gate": ("name summary run", "expect contains timeout")},
}
# What the values of keys may be, `tag.key` where they differ by tag. A list may be written as its one element alone.
KINDS: dict[str, str | tuple[str, ...]] = {
    "name": "name", "provider": "name", "model": "name", "agent": "name", "capability": "name", "key": "name", "unit": "name",
    "title": "text", "summary": "text", "target": "text", "reason": "text", "url": "text", "pattern": "text", "id": "text", "contains": "text",
    "system": "text",
    "reads": "texts", "writes": "texts", "decides": "texts", "say": "texts", "match": "texts", "not_match": "texts", "values": "texts", "run": "texts",
    "env": "texts", "slots": "texts", "choices": "texts", "tools": "texts", "fallback": "texts", "refused": "texts",
    "cmd": "texts", "rotate_cmd": "texts", "readers": "texts", "scope": "texts", "anchors": "texts",
    "check": "text", "header": "texts", "until": "text", "max_age": "number", "grace": "number", "secret": "flag",
    "statuses": "wholes", "output": "whole", "expect": "whole", "window": "whole", "least": "whole", "before": "whole",
    "quality": "whole", "requests": "whole", "tokens": "whole",
    "size": "whole", "keep_last": "whole", "keep_daily": "whole", "keep_weekly": "whole", "keep_monthly": "whole",
    "timeout": "number", "deadline": "number", "keep": "number", "keep_within": "number",
    "confidence": "share", "value": "value",
    "off": "flag", "default": "flag", "verbatim": "flag", "any": "flag", "optional": "flag",
    "vendor": "text", "price.model": "text", "price.unit": "whole", "input": "amount", "price.output": "amount", "cached": "amount",
    "currency": "text", "valid_from": "day", "valid_to": "day", "source": "text",
    "privacy": ("local", "cloud"), "narrow": ("local", "lower"), "tag": ("command", "task"), "kind": "name",
    "rotate": ("daily", "weekly", "size"), "api": ("chat", "responses"), "per": ("day", "month"), "over": ("cheaper", "local", "stop"),
}  # fmt: skip
SEALED = "aes256gcm:"  # what the value of a secret setting begins with, as it stands in a spec
LIMIT = 10**15  # of a limit: what is calculated from it still fits into 64 bits
WORD_KINDS = ("before", "after", "short")
IGNORED = frozenset(("ftai", "document", "schema", "note", "warning", "intent"))
# An untrusted project may turn these off; whatever it turned off asks instead, so that nothing takes another way for it.
NARROWED = frozenset(("phrase", "rule", "program", "server", "provider", "model", "agent", "skill"))
HARMLESS = frozenset(("bom", "header", "no-tag", "upper-case", "reserved"))
PROVIDERS = ("anthropic", "openai", "mlx")  # kinds of providers: whose library and protocol is used
TARGETS = ("skill", "cmd", "mcp", "model", "agent")
REDACT_CHECKS = ("whole", "mixed", "token", "random", "word", "pem", "card", "iban", "mail", "phone", "ip")  # what redaction asks of a match
NEEDS = {"commands": ("system",), "mcp": ("system", "commands")}

loaded: dict = {}  # what this process has: spec -> data; "" -> layers; "#" -> digest; "@" -> the table of routing.py


def forget() -> None:
    """Drops what this process has loaded, so that changed files count."""
    loaded.clear()


# --- finding


def shipped() -> str:
    """The folder of the shipped specs: beside this module where it is installed, `specs` of the clone otherwise."""
    here = os.path.dirname(os.path.abspath(__file__))
    beside = os.path.join(here, "specs")
    return beside if os.path.isdir(beside) else os.path.join(os.path.dirname(os.path.dirname(here)), "specs")


def project() -> str | None:
    """The nearest folder `.ftai` at or above the working folder, if it belongs to this user (or root); None without one."""
    try:
        folder = os.getcwd()
    except OSError:
        return None
    while True:
        try:
            found = os.stat(os.path.join(folder, ".ftai"))
        except OSError:
            found = None
        if found and found.st_mode & 0o170000 == 0o040000:
            return os.path.join(folder, ".ftai") if found.st_uid in (os.getuid(), 0) else None
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def layers() -> list[tuple[str, str]]:
    """(layer, folder), lowest first: shipped, user, project."""
    if "" not in loaded:
        own = project()
        loaded[""] = [("shipped", shipped()), ("user", paths.config()), *([("project", own)] if own else [])]
    return loaded[""]


def files(*names: str) -> list[tuple[str, str]]:
    """(layer, path) of the files of these specs, whether they exist or not, lowest layer first."""
    return [(layer, os.path.join(folder, f"{PREFIX}{name}{SUFFIX}")) for layer, folder in layers() for name in names]


def names() -> list[str]:
    """The names of all specs that any layer has a file for, sorted."""
    found: set[str] = set()
    for _, folder in layers():
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        found.update(entry[len(PREFIX) : -len(SUFFIX)] for entry in entries if entry.startswith(PREFIX) and entry.endswith(SUFFIX))
    return sorted(found)


def _trust_file() -> str:
    return os.path.join(paths.where("state"), "trusted")


def _key(sources: list[tuple[str, str]]) -> list:
    key: list[list] = []
    watched = [*sources]
    if sources and sources[-1][0] == "project":
        watched.append(("user", _trust_file()))
    for layer, path in watched:
        try:
            seen = os.stat(path)
        except OSError:
            key.append([path])
        else:
            # Here too, as what is cached is not read again.
            if layer == "user":
                paths.guard(path, seen)
            key.append([path, seen.st_ino, seen.st_size, seen.st_mtime_ns])
    return key


# --- the cache


def cached(name: str, sources: list[tuple[str, str]], build):
    """What build() makes of these files, as plain data, from the cache as long as none of them changed.

    A cache that is damaged, somebody else's or cannot be written is no reason to fail: the data is made anew.
    """
    key = _key(sources)
    place = _place(name, sources)
    if place:
        data = _fetch(place, key)
        if data is not None:
            return data
    made = build()
    if place and _key(sources) == key and _settled(key):
        from . import stream

        data = orjson.dumps(made)
        try:
            stream.save(place, orjson.dumps([FORMAT, crc32(data), key]) + b"\n" + data)
        except OSError:
            pass
    return made


def _place(name, sources) -> str | None:
    try:
        folder = paths.make(os.path.join(paths.cache(), "specs"))
    except Failure:
        return None
    # Each project has a cache of its own, so that going to and fro between two of them costs nothing.
    mark = f"-{crc32(os.fsencode(sources[-1][1])):08x}" if sources and sources[-1][0] == "project" else ""
    return os.path.join(folder, f"{name}{mark}.json")


def _fetch(place, key):
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        seen = os.fstat(fd)
        if seen.st_uid != os.getuid() or seen.st_mode & 0o170077 != 0o100000:
            return None
        parts = []
        while part := os.read(fd, seen.st_size + 1):
            parts.append(part)
    except OSError:
        return None
    finally:
        os.close(fd)
    head, _, data = b"".join(parts).partition(b"\n")
    if head != orjson.dumps([FORMAT, crc32(data), key]):
        return None
    return orjson.loads(data)


def _settled(key) -> bool:
    import time

    now = time.time_ns()
    return all(len(entry) == 1 or abs(now - entry[3]) > RACY_NS for entry in key)


# --- reading


class _File:
    """One spec file as read: its entries, and where things stand in it."""

    def __init__(self, layer: str, path: str):
        self.layer, self.path = layer, path
        self.shown = {"shipped": "", "rules": os.path.join(os.path.dirname(path), "")}.get(layer, f"{layer}/") + os.path.basename(path)
        self.data = _bytes(path, layer)
        self.lines: list[str] = []
        self.entries: list[dict] = []
        self.trusted = layer != "project" or _trusted(path, self.data)
        if self.data:
            self._read()

    def _read(self) -> None:
        from .text import Reader

        reader = Reader(at=True)
        items = reader.feed(self.data) + reader.close()
        self.lines = self.data.decode("utf-8", "replace").splitlines()
        for item in items:
            if type(item) is not dict:
                if item.rule not in HARMLESS or item.level == "error":
                    raise Failure(f"{self.path}:{item.line}: {item.message}", CONFIG)
            elif "@tag" in item and item["@tag"] not in IGNORED:
                self.entries.append(item)

    def line(self, entry: dict, key: str = "", value: str = "") -> int:
        """The line of a key of this entry, or of one value of its list; that of its tag where it can't be told."""
        start = found = entry["at_line"]
        for number in range(start, len(self.lines)):
            text = self.lines[number].strip()
            if text.startswith("@"):
                break
            if key and text.partition(":")[0].strip() == key:
                found, key = number + 1, ""
            if not key and (not value or f'"{value}"' in text):
                return number + 1 if value else found
        return found

    def bad(self, entry: dict, reason: str, key: str = "", value: str = "", hint: str = "") -> Failure:
        """The failure of this place."""
        return Failure(f"{self.path}:{self.line(entry, key, value)}: {reason}", CONFIG, hint)


def _bytes(path: str, layer: str = "user") -> bytes:
    """The bytes of a file, none where it is missing. The owner's own may be no one else's: shipped specs are as safe as the code
    beside them, a project's are trusted by their digest, and a file that is tried was named by the user.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", CONFIG) from None
    try:
        if layer == "user":
            paths.guard(path, os.fstat(fd))
        parts, size = [], 0
        while part := os.read(fd, 1 << 16):
            parts.append(part)
            size += len(part)
            if size > SIZE:
                raise Failure(f"'{path}' is too big, expected at most {SIZE} bytes", CONFIG)
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", CONFIG) from None
    finally:
        os.close(fd)
    return b"".join(parts)


def _unfit(tag: str, entry: dict, value) -> str:
    """What a limit is expected to be where `value` is not that, else ""."""
    least = entry.get("least", 0)
    return f"a whole number from {least} to {LIMIT}" if tag == "limit" and not (type(value) is int and least <= value <= LIMIT) else ""


def _written(value) -> str:
    """A value as the spec files write it."""
    return f"'{value}'" if type(value) is str else str(value).lower()


def _texts(value) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _whole(value) -> bool:
    return type(value) is int and value >= 0


def _number(value) -> bool:
    return type(value) in (int, float) and value >= 0


def _amount(value) -> bool:
    """A number that stays exact: `3.00` and what else is not written as the number would be is text."""
    text = value if type(value) is str else str(value) if type(value) in (int, float) else ""
    return text.isascii() and text.replace(".", "", 1).isdigit() and text[0] != "." and text[-1] != "." and len(text) <= 24


def _day(value) -> bool:
    import datetime

    try:
        return type(value) is str and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


CHECKS = {
    "text": (lambda value: type(value) is str and value.strip() != "", "text"),
    "texts": (_texts, "a list of texts"),
    "whole": (_whole, "a whole number from 0"),
    "wholes": (lambda value: type(value) is list and all(map(_whole, value)), "a list of whole numbers"),
    "number": (_number, "a number from 0"),
    "amount": (_amount, "a number from 0 like 0.25"),
    "day": (_day, "a day like 2026-11-22"),
    "share": (lambda value: _number(value) and value <= 1, "a number from 0 to 1"),
    "value": (lambda value: type(value) in (str, int, float, bool), "text, a number, true or false"),
    "flag": (lambda value: type(value) is bool, "true or false"),
    "name": (lambda value: type(value) is str and value != "" and all(char.isalnum() or char in "_.-" for char in value), "a name"),
}


def _checked(spec: str, file: _File, entry: dict) -> dict:
    """One entry as plain data with its place as `at`. Raises Failure (78) for a tag, a key or a value that does not belong there."""
    tags = TAGS.get(spec)
    tag = entry["@tag"]
    if tags is not None and tag not in tags:
        raise file.bad(entry, f"unknown tag '@{tag}', expected {_either('@' + name for name in tags)}")
    if "@text" in entry:
        raise file.bad(entry, f"'{entry['@text'].splitlines()[0][:40]}' is no field, expected 'key: value'")
    if entry.get("@blocks"):
        raise file.bad(entry, f"a block within '@{tag}', expected fields only")
    made: dict = {}
    needed, others = tags[tag] if tags is not None else ("name", "")
    known = f"{needed} {others} off".split()
    for key, value in entry.items():
        if key == "at_line" or key == "@tag":
            continue
        if tags is not None and key not in known:
            raise file.bad(entry, f"unknown key '{key}', expected {_either(known)}", key)
        kind = KINDS.get(f"{tag}.{key}", KINDS.get(key, "value")) if tags is not None else "any"
        if type(value) is not list and kind in ("texts", "wholes"):
            value = [value]
        if isinstance(kind, tuple):
            fine, wanted = value in kind, _either(kind)
        elif kind == "any":
            fine, wanted = True, ""
        else:
            check, wanted = CHECKS[kind]
            fine = check(value)
        if not fine:
            raise file.bad(entry, f"'{key}' is {value!r}, expected {wanted}", key)
        made[key] = value
    if "name" not in made:
        raise file.bad(entry, f"'@{tag}' without 'name'")
    made["at"] = f"{file.shown}:{entry['at_line']}"
    return made


def _either(words) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def tags(path: str) -> set[str]:
    """The tags of the entries in a spec file. Raises Failure (78)."""
    return {entry["@tag"] for entry in _File("rules", path).entries}


# --- laying over each other


class _Spec:
    """One spec while it is put together: entries by tag, in order, and the file that each of them came from."""

    def __init__(self, name: str, sources: list[tuple[str, str]]):
        self.name = name
        self.entries: dict[str, list[dict]] = {tag: [] for tag in TAGS.get(name, ())}
        self.gone: dict[str, dict[str, str]] = {}
        self.notes: list[str] = []
        self.origin: dict[int, tuple[_File, dict]] = {}
        self.others: dict[str, dict] = {}
        self.values: dict[str, tuple[str, dict]] = {}  # tag and entry of what has a value, as shipped
        for layer, path in sources:
            file = _File(layer, path)
            self._lay(file)

    def _lay(self, file: _File) -> None:
        fresh: dict[str, list[dict]] = {}
        seen: dict = {}
        for raw in file.entries:
            if file.layer == "rules" and raw["@tag"] not in TAGS[self.name] and any(raw["@tag"] in tags for tags in TAGS.values()):
                continue  # a file that is tried may hold phrases and rules together
            tag, entry = raw["@tag"], _checked(self.name, file, raw)
            if (tag, entry["name"]) in seen:
                raise file.bad(raw, f"'{entry['name']}' is a second '@{tag}' of this name, the first stands on line {seen[tag, entry['name']]}", "name")
            seen[tag, entry["name"]] = raw["at_line"]
            if self.name == "config" and "value" in entry:
                self._check_value(file, raw, tag, entry)
            if not file.trusted:
                self._narrow(file, raw, entry)
                continue
            present = self.entries.setdefault(tag, [])
            index = next((i for i, other in enumerate(present) if other["name"] == entry["name"]), None)
            if entry.pop("off", False):
                self.gone.setdefault(tag, {})[entry["name"]] = entry["at"]
                if index is not None:
                    del present[index]
                continue
            for key in TAGS.get(self.name, {}).get(tag, ("", ""))[0].split():
                if key not in entry:
                    raise file.bad(raw, f"'@{tag}' without '{key}'")
            self.gone.get(tag, {}).pop(entry["name"], None)
            self.origin[id(entry)] = (file, raw)
            entry["layer"] = file.layer
            if index is not None:
                entry["front"] = present[index]["front"]
                present[index] = entry
            else:
                entry["front"] = file.layer != "shipped"
                fresh.setdefault(tag, []).append(entry)
        for tag, new in fresh.items():
            self.entries[tag] = new + self.entries.get(tag, []) if file.layer != "shipped" else self.entries.get(tag, []) + new

    def _check_value(self, file: _File, raw: dict, tag: str, entry: dict) -> None:
        """Refuses a value of another type than the shipped one, whichever layer it is from: the code relies on it."""
        known, base = self.values.setdefault(entry["name"], (tag, entry)) if file.layer == "shipped" else self.values.get(entry["name"], (tag, entry))
        if known != tag:
            raise file.bad(raw, f"'{entry['name']}' is a @{known}, not a @{tag}", "name")
        if "least" in base:
            entry["least"] = base["least"]
        wanted = _unfit(tag, entry, entry["value"])
        if not wanted and tag not in ("limit", "budget") and type(entry["value"]) is not type(base["value"]):
            wanted = f"a value like {_written(base['value'])}"
        if wanted:
            raise file.bad(raw, f"{tag} '{entry['name']}' is {_written(entry['value'])}, expected {wanted}", "value")

    def _narrow(self, file: _File, raw: dict, entry: dict) -> None:
        """What an untrusted project may do: turn off, make local, lower a limit. All else is left out and noted."""
        tag, name = raw["@tag"], entry["name"]
        base = next((other for other in self.entries.get(tag, ()) if other["name"] == name), None)
        keys = entry.keys() - {"name", "at"}
        if base is None and keys == {"off"}:
            return
        if base is not None and keys == {"off"} and (entry["off"] is False or tag in NARROWED):
            if entry["off"]:
                base["blocked"] = entry["at"]
            return
        if base is not None and keys == {"privacy"} and entry["privacy"] == "local" and tag in ("phrase", "rule"):
            base["privacy"], base["kept"] = "local", entry["at"]
            return
        if base is not None and keys == {"value"} and type(entry["value"]) is not bool:
            old, new = base["value"], entry["value"]
            lower = tag in ("limit", "budget") or base.get("narrow") == "lower"
            if (lower and _number(old) and _number(new) and new <= old) or (base.get("narrow") == "local" and new == "local"):
                base["value"], base["layer"] = new, "project"
                return
        where = os.path.dirname(os.path.dirname(file.path))
        self.notes.append(f"{file.path}:{raw['at_line']}: left out, as this project may only turn off, lower or make local: ftai-doctor trust '{where}'")

    def bad(self, entry: dict, reason: str, key: str = "", value: str = "") -> Failure:
        """The failure of an entry, at its file and line."""
        file, raw = self.origin[id(entry)]
        return file.bad(raw, reason, key, value)


# --- loading and checking


def load(name: str) -> dict:
    """One spec as plain data: {tag: [entry, …] in order, …, "gone": {tag: {name: place}}, "notes": [warning, …]}.

    An entry holds its keys as written, and `at` (file:line), `layer` (shipped, user, project), `front` (stands before the shipped ones);
    `blocked` (a place) where a project turned it off, `kept` where a project made it local. Raises Failure (78) with file and line.
    """
    if name not in loaded:
        sources = files(*NEEDS.get(name, ()), name)
        loaded[name] = cached(name, sources, lambda: compile_(name, files(name)))
    return loaded[name]


def compile_(name: str, sources: list[tuple[str, str]], others: dict | None = None) -> dict:
    """One spec read from these files and checked, its examples run; `others`: specs to check it with, where they are not those of load().

    Raises Failure (78) with file and line.
    """
    spec = _Spec(name, sources)
    spec.others = {needed: (others or {}).get(needed) or load(needed) for needed in NEEDS.get(name, ())}
    if name in TAGS and not any(layer == "shipped" and os.path.exists(path) for layer, path in sources):
        raise Failure(f"the shipped spec is missing: '{sources[0][1]}'", CONFIG, "install again")
    check = {
        "commands": _check_commands, "mcp": _check_mcp, "system": _check_system, "config": _check_config, "redact": _check_redact, "prices": _check_prices,
        "memory": _check_memory,
    }.get(name)  # fmt: skip
    if check:
        check(spec)
    return {**spec.entries, "gone": spec.gone, "notes": spec.notes}


def _parsed(spec, entry, templates, key="say"):
    from . import phrases

    made = []
    for template in templates:
        try:
            made.append(phrases.parse(template))
        except Failure as bad:
            raise spec.bad(entry, bad.message, key, template) from None
    return made


def language(commands: dict):
    """Lists, expansions and polite words of the commands spec as a phrases.Language."""
    from . import phrases

    lists = {entry["name"]: [phrases.parse(value) for value in entry["values"]] for entry in commands["list"]}
    rules = {entry["name"]: [phrases.parse(template) for template in entry["say"]] for entry in commands["expansion"]}
    return phrases.Language(lists, rules, phrases.manners([(entry["kind"], entry["values"]) for entry in commands["words"]]))


def _changed(spec: dict, *tags: str) -> bool:
    """True where an owner or a project has changed or removed entries of these tags."""
    return any(spec["gone"].get(tag) or any(entry["layer"] != "shipped" for entry in spec[tag]) for tag in tags)


PARTS = ("list", "expansion", "words")


def _run_examples(spec, entry, automaton, manners, changed, also=lambda example: False) -> None:
    from . import phrases

    # What the owner made of a list or a capability can't be held against the shipped phrases that use it.
    if changed and entry["layer"] == "shipped":
        return
    for key, wanted in (("match", True), ("not_match", False)):
        for example in entry.get(key, ()):
            found = bool(automaton and phrases.matches(automaton, phrases.Sentence(example, manners), ())) or also(example)
            if found is not wanted:
                raise spec.bad(entry, f"'{entry['name']}' {'matches' if found else 'does not match'} '{example}', which stands in its '{key}'", key, example)


def _check_target(spec, entry, system, commands) -> None:
    target = entry["target"]
    if target == "ask" or (target == "{target}" and entry.get("tag") == "task"):
        return
    kind, _, name = target.partition(":")
    if kind not in TARGETS or not name or (kind == "mcp" and not all(name.partition("."))):
        expected = "expected ask, skill:NAME, cmd:NAME, mcp:SERVER.TOOL, model:NAME or agent:NAME"
        raise spec.bad(entry, f"'{target}' is no target, {expected}", "target")
    table = {"skill": (system, "skill"), "cmd": (commands, "program")}.get(kind)
    if table is None:
        return
    data, tag = table
    known = [other["name"] for other in data[tag]]
    if name not in known and name not in data["gone"].get(tag, {}):
        raise spec.bad(entry, f"target '{target}' does not exist, expected one of {' '.join(sorted(known))}", "target")


def _check_slots(spec, entry, parsed, rules, system, commands) -> None:
    from . import phrases

    kind, _, name = entry["target"].partition(":")
    data, tag, key = {"skill": (system, "skill", "slots"), "cmd": (commands, "program", "run")}.get(kind, ({"": ()}, "", ""))
    found = next((other for other in data[tag] if other["name"] == name), None)
    if found is None:
        return
    # A slot of a program is an argument of it: `{name}`, or `{name?}` where it may be missing.
    known = [part.strip("{}").rstrip("?") for part in found[key] if kind == "skill" or part[:1] + part[-1:] == "{}"]
    for template, tree in zip(entry["say"], parsed, strict=True):
        for slot in sorted(phrases.slots(tree, rules)):
            if slot not in known:
                raise spec.bad(entry, f"{entry['target']} has no slot '{slot}', expected {_either(known) if known else 'none'}", "say", template)


def _check_commands(spec) -> None:
    from . import phrases

    system = spec.others["system"]
    commands = {**spec.entries, "gone": spec.gone}
    for entry in commands["words"]:
        if entry["kind"] not in WORD_KINDS:
            raise spec.bad(entry, f"'kind' is '{entry['kind']}', expected {_either(WORD_KINDS)}", "kind")
        for value in entry["values"]:
            if not all(phrases.words(value)) or not value.strip() or (entry["kind"] == "short" and len(value.split()) < 2):
                raise spec.bad(entry, f"'{value}' is no list of words", "values", value)
    for entry in commands["list"]:
        _parsed(spec, entry, entry["values"], "values")
    for entry in commands["expansion"]:
        _parsed(spec, entry, entry["say"])
    tongue, changed = language(commands), _changed(commands, *PARTS)
    for entry in commands["list"]:
        try:
            tongue.listed(entry["name"])
        except Failure as bad:
            raise spec.bad(entry, bad.message, "values") from None
    for entry in commands["phrase"]:
        _check_target(spec, entry, system, commands)
        parsed = _parsed(spec, entry, entry["say"])
        _check_slots(spec, entry, parsed, tongue.rules, system, commands)
        _run_examples(spec, entry, _built(spec, entry, parsed, tongue), tongue.manners, changed)


def _built(spec, entry, parsed, tongue):
    from . import phrases

    for template, tree in zip(entry["say"], parsed, strict=True):
        try:
            phrases.build([tree], tongue)
        except Failure as bad:
            raise spec.bad(entry, f"template '{template[:60]}': {bad.message}", "say", template) from None
    try:
        return phrases.build(parsed, tongue)
    except Failure as bad:
        raise spec.bad(entry, bad.message, "say") from None


def _check_system(spec) -> None:
    for entry in spec.entries["capability"]:
        _parsed(spec, entry, entry["say"])


def _check_mcp(spec) -> None:
    import re

    system, commands = spec.others["system"], spec.others["commands"]
    tongue, changed = language(commands), _changed(commands, *PARTS) or _changed(system, "capability")
    for entry in spec.entries["rule"]:
        _check_target(spec, entry, system, commands)
        for other in entry.get("fallback", ()):
            if not (other.startswith("model:") and entry["target"].startswith("model:")):
                raise spec.bad(entry, f"'{other}' is no fallback of '{entry['target']}', expected model:NAME, and a model as target", "fallback", other)
        if not entry.keys() & {"say", "pattern", "capability", "any"}:
            raise spec.bad(entry, f"rule '{entry['name']}' matches nothing, expected say, pattern, capability or any")
        automaton, test = None, None
        if "say" in entry:
            automaton = _built(spec, entry, _parsed(spec, entry, entry["say"]), tongue)
        if "pattern" in entry:
            try:
                test = re.compile(entry["pattern"], re.IGNORECASE)
            except (re.error, RecursionError, OverflowError) as bad:
                raise spec.bad(entry, f"pattern '{entry['pattern']}' is no regular expression: {bad}", "pattern") from None
        ability = None
        if "capability" in entry:
            found = [other for other in system["capability"] if other["name"] == entry["capability"]]
            if not found and entry["capability"] not in system["gone"].get("capability", {}):
                known = _either(other["name"] for other in system["capability"])
                raise spec.bad(entry, f"there is no capability '{entry['capability']}', expected {known}", "capability")
            ability = ability_of(found, tongue) if found else None
            if not found:
                continue

        def also(example, entry=entry, test=test, ability=ability):
            from . import phrases

            said = bool(ability) and bool(phrases.matches(ability, phrases.Sentence(example, tongue.manners), ()))
            return bool(entry.get("any")) or said or bool(test and test.search(example))

        _run_examples(spec, entry, automaton, tongue.manners, changed, also)


def ability_of(found: list[dict], tongue) -> dict:
    """The automaton of the templates of these capabilities. Raises Failure (78) with the place of the first."""
    from . import phrases

    try:
        return phrases.build([phrases.parse(template) for entry in found for template in entry["say"]], tongue)
    except Failure as bad:
        raise Failure(f"{found[0]['at']}: {bad.message}", CONFIG) from None


def _unsafe(url: str) -> str:
    """What is wrong with sending a key to this URL, else ""."""
    import re

    plain = re.fullmatch(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]+)?(/[!-~]*)?", url)
    return "" if plain or url.startswith("https:") and url.isprintable() else f"'{url}' would show the key to the network, expected https://"


def _check_config(spec) -> None:
    import re

    for entry in spec.entries["setting"]:
        if "choices" in entry and entry["value"] not in entry["choices"]:
            raise spec.bad(entry, f"setting '{entry['name']}' is '{entry['value']}', expected {_either(entry['choices'])}", "value")
        # Not even a part of it is shown.
        if entry.get("secret") and entry["value"] != "" and not str(entry["value"]).startswith(SEALED):
            bad = spec.bad(entry, f"the value of the secret setting '{entry['name']}' is not encrypted", "value")
            raise Failure(bad.message, CONFIG, f"ftai-keys set setting:{entry['name']} puts it there encrypted")
    for entry in spec.entries["key"]:
        if wrong := _unsafe(entry.get("check", "https:")):
            raise spec.bad(entry, wrong, "check")
        lines = entry.get("header", ["{key}:"] if "check" not in entry else [])
        if str(lines).count("{key}") != 1 or not all(":" in line and line.isprintable() for line in lines):
            raise spec.bad(entry, "'header' is not what 'check' needs, expected 'NAME: VALUE' with {key} in one of them", "header" if lines else "check")
    for entry in spec.entries["consent"]:
        if "until" in entry and not re.fullmatch("[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-9:.]+(Z|[+-][0-9:]+))?", entry["until"]):
            raise spec.bad(entry, f"'until' is '{entry['until']}', expected a day, or a time with its zone", "until")
    for entry in spec.entries["provider"]:
        if entry["kind"] not in PROVIDERS:
            raise spec.bad(entry, f"'kind' is '{entry['kind']}', expected {_either(PROVIDERS)}", "kind")
        if "key" in entry and (wrong := _unsafe(entry.get("url", "https:"))):
            raise spec.bad(entry, wrong, "url")
    known = {tag: {entry["name"] for entry in spec.entries[tag]} | spec.gone.get(tag, {}).keys() for tag in ("provider", "model")}
    for entry in spec.entries["model"]:
        _check_known(spec, entry, "provider", [entry["provider"]], known)
        for key in ("fallback", "refused"):
            _check_known(spec, entry, "model", entry.get(key, ()), known, key)
    for entry in spec.entries["budget"]:
        if not _number(entry["value"]):
            raise spec.bad(entry, f"'value' is {_written(entry['value'])}, expected a number from 0", "value")
        for key in ("provider", "model"):
            _check_known(spec, entry, key, [entry[key]] if key in entry else (), known)


def _check_known(spec, entry: dict, tag: str, names, known: dict, key: str = "") -> None:
    for name in names:
        if name not in known[tag]:
            raise spec.bad(entry, f"there is no {tag} '{name}'", key or tag, name if key else "")


def _check_redact(spec) -> None:
    import re

    for entry in spec.entries["pattern"]:
        pattern = entry["pattern"]
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as bad:
            raise spec.bad(entry, f"pattern '{pattern}' is no regular expression: {bad}", "pattern") from None
        # Without what is escaped and what stands in brackets, each of these repeats without end.
        bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)
        if found := re.search(r"\*|\{\d*,\}|(?<![}?+*])\+", bare):
            raise spec.bad(entry, f"'{found[0]}' in pattern '{entry['name']}' repeats without end, expected an upper bound as in '{{1,200}}'", "pattern")
        if "check" in entry and entry["check"] not in REDACT_CHECKS:
            raise spec.bad(entry, f"there is no check '{entry['check']}', expected {_either(REDACT_CHECKS)}", "check")
        for anchor in entry.get("anchors", ()):
            if len(anchor) < 2 and anchor != "@" or not anchor.isascii():
                raise spec.bad(entry, f"anchor '{anchor}' stands nearly everywhere or is no ASCII, expected two characters or more", "anchors")


def _check_memory(spec) -> None:
    for entry in spec.entries["retention"]:
        if entry.get("size", 1) < 1:
            raise spec.bad(entry, "'size' is 0, expected a number of megabytes like 256", "size")
        if entry.get("rotate") == "size" and "size" not in entry:
            raise spec.bad(entry, "'rotate' is size, and there is no 'size'", "rotate")


def _check_prices(spec) -> None:
    import re

    for entry in spec.entries["price"]:
        if ("model" in entry) is ("pattern" in entry):
            raise spec.bad(entry, f"price '{entry['name']}' needs 'model', or 'pattern' in its place", "pattern")
        try:
            re.compile(entry.get("pattern", ""))
        except (re.error, RecursionError, OverflowError) as bad:
            raise spec.bad(entry, f"pattern '{entry['pattern']}' is no regular expression: {bad}", "pattern") from None
        if not re.fullmatch("[A-Z]{3}", entry["currency"]):
            raise spec.bad(entry, f"'currency' is '{entry['currency']}', expected three capital letters like USD", "currency")
        if entry.get("unit", 1) < 1:
            raise spec.bad(entry, "'unit' is 0, expected a number of tokens like 1000000", "unit")
        if entry.get("valid_from", "") > entry.get("valid_to", "9"):
            raise spec.bad(entry, f"'valid_to' is {entry['valid_to']}, before 'valid_from'", "valid_to")


# --- asking


def find(spec: str, tag: str, name: str) -> dict | None:
    """The entry of this name, or None where there is none, or where it was turned off."""
    return next((entry for entry in load(spec).get(tag, ()) if entry["name"] == name and "blocked" not in entry), None)


def setting(name: str, default=None):
    """The value of a setting, limit or place: FTAI_NAME of the environment, then project, user, shipped spec; `default` where none has it.

    Raises Failure (78) for a value in the environment that does not fit.
    """
    config = load("config")
    tag, entry = next(((tag, entry) for tag in ("setting", "limit", "place") for entry in config[tag] if entry["name"] == name), ("", None))
    variable = "FTAI_" + name.upper().replace("-", "_")
    given = os.environ.get(variable)
    if given is None or given == "" or entry is None:
        return default if entry is None else entry["value"]
    value: str | int | float | bool = given
    kind = type(entry["value"])
    wanted = "" if given.isprintable() else "printable text"
    if kind is not str:
        try:
            value = {"true": True, "false": False}[given] if kind is bool else float(given) if kind is float else int(given)
        except (KeyError, ValueError):
            wanted = f"a value like {_written(entry['value'])}"
    wanted = wanted or _unfit(tag, entry, value)
    if not wanted and "choices" in entry and value not in entry["choices"]:
        wanted = _either(entry["choices"])
    if wanted:
        raise Failure(f"{variable} is '{given}', expected {wanted}", CONFIG)
    return value


def pardon(name: str | None) -> None:
    """Loads the config spec, for this process, as if the setting `name` had no value: who is to set it must be able to start. Raises Failure 78.

    None: all secret settings that stand there in the clear.
    """
    spec = _Spec("config", files("config"))
    for entry in spec.entries["setting"]:
        if entry["name"] == name or (name is None and entry.get("secret") and not str(entry["value"]).startswith(SEALED)):
            entry["value"] = ""
    _check_config(spec)
    loaded["config"] = {**spec.entries, "gone": spec.gone, "notes": spec.notes}


def put_value(name: str, value: str) -> str:
    """Writes the value of a secret setting into the owner's config spec, and leaves all else in it as it stands; returns the path.

    Raises Failure: 78 where no layer has a secret setting of that
    name, or the file can't be read; 77 where it is a link; 73 where it can't be written, 74 where the disk is full.
    """

    from . import stream

    path = os.path.join(paths.make(paths.where("config")), f"{PREFIX}config{SUFFIX}")
    if os.path.islink(path):
        raise Failure(f"'{path}' is a link, and what it leads to may be kept where others see it", 77, f"mv the file itself to '{path}'")
    base = None
    for layer, place in files("config"):
        file = _File(layer, place)
        raw = next((raw for raw in file.entries if raw["@tag"] == "setting" and raw.get("name") == name), None)
        base = raw if raw and file.trusted else base
        if layer == "user":
            own, at = file, raw
    if base is None or base.get("secret") is not True:
        raise Failure(f"there is no setting '{name}' with 'secret: true'", CONFIG, f"declare it in '{path}'")
    lines = own.data.decode("utf-8", "surrogateescape").split("\n") if own.data else ["@ftai v2.0", ""]
    if at and (number := own.line(at, "value")) != at["at_line"]:
        if not lines[number - 1].lstrip().startswith("value:"):
            raise own.bad(at, "its 'value' can't be told from the rest, expected it on a line of its own")
        indent = lines[number - 1][: len(lines[number - 1]) - len(lines[number - 1].lstrip())]
        lines[number - 1] = f'{indent}value: "{value}"'
    elif at:
        lines.insert(at["at_line"], f'  value: "{value}"')
    else:
        lines += ["@setting", f'  name: "{name}"', f'  value: "{value}"', "  secret: true", f"  summary: {orjson.dumps(base['summary']).decode()}", "@end", ""]
    try:
        stream.save(path, "\n".join(lines).encode("utf-8", "surrogateescape"))
    except OSError as bad:
        raise Failure(f"cannot write '{path}': {bad.strerror}", 74 if bad.errno in stream.FULL else 73) from None
    forget()
    return path


def tier() -> str:
    """The name of the memory tier that is meant where none was said: the one marked `default` in the highest layer."""
    marked = [entry for entry in load("memory")["tier"] if entry.get("default")]
    if not marked:
        raise Failure("no memory tier is the default", CONFIG, "mark one with 'default: true' in serenamaster.memory.ftai")
    rank = {"shipped": 0, "user": 1, "project": 2}
    return max(reversed(marked), key=lambda entry: rank[entry["layer"]])["name"]


def _texts_of(extra=()) -> list[tuple[str, bytes]]:
    found = []
    for layer, path in [*files(*names()), *(("rules", name) for name in extra)]:
        data = _bytes(path, layer)
        if data:
            found.append((f"{layer}/{os.path.basename(path)}", data))
    return found


def digest_of(texts: list[tuple[str, bytes]]) -> str:
    """12 hex digits that tell one set of spec texts from another."""
    import hashlib

    made = hashlib.sha256()
    for name, data in texts:
        made.update(b"%b %d\n" % (name.encode(), len(data)))
        made.update(data)
    return made.hexdigest()[:12]


def digest(extra: tuple[str, ...] = ()) -> str:
    """The digest of all spec texts as they are laid over each other now, and of the files `extra`."""
    if extra:
        return digest_of(_texts_of(extra))
    if "#" not in loaded:
        loaded["#"] = cached("digest", files(*names()), lambda: digest_of(_texts_of()))
    return loaded["#"]


def source_text(extra: tuple[str, ...] = ()) -> str:
    """The texts of all spec files, each behind a comment line with its name: what a `specs` record keeps."""
    from .record import clean

    return "".join(f"// {name}\n{clean(data.decode('utf-8', 'replace'))}\n" for name, data in _texts_of(extra))


# --- trust


def _trusted(path: str, data: bytes) -> bool:
    import hashlib

    wanted = f"{hashlib.sha256(data).hexdigest()}  {path}"
    return any(line == wanted for line in _trust_lines())


def _trust_lines() -> list[str]:
    return _bytes(_trust_file()).decode("utf-8", "surrogateescape").split("\n")


def trust(folder: str) -> list[tuple[str, str]]:
    """Trusts the specs of a project (its folder, or its `.ftai`) as they are now; returns (path, sha256) of each.

    They are checked before. Raises Failure: 66 where there are none, 78 for a broken one.
    """
    import hashlib

    from . import stream

    folder = os.path.realpath(folder)
    if os.path.basename(folder) != ".ftai":
        folder = os.path.join(folder, ".ftai")
    try:
        found = sorted(name for name in os.listdir(folder) if name.startswith(PREFIX) and name.endswith(SUFFIX))
    except OSError as bad:
        raise Failure(f"cannot read '{folder}': {bad.strerror}", 66) from None
    if not found:
        raise Failure(f"no spec in '{folder}'", 66)
    made = []
    for name in found:
        path = os.path.join(folder, name)
        if "\n" in path:
            raise Failure(f"'{path}' has a line end in its name", 65)
        file = _File("rules", path)
        for raw in file.entries:
            _checked(name[len(PREFIX) : -len(SUFFIX)], file, raw)
        made.append((path, hashlib.sha256(file.data).hexdigest()))
    fresh = {path for path, _ in made}
    lines = [line for line in _trust_lines() if line and line.partition("  ")[2] not in fresh] + [f"{sha}  {path}" for path, sha in made]
    paths.state()
    stream.save(_trust_file(), ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
    forget()
    return made
