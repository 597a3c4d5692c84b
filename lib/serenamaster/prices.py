"""What a call costs: by the owner's prices spec, and beneath it by the table that the package genai-prices ships. See ftai-report(1).

The table is 1.5 MB of Python that brings pydantic and a web client with it: it is flattened once into the cache, without the network,
and read from there.
"""

import os
import re
from collections import namedtuple

from . import specs

# Prices of a million tokens (None: not known). call: of the call itself. write: of what the provider puts into its cache (None: as input).
# tiers: (start, input, cached, output, write), rising: these prices hold for all tokens where the call has more than `start` of input.
Row = namedtuple("Row", "input cached output currency source call write tiers", defaults=(0, None, ()))
LOCAL = Row(0, 0, 0, "", "local")

MILLION = 1_000_000
MOST = 10**15  # tokens: what says more is no count
DIGITS = 9  # behind the point, of a cost
PACKAGE = "genai-prices"
# Where the table has what a row holds.
PARTS = ("input_mtok", "cache_read_mtok", "output_mtok", "cache_write_mtok")
TOKENS = ("input_tokens", "cached_tokens", "output_tokens")
COUNTED = ("calls", "failed", "unpriced", *TOKENS)
NONE: dict = {"version": "", "made": "", "providers": []}

loaded: dict = {}  # what this process has read of the table


# --- asking


def row(vendor: str, model: str, when) -> Row | None:
    """The prices of a model at a time (a datetime, or text of RFC 3339; a day is its beginning in UTC); None where nobody knows them.

    vendor: see vendor(). The owner's prices go first, then the shipped table; in each of them the exact name, then the patterns, whatever
    the case. Raises Failure (78) for a broken prices spec.
    """
    moment = _instant(when)
    if moment is None or not model or not vendor:
        return None
    vendor, model = vendor.lower(), model.lower()
    return _own(vendor, model, moment.date().isoformat()) or _shipped(vendor, model, moment)


def vendor(provider: dict) -> str:
    """By which name a provider of the config spec has its prices: its own, where the prices spec or the table knows that, else that of the
    table for its URL, else its kind, if it has no URL; its own again where nothing is known.
    """
    name, url = provider["name"], provider.get("url", "")
    if any(entry["vendor"].lower() == name.lower() for entry in specs.load("prices")["price"]) or _provider(name.lower()):
        return name
    if not url:
        return provider["kind"] if _provider(provider["kind"].lower()) else name
    return next((other["id"] for other in _table()["providers"] if re.match(other["url"], url)), name)


def cost(row: Row | None, input_tokens: int | None, cached_tokens: int | None, output_tokens: int | None, written_tokens: int = 0) -> float | None:
    """What a call costs, to 9 digits; None where that is not known: no row, no price for what was used, no count.

    cached_tokens are not among input_tokens, as they have a price of their own (that of input where there is none); written_tokens are.
    """
    if row is None or row.source == LOCAL.source:
        return None if row is None else 0.0
    fresh, cached, output, written = (_count(number) for number in (input_tokens, cached_tokens or 0, output_tokens, written_tokens))
    if fresh is None or cached is None or output is None or written is None:
        return None
    written = min(written, fresh)
    price = (row.input, row.cached, row.output, row.write)
    for start, *tier in row.tiers:
        price = tuple(tier) if fresh + cached > start else price
    own, again, out, write = price
    pairs = [(own, fresh - written), (own if again is None else again, cached), (out, output), (own if write is None else write, written)]
    if any(each is None and number for each, number in pairs):
        return None
    return _rounded(row, pairs, "ROUND_HALF_EVEN")


def largest(row: Row | None, input_tokens: int, output_tokens: int) -> float | None:
    """The most that a call with so many tokens can cost: nothing of it read from the cache, all of it put there, the dearest tier; rounded up."""
    if row is None or row.source == LOCAL.source:
        return None if row is None else 0.0
    fresh, output = _count(input_tokens), _count(output_tokens)
    rates = [(row.input, row.cached, row.output, row.write), *(tier[1:] for tier in row.tiers)]
    own = [each for first, again, _, write in rates for each in (first, again, write) if each is not None]
    out = [each for _, _, each, _ in rates if each is not None]
    if fresh is None or output is None or (fresh and row.input is None) or (output and not out):
        return None
    return _rounded(row, [(max(own, default=0), fresh), (max(out, default=0), output)], "ROUND_CEILING")


def age() -> float | None:
    """Days since the shipped table was made, as far as it tells: by the newest price in it that held when it was installed. None: not known."""
    from datetime import UTC, date, datetime

    made = _table()["made"]
    return (datetime.now(UTC).date() - date.fromisoformat(made)).days if made else None


def _count(number) -> int | None:
    return number if type(number) is int and 0 <= number <= MOST else None


def _rounded(row: Row, pairs, way: str) -> float:
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 100  # else a large amount would be rounded before its time
        total = Decimal(row.call) + sum((price * number for price, number in pairs if price is not None), Decimal(0)) / MILLION
        return float(total.quantize(Decimal(1).scaleb(-DIGITS), way))


def _instant(when):
    """A time as a datetime in UTC; None for what is none."""
    from datetime import UTC, datetime

    try:
        made = datetime.fromisoformat(when) if type(when) is str else when
        return (made if made.tzinfo else made.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, AttributeError):
        return None


# --- what was spent


def spent(attempts, name, now=None) -> dict:
    """{name(attempt): sums} of these `attempt` records: calls, failed, unpriced, the tokens, and `cost`, a dict of currency -> Decimal.

    Different currencies are never added. unpriced: calls that used something and whose cost is not known; one that failed before that costs
    nothing. now(attempt): what it would cost by today's prices, as (cost, currency) or None, counted in `unpriced_now` and `cost_now`.
    """
    groups: dict = {}
    for rec in attempts:
        sums = groups.setdefault(name(rec), dict.fromkeys(COUNTED, 0) | {"cost": {}} | ({"unpriced_now": 0, "cost_now": {}} if now else {}))
        tokens = {key: _count(rec.get(key)) or 0 for key in TOKENS}
        for key, number in tokens.items():
            sums[key] += number
        sums["calls"] += 1
        sums["failed"] += rec.get("status") != "done"
        used = any(tokens.values()) or rec.get("status") in ("done", "cancelled")
        _add(sums, "", paid(rec), used)
        if now:
            _add(sums, "_now", now(rec), used)
    return groups


def _add(sums: dict, which: str, charge, used: bool) -> None:
    from decimal import Decimal

    if charge is None:
        sums["unpriced" + which] += used
    elif charge[0] or charge[1]:
        held = sums["cost" + which]
        held[charge[1]] = held.get(charge[1], Decimal(0)) + Decimal(str(charge[0]))


def paid(rec: dict) -> tuple[float, str] | None:
    """What an attempt says that it cost, and the currency ("" for what is local); None where it says nothing of the kind."""
    amount, currency = rec.get("cost"), rec.get("currency", "")
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount <= MOST or type(currency) is not str:
        return None
    return amount, currency or ("?" if amount else "")


def repriced(rec: dict, providers: dict) -> tuple[float, str] | None:
    """What an attempt would cost by today's prices, those of its own date; None where they are not known. providers: {name: provider} of the spec."""
    name, model = rec.get("provider"), rec.get("model")
    known = providers.get(name) if type(name) is str else None
    if rec.get("price_row") == LOCAL.source or (known and known.get("privacy") != "cloud"):
        return 0, ""
    if type(name) is not str or type(model) is not str:
        return None
    found = row(vendor(known) if known else name, model, rec.get("ts"))
    amount = cost(found, rec.get("input_tokens"), rec.get("cached_tokens"), rec.get("output_tokens"))
    return None if amount is None or found is None else (amount, found.currency)


# --- the owner's prices


def _own(vendor: str, model: str, day: str) -> Row | None:
    held = [
        entry
        for entry in specs.load("prices")["price"]
        if entry["vendor"].lower() == vendor and entry.get("valid_from", day) <= day <= entry.get("valid_to", day)
    ]
    found = next((entry for entry in held if entry.get("model", "").lower() == model), None)
    found = found or next((entry for entry in held if "pattern" in entry and re.fullmatch(entry["pattern"], model, re.IGNORECASE)), None)
    if found is None:
        return None
    from decimal import Decimal

    # repr() of a number is what stands in the file, 0.1 and not 0.1000000000000000055.
    own, again, out = (Decimal(str(found[key])) * MILLION / found.get("unit", MILLION) if key in found else None for key in ("input", "cached", "output"))
    return Row(own, again, out, found["currency"], found["at"])


# --- the shipped table


def _shipped(vendor: str, model: str, moment) -> Row | None:
    provider = _provider(vendor)
    if provider is None:
        return None
    # A provider that resells names whose models it has; that goes one step and no further.
    others = [other for name in provider["others"] for other in _table()["providers"] if other["id"] == name]
    for name in dict.fromkeys((model, _dashed(model))):
        for seller in (provider, *others):
            found = next((entry for entry in seller["models"] if entry["id"].lower() == name or _equal(entry["match"], name)), None)
            found = found or next((entry for entry in seller["models"] if _fits(entry["match"], name)), None)
            if found:
                return _priced(found, moment, f"{PACKAGE} {_table()['version']} {seller['id']}/{found['id']}")
    return None


def _provider(name: str) -> dict | None:
    providers = _table()["providers"]
    exact = next((provider for provider in providers if provider["id"] == name), None)
    return exact or next((provider for provider in providers if provider["match"] and _fits(provider["match"], name)), None)


def _dashed(model: str) -> str:
    """`gpt-5.2-20251211`, as gateways write it, as the table does: `gpt-5.2-2025-12-11`."""
    return re.sub(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)", r"-\1-\2-\3", model)


def _fits(match: list, text: str) -> bool:
    """Whether a clause of the table matches a name in lower case."""
    kind, what = match
    if kind in ("or_", "and_"):
        return (any if kind == "or_" else all)(_fits(part, text) for part in what)
    if kind == "regex":
        return re.search(what, text) is not None
    what = what.lower()
    return {"equals": text == what, "starts_with": text.startswith(what), "ends_with": text.endswith(what), "contains": what in text}.get(kind, False)


def _equal(match: list, text: str) -> bool:
    """Whether a clause has this very name in it."""
    kind, what = match
    return any(_equal(part, text) for part in what) if kind == "or_" else kind == "equals" and what.lower() == text


def _priced(entry: dict, moment, source: str) -> Row | None:
    # The last one that holds counts, and the first one where none does, as the package has it.
    found = next((prices for held, prices in reversed(entry["prices"]) if _holds(held, moment)), entry["prices"][0][1] if entry["prices"] else None)
    if not found:
        return None
    from decimal import Decimal

    rates, call, tiers = found
    number = lambda text: None if text is None else Decimal(text)  # noqa: E731
    own, again, out, write = map(number, rates)
    return Row(own, again, out, "USD", source, Decimal(call) / 1000, write, tuple((start, *map(number, tier)) for start, tier in tiers))


def _holds(held: list | None, moment) -> bool:
    """Whether a price holds at a time: always, from a day on, or between two times of each day, which may have midnight between them."""
    if held is None:
        return True
    start, end = held
    if end is None:
        return moment.date().isoformat() >= start
    time = moment.time().isoformat()
    return (start <= time or time < end) if end < start else start <= time < end


def _table() -> dict:
    """The table as plain data: version, made (the day; "" if not known), providers, each with id, url, match, others, models."""
    if "table" not in loaded:
        from importlib.util import find_spec

        found = find_spec("genai_prices")
        path = os.path.join(os.path.dirname(found.origin), "data.py") if found and found.origin else ""
        loaded["table"] = specs.cached(PACKAGE, [("shipped", path)], lambda: _flat(path)) if os.path.exists(path) else NONE
    return loaded["table"]


def _flat(path: str) -> dict:
    """The table of the package, for the cache: another form needs another name there."""
    from datetime import UTC, date, datetime
    from importlib import metadata

    from genai_prices.data import providers

    made: list[dict] = []
    starts: list[str] = []
    for provider in providers:
        models = []
        for model in provider.models:
            listed = model.prices if isinstance(model.prices, list) else [model]
            prices = [[_held(getattr(each, "constraint", None)), _rates(each.prices)] for each in listed]
            starts += [held[0] for held, _ in prices if held and held[1] is None]
            models.append({"id": model.id, "match": _clause(model.match), "prices": prices})
        match = _clause(provider.provider_match) if provider.provider_match else None
        others = provider.fallback_model_providers or []
        made.append({"id": provider.id, "url": provider.api_pattern, "match": match, "others": others, "models": models})
    # The package does not say when it was made. Some prices in it are announced for later, so those from after its installation don't count.
    days = [datetime.now(UTC).date(), datetime.fromtimestamp(os.path.getmtime(path), UTC).date()]
    last = min(day for day in days if day > date(2020, 1, 1)).isoformat()  # some installers set all times to a day long ago
    return {"version": metadata.version(PACKAGE), "made": max((start for start in starts if start <= last), default=""), "providers": made}


def _clause(clause) -> list:
    ((kind, what),) = vars(clause).items()
    return [kind, [_clause(part) for part in what] if isinstance(what, list) else what]


def _held(constraint) -> list | None:
    if constraint is None:
        return None
    if hasattr(constraint, "start_date"):
        return [constraint.start_date.isoformat(), None]
    from datetime import UTC, date, datetime

    times = [datetime.combine(date(2020, 1, 1), time) for time in (constraint.start_time, constraint.end_time)]
    return [(time.astimezone(UTC) if time.tzinfo else time).time().isoformat() for time in times]


def _rates(prices) -> list | None:
    """[prices of PARTS, price of 1,000 calls, [[start, prices of PARTS], …]] of a ModelPrice; None where it has neither input nor output."""
    held = [getattr(prices, part) for part in PARTS]
    if held[0] is None and held[2] is None:
        return None
    at = lambda price, start: next((tier.price for tier in reversed(price.tiers) if tier.start <= start), price.base)  # noqa: E731
    plain = lambda price, start: None if price is None else str(at(price, start) if hasattr(price, "tiers") else price)  # noqa: E731
    starts = sorted({tier.start for price in held if hasattr(price, "tiers") for tier in price.tiers})
    return [[plain(price, -1) for price in held], str(prices.requests_kcount or 0), [[start, [plain(price, start) for price in held]] for start in starts]]
