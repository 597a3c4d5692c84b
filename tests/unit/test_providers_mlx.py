"""Models in this process: a tiny one with random weights, made here, through mlx-lm and through a real mlx_lm.server."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import orjson
import pytest
from serenamaster import execution, providers
from serenamaster.errors import Failure

mx = pytest.importorskip("mlx.core", reason="MLX IS MISSING: no model is run in the process (pip install mlx-lm 'mlx[cpu]')")
pytest.importorskip("mlx_lm", reason="MLX-LM IS MISSING: no model is run in the process (pip install mlx-lm 'mlx[cpu]')")

LIB = Path(providers.__file__).parents[1]
SIZES = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and strict %}{{ raise_exception('no system') }}{% endif %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
TALK = [{"role": "system", "text": "be brief"}, {"role": "user", "text": "tell me of the sea"}]


def make(folder: Path, template: str = TEMPLATE, **more) -> Path:
    """A Llama that says nonsense: the same at each call, as its weights and its choices are fixed."""
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir()
    config = {"model_type": "llama", "rms_norm_eps": 1e-5, "head_dim": 32, "tie_word_embeddings": False, "max_position_embeddings": 2048, **SIZES, **more}
    config |= {"bos_token_id": 0, "eos_token_id": config.pop("eos", 1), "rope_theta": 10000.0, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    mx.random.seed(7)
    args = llama.ModelArgs.from_dict(config)
    weights = {name: mx.random.normal(value.shape) * 0.3 for name, value in tree_flatten(llama.Model(args).parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    words = ["<s>", "</s>", *(chr(code) for code in range(32, 127)), "\n", *(chr(code) for code in range(0xC0, 0xDE))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words[:128])}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | ({"chat_template": template} if template else {})))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def forget():
    yield
    providers._models.clear()


def call(path, *, stream=True, seconds=120, output=20, messages=TALK, wait=None, spec=None):
    wait = wait or (lambda function, *args: function(*args))
    spec = spec or {"name": "here", "kind": "mlx", "privacy": "local"}
    return providers.ask(spec, {"name": "tiny", "id": str(path)}, messages, seconds=seconds, output=output, stream=stream, once=None, wait=wait)


def drain(made):
    pieces = []
    while True:
        try:
            pieces.append(next(made))
        except StopIteration as end:
            return pieces, end.value


def trouble(made) -> providers.Trouble:
    with pytest.raises(providers.Trouble) as bad:
        drain(made)
    return bad.value


def test_an_answer(model):
    pieces, streamed = drain(call(model))
    assert "".join(pieces) == streamed.text
    assert len(pieces) > 3
    assert (streamed.model, streamed.cached_tokens, streamed.output_tokens, streamed.stop) == ("tiny", 0, 20, "length")
    assert streamed.input_tokens == len("<system> be brief\n<user> tell me of the sea\n<assistant> ")
    pieces, whole = drain(call(model, stream=False))
    assert whole == streamed
    assert len(pieces) == 1


def test_it_is_loaded_once(model):
    drain(call(model))
    held = providers._models[str(model)]
    drain(call(f"{model}/../tiny"))
    assert providers._models == {str(model): held}


def test_it_stops_where_the_model_stops(model, tmp_path):
    text = drain(call(model))[1].text
    # One of the signs that it says is made its end.
    vocabulary = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    sign = next(sign for sign in text[3:] if sign in vocabulary and sign not in text[:3])
    _, answer = drain(call(make(tmp_path / "ends", eos=vocabulary[sign])))
    assert answer.stop == "end"
    assert answer.text == text[: text.index(sign)]
    assert answer.output_tokens < 20


def test_a_model_without_template(tmp_path):
    answer = drain(call(make(tmp_path / "plain", "")))[1]
    assert answer.input_tokens == len("system: be brief\nuser: tell me of the sea\nassistant:")


def test_a_template_that_refuses_system_parts(tmp_path):
    answer = drain(call(make(tmp_path / "strict", "{% set strict = true %}" + TEMPLATE)))[1]
    assert answer.input_tokens == len("<user> be brief\n\ntell me of the sea\n<assistant> ")


def test_too_long_for_the_model(tmp_path):
    path = make(tmp_path / "short", max_position_embeddings=32)
    assert trouble(call(path)).kind == "length"


def test_the_time_is_over(model):
    drain(call(model))
    made = call(model, output=10**9)
    assert next(made)
    made.gi_frame.f_locals["call"].end = time.monotonic() + 0.1
    bad = trouble(made)
    assert bad.kind == "timeout"
    assert bad.answer.text
    # The model is free again for the next one.
    assert drain(call(model))[1].text


def test_a_call_that_is_left(model):
    made = call(model, output=10**9)
    assert next(made)
    made.close()
    assert drain(call(model))[1].text


def test_a_call_that_is_left_before_its_first_piece(model):
    def wait(take):
        while (take.__self__.output or 0) < 3:
            time.sleep(0.001)

    assert drain(call(model, stream=False, output=10**9, seconds=600, wait=wait)) == ([], None)
    assert drain(call(model))[1].text


def test_a_signal_ends_it(model):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    held = [signal.getsignal(number) for number in numbers]
    try:
        stop = execution.Stop()
        made = call(model, output=10**9, seconds=600, wait=stop.wait)
        next(made)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert drain(made)[1] is None
        assert stop.number == signal.SIGTERM
    finally:
        for number, was in zip(numbers, held, strict=True):
            signal.signal(number, was)


# -- models that can't be loaded: the next target


def refused(path, words) -> None:
    bad = trouble(call(path))
    assert (bad.kind, bad.status) == ("input", 0)
    assert words in bad.message
    assert len(bad.message) <= 300


def test_no_such_folder(tmp_path):
    refused(tmp_path / "gone", "no such file or directory")
    # What looks like a name in a hub is a path like any other.
    refused("mlx-community/tiny", "no such file or directory")


def test_no_model_in_it(tmp_path):
    refused(tmp_path, "there is no config.json with a model.safetensors")
    refused(__file__, "not a directory")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", ["cut", "noise", "empty"])
def test_a_broken_file(tmp_path, name, how):
    path = make(tmp_path / "broken")
    data = (path / name).read_bytes()
    (path / name).write_bytes({"cut": data[: len(data) // 2], "noise": b"\x93\xff" * 500, "empty": b""}[how])
    refused(path, "cannot be loaded")
    assert providers._models == {}


def test_code_in_a_model_is_not_run(tmp_path):
    path = make(tmp_path / "code")
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_file": "evil.py", "auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    refused(path, "cannot be loaded")
    assert not (tmp_path / "ran").exists()


def test_too_little_memory(model, tmp_path):
    drain(call(model))
    path = make(tmp_path / "huge")
    os.truncate(path / "model.safetensors", 2**43)
    refused(path, "of memory are free")
    assert providers._models == {}, "what was loaded makes room first"


def test_nothing_is_fetched_or_compiled(model, tmp_path):
    """In a process without a network, and with a folder for temporary files that stays empty."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from serenamaster import providers;"
        "made = providers.ask({'name': 'here', 'kind': 'mlx'}, {'id': sys.argv[2]}, [{'role': 'user', 'text': 'hi'}],"
        " seconds=120, output=5, stream=True, once=None, wait=lambda f, *a: f(*a)); print(len(''.join(made))); import os; print('HF_HUB_OFFLINE' in os.environ)"
    )
    (tmp_path / "tmp").mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "https_proxy": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code, str(LIB), str(model)], env=env, capture_output=True, text=True)
    assert (done.stdout.split()[1:], done.stderr) == (["False"], "")
    assert int(done.stdout.split()[0]) > 0
    assert list((tmp_path / "tmp").iterdir()) == []


# -- the same through a server


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    home = tmp_path_factory.mktemp("server")
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "HF_HUB_OFFLINE": "1", "MLX_DISABLE_COMPILE": "1"}
    with open(home / "log", "w") as log:
        argv = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model), "--port", str(port := _port())]
        child = subprocess.Popen(argv, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    spec = {"name": "served", "kind": "openai", "url": f"http://127.0.0.1:{port}/v1", "privacy": "local"}
    while child.poll() is None and not providers.probe(spec, seconds=5)[0]:
        pass
    assert child.poll() is None, (home / "log").read_text()
    yield spec
    child.terminate()
    child.wait()


def _port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("stream", [True, False])
def test_the_same_through_a_server(model, served, stream):
    _, own = drain(call(model))
    pieces, answer = drain(call(model, stream=stream, spec=served))
    assert answer.text == "".join(pieces)
    assert answer.text[:10] == own.text[:10]
    assert (answer.output_tokens, answer.stop) == (20, "length")
    assert answer.input_tokens + (answer.cached_tokens or 0) == own.input_tokens


def test_a_server_is_left_in_the_middle(model, served):
    made = call(model, spec=served, output=1500)
    next(made)
    made.close()
    assert drain(call(model, spec=served))[1].text


# -- how fast it is


def test_bench(model, monkeypatch):
    assert providers.BENCH == ("16", "8", "4")
    monkeypatch.setattr(providers, "BENCH", ("4",))  # all of them: doctor.bats
    rows = list(providers.bench(str(model)))
    assert [row["bits"] for row in rows] == [4]
    for row in rows:
        assert "error" not in row, row
        assert row["load_ms"] > 0
        assert row["tokens_s"] > 0
        assert row["memory"] > 10 * 1024 * 1024
    orjson.dumps(rows)


def test_bench_of_what_is_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(providers, "BENCH", ("4",))
    with pytest.raises(Failure) as bad:
        list(providers.bench(str(tmp_path)))
    assert bad.value.code == 66
    (tmp_path / "config.json").write_text("{}")
    assert ["error" in row for row in providers.bench(str(tmp_path))] == [True]
