"""The endpoint engine: the in-process engine's replies, and never anything that is no reply."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from cpt_bench.engines import Request, open_engine
from cpt_bench.engines.endpoint import base_url, data_url
from cpt_bench.errors import CptBenchError
from cpt_bench.images import decode, encode_ppm
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite
from tests.support.places import TINY
from tests.support.questions import questions
from tests.support.serving import Answer, Fake, Server, completion


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Fake]]:
    fakes: list[Fake] = []

    def start(answer: Answer, models: list[dict[str, Any]] | None = None) -> Fake:
        fakes.append(Fake(answer, models))
        return fakes[-1]

    yield start
    for fake in fakes:
        fake.server.shutdown()
        fake.server.server_close()


def ask(n: int) -> list[Request]:
    return [Request(f"q{i}", f"question {i}", ()) for i in range(n)]


def echo(body: dict[str, Any], number: int) -> tuple[int, Any]:
    return 200, completion(body["messages"][0]["content"][-1]["text"].replace("question", "answer"))


def test_replies_come_in_order_many_at_a_time(serve: Any) -> None:
    def slow(body: dict[str, Any], number: int) -> tuple[int, Any]:
        time.sleep(0.05 * (number % 3))
        return echo(body, number)

    fake, told = serve(slow), []
    replies = fake.engine(concurrency=5).generate(ask(20), 7, told.append)
    assert [r.text for r in replies] == [f"answer {i}" for i in range(20)]
    assert replies[0].tokens == 3 and told[-1] == 20
    assert 2 <= fake.most <= 5
    body = fake.asked[0]
    assert (body["path"], body["model"], body["temperature"], body["max_tokens"]) == (
        "/v1/chat/completions", "m", 0, 7,
    )  # fmt: skip


def test_pictures_travel_as_the_pixels_the_other_engines_see(serve: Any) -> None:
    import base64

    picture = encode_ppm(bytes(range(48)), 4, 4)
    fake = serve(echo)
    fake.engine().generate([Request("q", "question 1", (picture, picture))], 7)
    parts = fake.asked[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    head, _, data = parts[0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = decode(base64.b64decode(data), "sent")
    assert sent.tobytes() == decode(picture, "own").tobytes() == bytes(range(48))


def test_an_image_that_servers_would_turn_is_sent_as_it_is_seen() -> None:
    import base64
    import io

    from PIL import Image

    picture, stream = Image.new("RGB", (2, 4), "red"), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    picture.save(stream, "JPEG", exif=exif)
    sent = Image.open(
        io.BytesIO(base64.b64decode(data_url(stream.getvalue(), "x").partition(",")[2]))
    )
    assert sent.size == (2, 4) and not sent.getexif()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int, serve: Any) -> None:
    def busy(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return (status, {"error": {"message": "busy"}}) if number == 1 else echo(body, number)

    assert serve(busy).engine(retries=2).generate(ask(1), 7)[0].text == "answer 0"


@pytest.mark.parametrize(
    ("status", "said", "complaint"),
    [
        (500, {"error": {"message": "out of memory"}}, "out of memory"),
        (400, {"error": {"message": "no such model"}}, "no such model"),
        (200, b"<html>bad gateway</html>", "no answer to q"),
        (200, b"", "no answer to q"),
        (200, {"error": "busy"}, "busy"),
        (200, b"", "the body is empty"),
        (200, completion(None), "the reply is None, not text"),
        (200, completion("", finish_reason="content_filter"), "ended with 'content_filter'"),
        (200, completion("x", message={"role": "assistant", "content": "x", "reasoning_content": "y"}), "without a reasoning parser"),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_no_answer(status: int, said: Any, complaint: str, serve: Any) -> None:
    engine = serve(lambda body, number: (status, said)).engine()
    with pytest.raises(CptBenchError) as caught:
        engine.generate(ask(3), 7)
    assert complaint in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not engine.journal.known


def test_an_empty_reply_is_one(serve: Any) -> None:
    """A model that ends at once answered nothing, which is graded as such."""
    reply = (
        serve(lambda body, number: (200, completion("", usage=None)))
        .engine()
        .generate(ask(1), 7)[0]
    )
    assert reply == ("", None)


def test_two_models_behind_one_name_are_found(serve: Any) -> None:
    def other(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return 200, completion("a", model=f"m-{number % 2}")

    with pytest.raises(CptBenchError, match="two models answered one evaluation: m-0 and m-1"):
        serve(other).engine(concurrency=1).generate(ask(4), 7)


LISTED = {"id": "m", "object": "model", "created": 0, "owned_by": "vllm", "root": "/a"}


@pytest.mark.parametrize("by", ["model", "root"])
def test_a_server_that_comes_back_with_another_model_is_found(
    by: str, serve: Any, tmp_path: Path
) -> None:
    """The other half of an evaluation, answered after a restart under the same served name."""
    name = "m"

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return 200, completion("a", model=name)

    fake, file = serve(answer, [LISTED]), tmp_path / "journal.jsonl"
    fake.engine(journal=file).generate(ask(3), 7)
    fake.models[0] = {**LISTED, "max_model_len": 512}  # started anew with other settings
    fake.engine(journal=file).generate(ask(4), 7)
    if by == "model":
        name = "other"
    else:
        fake.models[0] = {**LISTED, "root": "/b"}
    with pytest.raises(CptBenchError, match="two models answered one evaluation") as caught:
        fake.engine(journal=file).generate(ask(5), 7)
    assert len(str(caught.value).splitlines()) == 1
    assert len(fake.engine(journal=file).journal.known) == 4
    fake.engine(journal=file, nonce="b").generate(ask(1), 7)  # an evaluation of its own


def test_a_restart_in_the_middle_of_an_evaluation_is_looked_into(serve: Any) -> None:
    """vLLM signs with a hash of its settings: another signature is another start."""

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if number == 3:
            fake.models[0] = {**LISTED, "root": "/b"}
        return 200, completion("a", system_fingerprint=f"vllm-0.30.0-{'a' if number < 3 else 'b'}")

    fake = serve(answer, [LISTED])
    with pytest.raises(CptBenchError, match="two models answered one evaluation: /a and /b"):
        fake.engine(concurrency=1).generate(ask(5), 7)


@pytest.mark.parametrize(
    ("models", "fingerprint", "program"),
    [
        ([LISTED], None, "vllm"),
        ([{**LISTED, "owned_by": "sglang"}], None, "sglang"),
        (None, "vllm-0.30.0-tp2-12ab34cd", "vllm"),
        ([{**LISTED, "owned_by": "proxy"}], "vllm-0.30.0-12ab34cd", "vllm"),
        (None, None, ""),
        ([{**LISTED, "owned_by": "Qwen"}], "fp_44709d6fcb", ""),
    ],
)
def test_a_checkpoint_s_sampling_settings_are_kept_out(
    models: Any, fingerprint: str | None, program: str, serve: Any
) -> None:
    """Neutral values are sent to programs that take them; of others there is a warning."""

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        penalised = "repetition_penalty" not in body
        return 200, completion("wrong" if penalised else "right", system_fingerprint=fingerprint)

    fake = serve(answer, models)
    engine = fake.engine(concurrency=1)
    replies = engine.generate(ask(3), 7)
    assert {r.text for r in replies} == {"right" if program else "wrong"}
    assert all(body["frequency_penalty"] == 0 for body in fake.asked)
    assert engine.server.program == program
    assert len(engine.server.warnings) == (0 if program else 1)
    asked_for = fake.engine(extra={"repetition_penalty": 1.2}, nonce="b")
    asked_for.generate(ask(1), 7)
    assert fake.asked[-1]["repetition_penalty"] == 1.2, "what somebody asked for is sent"


@pytest.mark.parametrize("told", ["four", -7, 10**9, 8, 0, 3.5, [3]])
def test_a_number_of_tokens_that_is_none_is_no_answer(
    told: Any, serve: Any, tmp_path: Path
) -> None:
    usage = {"completion_tokens": told, "prompt_tokens": 5, "total_tokens": 8}
    fake = serve(lambda body, number: (200, completion("a", usage=usage)))
    engine = fake.engine(journal=tmp_path / "journal.jsonl")
    with pytest.raises(
        CptBenchError, match=r"has tokens .*, not a whole number from 0 to 7|has text but 0 tokens"
    ) as caught:
        engine.generate(ask(1), 7)
    assert len(str(caught.value).splitlines()) == 1
    assert not fake.engine(journal=tmp_path / "journal.jsonl").journal.known


def test_a_reply_that_the_server_s_own_limit_cuts_is_none(serve: Any) -> None:
    usage = {"completion_tokens": 3, "prompt_tokens": 5, "total_tokens": 8}
    fake = serve(lambda body, number: (200, completion("a", finish_reason="length", usage=usage)))
    assert fake.engine().generate(ask(1), 3)[0].text == "a"  # as many as were asked for
    with pytest.raises(CptBenchError, match=r"cut after 3 of 7 tokens.*--max-model-len"):
        fake.engine().generate(ask(1), 7)


def test_how_a_server_is_asked_is_set_by_hand() -> None:
    from cpt_bench.engines.choice import asking

    given = ("timeout=5", "retries=0", "concurrency=2", "key=007", "extra={min_tokens: 2}")
    assert asking(given) == {
        "timeout": 5, "retries": 0, "concurrency": 2, "key": "007", "extra": {"min_tokens": 2},
    }  # fmt: skip
    for setting, complaint in (
        ("nonce=a", "nonce is not set by hand"), ("model=m", "The name is --model's"),
        ("retries=-1", "not a whole number from 0"), ("timeout=soon", "not a number of seconds"),
        ("extra=1", "not a mapping"), ("timout=1", "Did you mean 'timeout'"), ("key", "key=value"),
    ):  # fmt: skip
        with pytest.raises(CptBenchError, match=complaint):
            asking((setting,))


def test_the_journal_goes_on_and_knows_whose_it_is(serve: Any, tmp_path: Path) -> None:
    well = threading.Event()

    def dies(body: dict[str, Any], number: int) -> tuple[int, Any]:
        fine = number <= 6 or well.is_set()
        return echo(body, number) if fine else (500, {"error": {"message": "gone"}})

    file, fake = tmp_path / "journal.jsonl", serve(dies)
    with pytest.raises(CptBenchError, match="gone"):
        fake.engine(journal=file, concurrency=1).generate(ask(10), 7)
    with file.open("a") as stream:
        stream.write('\n{"weights": "endpoi')  # killed while writing
    well.set()
    before = len(fake.asked)
    engine = fake.engine(journal=file, concurrency=1)
    assert [r.text for r in engine.generate(ask(10), 7)] == [f"answer {i}" for i in range(10)]
    assert len(fake.asked) - before == 4, "what was answered is not asked again"
    assert len(fake.engine(journal=file).journal.known) == 10
    # Another nonce, another model, other words, another limit: nothing of the first is used.
    assert not fake.engine(journal=file, nonce="b").journal.known
    assert not fake.engine(journal=file, model="n").journal.known
    before = len(fake.asked)
    fake.engine(journal=file).generate([Request("q0", "question 0 again", ())], 7)
    fake.engine(journal=file).generate(ask(1), 8)
    assert len(fake.asked) - before == 2
    assert engine.weights.startswith("endpoint:")


def test_urls() -> None:
    assert base_url("http://h:1") == base_url("http://h:1/") == "http://h:1/v1"
    assert base_url("https://h/openai/v1/") == "https://h/openai/v1"
    for bad in ("localhost:8000", "file:///etc", "nano"):
        with pytest.raises(CptBenchError, match="is not a URL"):
            base_url(bad)


def test_the_factory_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CptBenchError, match=r"no engine is called 'vlm'. Did you mean 'vllm'?"):
        open_engine("vlm", tmp_path)
    with pytest.raises(CptBenchError, match=r"has no setting 'modell'. Did you mean 'model'?"):
        open_engine("endpoint", "http://h", modell="x")


# --------------------------------------------------------------- a real server

SUITE = load_suite(TINY)


@pytest.mark.slow
def test_a_real_server_gives_the_in_process_engine_s_replies_and_survives_a_kill(
    tmp_path: Path,
) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("torch")
    from cpt_bench.engines.hf import TransformersEngine
    from cpt_bench.evaluation.predictions import evaluate
    from cpt_bench.tasks.nano import FOLDER

    requests, limit = questions(4), SUITE.protocol.decoding.max_new_tokens
    server = Server(FOLDER / "checkpoint", tmp_path / "server.log")
    server.start()
    try:
        settings: dict[str, Any] = {"model": str(server.checkpoint), "nonce": "one", "retries": 1}
        engine = open_engine("endpoint", server.url, **settings, concurrency=4)
        told = engine.generate(requests, limit)
        own = TransformersEngine(FOLDER / "checkpoint", device="cpu").generate(requests, limit)
        assert told == own  # the words and the number of tokens
        assert len({reply.text for reply in told}) > 10, "the questions tell models apart"

        # Half-way the server is killed: the cell is not written, what came before is kept.
        journal, card = tmp_path / "journal.jsonl", SUITE.card("lowvision")
        samples = load_split(card, "test")

        def kill_later(done: int) -> None:
            if done >= 4:
                server.kill()

        engine = open_engine("endpoint", server.url, **settings, journal=journal, concurrency=1)
        with pytest.raises(
            CptBenchError, match=r"no answer to lowvision.* repeat the same command"
        ):
            evaluate(engine, card, samples, SUITE.protocol, progress=kill_later)
        kept = len(engine.journal.known)  # type: ignore[attr-defined]
        assert 0 < kept < len(samples)
        # The server is back: the same command asks only what is missing, and the rows are whole.
        server.start()
        engine = open_engine("endpoint", server.url, **settings, journal=journal, concurrency=1)
        assert len(engine.journal.known) == kept  # type: ignore[attr-defined]
        rows = evaluate(engine, card, samples, SUITE.protocol)
        local = TransformersEngine(FOLDER / "checkpoint", device="cpu")
        assert rows == evaluate(local, card, samples, SUITE.protocol)
    finally:
        server.kill()


@pytest.mark.slow
def test_eval_asks_a_server_and_goes_on_when_it_is_back(
    serve: Any, cli: Any, tmp_path: Path
) -> None:
    """The lane `endpoint`: a row of the matrix, the same run folder, nothing asked twice."""
    away = threading.Event()
    away.set()

    def answer(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if away.is_set() and number > 12:
            return 400, {"error": {"message": "gone"}}
        return 200, completion("<answer>A</answer>")

    server = serve(answer)
    how = ["--engine-set", "retries=0", "--engine-set", "key=secret-of-mine"]
    command = [
        "eval",
        "--endpoint",
        server.url,
        "--model",
        "org/m",
        "--suite",
        TINY,
        "--out",
        "run",
        *how,
    ]
    done = cli(*command)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    asked = len(server.asked)
    away.clear()
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning:") == 1 and "sampling settings" in done.stderr
    row = json.loads(done.stdout)["matrix"]["accuracy"][0]
    assert None not in row and max(row) > 0
    questions = sum(
        len(load_split(SUITE.card(n), "test")) for n in (*SUITE.sequence, *SUITE.general)
    )
    assert len(server.asked) - asked == questions - 12
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["lane"] == "endpoint" and run["base"]["weights"].startswith("endpoint:")
    assert "nothing to do" in cli(*command).stdout
    kept = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not any(b"secret-of-mine" in file.read_bytes() for file in kept)
    done = cli(*command, "--engine-set", "extra={min_tokens: 2}")
    assert done.returncode == 2 and "holds another run" in done.stderr
    done = cli(*command, "--engine-set", "nonce=mine")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
