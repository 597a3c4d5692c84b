"""Acting on routes: claim, intent, attempt, effects, result.

What acts on a target is a generator, act(job): it yields the records of its effects and returns an End, or the answer as a string.
An `audit` record that it yields is in the journal, synced, before it goes on; so an effect is never ahead of its record (ftai(7)).
"""

import os
import signal
import time
from collections import namedtuple

from . import stream
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOINPUT, NOPERM, SOFTWARE, SOME, TEMPFAIL, UNAVAILABLE, Failure
from .record import clean, encode, is_history, make, new_id, now, stamp

RECENT = 1000  # records among which a route's command is looked for before the archive is asked
BODY = 1024 * 1024  # bytes of a text that a record carries itself
HIDDEN = 4 * BODY  # where no file may hold it: a record has room for more, and what JSON makes of a byte may be six
LATER = ("mcp", "agent")  # kinds of target that the rules may name before anything can act on them
KINDS = {
    CONFIG: "spec", UNAVAILABLE: "spec", NOPERM: "policy", CANTCREAT: "storage", IOERR: "storage", TEMPFAIL: "timeout", NOINPUT: "input", DATAERR: "input",
}  # fmt: skip

# What an act ends with. status: done failed refused asked cancelled, or queued: it can't be had now, and is to be tried again later. body: the
# answer, or why it is queued. code: the exit status it counts as. kind: the class of what went wrong. fields: more for the `attempt` record; of
# an act that writes its attempts itself `hint`, what may be typed, and where it is queued `not_before`, if that is known.
End = namedtuple("End", "status body code kind fields", defaults=("", 0, None, {}))

# How a target is acted on. act: see above. reach: "local", or "cloud" where it may take what it gets off the machine. plan(job): in words.
# journaled: a record is all that it does. own: it asks job.barred() before anything leaves the machine and writes its attempts itself, and all
# that it yields is handed on as it comes.
Act = namedtuple("Act", "act reach plan journaled own", defaults=("local", None, False, False))


class Orphan(Failure):
    """A route whose command nobody knows."""


class Stopped(BaseException):
    """A signal came while nothing was in hand."""


class Stop:
    """SIGINT, SIGTERM and SIGHUP: they end a wait at once, and all other work at the next place where nothing is half done.

    `number` is the signal that came, or 0. A second one kills at once.
    """

    def __init__(self):
        self.number = 0
        self.waiting = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What the caller ignores (nohup, a background job of sh) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._catch)

    def _catch(self, number, _frame):
        # Who asks twice does not want to wait, not even for a reader that has stopped reading.
        signal.signal(number, signal.SIG_DFL)
        self.number = number
        if self.waiting:
            raise Stopped

    def wait(self, function, *args):
        """function(*args), which may block; None where a signal ends it. Only what may be left in the middle is to be called so."""
        try:
            try:
                self.waiting = True
                return None if self.number else function(*args)
            finally:
                self.waiting = False
        except Stopped:
            # It may have come within the `finally` too.
            self.waiting = False
            return None

    def each(self, batches):
        """Yields what `batches` yields, until a signal comes."""
        while (batch := self.wait(next, batches, None)) is not None:
            yield batch
            if self.number:
                return


class Job:
    """One route that is acted on, as an act sees it.

    route, command: the records. slots: {name: string} of what was recognised, clean. privacy: what the records of this job get ("local",
    "cloud", another string that means local, or None where neither route nor command says). tz: the
    name of the time zone of the command, or None. hidden: no text of this job is to be kept or shown, but for its records in the pipe.
    stop: None or a Stop. consent: as Runner has it, or None.
    """

    end = End

    def __init__(self, stage: str, route: dict, command: dict, default: str, stop=None, consent=None):
        self.stage, self.route, self.command, self.default, self.stop, self.consent = stage, route, command, default, stop, consent
        self.target = route["target"]
        # What comes of it may quote an attachment that is local, whatever the command says.
        nested = "local" if any(map(_is_local, command.get("@blocks", ()))) else None
        self.privacy = strictest(command.get("privacy"), route.get("privacy"), nested)
        self.tz = text(command.get("tz"))
        self.hidden = "fact" in (command.get("log"), route.get("log"))
        self.attempt, self.began, self.clock = new_id(), now(), time.monotonic()
        self.about = self.attempt  # what an error is about: of an act that writes its attempts itself the newest of them, or the route
        self.slots: dict[str, str] = {}
        for block in route.get("@blocks", ()):
            if block.get("@tag") == "slots":
                self.slots |= {key: clean(value if type(value) is str else str(value)) for key, value in block.items() if key[0] != "@"}

    @property
    def local(self) -> bool:
        """True where nothing of this job may leave the machine."""
        return (self.default if self.privacy is None else self.privacy) != "cloud"

    def barred(self, target: str, *names: str) -> Failure | None:
        """Why nothing of this job may be given to a target that takes it off the machine, or None where it may.

        names: what consent to it is asked by, and all of them have to agree; else the target.
        """
        if self.local:
            return Failure(f"'{target}' may take this off the machine, and it is local", NOPERM, "ftai-listen --privacy cloud")
        for name in names or (target,):
            if missing := self.consent(name, self.command) if self.consent else "nobody could agree to it here":
                hint = f"ftai-keys consent grant '{name}'"
                return Failure(f"'{target}' may take this off the machine, and there is no consent to that: {missing}", NOPERM, hint)
        return None

    def holds(self, rec: dict) -> None:
        """Says that the answer holds text of `rec`: it is then as private as that."""
        own = rec.get("privacy")
        if not self.local and (self.default if own is None else own) != "cloud":
            self.privacy = strictest(own) or "local"

    def make(self, tag: str, **fields) -> dict:
        """A record caused by the route, as private as this job."""
        rec = make(tag, self.stage, parent=self.route, **fields)
        if self.privacy is None:
            rec.pop("privacy", None)
        else:
            rec["privacy"] = self.privacy
        if self.hidden:
            rec["log"] = "fact"
        return rec

    def left(self) -> float:
        """Seconds to the deadline of the route; without end where it has none."""
        until = self.route.get("deadline")
        return float("inf") if until is None else _seconds(until)

    def ms(self) -> int:
        """Milliseconds since this job began."""
        return round((time.monotonic() - self.clock) * 1000)

    def error(self, kind: str, message: str, *, recovery: str = "none", then: str | None = None) -> dict:
        """An `error` record about this try."""
        rec = self.make("error", class_=kind, message=message, where=self.target, recovery=recovery, next=then)
        return rec | {"parent": self.about}

    def audit(self, act: str, subject: str, *, outcome: str = "intended", intent: dict | None = None) -> dict:
        """An `audit` record: of an intent, or, with that as `intent`, of its outcome."""
        about = intent and intent["id"]
        return self.make("audit", act=act, subject=subject, who=user(), outcome=outcome, because=self.route.get("rule"), about=about)

    def stopped(self) -> bool:
        """True when a signal asked for the end."""
        return self.stop is not None and bool(self.stop.number)

    def wait(self, function, *args):
        """function(*args); None where a signal ends it: see Stop.wait."""
        return self.stop.wait(function, *args) if self.stop else function(*args)

    def when(self):
        """The time of the command in its time zone, as an aware datetime: what "tomorrow" is counted from."""
        from datetime import datetime

        from . import dates

        here = dates.now_in(self.tz)
        # Not the present: what was said before midnight, or waited in a queue, means the day it was said.
        try:
            said = datetime.fromisoformat(self.command["ts"])
            said = said.astimezone(here.tzinfo) if said.tzinfo else here
        except (KeyError, TypeError, ValueError, OverflowError):
            return here
        # Nobody said anything where the calendar ends, and counting from there would leave it.
        return said if 1970 <= said.year < 9999 else here

    def change(self, op: str, path: str, function):
        """An act in itself: changes a file between intent and outcome, and yields the `file` record.

        function() -> (bytes before, sha256 before, bytes after, sha256 after), the first two None for a file that was not there; it does the
        change, whole or not at all, or raises OSError or Failure.
        """
        intent = self.audit(op, path)
        yield intent
        try:
            before, digest_before, size, digest = function()
        except (OSError, Failure) as bad:
            yield self.audit(op, path, outcome="failed", intent=intent)
            if isinstance(bad, Failure):
                raise
            raise Failure(f"cannot write '{path}': {bad.strerror}", CANTCREAT) from None
        yield self.audit(op, path, outcome="done", intent=intent)
        yield self.make("file", op=op, path=path, bytes_before=before, bytes=size, sha256_before=digest_before, sha256=digest)


class Past:
    """What the archive tells of earlier runs. Where it can't be read it tells nothing, and warn(reason) says so, once.

    connect() -> a read-only connection, or Failure; get(connection, ids) -> {id: record}.
    """

    def __init__(self, connect, get, warn):
        self.connect, self.get, self.warn = connect, get, warn
        self.db = None

    def find(self, ids) -> dict:
        """{id: record} of those that are there."""
        return self._ask(self.get, ids) or {}

    def ended(self, routes) -> set:
        """Which of these routes have a result there, in small letters."""
        return self._ask(_ended, routes) or set()

    def _ask(self, function, ids):
        from sqlite3 import Error

        if self.connect is None:
            return None
        try:
            if self.db is None:
                self.db = self.connect()
            return function(self.db, ids)
        except (Failure, Error) as bad:
            self.connect = None
            self.warn(f"{bad}; earlier commands and results are not looked up")
            return None


def _ended(db, routes) -> set:
    import orjson

    # By the index on parent; the one on tag would go through all results there are.
    question = "SELECT r.parent FROM json_each(?) AS j CROSS JOIN records AS r ON r.parent = j.value WHERE +r.tag = 'result'"
    question += " AND json_type(r.line, '$.origin') IS NULL"  # an imported one ended nothing here
    # The index tells letters apart; a UUID, and who claims by it, does not.
    wanted = {form for own in routes for form in (own, own.lower(), own.upper())}
    return {row[0].lower() for row in db.execute(question, (orjson.dumps(list(wanted)).decode(),))}


def strictest(*given):
    """The most private of some values of `privacy`: what is not "cloud", else "cloud", else None where none of them says."""
    said = [value if type(value) is str else "local" for value in given if value is not None]
    return next((value for value in said if value != "cloud"), "cloud" if said else None)


def _is_local(block: dict) -> bool:
    """True for a block that says that it is local, or holds one that does."""
    return block.get("privacy", "cloud") != "cloud" or any(map(_is_local, block.get("@blocks", ())))


def user() -> str:
    """The name of who this runs for; the number where there is no name."""
    global _user
    if not _user:
        import pwd

        try:
            _user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            _user = str(os.getuid())
    return _user


_user = ""


class Runner:
    """One run of acting on routes. What it needs of its own floor it is given:

    claims: a state.Claims. append(records): puts records into the journal, synced, or raises Failure. find(ids) -> {id: record} from the
    archive; ended(ids) -> the keys of those routes that have a result there; both find nothing where there is no archive. kinds: {"skill": f, "cmd": f…} with
    f(name) -> the fields of an Act, or Failure. fail(Failure) and bug(exception): tell a person, and count. default(): the privacy of what says nothing.
    consent(target, record): "" where this target may get what is not local, else the reason why not. stop: a Stop. again: also what was
    claimed before. missed(Failure): as fail, for what an earlier run left. kept: what is handed on is journaled by that, and nobody can send it again.
    queue(job, end): keeps on the disk what can't be had now and returns when it is tried next, in words; raises Failure (73, 74, 75, 77).
    """

    def __init__(
        self, stage, *, claims, append, find, ended, kinds, fail, bug, default, consent=None, stop=None, again=False, missed=None, kept=False, queue=None
    ):  # fmt: skip
        self.stage, self.claims, self.append, self.find, self.ended, self.kinds = stage, claims, append, find, ended, kinds
        self.fail, self.bug, self.default, self.consent, self.stop, self.again = fail, bug, default, consent, stop, again
        self.missed, self.kept, self.queue = missed or fail, kept, queue
        self.recent: dict = {}  # what a route may need of the last records: commands and tasks by id, and which routes had a result
        self.count = 0

    def batch(self, batch):
        """Acts on a batch of (record, line).

        Yields pieces, lists of (record, line), each of which is to be handed on before the next is asked for. Stops in between where a
        signal came.
        """
        batch, routes = self._routes(batch)
        if not routes:
            self._see(batch)
            yield batch
            return
        try:
            mine, lost = self._claim(routes)
        except Failure as bad:
            self.fail(bad)
            self._see(batch)
            yield self._unclaimed(batch, routes, bad)
            return
        piece: list = []
        # Of a route that stands twice in one read the first is acted on.
        at_hand = {key(route): route for route in reversed(routes)}
        theirs = set(map(id, at_hand.values()))
        ahead = 0  # the last claim whose result is in `piece`
        for gone in lost:
            # Nothing that is read caused these, so they stand before all of it.
            if gone not in at_hand:
                piece += self._interrupted(lost[gone][1], lost[gone][2])
                ahead = lost[gone][0]
        for rec, line in batch:
            self._see(((rec, line),))
            piece.append((rec, line))
            if id(rec) not in theirs:
                continue
            if (gone := lost.pop(key(rec), None)) is not None:
                piece += self._interrupted(rec, gone[2])
                ahead = gone[0]
            elif (n := mine.pop(key(rec), None)) is not None:
                for made in self._perform(rec):
                    if made is None:
                        # What was put off until now is handed on before this claim counts as begun, and this one is not done yet. A route
                        # that is in the journal is never free again, though: nobody would bring it to its end.
                        self.claims.begin(n if self.kept else ahead)
                        yield piece
                        self.claims.end(ahead)
                        self.claims.begin(n)
                        piece = []
                    else:
                        piece.append((made, encode(made)))
                ahead = n
                if self.stop and self.stop.number:
                    break
        self.claims.begin(ahead)
        yield piece
        self.claims.end(ahead)

    def plan(self, batch):
        """Yields for each route of a batch that would be acted on (record, what would be done, in words)."""
        batch, routes = self._routes(batch)
        ids = [key(route) for route in routes]
        held = set() if self.again or not ids else self.claims.known(ids) | self.ended(ids)
        wanted = {id(route) for route in {key(route): route for route in reversed(routes)}.values() if key(route) not in held}
        for rec, line in batch:
            self._see(((rec, line),))
            if id(rec) in wanted:
                try:
                    job = self._job(rec)
                    act = self._check(job)
                    said = act.plan(job) if act and act.plan else words(job)
                    yield rec, f"would do {repr(job.target) if job.hidden else said}"
                except Failure as bad:
                    yield rec, f"would not do '{rec.get('target')}': {bad.message}"

    def _routes(self, batch) -> tuple[list, list]:
        """The batch with its routes stamped, and the routes that may be acted on."""
        made, routes, ended = [], [], set()
        for rec, line in batch:
            tag = rec.get("@tag")
            if tag == "result":
                ended.add((text(rec.get("parent")) or "").lower())
            elif tag == "route" and rec.get("provisional") is not True and not is_history(rec):
                stamped = stamp(rec)
                if stamped is not rec:
                    rec, line = stamped, encode(stamped)
                routes.append(rec)
            made.append((rec, line))
        if routes:
            routes = [rec for rec in routes if key(rec) not in ended and ("result", key(rec)) not in self.recent]
        return made, routes

    def _see(self, batch) -> None:
        for rec, _ in batch:
            self.count += 1
            tag = rec.get("@tag")
            if tag in ("command", "task", "result"):
                own = text(rec.get("parent" if tag == "result" else "id"))
                if own is None:
                    continue
                name = ("result", own.lower()) if tag == "result" else own
                self.recent.pop(name, None)
                self.recent[name] = (self.count, rec if tag != "result" else None)
                while self.recent[oldest := next(iter(self.recent))][0] < self.count - RECENT:
                    del self.recent[oldest]

    def _claim(self, routes) -> tuple[dict, dict]:
        """Claims routes: ({id: n}, {id: (n, route, privacy)} of lost ones). What the archive holds a result of is neither."""
        # For the case that state.db was lost, or that the records come from another machine of the same owner.
        over = set() if self.again else self.ended([rec["id"] for rec in routes])
        wanted = [(key(rec), text(rec.get("thread")), text(rec.get("target")), text(rec.get("privacy"))) for rec in routes if key(rec) not in over]
        mine, gone = self.claims.take(wanted, again=self.again)
        for own, _, target, _ in wanted if self.again else ():
            if own in self.claims.queued:
                self.fail(Failure(f"'{target}' waits in the queue, and is not done twice", TEMPFAIL, f"ftai-queue retry {own}"))
        over = self.ended([row[0] for row in gone]) if gone else ()
        lost = {}
        for own, n, thread, target, privacy in gone:
            if own not in over:
                lost[own] = n, {"@tag": "route", "id": own, "thread": thread or own, "target": target}, privacy
        return mine, lost

    def _unclaimed(self, batch, routes, bad: Failure) -> list:
        """The batch with an error behind each route that could not even be claimed: it may be sent again."""
        piece = []
        for rec, line in batch:
            piece.append((rec, line))
            if any(rec is route for route in routes):
                made = make("error", self.stage, parent=rec, class_="policy" if bad.code == NOPERM else "storage", message=bad.message, recovery="retry")
                piece.append((made, encode(made)))
        return piece

    def _interrupted(self, route, privacy) -> list:
        target = text(route.get("target"))
        said = f"'{target}' was interrupted: its process went away, and what it did is not known"
        self.missed(Failure(said, SOME, f"{self.stage} --again repeats it"))
        common = {"parent": route, "target": target, "privacy": route.get("privacy", privacy)}
        error = make("error", self.stage, parent=route, class_="interrupted", message=said, where=target, recovery="ask", privacy=common["privacy"])
        result = make("result", self.stage, **common, status="failed", body=f"'{target}' was interrupted, and may be half done.")
        return [(error, encode(error)), (result, encode(result))]

    def _job(self, route) -> Job:
        """The job of a route. Raises Orphan where its command is not to be found, or is none to act on."""
        parent = text(route.get("parent"))
        seen = self.recent.get(parent) if parent else None
        command = seen[1] if seen and seen[0] >= self.count - RECENT else self.find([parent]).get(parent) if parent else None
        if command is None or command.get("@tag") not in ("command", "task"):
            raise Orphan(f"the command '{parent}' of a route is neither in the last {RECENT} records nor in the archive")
        return Job(self.stage, route, command, self.default(), self.stop, self.consent)

    def _check(self, job: Job) -> Act | None:
        """What acts on the target, None for `ask`. A route grants nothing: target, privacy, consent and deadline are looked at here.

        Raises Failure: 78 and 69 for a target that does not exist, or not yet; 77 where it may not be, or nothing would be left of it; 75 past the
        deadline.
        """
        target = job.target
        kind, _, name = target.partition(":")
        if job.left() < 0:
            raise Failure(f"'{target}' was to be done before {job.route['deadline']}", TEMPFAIL)
        if target == "ask":
            return None
        if kind not in self.kinds:
            if kind in LATER:
                raise Failure(f"'{target}': nothing here can do this yet", UNAVAILABLE, "ftai-doctor tells what is set up")
            raise Failure(f"'{target}' is no target: expected ask, skill:NAME, cmd:NAME or model:NAME", CONFIG)
        act = Act(*self.kinds[kind](name))
        if act.journaled and job.hidden:
            said = f"'{target}' keeps what it is told in the journal alone, and --no-log keeps it out of there"
            raise Failure(f"{said}: ask again without --no-log, or have it noted in a file", NOPERM)
        if act.reach == "cloud" and not act.own and (bad := job.barred(target)):
            raise bad
        return act

    def _perform(self, route):
        """Yields the records of one route, and None where what was yielded is to be handed on before the work goes on."""
        if type(route.get("target")) is not str:
            route = route | {"target": "?"}
        try:
            job = self._job(route)
        except Orphan as bad:
            yield from self._refused(Job(self.stage, route, {}, self.default()), bad, "orphan")
            return
        end = yield from self._done(job)
        if end.status == "queued" and (end := (yield from self._queued(job, end))).status != "queued":
            yield job.make("result", target=job.target, status=end.status, ms=job.ms(), body=end.body)

    def drained(self, route: dict, command: dict):
        """Acts on a route that waited in the queue, whoever claimed it: yields its records, and returns its End.

        `audit` records are journaled when they are yielded, and None says, as in _perform(), that what was yielded is to be handed on first.
        There is no result among them where the status of the End is `queued`: it could not be had this time either.
        """
        return (yield from self._done(Job(self.stage, route, command, self.default(), self.stop, self.consent)))

    def _done(self, job):
        """Checks and does one job: yields its records and returns its End. The result is one of them, unless it has to wait."""
        try:
            act = self._check(job)
        except Failure as bad:
            yield from self._refused(job, bad, KINDS.get(bad.code, "input"))
            return End("refused" if bad.code == NOPERM else "failed", sentence(bad), bad.code)
        if act is None:
            end = End("asked", question(job.route))
            yield job.make("result", target="ask", status="asked", ms=0, body=end.body)
            return end
        effects: list = []
        if act.own:
            job.about = job.route["id"]  # until there is an attempt of its own
        end = yield from self._steps(job, _whole(job, act.act), None if act.own else effects)
        if not act.own:
            attempt = job.make("attempt", target=job.target, n=1, status=end.status, class_=end.kind, ms=job.ms(), **end.fields)
            yield attempt | {"id": job.attempt, "ts": job.began}
            yield from effects
        if end.status != "queued":
            yield job.make("result", target=job.target, status=end.status, ms=job.ms(), body=end.body or None)
        return end

    def _queued(self, job, end):
        """Puts what can't be had now into the queue, between intent and outcome; returns `end`, or what it ends with where that can't be."""
        intent = job.audit("queue", job.route["id"])
        said = f"'{job.target}' cannot be had now: {end.body}"
        try:
            if self.queue is None or job.hidden:
                raise Failure(f"{said}{', and what --no-log keeps out of the journal is not queued either' if job.hidden else ''}", TEMPFAIL)
            self.append([intent])
            yield intent
            yield None
            when = self.queue(job, end)
        except Failure as bad:
            yield self._trouble(job, bad)
            return End("failed", sentence(bad), bad.code, KINDS.get(bad.code, "storage"))
        outcome = job.audit("queue", job.route["id"], outcome="queued", intent=intent)
        try:
            self.append([outcome])
        except Failure as bad:
            yield self._trouble(job, bad)
        yield outcome
        self._tell(job, Failure(f"{said}; it is queued and tried again {when}", TEMPFAIL, "ftai-queue drain"))
        yield job.error(end.kind or "network", said, recovery="queue", then="ftai-queue drain")
        return end

    def _steps(self, job, steps, effects):
        """Runs an act to its End. Its audit records are journaled and passed on as they come; the others are put into `effects`.

        Without `effects` all of them are passed on as they come, a `partial` and what stands before it at once.
        """
        bad, said = None, False
        late = effects if effects is not None else []
        try:
            while True:
                rec = next(steps) if bad is None else steps.throw(bad)
                bad = None
                if rec["@tag"] != "audit":
                    if effects is not None:
                        effects.append(rec)
                        continue
                    yield rec
                    if rec["@tag"] == "partial":
                        yield None
                    continue
                # Nobody should wait for what is ready while this one works; and what is not handed on yet must not count as begun with it.
                if rec["outcome"] == "intended":
                    yield None
                try:
                    self.append([rec])
                except Failure as trouble:
                    # Without its record there is to be no effect; where it is there already, the work goes on and the trouble is told.
                    if rec["outcome"] == "intended":
                        bad = trouble
                        continue
                    late.append(self._trouble(job, trouble))
                yield rec
                if rec["outcome"] == "intended":
                    yield None
        except StopIteration as ended:
            end = ended.value if type(ended.value) is End else End("done", ended.value or "")
        except Failure as trouble:
            refused = trouble.code == NOPERM
            late.insert(0, self._trouble(job, trouble))
            end, said = End("refused" if refused else "failed", sentence(trouble), trouble.code, late[0]["class"]), True
        except Exception as trouble:  # one route that trips over a bug does not cost the others
            # Where it was is no text of the job; what the exception says may be.
            self.bug(RuntimeError(type(trouble).__name__).with_traceback(trouble.__traceback__) if job.hidden else trouble)
            late.insert(0, job.error("bug", f"a bug in the program: {type(trouble).__name__}"))
            end, said = End("failed", "This failed because of a bug in the program.", SOFTWARE, "bug"), True
        if effects is None:
            yield from late
        if end.code and not said and end.status != "queued":
            first = end.body.strip().splitlines()[0].rstrip(".") if end.body.strip() else end.status
            first = first[:1].lower() + first[1:] if first[1:2].islower() else first
            self._tell(job, Failure(f"'{job.target}': {first}", end.code, end.fields.get("hint") or ""))
        return end

    def _tell(self, job, bad: Failure) -> None:
        self.fail(Failure(f"'{job.target}' failed; why is said in its records alone", bad.code) if job.hidden else bad)

    def _trouble(self, job, bad: Failure) -> dict:
        self._tell(job, bad)
        kind = KINDS.get(bad.code, "input")
        return job.error(kind, bad.message, recovery="retry" if kind == "storage" else "ask" if kind == "input" else "none", then=bad.hint or None)

    def _refused(self, job, bad: Failure, kind: str):
        """The records of a route that nobody tried to do: there is no attempt, so the error is the route's."""
        self._tell(job, bad)
        yield job.error(kind, bad.message, then=bad.hint or None) | {"parent": job.route["id"]}
        end = End("refused" if bad.code == NOPERM else "failed", sentence(bad), bad.code, kind)
        yield job.make("result", target=job.target, status=end.status, ms=0, body=end.body)
        return end


def key(route: dict) -> str:
    """What a route is claimed by: a UUID is the same in capital letters."""
    return route["id"].lower()


def text(value) -> str | None:
    """`value` where it is a string: a route that came in may hold anything."""
    return value if type(value) is str else None


def words(job: Job) -> str:
    """Target and slots on one line."""
    return " ".join([f"'{job.target}'", *(f"{name}={value!r}" for name, value in job.slots.items())])


def sentence(bad: Failure) -> str:
    """A failure as an answer."""
    said = bad.message[:1].upper() + bad.message[1:]
    return said if said.endswith((".", "?", "!")) else said + "."


def question(route: dict) -> str:
    """What to say where no rule fits: the nearest phrases, which the route carries as `hint` (a string or a list), and who may be asked in the `cloud`."""
    near = route.get("hint") or []
    near = [near] if type(near) is str else [phrase for phrase in near if type(phrase) is str]
    said = "I don't know how to do that." + (" Did you mean: " + ", or ".join(f"'{phrase}'" for phrase in near) + "?" if near else "")
    return said + (f" {cloud} may be asked with --privacy cloud." if (cloud := text(route.get("cloud"))) else "")


def _seconds(until) -> float:
    """Seconds until a time of ISO 8601; what is no time is over."""
    from datetime import UTC, datetime

    try:
        at = datetime.fromisoformat(until)
    except (TypeError, ValueError):
        return -1.0
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def _whole(job: Job, act):
    """An act, whose answer goes into a file of its own where it is too long for a record; what is to be kept nowhere is cut."""
    end = yield from act(job)
    if type(end) is not End:
        end = End("done", end or "")
    data = end.body.encode()
    if len(data) <= (HIDDEN if job.hidden else BODY):
        return end
    if job.hidden:
        said = f"[cut here: the answer has {len(data)} bytes, and --no-log keeps it out of a file]"
        return end._replace(body=f"{data[:HIDDEN].decode(errors='ignore')}\n{said}")
    import hashlib

    from . import paths

    path = os.path.join(paths.make(os.path.join(paths.data(), "answers")), f"{job.about}.txt")

    def save():
        stream.save(path, data)
        return None, None, len(data), hashlib.sha256(data).hexdigest()

    yield from job.change("write", path, save)
    return end._replace(body=f"The answer has {len(data)} bytes and is in '{path}'.")
