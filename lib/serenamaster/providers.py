"""One call to one provider of models, through its own SDK: its answer as it comes, and what went wrong, sorted.

No retries, no state but loaded models, no settings: models.py decides what is asked of whom. The call runs in a thread of its own, and who asks waits
for its pieces with a deadline, as no SDK keeps one against a server that sends a byte now and then. Whatever way a call is left, its
connection is shut, so that the server sees it; a request that has not gone out by then never does.
"""

import os
import re
import struct
import time
from collections import namedtuple
from contextlib import suppress

from .errors import CONFIG, UNAVAILABLE, Failure
from .record import clean, shown

# Never taken from the environment: a variable would send what we say, and the key, to somebody else.
URLS = {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}
PACKAGES = {"anthropic": "anthropic", "openai": "openai", "mlx": "mlx-lm 'mlx[cpu]'"}
PIECES = 16  # of an answer that wait for a reader who is slow
LIMIT = 256 * 1024 * 1024  # bytes of an answer, and of one event of a stream
ERROR = 64 * 1024  # bytes of the body of an error that are read
SAID = 300  # characters of a message
CONNECT = 10.0  # seconds for a connection: a network that drops everything is not worth the whole deadline
KINDS = {400: "request", 401: "credential", 402: "credential", 403: "credential", 404: "request", 408: "timeout", 409: "network", 413: "request"}
KINDS |= {422: "request", 429: "rate"}
# Errors within a stream have no status of their own: the one that goes with their type or code.
TYPES = {
    "invalid_request_error": 400, "context_length_exceeded": 400, "content_filter": 400, "authentication_error": 401, "invalid_api_key": 401,
    "billing_error": 402, "permission_error": 403, "not_found_error": 404, "timeout_error": 408, "conflict_error": 409, "request_too_large": 413,
    "rate_limit_error": 429, "rate_limit_exceeded": 429, "insufficient_quota": 429, "api_error": 500, "server_error": 500, "overloaded_error": 529,
}  # fmt: skip
REFUSALS = ("content_filter", "content_policy_violation")
STOPS = {"max_tokens": "length", "length": "length", "max_output_tokens": "length", "model_context_window_exceeded": "length"}
STOPS |= {"refusal": "refusal", "content_filter": "refusal"}
# How Anthropic, OpenAI, vLLM, llama.cpp and others say it: only OpenAI has a code for it.
LONG = re.compile(
    r"(prompt|input) is too long|(context_length_exceeded|exceed_context_size)|(maximum|exceeds?|longer than|greater than|larger than)\b.{0,60}context"
    r".?(length|window|size|limit)|context.?(length|window|size|limit)\b.{0,40}exceed",
    re.I | re.S,
)
SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")  # of "6m0s" and "20ms", as OpenAI writes them
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}

# model: as the provider names it. Tokens: None where they were not told; input_tokens are without the cached ones. stop: "end" "length"
# "refusal". limits: what the headers said is left of this minute: requests_left, requests_reset, tokens_left, tokens_reset (seconds from now).
Answer = namedtuple("Answer", "text model input_tokens cached_tokens output_tokens stop limits")


class Trouble(Exception):
    """A call that came to no good end.

    kind: "network" (no connection, 3xx, 409, 5xx, no answer that can be read, one that was cut), "timeout" (408, the deadline), "rate" (429),
    "credential" (401 402 403), "request" (400 404 413 422), "length" (too long for the model), "policy" (the model refuses), "input" (an
    empty answer, one above 256 MiB, a local model that can't be loaded: the next target may do better, so it is no "request"), "unknown".
    status: of HTTP, or 0. retry_after: seconds, or None. message: one line, lower case, no full stop, without the key. limits: see Answer.
    answer: what was known of the answer by then, for what it costs, or None. plain: the message without what the provider said, who may quote
    what it was asked.
    """

    def __init__(self, kind: str, message: str, status: int = 0, retry_after: float | None = None, limits: dict | None = None, answer=None):
        super().__init__(message)
        self.kind, self.status, self.retry_after, self.message, self.limits, self.answer = kind, status, retry_after, message, limits or {}, answer
        self.plain = message


class Gone(Exception):
    """Nobody waits for this call any more."""


class Big(Exception):
    """More came than an answer may be."""


def ask(provider: dict, model: dict, messages: list, *, key=None, seconds: float, output: int, stream: bool, once, wait):
    """Yields the answer in pieces as they come, and returns an Answer; None where a signal came. Raises Trouble; Failure 69 without the SDK, 78.

    messages: [{"role": "system" | "user" | "assistant", "text"}], system only first. seconds: for all of it. output: tokens at most.
    once: the key of idempotency, or None. wait(function, *args): calls what may block, None where a signal ended that (Stop.wait).
    """
    kind = provider.get("kind")
    speak = {"anthropic": _anthropic, "openai": _openai, "mlx": _mlx}.get(str(kind))
    if speak is None:
        raise Failure(f"provider '{provider.get('name')}': there is no kind '{kind}'", CONFIG)
    call = _Call(provider, key, seconds, stream)
    texts: list = []
    size = 0
    try:
        _start(kind == "mlx", _work, call, speak(call, str(model.get("id") or model.get("name")), messages, output, stream, once))
        while True:
            got = wait(call.take)
            if got is None:
                return None
            what, value = got
            if what == "bad":
                raise _sorted(call, value, call.answer("".join(texts)))
            if what == "end":
                call.over = True
                break
            if piece := clean(value):
                size += len(piece.encode())
                if size > LIMIT:
                    raise _sorted(call, Big())
                texts.append(piece)
                yield piece
        return _whole(call, call.answer("".join(texts)))
    finally:
        call.close()


def probe(provider: dict, key: str | None = None, seconds: float = 2.0) -> tuple[bool, str]:
    """(whether the provider can be reached, how it showed): any answer of HTTP will do. Of kind mlx: whether it is installed, and the
    folder of its `url` there, if it has one."""
    if provider.get("kind") == "mlx":
        from importlib.util import find_spec

        if find_spec("mlx_lm") is None or find_spec("mlx") is None:
            return False, _missing("mlx").message
        folder = provider.get("url")
        there = folder is None or os.path.isdir(os.path.expanduser(folder))
        return there, "it runs in this process" if there else f"there is no folder '{folder}'"
    # What it takes to be loaded, on a machine with much to do, is no time of the provider. Where it is missing, the call tells.
    with suppress(ImportError):
        import httpx2  # noqa: F401
    call = _Call(provider, key, seconds)
    try:
        _start(False, _work, call, _look(call))
        what, value = call.take()
        if what == "bad":
            return False, _sorted(call, value).plain
        return True, value
    finally:
        call.close()


def _whole(call, answer) -> Answer:
    """The answer, where it is one."""
    if not call.stop:
        raise _sorted(call, EOFError(), answer)
    if answer.stop == "refusal" and not answer.text:
        raise Trouble("policy", call.says(f"the model refuses: {call.refusal}" if call.refusal else "the model refuses"), 0, None, call.limits, answer)
    if not answer.text.strip():
        why = "the tokens were used up before it began" if answer.stop == "length" else "there is no text in it"
        raise Trouble("input", call.says(f"the answer is empty: {why}"), 0, None, call.limits, answer)
    return answer


# ---- the thread ----


class _Call:
    """One call: what its thread and its reader share."""

    def __init__(self, provider: dict, key, seconds: float, streamed: bool = False):
        from queue import SimpleQueue
        from threading import Semaphore

        self.provider, self.name, self.key, self.seconds = provider, clean(str(provider.get("name") or provider.get("kind"))), key or None, seconds
        self.end, self.streamed = time.monotonic() + seconds, streamed
        self.box: SimpleQueue = SimpleQueue()
        self.room = Semaphore(PIECES)
        self.gone = self.over = False
        self.lines: list = []  # the sockets, once more, as their owner may be stuck in them
        self.status, self.heard = 0, False
        self.limits: dict = {}
        self.retry_after: float | None = None
        self.model, self.stop, self.refusal, self.tail = "", "", "", b""
        self.input: int | None = None
        self.cached: int | None = None
        self.output: int | None = None

    def left(self) -> float:
        return self.end - time.monotonic()

    def put(self, what: str, value=None) -> None:
        """Hands something to the reader, who may be slow."""
        self.room.acquire()
        if self.gone:
            # It is asked for again, to hand on that it was left.
            self.room.release()
            raise Gone
        if what == "piece" and self.left() < 0:
            what, value = "bad", TimeoutError()
        self.box.put((what, value))

    def take(self) -> tuple:
        """What comes next, at the latest at the end of the time."""
        from queue import Empty

        try:
            got = self.box.get(timeout=max(0.0, self.left()))
        except Empty:
            return "bad", TimeoutError()
        self.room.release()
        return got

    def close(self) -> None:
        """Ends the call, whatever its thread is doing."""
        from socket import SHUT_RDWR, SO_LINGER, SOL_SOCKET

        self.gone = True
        self.room.release()
        while self.lines:
            line = self.lines.pop()
            try:
                if not self.over:
                    # A server that found no room for its answer would only learn after a minute, from the kernel, that nobody reads on.
                    line.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                line.shutdown(SHUT_RDWR)
            except OSError:
                pass
            line.close()

    def watch(self, event: str, info: dict) -> None:
        """Told by httpcore2 of each step of a connection."""
        if event.endswith("connect_tcp.complete"):
            self.lines.append(info["return_value"].get_extra_info("socket").dup())
        if self.gone and event.endswith(("connect_tcp.started", "connect_tcp.complete", "send_request_headers.started")):
            self.close()
            raise Gone

    def sent(self, request) -> None:
        request.extensions = {**request.extensions, "trace": self.watch}

    def came(self, response) -> None:
        """Reads the headers of an answer, before anything of its body is."""
        headers = response.headers
        self.status, self.heard = response.status_code, True
        self.limits, self.retry_after = limits(headers), retry_after(headers)
        if headers.get("content-encoding", "identity").lower() != "identity":
            # We asked for none; what unpacks itself could be of any size.
            raise ValueError("a compressed answer")
        response.stream = _measured(self, response.stream)

    def answer(self, text: str) -> Answer:
        return Answer(text, shown(self.model[:200]), self.input, self.cached, self.output, self.stop, self.limits)

    def says(self, words: str) -> str:
        """A message about this call: one line, without the key."""
        if self.key:
            words = words.replace(self.key, "[key]")
        words = " ".join(clean(words).split())
        words = f"'{self.name}': {words}"
        return (words if len(words) <= SAID else words[: SAID - 1] + "…").rstrip(".")

    def used(self, new, cached, output) -> None:
        """Tokens as they are told, the last word holds. new: without the cached ones."""
        self.input = self.input if new is None else new
        self.cached = self.cached if cached is None else cached
        self.output = self.output if output is None else output


def _start(shared: bool, function, *args) -> None:
    """Runs it in a new thread; shared: in the one of all models that run in this process, one after the other."""
    from queue import SimpleQueue
    from threading import Thread

    if not shared:
        Thread(target=function, args=args, daemon=True).start()
        return
    if not _jobs:
        jobs: SimpleQueue = SimpleQueue()
        _jobs.append(jobs)
        Thread(target=_serve, args=(jobs,), daemon=True).start()
    _jobs[0].put((function, args))


_jobs: list = []  # the queue of the thread of local models: what MLX computes belongs to the thread that began it


def _serve(jobs) -> None:
    while True:
        function, args = jobs.get()
        function(*args)
        del function, args


def _work(call: _Call, pieces) -> None:
    """Hands on what the generator yields, and how it ended."""
    try:
        try:
            for piece in pieces:
                call.put("piece", piece)
            call.put("end")
        except Exception as bad:
            # Of an answer that had its end by then only the count of tokens can be missing.
            call.put(*(("end",) if call.stop and not isinstance(bad, Big) else ("bad", bad)))
        finally:
            pieces.close()
    except Gone:
        pass


def _measured(call: _Call, source):
    """The body of an answer as it comes, up to what may come: of an error the first bytes, of all else LIMIT, of a stream in each event."""
    import httpx2

    class Measured(httpx2.SyncByteStream):
        def __iter__(self):
            size = 0
            for data in source:
                size += len(data)
                if call.status >= 300 and size >= ERROR:
                    yield data[: len(data) - (size - ERROR)]
                    return
                seam = call.tail + data
                # An empty line ends an event, and with it what the SDK keeps.
                if call.streamed and (at := max(seam.rfind(b"\n\n"), seam.rfind(b"\n\r\n"))) >= 0:
                    size = len(seam) - at
                if size > LIMIT:
                    raise Big
                call.tail = seam[-64:]
                yield data

        def close(self):
            source.close()

    return Measured()


def _http(call: _Call):
    """The client of HTTP for one call. Nothing is followed anywhere, and no connection outlives the call."""
    import logging
    import ssl

    import httpx2

    url = httpx2.URL(_url(call.provider))
    # At its lowest level an SDK logs what it sends, if a variable tells it to.
    for name in ("anthropic", "openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    loopback = url.host in ("localhost", "::1") or url.host.startswith("127.")
    if url.scheme == "http":
        # It trusts nobody, and costs nothing: there is no TLS here.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        if not _contexts:
            _contexts.append(httpx2.create_ssl_context())
        context = _contexts[0]
    left = max(0.001, call.left())
    return httpx2.Client(
        verify=context,
        # What is local goes through nobody's hands.
        trust_env=not loopback and call.provider.get("privacy") != "local",
        follow_redirects=False,
        timeout=httpx2.Timeout(left, connect=min(left, CONNECT)),
        limits=httpx2.Limits(max_keepalive_connections=0),
        event_hooks={"request": [call.sent], "response": [call.came]},
        headers={"Accept-Encoding": "identity"},
    )


_contexts: list = []  # it takes 70 ms to make one


def _url(provider: dict) -> str:
    url = str(provider.get("url") or URLS[provider["kind"]])
    if not re.match(r"https?://[^/?#\s]", url):
        raise Failure(f"provider '{provider.get('name')}': '{url}' is no address of a server", CONFIG)
    return url


def _key(call: _Call) -> str:
    """The key; for a server that wants none something that the SDKs take for one."""
    key = call.key or "none"
    if not key.isascii() or not key.isprintable() or key != key.strip():
        # What a header can't hold would be quoted in an error.
        raise Trouble("credential", call.says("its key has characters that cannot be sent"))
    return key


def _at(thing, *path):
    """What stands there, None where nothing does: nobody checked what came."""
    for name in path:
        if type(name) is int:
            thing = thing[name] if type(thing) is list and len(thing) > name else None
        else:
            thing = thing.get(name) if type(thing) is dict else getattr(thing, name, None)
    return thing


def _text(thing, *path) -> str:
    value = _at(thing, *path)
    return value if type(value) is str else ""


def _tokens(thing, *path) -> int | None:
    value = _at(thing, *path)
    return value if type(value) is int and 0 <= value < 2**53 else None


def _said(event) -> str:
    """The type of an event. One of another shape spoils the answer: a piece of it may have been in there."""
    if type(kind := _at(event, "type")) is not str:
        raise ValueError("no event")
    return kind


def _joined(pieces):
    """The pieces, with none that ends between the two halves of one character (as servers do that count in UTF-16)."""
    held = ""
    for piece in pieces:
        piece = held + piece
        held = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""
        if piece := piece[: len(piece) - len(held)]:
            yield piece
    if held:
        yield held


def _parts(messages: list) -> tuple[str, list]:
    """(system part, the others); those without text are left out, as providers refuse them, but for the last."""
    system = "\n\n".join(message["text"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    return system, [message for message in rest if message["text"].strip() or message is rest[-1]]


# ---- Anthropic ----


def _anthropic(call: _Call, model: str, messages: list, output: int, stream: bool, once):
    try:
        import anthropic
    except ImportError:
        raise _missing("anthropic") from None

    system, rest = _parts(messages)
    mark = {"cache_control": {"type": "ephemeral"}}
    asked: list = [{"role": message["role"], "content": [{"type": "text", "text": message["text"]}]} for message in rest]
    # What comes before the newest question is said again with the next one.
    newest = next((n for n in range(len(rest) - 1, -1, -1) if rest[n]["role"] == "user"), 0)
    if newest > 0:
        asked[newest - 1]["content"][-1].update(mark)
    more: dict = {"system": [{"type": "text", "text": system, **mark}]} if system else {}
    with _http(call) as http:
        how = {"api_key": _key(call), "base_url": _url(call.provider), "max_retries": 0, "http_client": http, "timeout": http.timeout}
        client = anthropic.Anthropic(**how, open_telemetry=False)
        _alone(client)
        got = client.messages.create(model=model, max_tokens=output, messages=asked, stream=stream, extra_headers=_headers(once), **more)
        if stream:
            with got:
                yield from _joined(_anthropic_events(call, got))
            return
        content = _at(got, "content")
        if type(content) is not list:
            raise ValueError("no answer")
        call.model, call.stop = _text(got, "model"), _stop(_text(got, "stop_reason"))
        _anthropic_used(call, _at(got, "usage"))
        yield "".join(_text(part, "text") for part in content if _at(part, "type") == "text")


def _anthropic_events(call: _Call, events):
    for event in events:
        kind = _said(event)
        if kind == "message_start":
            call.model = _text(event, "message", "model")
            _anthropic_used(call, _at(event, "message", "usage"))
        elif kind == "content_block_delta" and _at(event, "delta", "type") == "text_delta":
            yield _text(event, "delta", "text")
        elif kind == "message_delta":
            call.stop = _stop(_text(event, "delta", "stop_reason")) or call.stop
            _anthropic_used(call, _at(event, "usage"))
        elif kind == "message_stop":
            return


def _anthropic_used(call: _Call, usage) -> None:
    new, written = _tokens(usage, "input_tokens"), _tokens(usage, "cache_creation_input_tokens")
    call.used(new if new is None else new + (written or 0), _tokens(usage, "cache_read_input_tokens"), _tokens(usage, "output_tokens"))


def _stop(reason: str) -> str:
    return STOPS.get(reason, "end") if reason else ""


# ---- OpenAI, and who speaks its protocol ----


def _openai(call: _Call, model: str, messages: list, output: int, stream: bool, once):
    try:
        import openai
    except ImportError:
        raise _missing("openai") from None

    url = _url(call.provider)
    system, rest = _parts(messages)
    asked: list = [{"role": message["role"], "content": message["text"]} for message in rest]
    with _http(call) as http:
        client = openai.OpenAI(api_key=_key(call), base_url=url, max_retries=0, http_client=http, timeout=http.timeout)
        _alone(client)
        client.organization = client.project = client.admin_api_key = None
        head = {"model": model, "stream": stream, "extra_headers": _headers(once)}
        if call.provider.get("api") == "responses" or (not call.provider.get("api") and not call.provider.get("url")):
            more: dict = {"instructions": system} if system else {}
            # What is not told otherwise is kept for 30 days.
            got = client.responses.create(input=asked, max_output_tokens=output, store=False, **head, **more)
            whole, events = _response, _responses_events
        else:
            # Its newest models refuse the old name, and other servers don't know the new one.
            limit = "max_completion_tokens" if client.base_url.host.endswith("openai.com") else "max_tokens"
            more = {limit: output, **({"stream_options": {"include_usage": True}} if stream else {})}
            got = client.chat.completions.create(messages=[{"role": "system", "content": system}] * bool(system) + asked, **head, **more)
            whole, events = _chat, _chat_events
        if stream:
            with got:
                yield from _joined(events(call, got))
        else:
            yield from _joined(whole(call, got))


def _chat(call: _Call, got):
    choice = _at(got, "choices", 0)
    if _at(choice, "message") is None:
        raise ValueError("no answer")
    call.model, call.stop, call.refusal = _text(got, "model"), _stop(_text(choice, "finish_reason")) or "end", _text(choice, "message", "refusal")
    _openai_used(call, _at(got, "usage"), "prompt")
    if call.refusal:
        call.stop = "refusal"
    yield _text(choice, "message", "content")


def _chat_events(call: _Call, events):
    for event in events:
        if type(_at(event, "choices")) is not list and _at(event, "usage") is None:
            raise ValueError("no event")
        call.model = call.model or _text(event, "model")
        choice = _at(event, "choices", 0)
        if refusal := _text(choice, "delta", "refusal"):
            call.refusal = (call.refusal + refusal)[:SAID]
        yield _text(choice, "delta", "content")
        if reason := _text(choice, "finish_reason"):
            call.stop = "refusal" if call.refusal else _stop(reason)
        _openai_used(call, _at(event, "usage"), "prompt")
    if not call.stop and b"[DONE]" in call.tail:
        call.stop = "end"


def _response(call: _Call, got):
    content = _at(got, "output")
    if type(content) is not list:
        raise ValueError("no answer")
    _response_end(call, got)
    for item in content:
        for part in _at(item, "content") or ():
            if _at(part, "type") == "output_text":
                yield _text(part, "text")


def _responses_events(call: _Call, events):
    for event in events:
        kind = _said(event)
        if kind == "response.output_text.delta":
            yield _text(event, "delta")
        elif kind == "response.refusal.delta":
            call.refusal = (call.refusal + _text(event, "delta"))[:SAID]
        elif kind == "error":
            raise Told(_text(event, "code"), _text(event, "message"))
        elif kind == "response.created":
            call.model = _text(event, "response", "model")
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            _response_end(call, _at(event, "response"))
            return


def _response_end(call: _Call, response) -> None:
    _openai_used(call, _at(response, "usage"), "input")
    if _at(response, "status") == "failed" or _at(response, "error") is not None:
        raise Told(_text(response, "error", "code"), _text(response, "error", "message"))
    call.model = _text(response, "model") or call.model
    for item in _at(response, "output") or ():
        for part in _at(item, "content") or ():
            call.refusal = call.refusal or _text(part, "refusal")
    call.stop = "refusal" if call.refusal else _stop(_text(response, "incomplete_details", "reason")) or "end"


def _openai_used(call: _Call, usage, name: str) -> None:
    new, cached = _tokens(usage, f"{name}_tokens"), _tokens(usage, f"{name}_tokens_details", "cached_tokens")
    call.used(new if new is None else max(0, new - (cached or 0)), cached, _tokens(usage, "completion_tokens" if name == "prompt" else "output_tokens"))


# ---- both ----


class Told(Exception):
    """An error that came as an event of a stream."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.body = {"code": code, "message": message}


def _headers(once) -> dict:
    return {"Idempotency-Key": str(once)} if once else {}


def _alone(client) -> None:
    """Takes away what the SDK found in the environment: headers of its own, which may name another key (ANTHROPIC_CUSTOM_HEADERS)."""
    client._custom_headers = {}


def _missing(kind: str) -> Failure:
    return Failure(f"the package {PACKAGES[kind].split()[0]} is missing", UNAVAILABLE, f"pip install {PACKAGES[kind]}")


def _look(call: _Call):
    """The one piece: how the provider answered when it was asked for its models."""
    import httpx2

    kind = call.provider["kind"]
    url = httpx2.URL(_url(call.provider).rstrip("/") + ("/v1/models" if kind == "anthropic" else "/models"))
    key = _key(call)
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"} if kind == "anthropic" else {"Authorization": f"Bearer {key}"}
    with _http(call) as http:
        try:
            with http.stream("GET", url, headers=headers):
                pass
        except httpx2.RemoteProtocolError:
            # mlx_lm.server breaks the connection where it finds no folder of models; it is there all the same.
            if kind != "openai" or not call.provider.get("url"):
                raise
            with http.stream("GET", url.copy_with(raw_path=b"/health")):
                pass
    yield f"it answered with {call.status}"


def _sorted(call: _Call, bad, answer=None):
    """The Trouble that an exception is, whoever raised it."""
    if isinstance(bad, (Trouble, Failure)):
        return bad
    seen = bad
    chain: list = []
    while seen is not None and len(chain) < 10:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    plain = ""
    body = getattr(bad, "body", None)
    body = body.get("error", body) if type(body) is dict else body
    said = _text(body, "message") or (body if type(body) is str else "")
    codes = [_text(body, name) for name in ("code", "type")]
    if "Big" in names:
        kind, status, words = "input", 0, f"the answer is larger than {LIMIT >> 20} MiB"
    elif isinstance(bad, TimeoutError):
        kind, status, words = "timeout", 0, f"{'the answer took longer than' if call.heard else 'no answer within'} {call.seconds:g} seconds"
    elif type(getattr(bad, "status_code", None)) is int or isinstance(bad, Told) or type(body) is dict:
        status = getattr(bad, "status_code", 0)
        if status < 300:
            status = next((TYPES[code] for code in codes if code in TYPES), 0)
        kind = KINDS.get(status) or ("network" if status >= 500 or 300 <= status < 400 or not status else "unknown")
        if kind == "request" and (LONG.search(said) or "context_length_exceeded" in codes):
            kind = "length"
        elif kind == "request" and set(codes) & set(REFUSALS):
            kind = "policy"
        plain = f"it answered with {status}" if status else "it gave up in the middle"
        words = plain + (f": {_lower(said)}" if said.strip() else "")
    elif "ConnectTimeout" in names:
        kind, status, words = "network", 0, "no connection: it does not answer"
    elif "TimeoutException" in names:
        kind, status, words = "timeout", 0, f"no answer within {call.seconds:g} seconds"
    elif isinstance(bad, EOFError) or call.heard and "TransportError" in names:
        kind, status, words = "network", 0, "the answer was cut" if call.stop or answer and answer.text else "there is no answer in what came"
    elif "HTTPError" in names or "APIConnectionError" in names and not call.heard:
        # The SDKs say no more than that there was an error.
        last = next((one for one in reversed(chain) if isinstance(one, OSError) and one.strerror), None)
        plain = f"no answer: {_lower(last.strerror or '')}" if last else "no answer"
        kind, status, words = "network", 0, plain if last else f"no answer: {_lower(str(chain[-1])) or type(chain[-1]).__name__}"
    elif call.heard and isinstance(bad, Exception):
        # JSON that is none, or of another shape than the SDK takes for granted; a decoder that met bytes which are no UTF-8.
        kind, status, words = "network", 0, f"its answer cannot be read ({type(chain[-1]).__name__})"
    else:
        kind, status, words = "unknown", 0, f"the call failed ({type(bad).__name__})"
    known = answer if answer and (call.model or answer.text) else None
    made = Trouble(kind, call.says(words), status, call.retry_after if status else None, call.limits, known)
    made.plain = call.says(plain or words)
    return made


def _lower(words: str) -> str:
    """With a small first letter, where it begins a word and no name."""
    words = words.strip()
    return words[:1].lower() + words[1:] if words[1:2].islower() or words[1:2] == " " else words


# ---- headers ----


def retry_after(headers) -> float | None:
    """Seconds to wait that an answer asks for: retry-after-ms, Retry-After in seconds or as a date, in this order; None where it says nothing."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = (headers.get(name) or "").strip()
        if re.fullmatch(r"\d{1,12}(\.\d*)?|\.\d+", value):
            return float(value) * unit
        if value and unit == 1.0 and (at := _date(value)) is not None:
            return max(0.0, at - _clock(headers))
    return None


def limits(headers) -> dict:
    """What the headers of both vendors say is left: requests_left, requests_reset, tokens_left, tokens_reset; only what they say."""
    made: dict = {}
    for what in ("requests", "tokens"):
        for left, reset in (
            (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset"),
            (f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}"),
        ):
            if re.fullmatch(r"\d{1,15}", value := (headers.get(left) or "").strip()):
                made[f"{what}_left"] = int(value)
            if (seconds := _span(headers.get(reset) or "", headers)) is not None:
                made[f"{what}_reset"] = seconds
    return made


def _span(value: str, headers) -> float | None:
    """Seconds from now: of "6m0s", "20ms", a number, or a time."""
    value = value.strip()
    if re.fullmatch(r"\d{1,12}(\.\d+)?", value):
        return float(value)
    parts = SPAN.findall(value)
    if parts and "".join(map("".join, parts)) == value and len(value) < 40:
        return sum(float(number) * SECONDS[unit] for number, unit in parts)
    try:
        from datetime import datetime

        return max(0.0, datetime.fromisoformat(value).timestamp() - _clock(headers)) if "T" in value else None
    except (ValueError, OverflowError):
        return None


def _date(value: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _clock(headers) -> float:
    """The time by the clock of who answered, where it is told: ours may be wrong. Half a second is what its date leaves out."""
    told = _date(headers.get("date") or "")
    now = time.time()
    return now if told is None or abs(told - now) < 2 else told + 0.5


# ---- MLX, in this process ----


_models: dict = {}  # by path: (model, tokenizer), for as long as the process lives


def _mlx(call: _Call, model: str, messages: list, output: int, stream: bool, once):
    if call.gone:
        return
    folder = os.path.realpath(os.path.expanduser(model))
    stream_generate = _mlx_lm().stream_generate
    loaded, tokenizer = _loaded(call, folder)
    prompt = _prompt(tokenizer, messages)
    window = getattr(getattr(loaded, "args", None), "max_position_embeddings", None)
    if type(window) is int and len(prompt) >= window:
        raise Trouble("length", call.says(f"{len(prompt)} tokens are too many: the context length of the model is {window}"))
    call.model, call.input, call.cached, call.output = os.path.basename(folder), len(prompt), 0, 0

    def check(*_) -> None:
        if call.gone:
            raise Gone
        if call.left() < 0:
            raise TimeoutError

    try:
        yield from _mlx_pieces(call, stream_generate(loaded, tokenizer, prompt, max_tokens=max(1, output), prompt_progress_callback=check), check, stream)
    except (RuntimeError, ValueError, MemoryError) as bad:
        raise Trouble("input", call.says(f"the model '{call.model}' failed: {bad}")) from None


def _mlx_pieces(call, made, check, stream: bool):
    held: list = []
    try:
        for token in made:
            check()
            call.output = token.generation_tokens
            held.append(token.text)
            if stream and token.text:
                yield token.text
            if token.finish_reason:
                call.stop = _stop(token.finish_reason)
    finally:
        made.close()
    if not stream:
        yield "".join(held)


def _mlx_lm():
    """The package, which may fetch nothing and write no code to run (MLX compiles kernels below TMPDIR, where there is no GPU)."""
    import sys

    was = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM")}
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"})
    try:
        import mlx.core
        import mlx_lm
    except ImportError:
        raise _missing("mlx") from None
    finally:
        for name, value in was.items():
            # Children of ours are free to do otherwise.
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if sys.platform == "linux":
        mlx.core.disable_compile()
    return mlx_lm


def _loaded(call: _Call, folder: str):
    """(model, tokenizer) of a folder, loaded when it is first needed. Raises Trouble "input": the next target may be another model."""
    if folder in _models:
        return _models[folder]
    refuse = lambda why: Trouble("input", call.says(f"the model '{folder}' cannot be loaded: {why}"))  # noqa: E731
    try:
        sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".safetensors")]
    except OSError as bad:
        # Never handed to mlx_lm, which would look for it elsewhere.
        raise refuse(_lower(bad.strerror or "")) from None
    if not sizes or not os.path.isfile(os.path.join(folder, "config.json")):
        raise refuse("there is no config.json with a model.safetensors in it")
    if sum(sizes) > (there := _memory()) and _models:
        _models.clear()
        there = _memory()
    if sum(sizes) > there:
        raise refuse(f"it has {sum(sizes) >> 20} MiB, and {there >> 20} MiB of memory are free")
    try:
        _models[folder] = _mlx_lm().load(folder, tokenizer_config={"trust_remote_code": False, "local_files_only": True})[:2]
    except Failure:
        raise
    except Exception as bad:
        # Whatever may be in those files: each architecture of mlx_lm fails in its own way.
        raise refuse(f"{type(bad).__name__}: {_lower(str(bad))}") from None
    return _models[folder]


def _prompt(tokenizer, messages: list) -> list:
    """The tokens of a conversation: by the model's own template, else as plain lines."""
    said = [{"role": message["role"], "content": message["text"]} for message in messages]
    if getattr(tokenizer, "has_chat_template", False):
        from jinja2 import TemplateError

        for tried in (said, [message for message in said if message["role"] != "system"]):
            # Some templates refuse a system part: it then stands before the first question.
            if tried is not said and tried:
                tried[0] = {**tried[0], "content": "\n\n".join(message["content"] for message in said if message["role"] == "system" or message is tried[0])}
            try:
                return list(tokenizer.apply_chat_template(tried, add_generation_prompt=True, return_dict=False))
            except TemplateError:
                continue
    return list(tokenizer.encode("".join(f"{message['role']}: {message['content']}\n" for message in said) + "assistant:"))


def _memory() -> int:
    """Bytes that may be used now."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/proc/meminfo") as file:
            free = int(next(line for line in file if line.startswith("MemAvailable:")).split()[1]) * 1024
        with open("/sys/fs/cgroup/memory.max") as most, open("/sys/fs/cgroup/memory.current") as now:
            free = min(free, max(0, int(most.read()) - int(now.read())))
    except (OSError, ValueError, StopIteration):
        pass
    return free


# ---- how fast a model is ----

CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from serenamaster import providers; providers.measure(*sys.argv[2:])"
BENCH = ("16", "8", "4")  # bits of a weight; 16: no quantisation
TOKENS = 64


def bench(path: str):
    """Yields for a model as fp16 and quantised to 8 and 4 bits: {"bits", "load_ms", "tokens_s", "memory" (bytes at most), "size" (bytes of the files)}.

    Where one fails: {"bits", "error"}. Each is made and measured in a process of its own. Raises Failure 69 without mlx-lm, 66 without the folder.
    """
    import shutil
    import subprocess
    import sys
    import tempfile

    import orjson

    from .errors import NOINPUT

    if not os.path.isfile(os.path.join(path, "config.json")):
        raise Failure(f"'{path}' is no folder of a model: there is no config.json in it", NOINPUT)
    if not probe({"kind": "mlx"})[0]:
        raise _missing("mlx")
    folder = tempfile.mkdtemp(prefix="ftai-bench-")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TMPDIR": folder, "TRANSFORMERS_VERBOSITY": "error"}
    try:
        for bits in BENCH:
            made = os.path.join(folder, bits)
            row: dict = {"bits": int(bits)}
            # Made in another process than the one that is measured: it holds the model as it was.
            for step in (("make", path, made, bits), ("time", made)):
                argv = [sys.executable, "-c", CHILD, os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *step]
                done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=env)
                if done.returncode:
                    said = clean(done.stderr.decode("utf-8", "replace")).strip().splitlines()
                    row = {"bits": int(bits), "error": said[-1][:SAID] if said else f"it ended with {done.returncode}"}
                    break
                if step[0] == "time":
                    row |= orjson.loads(done.stdout.splitlines()[-1])
            yield row
            shutil.rmtree(made, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(what: str, path: str, made: str = "", bits: str = "") -> None:
    """What a child of bench() does: makes a model of so many bits, or times one and prints how it went."""
    import resource
    import sys

    import mlx.core as mx

    mlx_lm = _mlx_lm()
    if what == "make":
        quantised = {} if bits == "16" else {"quantize": True, "q_bits": int(bits)}
        mlx_lm.convert(path, made, dtype="float16", **quantised)
        return
    begun = time.perf_counter()
    model, tokenizer = mlx_lm.load(path, tokenizer_config={"trust_remote_code": False})[:2]
    load = time.perf_counter() - begun
    prompt = _prompt(tokenizer, [{"role": "user", "text": "Tell me about the sea, the mountains and the sky."}])
    # A model that stops early would be timed on too few tokens.
    tokenizer.eos_token_ids = set()
    # The second time is the one that counts.
    last = [list(mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=TOKENS)) for _ in range(2)][-1][-1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    size = sum(entry.stat().st_size for entry in os.scandir(path) if entry.name.endswith(".safetensors"))
    import orjson

    row = {"load_ms": round(load * 1000, 1), "tokens_s": round(last.generation_tps, 1), "memory": max(peak, mx.get_peak_memory()), "size": size}
    sys.stdout.buffer.write(orjson.dumps(row) + b"\n")
