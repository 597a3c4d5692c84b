"""What ftai-doctor tells of what is kept here and of the providers of models: journal, keys, who can be asked, what was spent, what waits.

Changes nothing, and asks nobody but the providers themselves whether they can be reached, and those in the cloud only where the owner agreed.
"""

import os
from collections import namedtuple

from . import health, specs
from .errors import IOERR, Failure
from .health import FAIL, OK, WARN, Check
from .record import Malformed, decode

SECONDS = 2.0  # that a look at a provider may take
COUNT = 100  # attempts that the figures are of
NEAR = 0.8  # of a budget: what is more is told
SEALED = "[sealed:"  # what a text begins with that is not opened here
Lack = namedtuple("Lack", "code what hint")  # what is missing, for the program, in words, and what to type


# --- journal and keys


def written(seen: dict):
    """The journal: whole where it is small, its end where it is large. Leaves its position and its newest time in `seen`."""
    from . import chain, journal, paths, verification

    folder = os.path.join(paths.where("state"), "journal")
    if not os.path.exists(os.path.join(folder, chain.LIVE)):
        yield Check(OK, "journal", "nothing was written yet")
        return
    seen["position"] = position = journal.position(folder)
    for _, rec in journal.read(folder, after=position - 1):
        seen["newest"] = rec.get("ts")
    if health.size(*(entry.path for entry in os.scandir(folder))) > health.WHOLE:
        yield Check(OK, "journal", f"{position} records, its end is whole (ftai-log --verify checks all of it)")
        if os.path.exists(os.path.join(folder, ".suspect")):
            yield Check(WARN, "journal", "an error of fsync left its end in doubt; the next record that is written settles it")
        return
    summary, troubles = verification.verify(folder)
    for trouble in troubles[:5]:
        yield Check(FAIL, "journal", f"{trouble.path}:{trouble.line}: {trouble.message}", "ftai-doctor --accept" if trouble.damage else "ftai-log --verify")
    for note in summary.notes:
        yield Check(WARN, "journal", note, "ftai-doctor --accept")
    if not troubles:
        yield Check(OK, "journal", f"{summary.records} records in {summary.segments} segment{'s' * (summary.segments != 1)}, whole")


def kept():
    """The keys that are kept; nothing is asked for their values."""
    from . import keys, redact, secret

    for trouble, hint in redact.troubles():
        yield Check(FAIL, "keys", trouble, hint)
    try:
        entries = specs.load("config")["key"]
    except Failure:
        return  # told with the specs
    yield from health.keys(list(keys.listed(secret.listed(), {entry["name"]: entry for entry in entries})))


# --- who could be asked


def models(reader: str):
    """Which models could be asked now by `reader`, a stage; nobody is asked."""
    try:
        config = specs.load("config")
    except Failure:
        return  # told with the specs
    yield from health.providers(ready(config, **ways(config, reader)))


def ways(config: dict, reader: str) -> dict:
    """What lacks() needs."""
    from importlib.util import find_spec

    from . import providers, secret, state

    def there(kind):
        return "" if all(map(find_spec, ("mlx", "mlx_lm") if kind == "mlx" else (kind,))) else providers.PACKAGES[kind]

    try:
        agreed = state.consents(config["consent"])
    except Failure:
        agreed = {}  # what can't be read is no consent
    known = {key["name"]: key for key in secret.listed()}
    return {"known": known, "there": there, "agreed": agreed, "consent": lambda name: state.consent(name, None, config["consent"]), "reader": reader}


def used(config: dict) -> list[tuple[dict, list[dict]]]:
    """(provider, its models) of the config spec, those that a model uses or that have a key, in the order of the spec."""
    found = [(entry, [model for model in config["model"] if model["provider"] == entry["name"]]) for entry in config["provider"]]
    return [(entry, models) for entry, models in found if models or "key" in entry]


def lacks(provider: dict, models, *, known: dict, agreed, consent, there, reader: str) -> list[Lack]:
    """What is missing before a provider can be asked for these models; nothing where it could be asked now.

    known: {name of a key: what secret.listed() says of it}. consent(name): "" or why not; agreed: the names that something was said of.
    there(kind): "" or the packages that are missing. reader: who asks, and needs the key.
    """
    made = []
    if "blocked" in provider or (models and all("blocked" in model for model in models)):
        made.append(Lack("off", "turned off by a project", ""))
    if missing := there(provider["kind"]):
        made.append(Lack("package", f"the package {missing.split()[0]} is missing", f"pip install {missing}"))
    if "key" in provider:
        key = known.get(provider["key"], {})
        if not key.get("source"):
            made.append(Lack("key", "no key", f"ftai-keys set {provider['key']}"))
        elif reader not in key["readers"]:
            made.append(Lack("reader", f"{reader} may not read its key", f"ftai-keys grant {provider['key']} {reader}"))
    if cloud(provider):
        # A model is asked for by its own name too, where the owner said something of that.
        for name in (provider["name"], *(model["name"] for model in models if model["name"] in agreed)):
            if why := consent(name):
                what = "no consent" if name == provider["name"] else f"no consent to '{name}'"
                made.append(Lack("consent" if name == provider["name"] else "model", f"{what}: {why}", f"ftai-keys consent grant {name}"))
    if provider["kind"] == "mlx":
        made += [Lack("folder", f"there is no folder '{folder(model)}'", "") for model in models if not os.path.isdir(folder(model))]
    return made


def closed(missing: list[Lack]) -> str:
    """Why a provider is not even looked at, "" where it is: what is in the cloud is left alone until the owner agreed to it."""
    return next((lack.what for lack in missing if lack.code in ("off", "package", "consent")), "")


def cloud(provider: dict) -> bool:
    """True where what it gets leaves the machine: all that does not say that it is local."""
    return provider.get("privacy") != "local"


def folder(model: dict) -> str:
    """Where a model of kind mlx is."""
    return os.path.expanduser(str(model.get("id", model["name"])))


def ready(config: dict, **how) -> list[tuple[str, list[Lack]]]:
    """(name of a model, what is missing) for each that is set up. how: as lacks() has it."""
    providers = {entry["name"]: entry for entry in config["provider"]}
    gone = lambda model: [Lack("off", f"the provider '{model['provider']}' is turned off", "")]  # noqa: E731
    return [
        (model["name"], lacks(providers[model["provider"]], [model], **how) if model["provider"] in providers else gone(model)) for model in config["model"]
    ]


def probed(providers: list[dict], probe, seconds: float) -> dict[str, tuple[bool, str, int]]:
    """{name: (whether it can be reached, how that showed, milliseconds)}, all asked at once. probe(provider, key, seconds): as providers.probe()."""
    from threading import Thread
    from time import perf_counter

    found: dict = {}

    def look(entry):
        began = perf_counter()
        try:
            up, how = probe(entry, None, seconds)
        except Failure as bad:
            up, how = False, bad.message
        found[entry["name"]] = up, _bare(how, entry["name"]), round((perf_counter() - began) * 1000)

    threads = [Thread(target=look, args=(entry,), daemon=True) for entry in providers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# --- what was


def recent(path: str, config: dict) -> dict[str, dict]:
    """{name of a provider: fields} of its last 100 attempts in the archive: attempts, failed, median_ms, p95_ms (of those that were answered), and
    of the last that failed error_at, error_class and error, what its error record says. Raises Failure 74.
    """
    import sqlite3

    owner = {f"model:{model['name']}": model["provider"] for model in config["model"]}
    found: dict[str, list[dict]] = {entry["name"]: [] for entry, _ in used(config)}
    if not os.path.exists(path):
        return {}
    try:
        db = health.reader(path)
        # From the newest back; what has no provider asked nobody.
        for (line,) in db.execute("""SELECT line FROM records WHERE tag = 'attempt' AND instr(line, '"provider":') ORDER BY seq DESC"""):
            rec = decode(line.encode())
            if "origin" in rec:
                continue  # imported: it was asked elsewhere
            name = rec.get("provider")
            # A name that is sealed can be told by the target, as long as the config names that.
            name = owner.get(str(rec.get("target"))) if str(name).startswith(SEALED) else name
            if type(name) is str and len(found.get(name, range(COUNT))) < COUNT:
                found[name].append(rec)
                if all(len(attempts) >= COUNT for attempts in found.values()):
                    break
        return {name: figures(attempts, lambda own: _said(db, own)) for name, attempts in found.items() if attempts}
    except (sqlite3.Error, Malformed) as bad:
        raise Failure(f"the archive cannot be read: {bad}", IOERR, "ftai-archive rebuild") from None


def _said(db, attempt) -> str | None:
    """What the last error of an attempt says, None for what can't be read here."""
    row = db.execute("SELECT line FROM records WHERE parent = ? AND tag = 'error' ORDER BY seq DESC LIMIT 1", (attempt,)).fetchone()
    message = decode(row[0].encode()).get("message") if row else None
    return message if type(message) is str and not message.startswith(SEALED) else None


def figures(attempts: list[dict], said) -> dict:
    """The fields of recent() for the attempts of one provider, the newest first. said(id): what the error of an attempt says, or None."""
    times = sorted(rec["ms"] for rec in attempts if rec.get("status") == "done" and type(rec.get("ms")) is int)
    bad = [rec for rec in attempts if rec.get("status") == "failed"]
    made: dict = {"attempts": len(attempts), "failed": len(bad)}
    if times:
        made |= {"median_ms": times[(len(times) - 1) // 2], "p95_ms": times[-(-len(times) * 95 // 100) - 1]}
    if bad:
        made |= {"error_at": bad[0].get("ts"), "error_class": bad[0].get("class"), "error": said(bad[0].get("id"))}
    return made


# --- what is told: (fields of a `report` record, checks for people) of each, or a Check alone of what can't be told


def standing(reader: str):
    """The functions that tell how providers, budgets and the queue stand. reader: the stage that asks models. Raises Failure 78."""
    config = specs.load("config")
    return [lambda: _providers(config, reader), lambda: _budgets(config), _queue]


def _providers(config: dict, reader: str):
    from . import limits, paths, providers

    how = ways(config, reader)
    found = [(entry, models, lacks(entry, models, **how)) for entry, models in used(config)]
    now: dict = {}
    past: dict = {}
    try:
        now = {entry["name"]: limits.about(entry) for entry, _, _ in found}
    except Failure as bad:
        yield Check(FAIL, "check", bad.message, bad.hint)
    try:
        past = recent(os.path.join(paths.where("state"), "archive.db"), config)
    except Failure as bad:
        yield Check(FAIL, "check", bad.message, bad.hint)
    reached = probed([entry for entry, _, missing in found if not closed(missing)], providers.probe, SECONDS)
    for entry, models, missing in found:
        name, key = entry["name"], how["known"].get(entry.get("key"), {})
        yield provider(entry, models, missing, reached=reached.get(name), key=key, now=now.get(name, {"breakers": {}}), past=past.get(name, {}))


def _budgets(config: dict):
    from . import limits

    _, spent = limits.standings([], config["budget"])
    yield from (budget(entry, spent[entry["name"]]) for entry in config["budget"])


def _queue():
    from . import waiting

    yield queue(waiting.items(), waiting.is_due)


def provider(entry: dict, models: list[dict], missing: list[Lack], *, reached, key: dict, now: dict, past: dict) -> tuple[dict, list]:
    """One provider. missing: lacks(). reached: of probed(), None where it was not asked. key: of secret.listed(), {} without one. now:
    limits.about(). past: of recent(), {} where there is nothing.
    """
    name, names, codes = entry["name"], [model["name"] for model in models], {lack.code for lack in missing}
    why = closed(missing)
    down = reached is not None and not reached[0]
    shut = any(one.state == "open" for one in now["breakers"].values())
    level = FAIL if down and not missing else WARN if missing or down or shut else OK
    fields: dict = {"subject": "provider", "name": name, "kind": entry["kind"], "privacy": "cloud" if cloud(entry) else "local", "models": names}
    fields |= {"level": level, "missing": [lack.what for lack in missing] or None}
    fields |= {"reached": reached[0], "probe": reached[1], "probe_ms": reached[2]} if reached else {"probe": f"not asked: {why}"}
    fields |= {"key": entry.get("key"), "key_source": key.get("source") or None, "consent": "consent" not in codes if cloud(entry) else None}
    fields |= {field: now[field] for field in ("requests_left", "tokens_left", "wait") if field in now} | past
    fields["blocks"] = [
        {"@tag": "breaker", "model": model, "state": one.state, "failures": one.failures, "reason": _bare(one.reason, name)}
        | ({"until": one.until} if one.until else {})
        for model, one in now["breakers"].items()
    ]
    said = f"was not asked: {why}"
    if reached:
        said = f"can be reached ({reached[1]}, {reached[2]} ms)" if reached[0] else f"cannot be reached: {reached[1]}"
    parts = [said]
    parts += [lack.what for lack in missing if lack.what != why]
    if key.get("source"):
        parts.append(f"key {'in the' if key['source'] in ('keychain', 'file') else 'from the'} {key['source']}")
    if fields["consent"]:
        parts.append("consent given")
    parts += [f"'{model}' {_breaker(one, name)}" for model, one in now["breakers"].items()]
    parts.append(f"models: {' '.join(names) or 'none'}")
    hint = " && ".join(dict.fromkeys(lack.hint for lack in missing if lack.hint))
    checks = [Check(level, f"provider {name}", "; ".join(parts), hint)]
    if told := _figures(fields):
        checks.append(Check(OK, f"provider {name}", "; ".join(told)))
    return fields, checks


def _breaker(one, name: str) -> str:
    how = {"open": f"is left alone until {one.until}", "half": "is tried again with the next call"}.get(one.state, "is asked")
    return f"{how} after {one.failures} failure{'s' * (one.failures != 1)} in a row: {_bare(one.reason, name)}"


def _bare(reason: str, name: str) -> str:
    """What is said of a provider, without its name in front."""
    return reason.removeprefix(f"'{name}': ")


def _figures(fields: dict) -> list[str]:
    """What the numbers of a provider say."""
    get, told = fields.get, []
    if get("attempts"):
        times = f", median {get('median_ms')} ms, p95 {get('p95_ms')} ms" if "median_ms" in fields else ""
        told.append(f"{get('failed')} of the last {get('attempts')} attempts failed{times}")
    left = [f"{fields[f'{what}_left']} {what}" for what in ("requests", "tokens") if f"{what}_left" in fields]
    if left:
        told.append(f"{' and '.join(left)} left of this minute")
    if get("wait"):
        told.append(f"takes no more for {get('wait'):.0f} s")
    if get("error_at"):
        told.append(f"last error {get('error_at')}: {get('error') or get('error_class') or 'unknown'}")
    return told


def budget(entry: dict, spent: dict) -> tuple[dict, list]:
    """One budget. spent: what limits.standings() says of it."""
    of = {part: entry[part] for part in ("provider", "model", "agent") if part in entry}
    over = entry.get("over", "cheaper")
    level = WARN if spent["used"] >= NEAR * spent["value"] else OK
    detail = f"{spent['used']:g} of {spent['value']:g} {spent['unit']} a {spent['per']}"
    detail += "".join(f", {part} {name}" for part, name in of.items())
    if spent["used"] >= spent["value"]:
        detail += f": used up, so {'no model is' if over == 'stop' else f'{over} models are'} asked"
    return {"subject": "budget", "name": entry["name"], **spent, **of, "over": over, "level": level}, [Check(level, f"budget {entry['name']}", detail)]


def queue(items: list, due) -> tuple[dict, list]:
    """The queue. items: waiting.items(); due(item): waiting.is_due()."""
    alive, dead = [item for item in items if item.state != "dead"], [item for item in items if item.state == "dead"]
    oldest = min((item.queued for item in alive), default=None)
    level = WARN if dead else OK
    fields = {"subject": "queued", "waiting": len(alive), "due": sum(map(due, alive)), "dead": len(dead), "oldest": oldest, "level": level}
    detail = f"{len(alive)} waiting, {fields['due']} due{f', the oldest since {oldest}' if oldest else ''}; {len(dead)} dead letter{'s' * (len(dead) != 1)}"
    return fields, [Check(level, "queue", detail, "ftai-queue list, then ftai-queue retry --dead or drop" if dead else "")]


# --- how fast a model is


HEAD = "bits       load   tokens/s      memory       files"


def size(count: int) -> str:
    return f"{count / 1024 / 1024:.1f} MiB"


def line(row: dict) -> str:
    """A line of a table, below HEAD, of what providers.bench() yields."""
    name = "fp16" if row["bits"] == 16 else str(row["bits"])
    if "error" in row:
        return f"{name:4}  {row['error']}"
    return f"{name:4} {row['load_ms']:7g} ms {row['tokens_s']:10g} {size(row['memory']):>11} {size(row['size']):>11}"
