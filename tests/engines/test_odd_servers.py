"""Servers and settings that answer oddly: asked again, taken for what they mean, or named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from cpt_bench.engines import Request, client
from cpt_bench.engines.endpoint import EndpointEngine
from cpt_bench.errors import CptBenchError
from cpt_bench.evaluation.predictions import evaluate, read_predictions
from cpt_bench.files import write_jsonl
from cpt_bench.sources import load_split
from cpt_bench.suite import load_suite
from tests.support.serving import Answer, Fake, completion

SUITE = load_suite(Path(__file__).parents[1] / "support/tiny")


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Fake]]:
    fakes: list[Fake] = []

    def start(answer: Answer) -> Fake:
        fakes.append(Fake(answer))
        return fakes[-1]

    yield start
    for fake in fakes:
        fake.server.shutdown()
        fake.server.server_close()


def ask(n: int = 1) -> list[Request]:
    return [Request(f"q{i}", f"question {i}", ()) for i in range(n)]


NO_ANSWERS = [
    {"choices": None}, {"choices": []}, {"choices": "x"}, {"choices": [None]},
    {"choices": [{"finish_reason": "stop"}]}, {"choices": [{"message": None}]},
    {"error": {"message": "overloaded", "code": 503}}, {"error": "busy"}, {"detail": "starting"},
    b"<html><body>502 Bad Gateway</body></html>", b"", b"   \n", b"null", b"[1]", b"17", b'"ok"',
    b'{"choices": [{"index": 0, "mess', b"\xff\xfe\x00", b"data: {}\n\n",
    b"[" * 5000, b'{"choices":' * 5000,
]  # fmt: skip


HALVES = {
    "high": ("it is \ud83d", "it is \ufffd"),
    "low": ("\ude00 it is", "\ufffd it is"),
    "wrong way round": ("\ude00\ud83d", "\ufffd\ufffd"),
    "both": ("\ud83d\ude00", "\U0001f600"),
    "inside the form": ("<answer>\ud83d</answer>", "<answer>\ufffd</answer>"),
}


@pytest.mark.parametrize("what", HALVES)
def test_half_a_character_is_an_answer(what: str, serve: Any, tmp_path: Path) -> None:
    """JSON may hold half of a surrogate pair; no UTF-8 file can, the journal's included."""
    sent, kept = HALVES[what]
    body = json.dumps(completion(sent, system_fingerprint=sent)).encode("ascii")
    fake, file = serve(lambda asked, number: (200, body)), tmp_path / "journal.jsonl"
    engine = fake.engine(journal=file)
    assert [reply.text for reply in engine.generate(ask(2), 7)] == [kept, kept]
    assert engine.server.served["system_fingerprint"] == {kept}
    again = fake.engine(journal=file)
    assert [reply.text for reply in again.generate(ask(2), 7)] == [kept, kept]
    assert len(fake.asked) == 2, "the journal knew both"
    file.read_bytes().decode("utf-8")
    card = SUITE.card("lowvision")
    samples = load_split(card, "test")[:2]
    rows = evaluate(fake.engine(), card, samples, SUITE.protocol)
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    found = read_predictions(tmp_path / "predictions.jsonl", [s.id for s in samples])
    assert [row["reply"] for row in found] == [kept, kept] and [r["score"] for r in rows] == [0, 0]


@pytest.mark.parametrize("body", NO_ANSWERS, ids=lambda body: str(body)[:40])
def test_no_completion_with_status_200_is_asked_again(
    body: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    once = serve(lambda asked, number: (200, body if number == 1 else completion("right")))
    assert once.engine(retries=2).generate(ask(), 7)[0].text == "right"
    assert len(once.asked) == 2
    always = serve(lambda asked, number: (200, body))
    with pytest.raises(CptBenchError) as caught:
        always.engine(retries=5).generate(ask(), 7)
    assert len(always.asked) == 6 and waited[1:] == [0.5, 1, 2, 4, 8]
    line = str(caught.value)
    assert "no answer to q0" in line and len(line.splitlines()) == 1
    shown = {str: str, bytes: lambda b: b.decode("utf-8", "replace")}.get(type(body), str)(body)
    words = "empty" if not shown.strip() else "which begins"
    assert words in line
    for word in ("overloaded", "busy", "Bad Gateway", "starting"):
        assert (word in line) == (word in shown)


def test_a_long_body_is_shown_by_its_beginning(serve: Any) -> None:
    page = b"<html>" + b"BEGIN " + 100_000 * b"x" + b" END"
    with pytest.raises(CptBenchError, match="BEGIN") as caught:
        serve(lambda asked, number: (200, page)).engine().generate(ask(), 7)
    assert "END" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "reason",
    ["eos_token", "eos", "end", "", None, "end_turn", "stop_sequence", "STOP", "Stop", "completed",
     "done", "MAX_TOKENS", "max_length"],
)  # fmt: skip
def test_an_odd_word_for_the_end_is_taken_and_recorded_once(
    reason: str | None, serve: Any, tmp_path: Path
) -> None:
    fake = serve(lambda body, number: (200, completion("right", finish_reason=reason, usage=None)))
    journal = tmp_path / "journal.jsonl"
    engine = fake.engine(journal=journal)
    assert [r.text for r in engine.generate(ask(5), 7)] == 5 * ["right"]
    lines = [line for line in engine.server.warnings if "finish_reason" in line]
    assert len(lines) == 1 and repr(reason) in lines[0]
    assert journal.read_text().count('"finish_reason"') == 1
    again = fake.engine(journal=journal)
    again.generate(ask(7), 7)
    assert journal.read_text().count('"finish_reason"') == 1


@pytest.mark.parametrize("reason", ["eos", "", None, "end"])
def test_an_odd_end_without_text_is_no_answer(reason: str | None, serve: Any) -> None:
    fake = serve(lambda body, number: (200, completion("", finish_reason=reason)))
    with pytest.raises(CptBenchError, match="the reply is empty and ended with"):
        fake.engine().generate(ask(), 7)


@pytest.mark.parametrize(
    "reason", ["content_filter", "tool_calls", "function_call", "abort", "error", "cancelled", "7"]
)
def test_what_is_no_end_is_no_answer(reason: str, serve: Any) -> None:
    fake = serve(lambda body, number: (200, completion("half a", finish_reason=reason)))
    with pytest.raises(CptBenchError, match=f"the reply ended with '{reason}'"):
        fake.engine().generate(ask(), 7)


def test_a_cut_by_another_name_is_a_cut(serve: Any) -> None:
    fake = serve(lambda body, number: (200, completion("half", finish_reason="max_tokens")))
    with pytest.raises(CptBenchError, match="cut after 3 of 7 tokens"):
        fake.engine().generate(ask(), 7)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENAI_API_KEY", "sk-1\n", "ends with a line break"),
        ("OPENAI_API_KEY", "sk-1\r", "ends with a carriage return"),
        ("OPENAI_API_KEY", "sk-1\r\n", "carriage return"),
        ("OPENAI_API_KEY", "sk 1", "holds a space"),
        ("OPENAI_API_KEY", "sk-é", r"'\xe9'"),
        ("OPENAI_API_KEY", "\ufeffsk-1", r"'\ufeff'"),
        ("OPENAI_ORG_ID", "org\n", "the organisation ends with a line break"),
        ("OPENAI_PROJECT_ID", "p\t", "the project ends with a tab"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "does not exist: /nowhere/ca.pem"),
        ("SSL_CERT_FILE", "/", "does not exist: /"),
        ("SSL_CERT_DIR", "/nowhere", "does not exist: /nowhere"),
        ("SSL_CERT_FILE", __file__, "no client can be made"),  # not a certificate
        ("ALL_PROXY", "bad://x", "no client can be made"),
        ("HTTPS_PROXY", "http://[::", "no client can be made"),
        ("http_proxy", "ftp://x", "no client can be made"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CptBenchError) as caught:
        EndpointEngine("http://127.0.0.1:9", model="m", nonce="a")
    line = str(caught.value)
    assert words in line and name in line and len(line.splitlines()) == 1
    assert "sk-1" not in line, "a key is not shown"


def test_a_key_given_by_hand_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "ignored\n")
    with pytest.raises(CptBenchError, match=r"the API key ends with a line break"):
        EndpointEngine("http://127.0.0.1:9", model="m", nonce="a", key="sk\n")
    EndpointEngine("http://127.0.0.1:9", model="m", nonce="a", key="sk")


@pytest.mark.parametrize("key", ["", None])
def test_a_local_server_needs_no_key(
    key: str | None, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        else:
            monkeypatch.setenv("OPENAI_API_KEY", value)
        fake = serve(lambda body, number: (200, completion("right")))
        assert fake.engine(key=key).generate(ask(), 7)[0].text == "right"


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_key_names_the_variable(
    status: int, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    fake = serve(lambda body, number: (status, {"error": {"message": "no key"}}))
    with pytest.raises(CptBenchError, match="OPENAI_API_KEY, which is empty"):
        fake.engine().generate(ask(), 7)
