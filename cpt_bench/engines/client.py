"""The client of an endpoint: opened, its failures named, and a body that is no answer asked again.

The ``openai`` package sends again what fails in transport or with a status. A server may also
answer with status 200 and no completion in it: a gateway's page, an error object, nothing. That is
a failed request like any other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpt_bench.errors import CptBenchError

HEADERS = {
    "OPENAI_API_KEY": "the API key",
    "OPENAI_ORG_ID": "the organisation",
    "OPENAI_PROJECT_ID": "the project",
}
"""Variables whose values travel in a request's headers."""

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
BODY = 160
"""Characters of a body that are shown when it is no answer."""


class NoAnswerError(Exception):
    """A body with status 200 that is not a completion."""


def open_client(url: str, key: str | None, timeout: float, retries: int) -> Any:
    """A client of the server at ``url``.

    Args:
        url: The server's base.
        key: The API key; by default ``$OPENAI_API_KEY``. An empty one counts as not given: local
            servers need none.
        timeout: Seconds one request may take.
        retries: Times a failed request is sent again.

    Raises:
        CptBenchError: openai is not installed, or the key or a variable of the environment cannot
            be used.
    """
    try:
        import openai
    except ImportError as error:
        raise CptBenchError(
            "the endpoint engine needs openai, which is not installed",
            todo="Install it with: pip install 'cptbench[endpoint]'",
        ) from error
    for name, what in HEADERS.items():
        if name == "OPENAI_API_KEY" and key:
            _check_header(key, what, "key=")
        else:
            _check_header(os.environ.get(name, ""), what, name)
    _check_certificates()
    try:
        return openai.OpenAI(
            base_url=url,
            api_key=key or os.environ.get("OPENAI_API_KEY") or "none",
            timeout=timeout,
            max_retries=retries,
        )
    except (ValueError, ImportError, OSError, openai.OpenAIError) as error:
        raise _of_environment(error) from None
    except Exception as error:  # the client's library for HTTP has errors of its own
        if type(error).__module__.partition(".")[0].startswith("httpx"):
            raise _of_environment(error) from None
        raise


def _check_header(value: str, what: str, where: str) -> None:
    """A line break at the end is what reading a key from a file leaves; HTTP forbids it."""
    odd = next((c for c in value if not "!" <= c <= "~"), None)
    if odd is None:
        return
    place = (
        "ends with" if value.rstrip("\r\n\t ") + odd == value or value.endswith(odd) else "holds"
    )
    names = {"\n": "a line break", "\r": "a carriage return", " ": "a space", "\t": "a tab"}
    raise CptBenchError(
        f"{what} {place} {names.get(odd, ascii(odd))}, which no HTTP header may have",
        where=where,
        todo="Give it without that character",
    )


def _check_certificates() -> None:
    for name in CERTIFICATES:
        value = os.environ.get(name)
        if not value:
            continue
        place = Path(value)
        found = place.is_file() if name == "SSL_CERT_FILE" else place.is_dir()
        if not found:
            kind = "file" if name == "SSL_CERT_FILE" else "folder"
            raise CptBenchError(
                f"{name} names a {kind} that does not exist: {value[:200]}",
                where=name,
                todo="Correct it, or unset it to use the certificates that come with Python",
            )


def _of_environment(error: Exception) -> CptBenchError:
    """An error of making the client, with the variables that it reads by name."""
    reads = (*CERTIFICATES, *PROXIES, *(name.lower() for name in PROXIES), "OPENAI_CUSTOM_HEADERS")
    given = [name for name in reads if os.environ.get(name)]
    return CptBenchError(
        f"no client can be made ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
        where=", ".join(given) or "endpoint",
        todo="Correct or unset what it names" if given else "",
    )


def complete(client: Any, retries: int, **asked: Any) -> Any:
    """A chat completion with at least one choice that has a message.

    Args:
        client: What :func:`open_client` returned.
        retries: Times a body that is no completion is asked for again, after 0.5 s, 1 s, 2 s … 8 s.
        asked: The request.

    Raises:
        NoAnswerError: The last body was none either; the beginning of it is shown.
        openai.OpenAIError: The request failed.
    """
    for attempt in range(retries + 1):
        if attempt:
            time.sleep(min(0.5 * 2 ** (attempt - 1), 8.0))
        raw = client.chat.completions.with_raw_response.create(**asked)
        try:
            answer = raw.parse()
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            continue
        if _has_message(answer):
            return answer
    body = raw.text if isinstance(raw.text, str) else raw.text()
    shown = " ".join(body.split())
    cut = "…" if len(shown) > BODY else ""
    raise NoAnswerError(
        f"no completion in the body, which begins {shown[:BODY]!r}{cut}"
        if shown
        else "no completion: the body is empty"
    )


def _has_message(answer: Any) -> bool:
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        return False
    message = getattr(choices[0], "message", None)
    return message is not None and not isinstance(message, Mapping | str)


def refused_key(error: Exception) -> str:
    """Which key a server turned away with 401 or 403; empty for other errors."""
    import openai

    if not isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return ""
    return (
        "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY") else "OPENAI_API_KEY, which is empty"
    )
