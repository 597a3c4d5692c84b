"""A provider to rehearse with: an HTTP server on loopback that speaks the protocols of Anthropic and OpenAI, and fails as it is told.

    python tests/vendor.py [--port 0] [--script SCRIPT] [--key KEY]       its first line on stdout is its URL; it ends by a signal
    python tests/vendor.py --tell URL [JSON]                              tells one that runs, and prints its state
    python tests/vendor.py --tell URL wait?requests=1                     waits for that, and prints its state; status 1 if it did not come

A script says what happens to the requests for an answer, in their order: `429:retry-after=2,500,ok`. An entry is NAME[:OPTION=VALUE]…[*COUNT];
`*` alone: for ever. What is beyond the script is answered well. In JSON, an entry is {"fault": NAME, OPTION: VALUE, "times": COUNT or 0 for ever}.

    ok           text= pieces= cached= output= size= (MB) model= requests-left= tokens-left= reset= (s)
    429 500 …    any status, with the vendor's own error body; retry-after= (s), retry-date= (s from now), retry-ms=, code=, message=, bytes=,
                 endless=1 (its body does not end)
    context      too long for the model; `filter` and `refusal`: its policy says no; `max`: cut at the limit of tokens; `empty`: no text
    slow         the answer begins after seconds=; `drip`: a byte each seconds=; `hang`: nothing ever comes; `stall`: nothing after the first piece
    garbage      no JSON, no events; `wrong`: JSON that is none of the protocol's; `broken`: JSON cut short; `utf8`: invalid UTF-8 within the text
    cut          the connection breaks after after= pieces; `eof`: it ends as if all was well; `fault`: an error event of type= in the stream
    raw          body= as it is (JSON form of the script), of type=
    302          to=URL; `gzip`: a compressed answer, though none was asked for; `reset`: no answer at all, the connection breaks

POST /control takes JSON: script, models (the same for GET /v1/models), key (others get 401; null: all are taken), down (seconds: none is
connected), reset (true: forgets requests and scripts). GET /control tells: requests (n, method, path, headers, key, body, fault, closed), left, counts.
GET /control/wait?requests=N&closed=N&done=N&seconds=S tells as soon as that many requests came, were given up by their sender, were answered.
Values of keys are never shown: `key` is the begin of their SHA-256.
"""

import argparse
import gzip
import hashlib
import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

HIDDEN = ("authorization", "x-api-key", "cookie", "proxy-authorization")
EVER = 600  # seconds that a connection which hangs is held at most
ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 409: "conflict_error", 413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error",
}  # fmt: skip
OPENAI = {
    400: ("invalid_request_error", None), 401: ("invalid_request_error", "invalid_api_key"), 403: ("insufficient_permissions", None),
    404: ("invalid_request_error", "model_not_found"), 429: ("requests", "rate_limit_exceeded"),
}  # fmt: skip
SAID = {
    401: "Incorrect API key provided: {key}. You can find your API key in your settings.", 402: "Your credit balance is too low.",
    403: "Your key does not have permission to use the specified resource.", 404: "The model `{model}` does not exist or you do not have access to it.",
    408: "Request timed out.", 409: "Conflict: another request is being processed.", 413: "Request exceeds the maximum size",
    422: "Unprocessable request.", 429: "Rate limit reached for requests.", 500: "Internal server error", 503: "The engine is overloaded.", 529: "Overloaded",
}  # fmt: skip


def script(given) -> list:
    """The entries of a script, as dicts: from its short form, JSON, or a list."""
    if isinstance(given, str):
        given = given.strip()
        given = json.loads(given) if given.startswith("[") else [part.strip() for part in given.split(",") if part.strip()]
    made = []
    for entry in given or ():
        if isinstance(entry, str):
            entry, star, times = entry.partition("*")
            name, *options = entry.split(":")
            pairs = [option.partition("=")[::2] for option in options]
            entry = {"fault": name, **{key: value if key in ("text", "message", "to", "type", "code", "model") else float(value) for key, value in pairs}}
            entry["times"] = int(times or 0) if star else 1
        made.append({"times": 1, **entry, "fault": str(entry["fault"])})
    return made


def count(text) -> int:
    """Tokens, roughly."""
    return len(text) // 4 + 1 if text else 0


def flat(content) -> str:
    """The text of a message, whose content is text or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or () if isinstance(part, dict))


class Vendor(ThreadingHTTPServer):
    """The server. In a test: `with Vendor() as vendor:` and then vendor.url, vendor.script = script("429,500"), vendor.requests."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, port: int = 0, given="", key=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.change = threading.Condition()
        self.script, self.models, self.key = script(given), [], key
        self.requests: list = []
        self.cached: set = set()
        self.counts = {"requests": 0, "closed": 0, "done": 0}
        self.down = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        kind = sys.exc_info()[0]
        if kind is None or not issubclass(kind, (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def service_actions(self):
        """Refuses connections for a while: the port is given up and taken again."""
        if self.down:
            seconds, self.down = self.down, 0.0
            address = self.server_address
            self.socket.close()
            time.sleep(seconds)
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_bind_again(address)

    def server_bind_again(self, address):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(address[:2])
        self.socket.listen(self.request_queue_size)

    def next(self, which: str) -> dict:
        """What is to happen to the next request."""
        with self.change:
            entries = getattr(self, which)
            if not entries:
                return {"fault": "ok"}
            entry = entries[0]
            if entry["times"] == 1:
                entries.pop(0)
            elif entry["times"]:
                entries[0] = {**entry, "times": entry["times"] - 1}
            return entry

    def tally(self, what: str, entry: dict, **fields) -> None:
        """Counts what became of a request; one from before a reset is forgotten, though its thread may come late to say so."""
        with self.change:
            if entry["n"] < len(self.requests) and self.requests[entry["n"]] is entry:
                self.counts[what] += 1
                entry.update(fields)
                self.change.notify_all()

    def state(self) -> dict:
        with self.change:
            return {"requests": [dict(entry) for entry in self.requests], "left": list(self.script), "counts": dict(self.counts)}

    def wait(self, seconds: float = 30.0, **wanted) -> bool:
        """True as soon as the counts are as high as this: requests, closed, done."""
        with self.change:
            return self.change.wait_for(lambda: all(self.counts[name] >= least for name, least in wanted.items()), seconds)

    def control(self, said: dict) -> None:
        with self.change:
            if said.get("reset"):
                self.requests, self.script, self.models, self.cached = [], [], [], set()
                self.counts = dict.fromkeys(self.counts, 0)
            if "script" in said:
                self.script = script(said["script"])
            if "models" in said:
                self.models = script(said["models"])
            if "key" in said:
                self.key = said["key"]
            self.down = float(said.get("down", 0))


class Process:
    """The server as a process of its own. In a test: `with Process("429,500") as vendor:` and then vendor.url, control(…), state(), wait(…)."""

    def __init__(self, given="", *options: str):
        self.options = ["--script", given if isinstance(given, str) else json.dumps(given), *options]

    def __enter__(self):
        self.child = subprocess.Popen([sys.executable, __file__, *self.options], stdout=subprocess.PIPE, text=True)
        self.url = self.child.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()
        self.child.stdout.close()

    def control(self, **said) -> None:
        self._ask("/control", json.dumps(said).encode())

    def state(self) -> dict:
        return self._ask("/control")

    def wait(self, **wanted) -> dict:
        """The state, as soon as that many requests came, were closed or done (at most half a minute: then it raises)."""
        try:
            return self._ask("/control/wait?" + urlencode(wanted))
        except HTTPError as late:
            counts = json.load(late)["counts"]
        raise AssertionError(f"{wanted} did not come: {counts}")

    def _ask(self, path: str, data=None) -> dict:
        return tell(self.url + path, data)


def tell(url: str, data=None) -> dict:
    """What a server answers, past every proxy that the environment of a test may name."""
    with build_opener(ProxyHandler({})).open(Request(url, data), timeout=90) as answer:
        return json.load(answer)


class Left(Exception):
    """The client went away."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Vendor

    def log_message(self, *_):
        pass

    # ---- what comes in ----

    def do_GET(self):
        path = urlsplit(self.path)
        if path.path == "/control/wait":
            wanted = {name: float(value) for name, value in parse_qsl(path.query)}
            met = self.server.wait(wanted.pop("seconds", 30.0), **wanted)
            self.send(200 if met else 504, self.server.state())
        elif path.path == "/control":
            self.send(200, self.server.state())
        elif path.path == "/health":
            self.send(200, {"status": "ok"})
        else:
            self.act(None, "models")

    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/control":
            self.server.control(json.loads(data or b"{}"))
            self.send(200, {"ok": True})
            return
        try:
            body = json.loads(data)
        except ValueError:
            body = data.decode("utf-8", "replace")
        self.act(body, "script")

    do_HEAD = do_GET

    def act(self, body, which: str) -> None:
        given = self.headers.get("x-api-key") or (self.headers.get("authorization") or "").removeprefix("Bearer ")
        self.given, self.body = given, body if isinstance(body, dict) else {}
        entry = self.server.next(which)
        path = urlsplit(self.path).path
        self.vendor = "anthropic" if path.endswith("/messages") or self.headers.get("anthropic-version") else "openai"
        headers = {name.lower(): "-" if name.lower() in HIDDEN else value for name, value in self.headers.items()}
        noted = {"method": self.command, "path": self.path, "headers": headers, "body": body, "fault": entry["fault"], "closed": False}
        noted |= {"key": hashlib.sha256(given.encode()).hexdigest()[:8] if given else "", "ts": time.time()}
        with self.server.change:
            noted["n"] = len(self.server.requests)
            self.server.requests.append(noted)
            self.server.tally("requests", noted)
        if self.server.key is not None and given != self.server.key:
            entry = {"fault": "401"}
        self.entry = entry
        try:
            self.perform(path, entry)
        except (Left, ConnectionError):
            self.close_connection = True
            self.server.tally("closed", noted, closed=True)
            return
        self.server.tally("done", noted)

    # ---- what goes out ----

    def perform(self, path: str, entry: dict) -> None:
        fault = entry["fault"]
        if fault == "hang":
            self.idle(EVER)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if fault == "slow":
            self.idle(entry.get("seconds", 1.0))
        if fault == "302":
            self.send(302, b"", Location=entry.get("to", "http://127.0.0.1:1/"))
        elif fault.isdigit() and fault != "200":
            self.refuse(int(fault), entry)
        elif fault == "context":
            words = {
                "anthropic": "prompt is too long: 205192 tokens > 200000 maximum",
                "openai": "This model's maximum context length is 128000 tokens. However, your messages resulted in 205192 tokens. Please reduce the length.",
            }
            self.refuse(400, {"code": "context_length_exceeded", "param": "messages", "message": words[self.vendor], **entry})
        elif fault == "filter":
            self.refuse(400, {"code": "content_filter", "message": "The response was filtered due to the prompt triggering our policy.", **entry})
        elif fault == "garbage":
            self.send(200, b"<html><body>Welcome to the hotel. Please sign in.</body></html>" + b"\0\xff" * 50, kind="text/html")
        elif fault == "raw":
            self.send(200, entry.get("body", "").encode("utf-8", "surrogatepass"), kind=entry.get("type", "text/event-stream"))
        elif path.endswith("/models"):
            names = [{"id": "tiny", "object": "model", "type": "model", "created": 1, "display_name": "tiny", "created_at": "2026-01-01T00:00:00Z"}]
            self.send(200, {"object": "list", "data": names, "has_more": False, "first_id": "tiny", "last_id": "tiny"})
        elif path.endswith("/messages"):
            self.answer(self.say_messages)
        elif path.endswith("/chat/completions"):
            self.answer(self.say_chat)
        elif path.endswith("/responses"):
            self.answer(self.say_responses)
        else:
            self.refuse(404, entry)

    def refuse(self, status: int, entry: dict) -> None:
        said = entry.get("message") or SAID.get(status, f"Error {status}").format(key=self.given, model=self.body.get("model"))
        said += "x" * int(entry.get("bytes", 0))
        if self.vendor == "anthropic":
            kind = ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
            body = {"type": "error", "error": {"type": entry.get("type", kind), "message": said}, "request_id": "req_1"}
        else:
            kind, code = OPENAI.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
            body = {"error": {"message": said, "type": entry.get("type", kind), "param": entry.get("param"), "code": entry.get("code", code)}}
        extra = {}
        if "retry-after" in entry:
            extra["Retry-After"] = f"{entry['retry-after']:g}"
        if "retry-date" in entry:
            extra["Retry-After"] = formatdate(time.time() + entry["retry-date"], usegmt=True)
        if "retry-ms" in entry:
            extra["retry-after-ms"] = f"{entry['retry-ms']:g}"
        if entry.get("endless"):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data) * 2))
            self.end_headers()
            self.connection.sendall(data)
            self.idle(EVER)
        self.send(status, body, **self.limits(), **extra)

    def limits(self) -> dict:
        entry = self.entry
        left, tokens, reset = int(entry.get("requests-left", 59)), int(entry.get("tokens-left", 90_000)), float(entry.get("reset", 1))
        if self.vendor == "anthropic":
            when = time.time() + reset
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1000):03d}Z"
            made = {"requests-limit": 60, "requests-remaining": left, "requests-reset": at, "tokens-limit": 100_000, "tokens-remaining": tokens}
            return {f"anthropic-ratelimit-{name}": value for name, value in {**made, "tokens-reset": at}.items()} | {"request-id": "req_1"}
        span = f"{reset * 1000:g}ms" if reset < 1 else f"{int(reset // 60)}m{reset % 60:g}s" if reset >= 60 else f"{reset:g}s"
        made = {"limit-requests": 60, "limit-tokens": 100_000, "remaining-requests": left, "remaining-tokens": tokens}
        return {f"x-ratelimit-{name}": value for name, value in {**made, "reset-requests": span, "reset-tokens": span}.items()} | {"x-request-id": "req_1"}

    def send(self, status: int, body, kind: str = "application/json", **headers) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.write(data)

    def write(self, data: bytes) -> None:
        if self.entry_is("drip"):
            for n in range(len(data)):
                self.connection.sendall(data[n : n + 1])
                self.idle(self.entry.get("seconds", 0.05))
        else:
            self.connection.sendall(data)

    def entry_is(self, *names) -> bool:
        return getattr(self, "entry", {}).get("fault") in names

    def idle(self, seconds: float) -> None:
        """Waits, as long as the client is there."""
        ready, _, _ = select.select([self.connection], [], [], seconds)
        if ready and not self.connection.recv(1, socket.MSG_PEEK):
            raise Left

    # ---- answers ----

    def answer(self, speak) -> None:
        """speak(text, pieces, stop) -> (whole answer, events [(name, dict)]); events are read only for a stream."""
        entry = self.entry
        asked = self.body.get("messages") or self.body.get("input") or []
        asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        self.asked = [(message.get("role"), flat(message.get("content")), message.get("content")) for message in asked]
        text = entry.get("text", f"You said: {self.asked[-1][1] if self.asked else ''}")
        if "size" in entry:
            text = "0123456789abcde\n" * int(entry["size"] * 65536)
        stop = {"max": "length", "refusal": "refusal"}.get(entry["fault"], "end")
        if entry["fault"] in ("empty", "refusal") and "text" not in entry:
            text = ""
        step = -(-len(text) // int(entry["pieces"])) if "pieces" in entry else 65536 if len(text) > 65536 else 4
        pieces = [text[n : n + step] for n in range(0, len(text), step or 1)]
        whole, events = speak(text, pieces, stop)
        if self.body.get("stream"):
            self.stream(events)
        else:
            self.whole(whole)

    def whole(self, made: dict) -> None:
        data = json.dumps(made).encode()
        if self.entry_is("wrong"):
            data = b'{"hello": ["world", 1, null], "content": 7, "choices": {"a": 1}, "output": "x"}'
        elif self.entry_is("utf8"):
            data = data.replace(b"You said", b"You\xff\xc3said")
        elif self.entry_is("broken"):
            data = data[: len(data) // 2]
        elif self.entry_is("gzip"):
            self.send(200, gzip.compress(data), **self.limits(), **{"Content-Encoding": "gzip"})
            return
        if self.entry_is("cut", "eof", "stall", "fault"):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.connection.sendall(data[: len(data) // 2])
            if self.entry_is("stall"):
                self.idle(EVER)
            self.close_connection = True
            return
        self.send(200, data, **self.limits())

    def stream(self, events) -> None:
        entry, chunked = self.entry, not self.entry_is("eof")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        for name, value in self.limits().items():
            self.send_header(name, str(value))
        if self.entry_is("gzip"):
            self.send_header("Content-Encoding", "gzip")
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        self.end_headers()
        seen = 0
        for name, made in events:
            delta = "delta" in name or (not name and isinstance(made, dict) and any(one["delta"].get("content") for one in made.get("choices", ())))
            seen += delta
            data = made.encode() if isinstance(made, str) else json.dumps(made).encode()
            last = not delta and seen > 0
            if self.entry_is("cut", "eof", "stall", "fault") and (seen > entry.get("after", 1) or last):
                if self.entry_is("stall"):
                    self.idle(EVER)
                if self.entry_is("fault"):
                    self.event(*self.failure(entry.get("type", "overloaded_error" if self.vendor == "anthropic" else "server_error")), chunked)
                    break
                self.close_connection = True
                return
            if delta and self.entry_is("wrong"):
                data = b'[1, {"choices": 3}, null]' if seen == 1 else b'{"type": 3, "choices": "x", "delta": [], "usage": "none"}'
            elif delta and self.entry_is("broken"):
                data = data[:-5]
            elif delta and self.entry_is("utf8"):
                data = data[:-4] + b"\xff\xc3" + data[-4:]
            self.event(name, data, chunked)
        if chunked:
            self.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def event(self, name: str, data: bytes, chunked: bool) -> None:
        data = (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"
        self.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)

    def failure(self, kind: str) -> tuple:
        error = {"type": kind, "message": self.entry.get("message", "Overloaded")}
        if self.vendor == "anthropic":
            return "error", json.dumps({"type": "error", "error": error}).encode()
        if self.path.endswith("/responses"):
            return "error", json.dumps({"type": "error", "code": kind, "message": error["message"], "param": None, "sequence_number": 9}).encode()
        return "", json.dumps({"error": {**error, "code": kind, "param": None}}).encode()

    def used(self, prompt: str, text: str) -> tuple:
        entry = self.entry
        return count(prompt), int(entry.get("cached", 0)), int(entry.get("output", count(text)))

    def say_messages(self, text: str, pieces: list, stop: str) -> tuple:
        prefix, marked, whole = "", [], ""
        for part in [("system", "", self.body.get("system") or ""), *self.asked]:
            content = part[2] if isinstance(part[2], list) else [{"text": part[2]}]
            for block in content:
                whole += f"{part[0]}:{block.get('text', '')}\n"
                if "cache_control" in block:
                    marked.append(whole)
        read = written = 0
        with self.server.change:
            for prefix in marked:
                if prefix in self.server.cached:
                    read = count(prefix)
                else:
                    written = count(prefix) - read
            self.server.cached.update(marked)
        if "cached" in self.entry:
            read, written = int(self.entry["cached"]), 0
        usage = {"input_tokens": max(0, count(whole) - read - written), "cache_creation_input_tokens": written, "cache_read_input_tokens": read}
        out = int(self.entry.get("output", count(text)))
        reason = {"end": "end_turn", "length": "max_tokens", "refusal": "refusal"}[stop]
        model = self.entry.get("model", f"{self.body.get('model')}-20260101")
        empty = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None, "stop_sequence": None}
        made = {**empty, "content": [{"type": "text", "text": text}] if text else [], "stop_reason": reason, "usage": {**usage, "output_tokens": out}}

        def events():
            yield "message_start", {"type": "message_start", "message": {**empty, "usage": {**usage, "output_tokens": 1}}}
            if text:
                yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
                yield "ping", {"type": "ping"}
                for piece in pieces:
                    yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
                yield "content_block_stop", {"type": "content_block_stop", "index": 0}
            end = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": out}}
            # Its name has `delta` in it, and it is none of the text.
            yield "message_end", end
            yield "message_stop", {"type": "message_stop"}

        return made, ((("message_delta" if name == "message_end" else name), one) for name, one in events())

    def say_chat(self, text: str, pieces: list, stop: str) -> tuple:
        used, cached, out = self.used("".join(part[1] for part in self.asked), text)
        usage = {"prompt_tokens": used + cached, "completion_tokens": out, "total_tokens": used + cached + out}
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        reason = {"end": "stop", "length": "length", "refusal": "content_filter"}[stop]
        head = {"id": "chatcmpl-1", "created": 1, "model": self.entry.get("model", f"{self.body.get('model')}-2026-01-01")}
        message = {"role": "assistant", "content": text or None, "refusal": None}
        made = {**head, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}
        head["object"] = "chat.completion.chunk"

        def events():
            yield "", {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
            for piece in pieces:
                yield "", {**head, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
            yield "", {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
            if (self.body.get("stream_options") or {}).get("include_usage"):
                yield "", {**head, "choices": [], "usage": usage}
            yield "", "[DONE]"

        return made, events()

    def say_responses(self, text: str, pieces: list, stop: str) -> tuple:
        used, cached, out = self.used(f"{self.body.get('instructions') or ''}{''.join(part[1] for part in self.asked)}", text)
        usage = {"input_tokens": used + cached, "input_tokens_details": {"cached_tokens": cached}, "output_tokens": out}
        usage |= {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": used + cached + out}
        part = {"type": "output_text", "text": text, "annotations": []} if stop != "refusal" else {"type": "refusal", "refusal": "I can't help with that."}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part] if text or stop == "refusal" else []}
        head = {"id": "resp_1", "object": "response", "created_at": 1, "model": self.entry.get("model", f"{self.body.get('model')}-2026-01-01")}
        head |= {"error": None, "incomplete_details": None, "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        made = {**head, "status": "completed", "output": [item], "usage": usage}
        if stop == "length":
            made |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

        def events():
            where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
            yield "response.created", {"response": {**head, "status": "in_progress"}}
            yield "response.output_item.added", {"output_index": 0, "item": {**item, "content": [], "status": "in_progress"}}
            if stop == "refusal":
                yield "response.refusal.delta", {**where, "delta": part["refusal"]}
            else:
                yield "response.content_part.added", {**where, "part": {**part, "text": ""}}
                for piece in pieces:
                    yield "response.output_text.delta", {**where, "delta": piece, "logprobs": []}
                yield "response.output_text.done", {**where, "text": text, "logprobs": []}
            yield "response.output_item.done", {"output_index": 0, "item": item}
            yield ("response.incomplete" if stop == "length" else "response.completed"), {"response": made}

        return made, ((name, {"type": name, "sequence_number": n, **one}) for n, (name, one) in enumerate(events()))


def main() -> None:
    options = argparse.ArgumentParser(prog="vendor.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--script", default="")
    options.add_argument("--key", default=None)
    options.add_argument("--tell", nargs="+", metavar=("URL", "JSON"))
    given = options.parse_args()
    if given.tell:
        url, *said = given.tell
        if said and not said[0].startswith("wait?"):
            tell(f"{url}/control", said[0].encode())
        try:
            print(json.dumps(tell(f"{url}/control{'/' + said[0] if said and said[0].startswith('wait?') else ''}")))
        except HTTPError:
            sys.exit(1)
        return
    vendor = Vendor(given.port, given.script, given.key)
    print(vendor.url, flush=True)
    try:
        vendor.serve_forever(0.02)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
