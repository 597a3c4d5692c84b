"""Calls to providers: the real SDKs against tests/vendor.py in a process of its own. MLX: test_providers_mlx.py."""

import errno
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import vendor as rehearsal
from hypothesis import given, settings
from hypothesis import strategies as st
from serenamaster import execution, providers
from serenamaster.errors import Failure

LIB = Path(providers.__file__).parents[1]
KEY = "sk-" + hashlib.sha256(os.urandom(16)).hexdigest()
MARK = hashlib.sha256(KEY.encode()).hexdigest()[:8]
WAYS = [("anthropic", None), ("openai", "chat"), ("openai", "responses")]
BOTH = [(kind, api, stream) for kind, api in WAYS for stream in (True, False)]
TALK = [
    {"role": "system", "text": "be brief"},
    {"role": "user", "text": "one"},
    {"role": "assistant", "text": "two"},
    {"role": "user", "text": "three"},
]


@pytest.fixture(scope="module")
def server():
    with rehearsal.Process() as process:
        yield process


@pytest.fixture
def vendor(server):
    server.control(reset=True, key=None)
    return server


def provider(vendor, kind="openai", api="chat", **more):
    return {"name": "there", "kind": kind, "url": vendor.url + ("/v1" if kind == "openai" else ""), "api": api, "privacy": "cloud", **more}


def call(vendor, kind="openai", api="chat", stream=True, *, messages=TALK, seconds=120, key=KEY, once=None, wait=None, spec=None, output=50):
    wait = wait or (lambda function, *args: function(*args))
    how = {"key": key, "seconds": seconds, "output": output, "stream": stream, "once": once, "wait": wait}
    return providers.ask(spec or provider(vendor, kind, api), {"name": "small", "id": "small-1"}, messages, **how)


def drain(made):
    """(pieces, what it returned)"""
    pieces = []
    while True:
        try:
            pieces.append(next(made))
        except StopIteration as end:
            return pieces, end.value


def trouble(made) -> providers.Trouble:
    with pytest.raises(providers.Trouble) as bad:
        drain(made)
    bad = bad.value
    assert KEY not in repr(bad) + bad.message
    assert 0 < len(bad.message) <= 300
    assert "\n" not in bad.message and not bad.message.endswith(".")
    return bad


# -- good answers


@pytest.mark.parametrize(("kind", "api", "stream"), BOTH)
def test_an_answer(vendor, kind, api, stream):
    left = {"requests-left": 7, "tokens-left": 900, "reset": 3600}
    vendor.control(script=[{"fault": "ok", "text": "It is three, of course.", "cached": 40, "output": 9, **left}])
    pieces, answer = drain(call(vendor, kind, api, stream))
    assert "".join(pieces) == answer.text == "It is three, of course."
    assert len(pieces) == (6 if stream else 1)
    assert answer.model == {"anthropic": "small-1-20260101"}.get(kind, "small-1-2026-01-01")
    assert (answer.cached_tokens, answer.output_tokens, answer.stop) == (40, 9, "end")
    assert 0 <= answer.input_tokens < 40
    assert (answer.limits["requests_left"], answer.limits["tokens_left"]) == (7, 900)
    assert 3000 < answer.limits["requests_reset"] <= 3600
    assert 3000 < answer.limits["tokens_reset"] <= 3600


@pytest.mark.parametrize(("kind", "api", "stream"), BOTH)
def test_what_is_sent(vendor, kind, api, stream):
    drain(call(vendor, kind, api, stream, once="once-17"))
    (request,) = vendor.wait(done=1)["requests"]
    body, headers = request["body"], request["headers"]
    assert (request["key"], headers["idempotency-key"], headers["accept-encoding"]) == (MARK, "once-17", "identity")
    assert (body["model"], body.get("stream", False)) == ("small-1", stream)
    assert 50 in (body.get("max_tokens"), body.get("max_output_tokens"))
    if api == "responses":
        assert request["path"] == "/v1/responses"
        assert (body["instructions"], body["store"]) == ("be brief", False)
        assert [(part["role"], part["content"]) for part in body["input"]] == [("user", "one"), ("assistant", "two"), ("user", "three")]
    elif api == "chat":
        assert request["path"] == "/v1/chat/completions"
        said = [("system", "be brief"), ("user", "one"), ("assistant", "two"), ("user", "three")]
        assert [(part["role"], part["content"]) for part in body["messages"]] == said
        assert (body.get("stream_options") or {}).get("include_usage", False) == stream


def test_openai_itself_gets_responses_and_others_get_chat(vendor):
    drain(call(vendor, spec=provider(vendor, api=None)))
    assert vendor.wait(done=1)["requests"][0]["path"] == "/v1/chat/completions"
    assert providers.URLS["openai"] == "https://api.openai.com/v1"


@pytest.mark.parametrize("stream", [True, False])
def test_anthropic_caches_system_part_and_history(vendor, stream):
    _, first = drain(call(vendor, "anthropic", None, stream))
    body = vendor.wait(done=1)["requests"][0]["body"]
    mark = {"type": "ephemeral"}
    assert body["system"] == [{"type": "text", "text": "be brief", "cache_control": mark}]
    assert [part["content"][0].get("cache_control") for part in body["messages"]] == [None, mark, None]
    _, second = drain(call(vendor, "anthropic", None, stream))
    assert first.cached_tokens == 0
    assert second.cached_tokens > 0
    # What is written into the cache is paid as input.
    assert first.input_tokens == second.input_tokens + second.cached_tokens
    drain(call(vendor, "anthropic", None, stream, messages=[{"role": "user", "text": "alone"}]))
    assert "cache_control" not in orjson.dumps(vendor.wait(done=3)["requests"][2]["body"]).decode()


@pytest.mark.parametrize(("kind", "api", "stream"), BOTH)
def test_controls_are_taken_out_of_an_answer(vendor, kind, api, stream):
    vendor.control(script=[{"fault": "ok", "text": "a\x00b\x1b[31m\tc\n😀ü", "pieces": 30}])
    pieces, answer = drain(call(vendor, kind, api, stream))
    assert "".join(pieces) == answer.text == "a\ufffdb\ufffd[31m\tc\n😀ü"


@pytest.mark.parametrize(
    ("kind", "api", "stream", "script", "stop"),
    [(*way, "max", "length") for way in BOTH] + [(*way, "refusal:text=No and", "refusal") for way in BOTH if way[1] != "responses"],
)
def test_how_an_answer_stops(vendor, kind, api, stream, script, stop):
    vendor.control(script=script)
    assert drain(call(vendor, kind, api, stream))[1].stop == stop


# -- troubles

STATUSES = [
    ("400", "request"), ("401", "credential"), ("402", "credential"), ("403", "credential"), ("404", "request"), ("408", "timeout"), ("409", "network"),
    ("413", "request"), ("422", "request"), ("429", "rate"), ("500", "network"), ("503", "network"), ("529", "network"), ("418", "unknown"), ("302", "network"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "api"), WAYS)
@pytest.mark.parametrize(("status", "sort"), STATUSES)
def test_a_status(vendor, kind, api, status, sort):
    vendor.control(script=f"{status}*2")
    for stream in (True, False):
        bad = trouble(call(vendor, kind, api, stream))
        assert (bad.kind, bad.status, bad.retry_after, bad.answer) == (sort, int(status), None, None)
        assert status == "302" or bad.limits["requests_left"] == 59
    assert len(vendor.state()["requests"]) == 2, "the SDK tried again"


OTHERS = [
    # script, kind of trouble, whether it is for streams alone
    ("context", "length", False), ("empty", "input", False), ("refusal", "policy", False), ("garbage", "network", False), ("wrong", "network", False),
    ("broken", "network", False), ("utf8", "network", False), ("cut", "network", False), ("eof", "network", False), ("fault", "network", True),
    ("fault:type=rate_limit_error", "rate", True), ("fault:type=authentication_error", "credential", True), ("gzip", "network", False),
    ("reset", "network", False), ("cut:after=3", "network", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "api", "stream", "script", "sort"),
    [(*way, script, sort) for script, sort, streamed in OTHERS for way in BOTH if way[2] or not streamed],
)
def test_another_trouble(vendor, kind, api, stream, script, sort):
    vendor.control(script=script)
    bad = trouble(call(vendor, kind, api, stream))
    assert bad.kind == sort, bad.message
    assert vendor.state()["counts"]["requests"] == 1, "the fault did not fire"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_filter(vendor, api):
    vendor.control(script="filter")
    assert trouble(call(vendor, "openai", api)).kind == "policy"


@pytest.mark.parametrize(
    "words",
    [
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000",
        "Input is too long for requested model.",
    ],
)
def test_words_for_too_long(vendor, words):
    vendor.control(script=[{"fault": "400", "message": words}])
    assert trouble(call(vendor)).kind == "length"


def test_words_that_do_not_mean_too_long(vendor):
    vendor.control(script=[{"fault": "400", "message": "max_tokens: 90000 > 8192, which is the maximum allowed number of output tokens"}])
    assert trouble(call(vendor)).kind == "request"


@pytest.mark.parametrize(("kind", "api"), WAYS)
def test_what_was_known_of_a_cut_answer(vendor, kind, api):
    vendor.control(script="cut:after=2")
    bad = trouble(call(vendor, kind, api))
    assert bad.answer.text == "You said"
    assert bad.answer.model
    assert kind != "anthropic" or bad.answer.input_tokens > 0


@pytest.mark.parametrize(("kind", "api"), WAYS)
@pytest.mark.parametrize(
    ("option", "least", "most"), [("retry-after=3", 3, 3), ("retry-ms=1500", 1.5, 1.5), ("retry-date=30", 28, 31), ("retry-date=-30", 0, 0)]
)
def test_retry_after(vendor, kind, api, option, least, most):
    vendor.control(script=f"429:{option},503:{option}")
    for status in (429, 503):
        begun = time.monotonic()
        bad = trouble(call(vendor, kind, api))
        assert bad.status == status
        # A date comes nearer while it is on its way.
        assert least - ("date" in option) * (time.monotonic() - begun) <= bad.retry_after <= most


def test_a_refused_connection():
    with rehearsal.Process() as gone:
        pass
    for kind, api in WAYS:
        bad = trouble(call(gone, kind, api))
        assert (bad.kind, bad.status) == ("network", 0)
        assert "refused" in bad.message


def test_a_server_that_comes_back():
    with rehearsal.Process() as first:
        assert drain(call(first))[1].text
    assert trouble(call(first)).kind == "network"
    with rehearsal.Process("", "--port", first.url.rpartition(":")[2]) as again:
        assert again.url == first.url
        assert drain(call(first))[1].text


def test_a_redirect_is_not_followed(vendor):
    with rehearsal.Process() as other:
        for kind, api in WAYS:
            vendor.control(script=[{"fault": "302", "to": f"{other.url}/v1/messages"}])
            assert trouble(call(vendor, kind, api)).status == 302
        assert other.state()["counts"]["requests"] == 0


@pytest.mark.parametrize("size", [1, 20_000_000])
def test_a_long_error(vendor, size):
    vendor.control(script=[{"fault": "500", "message": f"{KEY}\n\x1b[31mÄ " * 200, "bytes": size}])
    assert "\x1b" not in trouble(call(vendor)).message


def test_an_error_that_does_not_end(vendor):
    vendor.control(script="500:endless=1:bytes=100000*3")
    for kind, api in WAYS:
        bad = trouble(call(vendor, kind, api))
        assert (bad.kind, bad.status) == ("network", 500)


@given(words=st.text(max_size=400), where=st.integers(0, 400))
def test_a_message_is_one_short_line_without_the_key(words, where):
    said = providers._Call({"name": "there"}, KEY, 1).says(words[:where] + KEY + words[where:])
    assert KEY not in said
    assert len(said) <= 300
    assert len(said.splitlines()) == 1
    assert not any(char < " " for char in said)


def test_a_key_that_cannot_be_sent(vendor):
    for key in ("geheim\nX: y", "schlüssel-123", "trailing-123 "):
        with pytest.raises(providers.Trouble) as bad:
            drain(call(vendor, key=key))
        assert bad.value.kind == "credential"
        assert key.strip() not in bad.value.message
    assert vendor.state()["counts"]["requests"] == 0


@pytest.mark.parametrize("key", [None, ""])
def test_a_server_that_wants_no_key(vendor, key):
    for kind, api in WAYS:
        assert drain(call(vendor, kind, api, key=key))[1].text
    assert {request["key"] for request in vendor.state()["requests"]} == {hashlib.sha256(b"none").hexdigest()[:8]}


def test_an_expired_key(vendor):
    vendor.control(key="another")
    for kind, api in WAYS:
        assert trouble(call(vendor, kind, api)).kind == "credential"


def test_settings_that_cannot_be():
    for spec in ({"name": "x", "kind": "other"}, {"name": "x", "kind": "openai", "url": "ftp://x"}, {"name": "x", "kind": "anthropic", "url": "x"}):
        with pytest.raises(Failure) as bad:
            drain(call(None, spec=spec))
        assert bad.value.code == 78


# -- time, signals, memory


@pytest.mark.parametrize(("kind", "api", "stream"), BOTH)
@pytest.mark.parametrize("script", ["hang", "stall", "drip:seconds=0.02", "slow:seconds=60"])
def test_the_time_is_over(vendor, kind, api, stream, script):
    vendor.control(script=script)

    def wait(take):
        # However long it takes until the server has it, from then on there is little left.
        vendor.wait(requests=1)
        take.__self__.end = min(take.__self__.end, time.monotonic() + 0.3)
        return take()

    bad = trouble(call(vendor, kind, api, stream, wait=wait))
    assert (bad.kind, bad.status) == ("timeout", 0)
    assert vendor.wait(closed=1)["requests"][0]["closed"], "the server does not know that we went away"


def test_no_piece_is_handed_on_once_the_time_is_over():
    """Else a reader who is slower than the server would never see the end of its time."""
    made = providers._Call({"name": "there"}, KEY, -1)
    made.put("piece", "late")
    what, value = made.take()
    assert (what, type(value)) == ("bad", TimeoutError)


def test_the_time_is_over_though_pieces_come_and_come(vendor):
    vendor.control(script="ok:size=4:pieces=300000")
    made = call(vendor)
    assert next(made)
    made.gi_frame.f_locals["call"].end = time.monotonic() + 0.3
    bad = trouble(made)
    assert bad.kind == "timeout"
    assert bad.answer.text
    vendor.wait(closed=1)


@pytest.mark.parametrize(("kind", "api"), WAYS)
def test_a_call_that_is_left_in_the_middle(vendor, kind, api):
    vendor.control(script="stall")
    made = call(vendor, kind, api)
    assert next(made)
    made.close()
    assert vendor.wait(closed=1)["counts"]["done"] == 0


@pytest.mark.parametrize("script", ["hang", "stall", "drip:seconds=0.05"])
def test_a_signal_ends_it_at_once(vendor, script):
    vendor.control(script=script)
    held = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        stop = execution.Stop()
        threading.Thread(target=lambda: (vendor.wait(requests=1), os.kill(os.getpid(), signal.SIGTERM))).start()
        _, answer = drain(call(vendor, seconds=600, wait=stop.wait))
        assert answer is None
        assert stop.number == signal.SIGTERM
    finally:
        for number, was in zip((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), held, strict=True):
            signal.signal(number, was)
    vendor.wait(closed=1)


def test_nothing_is_sent_once_nobody_waits():
    made = providers._Call({"name": "there"}, KEY, 1)
    made.watch("http11.send_request_headers.started", {})
    made.close()
    for step in ("connection.connect_tcp.started", "http11.send_request_headers.started"):
        with pytest.raises(providers.Gone):
            made.watch(step, {})


def test_a_slow_reader_is_waited_for(vendor):
    """Of 10 MB in 1,000 pieces few are in our memory, and the others with the server."""
    vendor.control(script="ok:size=40:pieces=1000")
    made = call(vendor)
    size = len(next(made))
    while made.gi_frame.f_locals["call"].box.qsize() < providers.PIECES - 1:
        time.sleep(0.001)
    assert made.gi_frame.f_locals["call"].box.qsize() <= providers.PIECES
    assert vendor.state()["counts"]["done"] == 0
    pieces, answer = drain(made)
    assert size + sum(map(len, pieces)) == len(answer.text) == 40 * 1024 * 1024


# More than sockets hold for a reader: some take ten megabytes.
def test_a_slow_reader_who_leaves(vendor):
    vendor.control(script="ok:size=40:pieces=1000")
    made = call(vendor)
    next(made)
    while made.gi_frame.f_locals["call"].box.qsize() < providers.PIECES - 1:
        time.sleep(0.001)
    made.close()
    vendor.wait(closed=1)


def test_a_server_that_waits_for_room_is_told_that_nobody_reads_on():
    """By a reset: of the end of what we send a server learns nothing as long as it can't write, and then goes on with an answer that costs."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = call(None, spec=provider(SimpleNamespace(url=f"http://127.0.0.1:{listening.getsockname()[1]}")))
        piece: list = []
        reading = threading.Thread(target=lambda: piece.append(next(made)))
        reading.start()
        line, _ = listening.accept()
        with line:
            while b"\r\n\r\n" not in line.recv(65536):
                pass
            event = orjson.dumps({"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": {"content": "one"}}]})
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: %s\n\n" % event)
            reading.join()
            made.close()
            lost = select.poll()
            lost.register(line, 0)
            assert piece == ["one"] and lost.poll(20_000), "it was told that we send no more, and not that we are gone"


@pytest.mark.parametrize(("kind", "api", "stream"), BOTH)
def test_an_answer_of_50_mb(vendor, kind, api, stream):
    # It repeats the whole answer thrice in the last events, and the SDK takes its time for such.
    size = 10 if api == "responses" else 50
    vendor.control(script=f"ok:size={size}")
    assert len(drain(call(vendor, kind, api, stream))[1].text) == size * 1024 * 1024


@pytest.mark.parametrize(("kind", "api", "stream"), BOTH)
@pytest.mark.parametrize("pieces", [1, 100])
def test_an_answer_that_is_too_large(vendor, monkeypatch, kind, api, stream, pieces):
    monkeypatch.setattr(providers, "LIMIT", 1024 * 1024)
    vendor.control(script=f"ok:size=3:pieces={pieces}")
    assert trouble(call(vendor, kind, api, stream)).kind == "input"
    vendor.control(script="ok:size=0.9")
    assert drain(call(vendor, kind, api, stream))[1].text


@pytest.mark.parametrize(("kind", "api", "stream"), BOTH)
def test_what_has_no_end_is_not_kept(vendor, monkeypatch, kind, api, stream):
    """What is no text of an answer has a limit too: an event that does not end, JSON that is all blanks."""
    monkeypatch.setattr(providers, "LIMIT", 64 * 1024)
    vendor.control(script=[{"fault": "raw", "body": "data: " + "x" * 200_000}, {"fault": "raw", "body": "\n\n" * 40_000 + "{}"}])
    assert trouble(call(vendor, kind, api, stream)).kind == "input"
    # Empty lines end events, of which a stream may have any number.
    assert trouble(call(vendor, kind, api, stream)).kind == ("network" if stream else "input")


# -- the environment


ELSEWHERE = ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY", "https_proxy")


@pytest.fixture
def elsewhere(monkeypatch):
    """Another server, which the environment names for everything."""
    with rehearsal.Process() as other:
        for name in ELSEWHERE:
            monkeypatch.setenv(name, other.url)
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            monkeypatch.setenv(name, "of-somebody-else")
        for name in ("ANTHROPIC_CUSTOM_HEADERS", "OPENAI_CUSTOM_HEADERS"):
            monkeypatch.setenv(name, "Authorization: Bearer of-somebody-else\nX-Strange: yes")
        yield other


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "none"])
def test_the_environment_does_not_redirect(vendor, elsewhere, key):
    for kind, api, stream in BOTH:
        assert drain(call(vendor, kind, api, stream, key=key))[1].text
    requests = vendor.state()["requests"]
    assert len(requests) == len(BOTH)
    assert {request["key"] for request in requests} == {MARK if key else hashlib.sha256(b"none").hexdigest()[:8]}
    for request in requests:
        assert not {"x-strange", "openai-organization", "openai-project"} & set(request["headers"])
    assert providers.probe(provider(vendor), key, 60)[0]
    assert elsewhere.state()["counts"]["requests"] == 0


def test_a_proxy_is_for_what_may_leave_the_machine(vendor, elsewhere):
    for kind, api in WAYS:
        far = {"name": "far", "kind": kind, "api": api, "url": "http://vendor.invalid/v1", "privacy": "cloud"}
        drain(call(vendor, spec=far))
        assert elsewhere.state()["requests"][-1]["path"].startswith("http://vendor.invalid/v1/")
    before = elsewhere.state()["counts"]["requests"]
    assert trouble(call(vendor, spec=far | {"privacy": "local"})).kind == "network"
    assert elsewhere.state()["counts"]["requests"] == before


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[4:]:
    sys.modules[name] = None
from serenamaster import providers
from serenamaster.errors import Failure
provider = {"name": "there", "kind": sys.argv[2], "url": sys.argv[3]}
try:
    made = providers.ask(provider, {"name": "m"}, [{"role": "user", "text": "confidential"}],
                         key=None, seconds=120, output=9, stream=True, once=None, wait=lambda function, *args: function(*args))
    print("".join(made))
except Failure as bad:
    print(bad.code, bad.hint)
"""


def child(*args, **env):
    done = subprocess.run([sys.executable, "-c", CHILD, str(LIB), *args], env={**os.environ, **env}, capture_output=True, text=True, timeout=300)
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(("kind", "package"), [("anthropic", "anthropic"), ("openai", "openai"), ("mlx", "mlx_lm")])
def test_a_package_that_is_missing(vendor, tmp_path, kind, package):
    said, _ = child(kind, vendor.url, package)
    # A model that is not there is told before the package is missed.
    assert said.startswith("69 pip install ") or kind == "mlx"


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_no_sdk_logs_what_is_sent(vendor, kind):
    said, err = child(kind, vendor.url + ("/v1" if kind == "openai" else ""), ANTHROPIC_LOG="debug", OPENAI_LOG="debug")
    assert said == "You said: confidential"
    assert err == ""


# -- probes


def test_a_probe(vendor):
    for kind, _ in WAYS[:2]:
        assert providers.probe(provider(vendor, kind), KEY, 60) == (True, "it answered with 200")
        assert vendor.state()["requests"][-1]["path"] == "/v1/models"
        for status in ("401", "500", "302"):
            vendor.control(models=status)
            assert providers.probe(provider(vendor, kind), seconds=60) == (True, f"it answered with {status}")
        vendor.control(models="hang")
        up, why = providers.probe(provider(vendor, kind), seconds=0.2)
        assert (up, why) == (False, "'there': no answer within 0.2 seconds")
        vendor.control(models="reset")
        assert providers.probe(provider(vendor, kind), seconds=60)[0] is False
    assert vendor.state()["left"] == [], "a probe used up an answer"


def test_a_probe_without_what_it_takes_is_no_bug(vendor, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    assert providers.probe(provider(vendor, "openai"), KEY, 60) == (False, "'there': the call failed (ModuleNotFoundError)")


SLOW = """
import sys, time
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from serenamaster import providers
late = []
class Slow:
    def find_spec(self, name, *_):
        late.extend([None] * (name == "httpx2"))
sys.meta_path.insert(0, Slow())
providers.time = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * len(late))
print(*providers.probe({"name": "there", "kind": "openai", "url": sys.argv[2]}, seconds=60), len(late))
"""


def test_the_time_of_a_probe_is_not_used_up_by_what_has_to_be_loaded(vendor):
    done = subprocess.run([sys.executable, "-c", SLOW, str(LIB), f"{vendor.url}/v1"], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("True it answered with 200 1\n", "")


def test_a_probe_of_nobody():
    with rehearsal.Process() as gone:
        pass
    up, why = providers.probe(provider(gone), seconds=60)
    assert not up
    assert "refused" in why


# -- anything may come


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "delta", "text", "choices", "content", "usage", "message", "output", "error", "response", "model", "finish_reason", "stop_reason", "code"]
        ),
        inner | st.sampled_from(["message_start", "content_block_delta", "text_delta", "message_delta", "response.completed", "error", "stop", "output_text"]),
        max_size=4,
    ),
    max_leaves=12,
)


@settings(max_examples=max(20, settings().max_examples // 4))
@given(events=st.lists(VALUES, max_size=4), noise=st.binary(max_size=20))
def test_any_json_ends_in_an_answer_or_a_trouble(server, events, noise):
    server.control(reset=True, key=None)
    for kind, api, stream in BOTH:
        lines = [b"event: %s\ndata: %s\n\n" % (str(_type(event)).encode("utf-8", "replace"), orjson.dumps(event)) for event in events]
        body = (b"".join(lines) + noise if stream else b"".join(map(orjson.dumps, events)) + noise).decode("utf-8", "replace")
        server.control(script=[{"fault": "raw", "body": body, "type": "text/event-stream" if stream else "application/json"}])
        try:
            _, answer = drain(call(server, kind, api, stream))
            assert answer.text.strip()
        except providers.Trouble as bad:
            assert bad.kind in ("network", "input", "policy", "rate", "request", "unknown"), bad.message


def _type(event):
    kind = event.get("type") if type(event) is dict else None
    return kind.replace("\n", "").replace("\r", "") if type(kind) is str else "x"


@given(text=st.text(max_size=20), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_halves_of_a_character_are_joined(text, cuts):
    data = text.encode("utf-16-le")
    places = sorted({0, len(data), *(min(2 * cut, len(data)) for cut in cuts)})
    pieces = [data[low:high].decode("utf-16-le", "surrogatepass") for low, high in zip(places, places[1:], strict=False)]
    assert "".join(map(providers.clean, providers._joined(pieces))) == providers.clean(text)


# -- headers


@given(seconds=st.integers(0, 10**6), ms=st.integers(0, 10**7))
def test_retry_after_in_its_three_forms(seconds, ms):
    assert providers.retry_after({"retry-after": str(seconds)}) == seconds
    assert providers.retry_after({"retry-after": f" {seconds}.5 "}) == seconds + 0.5
    assert providers.retry_after({"retry-after-ms": str(ms), "retry-after": str(seconds)}) == pytest.approx(ms / 1000)
    now = time.time()
    when = formatdate(now + seconds, usegmt=True)
    found = providers.retry_after({"retry-after": when})
    assert seconds - 1 - (time.time() - now) <= found <= seconds
    # By the clock of who answered, where ours is wrong.
    for off in (-(10**8), 10**8):
        sent = {"date": formatdate(now + off, usegmt=True), "retry-after": formatdate(now + off + seconds, usegmt=True)}
        assert abs(providers.retry_after(sent) - seconds) <= 1


@given(words=st.text(max_size=30) | st.sampled_from(["-5", "1e9", "nan", "inf", "Thu, 99 Abc 2026 00:00:00 GMT", "1" * 400, "٣"]))
def test_a_retry_after_that_is_none(words):
    for name in ("retry-after", "retry-after-ms"):
        found = providers.retry_after({name: words})
        assert found is None or 0 <= found < 10**12
        assert providers.limits({"x-ratelimit-remaining-requests": words, "x-ratelimit-reset-requests": words}).keys() <= {"requests_left", "requests_reset"}


@given(hours=st.integers(0, 50), minutes=st.integers(0, 59), seconds=st.integers(0, 59), ms=st.integers(0, 999))
def test_spans_of_openai(hours, minutes, seconds, ms):
    said = {"x-ratelimit-reset-tokens": f"{hours}h{minutes}m{seconds}s{ms}ms", "x-ratelimit-remaining-tokens": "12"}
    made = providers.limits(said)
    assert made["tokens_left"] == 12
    assert made["tokens_reset"] == pytest.approx(hours * 3600 + minutes * 60 + seconds + ms / 1000)


# -- the server that all of this is tried against


def test_a_script():
    assert rehearsal.script("429:retry-after=2*3, ok:text=hi ,hang*") == [
        {"times": 3, "fault": "429", "retry-after": 2.0},
        {"times": 1, "fault": "ok", "text": "hi"},
        {"times": 0, "fault": "hang"},
    ]
    assert rehearsal.script([{"fault": 500, "times": 2}, "529"]) == [{"times": 2, "fault": "500"}, {"times": 1, "fault": "529"}]


def test_a_server_that_is_down_for_a_while():
    with rehearsal.Process() as process:
        address = ("127.0.0.1", int(process.url.rpartition(":")[2]))
        process.control(down=1)
        for wanted in (errno.ECONNREFUSED, 0):
            while True:
                with socket.socket() as line:
                    if line.connect_ex(address) == wanted:
                        break
        assert process.state()["counts"]["requests"] == 0


def test_a_server_shows_no_key(vendor):
    drain(call(vendor, "anthropic", None))
    assert KEY not in str(vendor.state())


def test_a_server_that_is_told_from_a_shell(vendor):
    tell = [sys.executable, rehearsal.__file__, "--tell", vendor.url]
    assert orjson.loads(subprocess.check_output([*tell, '{"script": "429,hang"}']))["left"][0]["fault"] == "429"
    assert trouble(call(vendor)).kind == "rate"
    assert orjson.loads(subprocess.check_output([*tell, "wait?requests=1"]))["counts"]["requests"] == 1
    assert subprocess.run([*tell, "wait?requests=9&seconds=0.1"], stdout=subprocess.DEVNULL).returncode == 1
