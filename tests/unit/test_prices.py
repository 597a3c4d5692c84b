"""What a call costs: the owner's prices, the shipped table beneath them, and sums that add nothing that doesn't belong together."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import prices, specs
from serenamaster.errors import Failure
from serenamaster.prices import LOCAL, Row

genai_prices = pytest.importorskip("genai_prices", reason="GENAI-PRICES IS MISSING: its table is not tried")

ROOT = Path(__file__).parents[2]
DAY = "2026-11-20"
SONNET = "claude-sonnet-4-5"


@pytest.fixture(scope="module", autouse=True)
def table(tmp_path_factory):
    """The shipped table, flattened once for all tests here."""
    kept = os.environ.get("FTAI_HOME")
    os.environ["FTAI_HOME"] = str(tmp_path_factory.mktemp("table"))
    made = prices._table()
    os.environ.pop("FTAI_HOME") if kept is None else os.environ.update(FTAI_HOME=kept)
    return made


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, table):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setitem(prices.loaded, "table", table)
    specs.forget()
    yield tmp_path
    specs.forget()


def own(home, body: str, folder: str = "ftai/config") -> Path:
    """Writes the owner's prices."""
    path = home / folder / "serenamaster.prices.ftai"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"@ftai v2.0\n\n{body}\n")
    path.chmod(0o600)
    old = time.time() - 10
    os.utime(path, (old, old))
    specs.forget()
    return path


def price(name="p", vendor="acme", model='model: "m"', input=2, output=8, currency="USD", **more) -> str:  # noqa: A002
    fields = [f'name: "{name}"', f'vendor: "{vendor}"', model, f"input: {input}", f"output: {output}", f'currency: "{currency}"']
    fields += [f"{key}: {value}" for key, value in more.items()]
    return "@price\n" + "".join(f"  {field}\n" for field in fields) + "@end\n\n"


# --- costs

money = st.decimals(0, 1000, places=6)
tokens = st.integers(0, 10**9)
plain = st.builds(lambda own, again, out: Row(own, again, out, "USD", "x"), money, st.none() | money, money)


@given(plain, tokens, tokens, tokens)
def test_a_cost_is_the_exact_sum(row, fresh, cached, out):
    again = row.input if row.cached is None else row.cached
    exact = (row.input * fresh + again * cached + row.output * out) / 1_000_000
    # 10**9 tokens at 1000 with 6 digits have 16 digits before the point and 12 behind: all of them are in a Decimal of 28.
    assert prices.cost(row, fresh, cached, out) == float(exact.quantize(Decimal("1e-9"), ROUND_HALF_EVEN))


@given(plain, tokens, tokens, tokens, tokens, tokens, tokens)
def test_more_tokens_never_cost_less(row, fresh, cached, out, a, b, c):
    assert prices.cost(row, fresh, cached, out) <= prices.cost(row, fresh + a, cached + b, out + c)


@given(plain, tokens, tokens)
def test_cached_tokens_are_counted_once(row, cached, out):
    """What was cached costs its own price, or that of input, and is in no other part of the sum."""
    alone = prices.cost(row._replace(output=Decimal(0)), 0, cached, out)
    assert alone == prices.cost(Row(0, row.input if row.cached is None else row.cached, 0, "USD", "x"), 0, cached, 0)
    without = prices.cost(row._replace(cached=None), 0, cached, 0)
    assert without == prices.cost(row, cached, 0, 0)


tier = st.tuples(st.integers(0, 10**6), money, st.none() | money, money, st.none() | money)
tiered = st.builds(
    lambda row, call, write, tiers: row._replace(call=call, write=write, tiers=tuple(sorted(tiers, key=lambda each: each[0]))),
    plain,
    st.decimals(0, 1, places=3),
    st.none() | money,
    st.lists(tier, max_size=3),
)


@given(tiered, st.integers(0, 2 * 10**6), st.integers(0, 10**6), st.data())
def test_nothing_costs_more_than_the_largest(row, total, out, data):
    cached = data.draw(st.integers(0, total))
    written = data.draw(st.integers(0, total - cached))
    assert prices.cost(row, total - cached, cached, out, written) <= prices.largest(row, total, out)


def test_the_largest_is_reached():
    row = Row(Decimal(1), Decimal("0.1"), Decimal(2), "USD", "x", 0, Decimal(4), ((100, Decimal(8), None, Decimal(9), None),))
    assert prices.largest(row, 10**6, 10**6) == 17.0
    assert prices.largest(row._replace(tiers=()), 10**6, 10**6) == 6.0


def test_it_is_rounded_up_and_the_cost_to_the_nearest():
    row = Row(Decimal("0.0001"), None, Decimal(0), "USD", "x")
    assert prices.cost(row, 1, 0, 0) == 0.0
    assert prices.largest(row, 1, 0) == 1e-9


@pytest.mark.parametrize(("total", "fresh", "cached"), [(200_000, 0.6, 0.06), (200_001, 1.200006, 0.1200006)])
def test_a_tier_holds_for_all_tokens_where_the_input_is_above_its_start(total, fresh, cached):
    row = prices.row("anthropic", SONNET, DAY)
    assert prices.cost(row, total, 0, 0) == fresh
    # What was cached is input too, and chooses the tier.
    assert prices.cost(row, 0, total, 0) == cached


def test_what_is_unknown_is_not_nothing():
    row = Row(Decimal(1), None, None, "USD", "x")
    assert prices.cost(None, 1, 1, 1) is None
    assert prices.largest(None, 1, 1) is None
    assert prices.cost(row, 5, 5, 1) is None
    assert prices.largest(row, 5, 1) is None
    assert prices.cost(row, 5, 5, 0) == 0.00001
    assert prices.cost(row._replace(input=None), 1, 0, 0) is None


@pytest.mark.parametrize("count", [None, -1, 2.5, "7", True, 10**16])
def test_what_is_no_count_is_unknown(count):
    row = Row(1, 1, 1, "USD", "x")
    assert prices.cost(row, count, 0, 0) is None
    assert prices.cost(row, 0, 0, count) is None
    assert prices.largest(row, count, 0) is None


def test_no_report_of_the_cache_is_none_of_it():
    assert prices.cost(Row(1, 1, 1, "USD", "x"), 10**6, None, 0) == 1.0


def test_local_costs_nothing_whatever_is_known():
    assert prices.cost(LOCAL, None, None, None) == 0.0
    assert prices.largest(LOCAL, 10**9, 10**9) == 0.0
    assert LOCAL == (0, 0, 0, "", "local", 0, None, ())


def test_what_is_written_into_the_cache_has_its_own_price():
    row = prices.row("anthropic", SONNET, DAY)
    assert prices.cost(row, 1000, 0, 0, written_tokens=400) == (600 * 3 + 400 * 3.75) / 10**6
    assert prices.cost(row, 10, 0, 0, written_tokens=400) == 10 * 3.75 / 10**6
    assert prices.cost(row._replace(write=None), 1000, 0, 0, written_tokens=400) == 0.003


# --- the owner's prices


def test_the_owners_prices_go_first(home):
    shipped = prices.row("anthropic", SONNET, DAY)
    own(home, price(vendor="Anthropic", model=f'model: "{SONNET.upper()}"', input=2.5, output="12.50", cached=0.25))
    row = prices.row("anthropic", SONNET, DAY)
    assert row == Row(Decimal("2.5"), Decimal("0.25"), Decimal("12.50"), "USD", "user/serenamaster.prices.ftai:3")
    assert row != shipped
    # Of other models, and of other vendors, it says nothing.
    assert prices.row("anthropic", "claude-opus-4-1", DAY).source.startswith("genai-prices ")
    assert prices.row("openrouter", "anthropic/claude-sonnet-4.5", DAY).source.startswith("genai-prices ")


def test_without_an_own_price_for_cached_tokens_they_cost_what_input_does(home):
    own(home, price())
    row = prices.row("acme", "m", DAY)
    assert row.cached is None
    assert prices.cost(row, 0, 10**6, 0) == 2.0


def test_the_exact_name_goes_before_patterns(home):
    own(home, price("any", model='pattern: "m.*"', input=1) + price("large", model='pattern: "m-large.*"', input=5) + price("exact", input=2))
    assert prices.row("acme", "m", DAY).input == 2
    # The first pattern in the order of the file.
    assert prices.row("acme", "M-Large-7", DAY).input == 1
    assert prices.row("acme", "xm", DAY) is None
    assert prices.row("acme", "", DAY) is prices.row("", "m", DAY) is None


def test_a_pattern_is_for_the_whole_name(home):
    own(home, price(model='pattern: "gpt-[0-9]"'))
    assert prices.row("acme", "gpt-5", DAY)
    assert prices.row("acme", "gpt-5-mini", DAY) is None
    own(home, price(model='pattern: "GPT-[0-9]"'))
    assert prices.row("acme", "gpt-5", DAY)


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        ("2026-06-30T23:59:59.999Z", None),
        ("2026-07-01", 2),
        ("2026-07-31T23:59:59.999Z", 2),
        ("2026-08-01T00:00:00Z", 3),
        ("2026-08-01T01:30:00+02:00", 2),
        (datetime(2026, 8, 1), 3),
        (datetime(2026, 7, 31, 12, tzinfo=UTC), 2),
        ("2030-01-01", 3),
        ("yesterday", None),
        (None, None),
        (5, None),
    ],
)
def test_a_price_holds_from_day_to_day_both_included(home, when, wanted):
    own(home, price("july", valid_from='"2026-07-01"', valid_to='"2026-07-31"') + price("later", input=3, valid_from='"2026-08-01"'))
    row = prices.row("acme", "m", when)
    assert (row and row.input) == wanted


def test_where_no_own_price_holds_the_table_does(home):
    own(home, price(vendor="anthropic", model=f'model: "{SONNET}"', valid_to='"2026-01-31"'))
    assert prices.row("anthropic", SONNET, "2026-01-31").source.startswith("user/")
    assert prices.row("anthropic", SONNET, "2026-02-01").source.startswith("genai-prices ")


def test_other_units_and_currencies(home):
    own(home, price(input=0.002, output="0.008", unit=1000, currency="CHF") + price("b", model='model: "b"', unit=3))
    row = prices.row("acme", "m", DAY)
    assert (row.input, row.output, row.currency) == (2, 8, "CHF")
    assert prices.cost(row, 500_000, 0, 250_000) == 3.0
    assert prices.cost(prices.row("acme", "b", DAY), 3, 0, 0) == 2.0


def test_layers(home):
    own(home, price() + price("q", model='model: "q"'))
    project = home / "work" / ".ftai"
    own(home, price(input=9) + price("r", model='model: "r"') + '@price\n  name: "q"\n  off: true\n@end', "work/.ftai")
    # A project that nobody trusts sets no prices, and takes none away.
    assert [prices.row("acme", name, DAY) and prices.row("acme", name, DAY).input for name in ("m", "q", "r")] == [2, 2, None]
    assert len(specs.load("prices")["notes"]) == 3
    specs.trust(str(project))
    assert [prices.row("acme", name, DAY) and prices.row("acme", name, DAY).input for name in ("m", "q", "r")] == [9, None, 2]
    assert prices.row("acme", "m", DAY).source == "project/serenamaster.prices.ftai:3"


def test_the_shipped_file_holds_no_price():
    assert specs.load("prices") == {"price": [], "gone": {}, "notes": []}


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        (price(input='"cheap"'), 7, "'input' is 'cheap', expected a number from 0 like 0.25"),
        (price(input=-1), 7, "expected a number from 0 like 0.25"),
        (price(output="1e3"), 8, "expected a number from 0 like 0.25"),
        (price(output="12."), 8, "expected a number from 0 like 0.25"),
        (price(cached="true"), 10, "expected a number from 0 like 0.25"),
        (price(currency="dollars"), 9, "'currency' is 'dollars', expected three capital letters like USD"),
        (price(unit=0), 10, "'unit' is 0"),
        (price(unit=1.5), 10, "'unit' is 1.5, expected a whole number"),
        (price(valid_from='"July"'), 10, "'valid_from' is 'July', expected a day like 2026-11-22"),
        (price(valid_to='"2026-02-30"'), 10, "expected a day like 2026-11-22"),
        (price(valid_from='"2026-07-02"', valid_to='"2026-07-01"'), 11, "'valid_to' is 2026-07-01, before 'valid_from'"),
        (price(pattern='"m.*"'), 10, "needs 'model', or 'pattern' in its place"),
        (price(model='summary: "x"'), 6, "unknown key 'summary'"),
        (price(model='source: "x"'), 3, "needs 'model', or 'pattern' in its place"),
        (price(model='pattern: "m("'), 6, "pattern 'm(' is no regular expression"),
        (price().replace('  vendor: "acme"\n', ""), 3, "'@price' without 'vendor'"),
        (price() + price(), 13, "a second '@price' of this name"),
        ('@cost\n  name: "x"\n@end', 3, "unknown tag '@cost', expected @price"),
    ],
)
def test_a_broken_spec_names_its_line(home, body, line, said):
    path = own(home, body)
    with pytest.raises(Failure) as bad:
        prices.row("acme", "m", DAY)
    assert bad.value.code == 78
    assert bad.value.message.startswith(f"{path}:{line}: ")
    assert said in bad.value.message


# --- the shipped table


def test_a_row_names_where_it_is_from():
    from importlib.metadata import version

    row = prices.row("anthropic", "claude-sonnet-4-5-20250929", DAY)
    assert row.source == f"genai-prices {version('genai-prices')} anthropic/claude-sonnet-4-5"
    assert (row.input, row.cached, row.output, row.currency) == (3, Decimal("0.3"), 15, "USD")


def test_what_the_table_does_not_know_is_unpriced():
    assert prices.row("anthropic", "nobody-has-this", DAY) is None
    assert prices.row("nobody", SONNET, DAY) is None
    # It lists models of subscriptions, and has no price of them.
    assert any(entry["id"] == "gpt-4o" for provider in prices._table()["providers"] if provider["id"] == "github-copilot" for entry in provider["models"])
    assert prices.row("github-copilot", "gpt-4o", DAY) is None


def test_each_model_costs_what_the_package_itself_says():
    """All models of the table, at times on both sides of its dates, by the package's own calculation, which counts cached tokens as input too."""
    from genai_prices.data import providers
    from genai_prices.types import Usage

    seen = different = 0
    for provider in providers:
        for model in provider.models:
            for when in (datetime(2025, 9, 1, 2, 30, tzinfo=UTC), datetime(2027, 2, 1, 17, tzinfo=UTC)):
                row = prices.row(provider.id, model.id, when)
                found = provider.find_model(model.id, all_providers=providers)
                # Some it does not find by their own id; and where a pattern of an earlier entry matches as well, it takes that one, and we the exact one.
                different += found not in (None, model)
                found = model
                held = found.get_prices(when)
                if row is None:
                    assert held.input_mtok is None and held.output_mtok is None, (provider.id, model.id)
                    continue
                for fresh, cached, out in ((1000, 500, 300), (300_000, 0, 10), (0, 700_000, 1)):
                    ours = prices.cost(row, fresh, cached, out)
                    if ours is None:
                        assert held.input_mtok is None or held.output_mtok is None
                        continue
                    usage = Usage(input_tokens=fresh + cached, cache_read_tokens=cached, output_tokens=out)
                    theirs = found.calc_price(usage, provider, genai_request_timestamp=when).total_price
                    assert ours == float(theirs.quantize(Decimal("1e-9"), ROUND_HALF_EVEN)), (provider.id, model.id, when)
                    seen += 1
    assert seen > 8_000
    assert different < 10


def test_names_are_found_as_the_package_finds_them():
    snapshot = genai_prices.data_snapshot.get_snapshot()
    names = [
        ("openai", "GPT-4o"),
        ("openai", "gpt-5-20250807"),
        ("azure", "gpt-4o-2024-08-06"),
        ("google", "claude-sonnet-4-5@20250929"),
        ("Bedrock", "claude"),
    ]
    names += [("anthropic", "claude-opus-4-1-20250805"), ("together_ai", "meta-llama/Llama-3-8b-chat-hf"), ("xai", "grok-3"), ("mistralai", "codestral-latest")]
    for vendor, model in names:
        try:
            wanted = snapshot.find_provider_model(model, None, vendor, None)[1].id
        except LookupError:
            wanted = None
        row = prices.row(vendor, model, DAY)
        assert (row and row.source.partition("/")[2]) == wanted, (vendor, model)


def test_a_new_price_holds_from_the_beginning_of_its_day():
    """Each change of a price in the table, on both sides of its midnight in UTC, by the package's own choice."""
    from genai_prices.data import providers

    seen = changed = 0
    for provider in providers:
        for model in provider.models:
            for each in model.prices if isinstance(model.prices, list) else ():
                if hasattr(each.constraint, "start_date"):
                    begin = datetime.combine(each.constraint.start_date, datetime.min.time(), UTC)
                    rows = [prices.row(provider.id, model.id, when) for when in (begin - timedelta(microseconds=1), begin)]
                    wanted = [model.get_prices(when).input_mtok for when in (begin - timedelta(microseconds=1), begin)]
                    base = [getattr(price, "base", price) for price in wanted]
                    assert [row and row.input for row in rows] == base, (provider.id, model.id, begin)
                    seen, changed = seen + 1, changed + (base[0] != base[1])
    assert seen > 100 and changed > 20


@pytest.mark.parametrize(("hour", "wanted"), [(0, False), (1, True), (4, False), (6, True), (10, False)])
def test_prices_by_the_time_of_day(hour, wanted):
    """deepseek's hours, as the table has them."""
    row = prices.row("deepseek", "deepseek-flash", datetime(2026, 11, 20, hour, tzinfo=UTC))
    night = prices.row("deepseek", "deepseek-flash", datetime(2026, 11, 20, 23, tzinfo=UTC))
    assert (row != night) is wanted


@pytest.mark.parametrize(("time", "wanted"), [("23:00", True), ("00:30", True), ("12:00", False), ("22:00", True), ("02:00", False)])
def test_hours_may_have_midnight_between_them(time, wanted):
    assert prices._holds(["22:00:00", "02:00:00"], datetime.fromisoformat(f"2026-11-20T{time}:00+00:00")) is wanted


def test_the_exact_name_goes_before_the_patterns_of_the_table_too(monkeypatch):
    """The package itself takes the first entry that matches."""
    at = lambda number: [[None, [[str(number), None, "1", None], "0", []]]]  # noqa: E731
    models = [
        ("all", ["starts_with", "m"]),
        ("x", ["or_", [["contains", "none"], ["equals", "M-1"]]]),
        ("M-2", ["contains", "none"]),
        ("y", ["ends_with", "9"]),
    ]
    listed = [{"id": own, "match": match, "prices": at(number)} for number, (own, match) in enumerate(models)]
    seller = {"id": "seller", "url": "https://x", "match": None, "others": [], "models": [{"id": "m-1", "match": ["equals", "m-1"], "prices": at(7)}]}
    provider = {"id": "v", "url": "https://x", "match": ["contains", "vee"], "others": ["seller"], "models": listed}
    monkeypatch.setitem(prices.loaded, "table", {"version": "1", "made": "", "providers": [provider, seller]})
    found = {name: prices.row("V", name, DAY).source for name in ("m-1", "m-2", "m-3", "a9", "A-9")}
    assert found == {name: f"genai-prices 1 v/{own}" for name, own in zip(found, ("x", "M-2", "all", "y", "y"), strict=True)}
    assert prices.row("a-vee", "m-1", DAY).input == 1
    assert prices.row("v", "b", DAY) is None
    assert prices.age() is None


def test_a_kind_of_clause_that_is_new_matches_nothing():
    assert not prices._fits(["sounds_like", "gpt"], "gpt")


@pytest.mark.parametrize(
    ("provider", "wanted"),
    [
        ({"name": "anthropic", "kind": "anthropic"}, "anthropic"),
        ({"name": "work", "kind": "openai"}, "openai"),
        ({"name": "router", "kind": "openai", "url": "https://openrouter.ai/api/v1"}, "openrouter"),
        ({"name": "gateway", "kind": "openai", "url": "https://llm.example.org/v1"}, "gateway"),
        ({"name": "ours", "kind": "openai"}, "ours"),
        ({"name": "here", "kind": "mlx"}, "here"),
    ],
)
def test_the_name_that_a_provider_has_its_prices_by(home, provider, wanted):
    own(home, price(vendor="Ours"))
    assert prices.vendor(provider) == wanted


# --- loading it


GUARD = """
import sys
def guard(event, args):
    if event.startswith("socket."):
        print("socket:", event, args); sys.stdout.flush()
        import os; os._exit(9)
sys.addaudithook(guard)
"""


def python(home, code: str) -> subprocess.CompletedProcess:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "FTAI_HOME": str(home / "ftai"), "PYTHONPATH": str(ROOT / "lib")}
    return subprocess.run([sys.executable, "-c", GUARD + code], env=env, cwd=home, capture_output=True, text=True, check=False)


def test_no_network_is_touched_cold_or_warm(home):
    code = "from serenamaster import prices\nprint(prices.row('anthropic', 'claude-sonnet-4-5', '2026-11-20').input)\n"
    code += "print(prices.age() is not None, 'genai_prices' in sys.modules)"
    assert python(home, code).stdout == "3\nTrue True\n"
    # From the cache, the package itself is not even imported.
    assert python(home, code).stdout == "3\nTrue False\n"
    # The control: the guard sees what would be the package's own update.
    seen = python(home, "import genai_prices.update_prices as u\nwith u.UpdatePrices() as up: up.wait()")
    assert seen.returncode == 9 and "socket:" in seen.stdout


def test_nothing_is_loaded_before_a_price_is_asked(home):
    ran = python(
        home,
        "from serenamaster import prices\nprices.cost(prices.LOCAL, 1, 1, 1)\nprint([n for n in sys.modules if n in ('genai_prices', 'pydantic', 'decimal')])",
    )
    assert ran.stdout == "[]\n"


def test_without_the_package_only_own_prices_are_known(home, monkeypatch):
    own(home, price())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(prices.loaded, "table")
    assert prices.age() is None
    assert prices.row("anthropic", SONNET, DAY) is None
    assert prices.row("acme", "m", DAY).input == 2
    assert prices.vendor({"name": "work", "kind": "openai"}) == "work"


def test_the_age_is_that_of_the_newest_price_that_held_when_it_was_installed(monkeypatch, tmp_path):
    from genai_prices import data

    today = datetime.now(UTC).date()
    assert prices.age() == (today - datetime.fromisoformat(prices._table()["made"]).date()).days >= 0
    place = tmp_path / "data.py"
    place.touch()

    def made(days_ago):
        then = (datetime.now(UTC) - timedelta(days=days_ago)).timestamp()
        os.utime(place, (then, then))
        return prices._flat(str(place))["made"]

    starts = [
        each.constraint.start_date.isoformat()
        for provider in data.providers
        for model in provider.models
        if isinstance(model.prices, list)
        for each in model.prices
        if hasattr(each.constraint, "start_date")
    ]
    assert made(0) == max(day for day in starts if day <= today.isoformat())
    assert made(200) == max(day for day in starts if day <= (today - timedelta(days=200)).isoformat())
    # Files that were given a time long before there was a table.
    assert made(20_000) == made(0)


# --- sums


def attempt(**fields) -> dict:
    base = {"@tag": "attempt", "status": "done", "model": "m", "provider": "acme", "ts": "2026-11-20T10:00:00.000Z"}
    return base | {"input_tokens": 100, "cached_tokens": 10, "output_tokens": 5} | fields


charge = st.fixed_dictionaries(
    {"status": st.sampled_from(["done", "failed", "cancelled"]), "model": st.sampled_from(["a", "b"]), "input_tokens": tokens | st.none()},
    optional={"cost": st.floats(0, 100).map(lambda number: round(number, 9)), "currency": st.sampled_from(["USD", "EUR", "CHF"])},
)


@given(st.lists(charge))
def test_sums_lose_nothing_and_mix_nothing(records):
    records = [attempt(**fields) for fields in records]
    groups = prices.spent(records, lambda rec: rec["model"])
    total = prices.spent(records, lambda rec: "all").get("all", {"calls": 0, "failed": 0, "unpriced": 0, "input_tokens": 0, "cost": {}})
    for key in ("calls", "failed", "unpriced", "input_tokens"):
        assert sum(sums[key] for sums in groups.values()) == total[key]
    assert total["calls"] == len(records)
    assert total["unpriced"] == sum("cost" not in rec for rec in records)
    for currency in ("USD", "EUR", "CHF"):
        exact = sum((Decimal(str(rec["cost"])) for rec in records if "cost" in rec and rec.get("currency") == currency), Decimal(0))
        assert sum(sums["cost"].get(currency, 0) for sums in groups.values()) == total["cost"].get(currency, 0) == exact


def test_a_failure_that_used_nothing_is_no_unpriced_call_and_one_that_cost_is_counted():
    bare = dict.fromkeys(("input_tokens", "cached_tokens", "output_tokens"))
    found = [
        attempt(status="failed", **bare),
        attempt(status="failed"),
        attempt(status="cancelled", **bare),
        attempt(status="failed", cost=0.5, currency="USD"),
    ]
    sums = prices.spent(found, lambda rec: "all")["all"]
    assert (sums["calls"], sums["failed"], sums["unpriced"], sums["cost"]) == (4, 4, 2, {"USD": Decimal("0.5")})


@pytest.mark.parametrize("amount", ["5", -1, None, True, float("nan"), float("inf"), 1e300, [1]])
def test_what_is_no_amount_is_not_added(amount):
    assert prices.paid(attempt(cost=amount, currency="USD")) is None


def test_an_amount_without_a_currency_is_added_to_none_that_has_one():
    assert prices.paid(attempt(cost=1)) == (1, "?")
    assert prices.paid(attempt(cost=0, currency="")) == (0, "")
    assert prices.paid(attempt(cost=1, currency=["USD"])) is None


def test_repricing(home):
    own(home, price(vendor="openai", model='model: "m"'))
    work = {"name": "work", "kind": "openai", "privacy": "cloud"}
    assert prices.repriced(attempt(provider="work"), {"work": work}) == (0.00026, "USD")
    # Today's tables, for the day of the call.
    assert prices.repriced(attempt(provider="work", model="gpt-5"), {"work": work}) == ((100 * 1.25 + 10 * 0.125 + 5 * 10) / 10**6, "USD")
    # One that the spec has no more is known by its name.
    assert prices.repriced(attempt(provider="openai"), {}) == (0.00026, "USD")
    assert prices.repriced(attempt(provider="work"), {}) is None
    assert prices.repriced(attempt(provider="work", model=None), {"work": work}) is None
    assert prices.repriced(attempt(provider=["work"]), {"work": work}) is None
    assert prices.repriced(attempt(provider="work", ts="then"), {"work": work}) is None
    # Anything but `cloud` is local.
    assert prices.repriced(attempt(provider="here"), {"here": {"name": "here", "kind": "openai"}}) == (0, "")
    assert prices.repriced(attempt(provider="gone", price_row="local"), {}) == (0, "")
