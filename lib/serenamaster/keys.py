"""What the owner does with keys: set, rotate, try, remove them, and keep settings secret with one of them.

A value is never in an argument, a record or a message. Each act stands between two audit records in the journal, and what can't be journaled is
not done (ftai(7)). A rotation is steps that each replace the item of the key as a whole, so that whoever is killed in between leaves a current value.
"""

import os
import time

from . import paths, stream
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOINPUT, NOPERM, TEMPFAIL, UNAVAILABLE, USAGE, Failure
from .record import TAG, clean, is_id, now

SIZE = 65 * 1024  # bytes that are read of a value: more than any may have
SECONDS = 60.0  # that a command may take to give a value: it may ask somebody
TRY = 10.0  # seconds that a provider may take to say whether it takes a key
GRACE = 24.0  # hours, where the spec says none
AGAIN = "ftai-keys rotate --due tries again, the new key is kept beside the old one"
SETTINGS = "ftai-settings"  # the key that the secret settings are encrypted with
# How the acts of all audit records of keys and consent begin: key-set, key-read (by whomever), key-rotate … consent-grant, consent-withdraw.
ACTS = ("key-", "consent-")


def done(tell, act: str, subject: str, work, because: str | None = None):
    """work() between the audit records of intent and outcome; returns what it returns. Where that is text, it is the reason in the outcome.

    Raises what work() and tell() raise, an OSError as Failure 73, or 74 where the disk is full. Where the intent can't be journaled nothing is done.
    """
    intent = tell(act, subject, "intended", because)
    try:
        made = work()
    except OSError as bad:
        tell(act, subject, "failed", bad.strerror, intent)
        raise Failure(f"cannot write '{bad.filename or paths.where('state')}': {bad.strerror}", IOERR if bad.errno in stream.FULL else CANTCREAT) from None
    except BaseException as bad:
        refused = isinstance(bad, Failure) and bad.code == NOPERM
        tell(act, subject, "refused" if refused else "failed", bad.message if isinstance(bad, Failure) else type(bad).__name__, intent)
        raise
    tell(act, subject, "done", made if type(made) is str else because, intent)
    return made


def config(warn, *, whole: bool = False) -> dict:
    """The config spec, for what needs little or nothing of it; of one that is broken what can be used, and warn(message) tells.

    That is all but secret settings in the clear, or else nothing. whole: Failure 78 rather than nothing.
    """
    from . import specs

    try:
        return specs.load("config")
    except Failure as bad:
        broken = bad
    try:
        specs.pardon(None)
        warn(broken.message)
        return specs.load("config")
    except Failure:
        if whole:
            raise broken from None
    warn(f"{broken.message}; going on without it")
    return {tag: [] for tag in specs.TAGS["config"]}


class Keeper:
    """Acts on keys. What it needs of its own floor it is given:

    store: the module secret. prints: the module redact. tell(act, subject, outcome, because=None, intent=None) puts an audit record into the
    journal, synced, or raises Failure, and returns it. entries: {name: `@key` entry}. consent(name) -> (who takes this key, "" or the
    reason why nothing may be sent there).
    """

    def __init__(self, store, prints, tell, entries: dict, consent):
        self.store, self.prints, self.tell, self.entries, self.consent = store, prints, tell, entries, consent

    def done(self, act: str, subject: str, work, because: str | None = None):
        """done() with the journal of this keeper."""
        return done(self.tell, act, subject, work, because)

    # ---- one key ----

    def set(self, name: str, value: str) -> str:
        """Stores a value in the place of all there were; returns where. Raises Failure, then nothing is stored."""
        self._fit(name, value)
        with self.store.turn():
            return self.done("key-set", name, lambda: self._put(name, [fresh(value, "current")]))

    def remove(self, name: str) -> str:
        """Removes all values of a key that are stored; returns where they were. Raises Failure 69 where none is."""

        def work() -> str:
            places = self.store.remove(name)
            if not places:
                raise Failure(f"no key '{name}' is stored", UNAVAILABLE, "ftai-keys list")
            self._forget(name, [])
            return ", ".join(places)

        with self.store.turn():
            return self.done("key-remove", name, work)

    def get(self, name: str, reader: str) -> tuple[str, str]:
        """(value, source) for a reader, "" for the owner. Raises Failure: 77 where it was not granted, 69 where no source has it."""
        return self.store.read(name, reader=reader, log=self.tell, entry=self.entries.get(name, {}))

    def lend(self, verb: str, name: str, reader: str) -> None:
        """Lets a stage or an `agent:NAME` read a key (`grant`), or no longer (`revoke`)."""
        change = self.store.grant if verb == "grant" else self.store.revoke
        self.done(f"key-{verb}", name, lambda: "readers: " + (" ".join(change(name, reader)) or "none"), reader)

    def _fit(self, name: str, value: str) -> None:
        if wrong := self.store.unfit(value):
            raise Failure(f"this is not the value of '{name}': {wrong}", DATAERR)

    def _put(self, name: str, values: list) -> str:
        # Its fingerprint is there before the value is, and goes after it: no moment in which it could be written in the clear.
        known = self.prints.known()
        for each in values:
            if mark(name, each) not in known:
                self.prints.remember(mark(name, each), each["value"])
        source = self.store.replace(name, {"v": 1, "values": values})
        self._forget(name, values)
        return source

    def _forget(self, name: str, values: list) -> None:
        kept = {mark(name, each) for each in values}
        for known in [known for known in self.prints.known() if known.partition("#")[0] == name and known not in kept]:
            self.prints.forget(known)

    def values(self, name: str) -> list:
        """What the store holds of a key. Raises Failure 69 where that is nothing."""
        item = self.store.item(name)
        if not item:
            raise Failure(f"no key '{name}' is stored", UNAVAILABLE, f"ftai-keys set {name}")
        return item["values"]

    # ---- rotation ----

    def rotate(self, name: str, value: str | None, *, check: bool) -> str:
        """Puts a new value in the place of the current one, which stays beside it for its time of grace; returns what was done, in words.

        value: None for the new one that an earlier rotation left behind. check: only once the provider takes it. Raises Failure: 77 where the
        provider does not take it, or nobody agreed that it be asked (the old one stays, the new one is gone); 75 where it could not be asked
        (the old one stays, the new one waits beside it); 65 where it is the old one; 69 where there is none to rotate; 78 where nothing says
        how it is checked.
        """
        if value is not None:
            self._fit(name, value)
        with self.store.turn():
            values = self.values(name)
            if check and "check" not in self.entries.get(name, ()):
                raise Failure(f"nothing says how the key '{name}' is checked", CONFIG, f"give its @key entry a check and a header, or: ftai-keys rotate {name}")
            if value is not None and any(each["value"] == value for each in values if each["state"] != "next"):
                raise Failure(f"the new key '{name}' is the old one", DATAERR)
            return self.done("key-rotate", name, lambda: self._rotate(name, values, value, check))

    def _rotate(self, name, values, value, check) -> str:
        target = self._agreed(name) if check else ""
        # What an earlier rotation was killed with is another's new key: it was never current, and this one takes its place.
        stay = [each for each in values if each["state"] != "next"]
        new = [fresh(value, "next")] if value is not None else [each for each in values if each["state"] == "next"]
        if value is not None:
            self._put(name, [*stay, *new])
        said = ""
        if check:
            try:
                said = self._try(name, target, new[0]["value"]) + "; "
            except Failure as bad:
                if bad.code != TEMPFAIL:
                    self._put(name, stay)
                raise
        until = later(self.grace(name) * 3600)
        old = [each | {"state": "old", "until": until} for each in stay if each["state"] == "current"]
        kept = [each for each in stay if each["state"] == "old" and not self._over(name, each)]
        self._put(name, [new[0] | {"state": "current"}, *old, *kept])
        return f"{said}the old one is kept until {until}"

    def grace(self, name: str) -> float:
        """Hours that the old value of a key is kept."""
        return self.entries.get(name, {}).get("grace", GRACE)

    def _over(self, name: str, each: dict) -> bool:
        # A time that is further ahead than it ever was put is of a clock that was wrong.
        until = seconds(each.get("until"))
        return until is None or not 0 < until - time.time() <= self.grace(name) * 3600 + 60

    def _agreed(self, name: str) -> str:
        target, missing = self.consent(name)
        if missing:
            raise Failure(f"'{target}' may not be asked about its key: {missing}", NOPERM, f"ftai-keys consent grant {target}")
        return target

    def _try(self, name: str, target: str, value: str) -> str:
        entry = self.entries[name]
        status = tried(entry["check"], [line.replace("{key}", value) for line in entry["header"]])
        if status in (401, 403):
            raise Failure(f"'{target}' does not take the new key '{name}' (HTTP {status}), the old one stays", NOPERM)
        if not 200 <= status < 300:
            raise Failure(f"'{target}' could not check the new key '{name}' (HTTP {status})", TEMPFAIL, AGAIN)
        return f"'{target}' took it (HTTP {status})"

    def due(self, fail, alert, run) -> None:
        """What cron does: removes old values past their grace, finishes rotations, rotates what is too old and can do so by itself.

        fail(Failure) tells, and the next key is looked at. alert(name, age, limit in days) is called for a key that is too old and can't.
        run(argument list) -> the new value that a command gives.
        """
        for known in self._kept():
            name, entry = known["name"], self.entries.get(known["name"], {})
            rotated = False
            try:
                rotated = self._due(name, entry, run)
            except Failure as bad:
                fail(bad)
            age = days(known.get("added"))
            if not rotated and overdue(age, entry.get("max_age")):
                alert(name, age, entry["max_age"])

    def _kept(self) -> list[dict]:
        """What is known of the keys that a store has: the others are not ours to rotate."""
        return [known for known in self.store.listed() if known["source"] in self.store.STORES]

    def _due(self, name, entry, run) -> bool:
        """True where the key was rotated."""
        # All in one turn: of two at once, one would else rotate what the other has just rotated.
        with self.store.turn():
            values = self.values(name)
            kept = [each for each in values if each["state"] != "old" or not self._over(name, each)]
            if kept != values:
                self.done("key-expire", name, lambda: self._put(name, kept), "past its time of grace")
            if any(each["state"] == "next" for each in values):
                self.rotate(name, None, check="check" in entry)
                return True
            if overdue(days(current(values).get("added")), entry.get("max_age")) and "rotate_cmd" in entry:
                self.rotate(name, checked(run(entry["rotate_cmd"])), check="check" in entry)
                return True
        return False

    def plan(self) -> list[str]:
        """What due() would do, in words."""
        said = []
        for known in self._kept():
            name, entry, age = known["name"], self.entries.get(known["name"], {}), days(known.get("added"))
            try:
                values = self.values(name)
            except Failure as bad:
                said.append(f"would not rotate '{name}': {bad.message}")
                continue
            said += [f"would remove an old key '{name}'" for each in values if each["state"] == "old" and self._over(name, each)]
            if any(each["state"] == "next" for each in values):
                said.append(f"would finish the rotation of '{name}'")
            elif overdue(age, entry.get("max_age")):
                said.append(f"would {'rotate' if 'rotate_cmd' in entry else 'write an alert about'} '{name}', {age:.0f} days old")
        return said

    # ---- secret settings ----

    def keep(self, name: str, value: str, hide, put) -> str:
        """Encrypts the value of a setting and puts it where it is read; returns where. hide: seal.hide. put: specs.put_value."""
        subject = f"setting:{name}"
        self._fit(subject, value)

        def work() -> str:
            entry = fresh(value, "current")
            self.prints.remember(mark(subject, entry), value)
            path = put(name, hide(self._cipher(make=True), name, value))
            self._forget(subject, [entry])
            return path

        with self.store.turn():
            return self.done("key-set", subject, work)

    def opened(self, name: str, hidden: str, reveal, reader: str) -> str:
        """The value of a setting as it was set. hidden: its value as the spec holds it. reveal: seal.reveal. reader: as in get(). Raises Failure."""
        subject = f"setting:{name}"
        who = self.store.admitted(subject, reader=reader, log=self.tell, entry={})
        try:
            if not hidden:
                raise Failure(f"the setting '{name}' has no value", UNAVAILABLE, f"ftai-keys set {subject}")
            value = reveal(self._cipher(), name, hidden)
        except Failure as bad:
            self.tell("key-read", subject, "failed", f"{who}: {bad.message}")
            raise
        if subject not in {known.partition("#")[0] for known in self.prints.known()}:
            self.prints.remember(f"{subject}#", value)
        self.tell("key-read", subject, "done", f"{who}, from the config")
        return value

    def _cipher(self, *, make: bool = False) -> bytes:
        from base64 import b64decode, b64encode

        if make and not self.store.item(SETTINGS):
            self._put(SETTINGS, [fresh(b64encode(os.urandom(32)).decode(), "current")])
        return b64decode(self.get(SETTINGS, "")[0])


# ---- values and times ----


def fresh(value: str, state: str) -> dict:
    """One value of an item, as secret.py keeps it."""
    return {"value": value, "state": state, "added": now()}


def current(values: list) -> dict:
    """The one that is in use."""
    return next(each for each in values if each["state"] == "current")


def mark(name: str, each: dict) -> str:
    """What the fingerprint of one value of a key is known by: that of an old value stays when the new one comes."""
    return f"{name}#{each.get('added', '')}"


def later(seconds: float) -> str:
    """The time so many seconds on, as records hold it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def seconds(when) -> float | None:
    """A time as records hold it, as seconds since 1970; None for what is none."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(when).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def days(added) -> float | None:
    """The age of a key in days, however the clock was set; None where it is not known when it was added."""
    since = seconds(added)
    return None if since is None else abs(time.time() - since) / 86400


def overdue(age: float | None, limit: float | None) -> bool:
    """True for an age above the limit, both in days; False where one of them is not known."""
    return age is not None and limit is not None and age > limit


def listed(known: list[dict], entries: dict):
    """Yields the fields of a report for each key, without its value: what secret.listed() knows, its age in days, and whether that is too much."""
    for one in known:
        age, limit = days(one.get("added")), entries.get(one["name"], {}).get("max_age")
        more = {"age": age and round(age, 1), "max_age": limit, "overdue": overdue(age, limit) or None}
        yield {"subject": "key"} | one | {key: value for key, value in more.items() if value is not None}


def checked(data: bytes) -> str:
    """A value as it is kept: without the line end behind it. Raises Failure 65 where it is empty, or no text."""
    text = data[:-1] if data.endswith(b"\n") else data
    text = text[:-1] if text.endswith(b"\r") else text
    try:
        value = text.decode()
    except UnicodeDecodeError:
        raise Failure("the value is no text in UTF-8", DATAERR) from None
    if not value.strip():
        raise Failure("the value is empty", DATAERR)
    if clean(value) != value:
        raise Failure("the value holds control characters", DATAERR)
    return value


def given(prompt: str, fd: int | None = None) -> bytes:
    """What is typed at a terminal without echo, else what standard input holds; fd: what that file descriptor holds.

    Raises Failure 66 where it can't be read.
    """
    if fd is None and os.isatty(0):
        from getpass import getpass

        try:
            return getpass(prompt).encode("utf-8", "surrogateescape")
        except EOFError:
            return b""
    data = b""
    try:
        while len(data) <= SIZE and (part := os.read(fd or 0, SIZE)):
            data += part
    except OSError as bad:
        raise Failure(f"cannot read {f'file descriptor {fd}' if fd else 'standard input'}: {bad.strerror}", NOINPUT) from None
    return data


def tried(url: str, headers: list[str]) -> int:
    """The status of a GET with these header lines. A redirection is not followed, as the key would go along.

    Raises Failure 75 where there is no answer in time, 65 for a value that no header can hold.
    """
    from threading import Thread
    from urllib import request
    from urllib.error import HTTPError

    class Stay(request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    # What goes to this machine goes past no proxy, which would see the key.
    opener = request.build_opener(Stay, *([] if url.startswith("https:") else [request.ProxyHandler({})]))
    asked = request.Request(url, headers={name.strip(): value.strip() for name, _, value in (line.partition(":") for line in headers)})
    said: list[int | Failure] = []
    host = url.split("/")[2]

    def ask() -> None:
        try:
            with opener.open(asked, timeout=TRY) as answer:
                said.append(answer.status)
        except HTTPError as bad:
            said.append(bad.code)
        except (ValueError, UnicodeError):
            said.append(Failure("the key holds what no header can hold", DATAERR))
        except Exception as bad:
            # Of a message only the kind is kept: some of them quote the header.
            reason = getattr(bad, "reason", bad)
            said.append(Failure(f"cannot ask '{host}' about the key: {getattr(reason, 'strerror', None) or type(reason).__name__}", TEMPFAIL, AGAIN))

    # A server that sends a byte now and then keeps each read below its own limit.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TRY)
    answer = said[0] if said else Failure(f"cannot ask '{host}' about the key: no answer within {TRY:.0f} s", TEMPFAIL, AGAIN)
    if isinstance(answer, Failure):
        raise answer
    return answer


# ---- consent ----


def target(name: str) -> str:
    """The name of a target: of a provider or server, `cmd:NAME`, `webhook:HOST` (in small letters) or `export`. Raises Failure 2."""
    kind, colon, rest = name.partition(":")
    if (colon and kind not in ("cmd", "webhook")) or not all(char.isalnum() or char in "_.-:" for char in name) or not (rest if colon else kind):
        raise Failure(f"'{name}' is no target", USAGE, "expected the name of a provider or server, cmd:NAME, webhook:HOST or export")
    return name.lower() if kind == "webhook" else name


def withdrawn(name: str, found: dict) -> list[str]:
    """The targets of state.consents() that are meant where consent for `name` is withdrawn: those that differ in case only go too."""
    return [other for other in found if other.lower() == name.lower()] or [name]


def doubts(name: str, tags: list[str]):
    """Yields what may be wrong with consent for this target and scope: what no spec knows. Raises Failure 78."""
    from . import specs

    system, config = specs.load("system"), specs.load("config")
    known = {word for entry in [*system["stage"], *system["agent"]] for word in [*entry.get("reads", ()), *entry.get("writes", ())]}
    for word in tags:
        if word not in known and not is_id(word):
            yield f"no spec knows records with the tag '{word}', and this consent may hold for none"
    named = {entry["name"] for entry in [*config["provider"], *config["model"], *specs.load("mcp")["server"]]}
    programs = {f"cmd:{entry['name']}" for entry in specs.load("commands")["program"]}
    if name not in {"export", *named, *programs} and not name.startswith("webhook:"):
        yield f"no spec names a provider, a model, a server or a program '{name}'"


def since(words: str | None) -> str:
    """The beginning of the time that these words name, as records hold it; "" for none. Raises Failure 2."""
    from datetime import UTC

    from . import dates

    here = dates.now_in(None)
    if not words:
        return ""
    found = dates.span(words, here)
    if not found:
        raise Failure(f"'{words}' names no time", USAGE, "--since monday, --since 2026-11-01, --since 'last 3 days'")
    return found[0].astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def scope(words: str | None) -> list[str]:
    """Tags and ids of threads from a comma list; none for None, which means all. Raises Failure 2, also for a list without a word in it."""
    hint = "ftai-keys consent grant TARGET --scope command,task"
    if words is None:
        return []
    made = [word.strip() for word in words.split(",") if word.strip()]
    # A shell variable that is not set must not widen what was to be narrowed.
    if not made:
        raise Failure("the scope is empty", USAGE, hint)
    for word in made:
        if not is_id(word) and not TAG.match(word):
            raise Failure(f"'{word}' is neither a tag nor the id of a thread", USAGE, hint)
    return made


def until(words: str | None) -> str | None:
    """The end of the time that these words name, in UTC, None for None: `friday` ends with that day. Raises Failure 2 where they name none that is to come."""
    import re
    from datetime import UTC, datetime

    from . import dates

    if words is None:
        return None
    here = dates.now_in(None)
    found = dates.span(words, here, ahead=True)
    end = found and found[1]
    if end is None and (later := dates.due(words, here)) and not later[1]:
        end = dates.span(later[0], here, ahead=True)[1]
    if end is None and (day := re.fullmatch(r"\s*(?:until )?\s*([3-9]\d{3}-\d\d-\d\d)\s*", words, re.ASCII)):
        # dates.py knows no year from 3000 on; the end of such a day in UTC is near enough.
        try:
            return datetime.fromisoformat(day[1]).strftime("%Y-%m-%dT23:59:59Z")
        except ValueError:
            pass
    if end is None:
        raise Failure(f"'{words}' names no time", USAGE, "--until 2026-12-31, --until friday")
    if end <= here:
        raise Failure(f"'{words}' is over", USAGE)
    return end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def agreements(found: dict, missing):
    """Yields the fields of a report for each target of state.consents(). missing(target) -> "" or why there is no consent now."""
    for target in sorted(found):
        said = {key: value for key, value in found[target].items() if value}
        why = missing(target)
        yield {"subject": "consent", "target": target} | said | ({"missing": why} if why else {})
