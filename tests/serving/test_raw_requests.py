"""Any bytes on the server's socket: an answer below 500 or a closed connection, and no traceback."""

import json
import socket

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.fuzzing import VALUES, cases, changed_bytes, changed_values
from tests.serving import samples

PREDICT = {"signature_name": "serve_images", "instances": [[[[255, 255, 255]]]]}
INFER = {
    "inputs": [{"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 3]}],
    "parameters": {"signature_name": "serve_images"},
}
PATHS = (
    *(
        "/v1/models/m:predict",
        "/v1/models/m:classify",
        "/v1/models/m/versions/1:predict",
        "/v2/models/m/infer",
    ),
    *(
        "/v1/models/m",
        "/v2/models/m",
        "/v1/models/%00:predict",
        "/v1/models/../m",
        "/",
        "/metrics",
        "//",
        "*",
    ),
)
BODY = json.dumps(PREDICT).encode()
REQUEST = (
    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(BODY), BODY)
)


def _exchange(served, request: bytes, seconds: float = 20) -> bytes:
    """Sends bytes, and returns what comes back until the server closes, or waits so long for more of them."""
    port = int(served.url.rpartition(":")[2])
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
        except (ConnectionError, TimeoutError):
            pass
    return answer


@pytest.fixture(autouse=True)
def no_traceback(served, caplog):
    """After the requests, the server answers as before, and has logged no error."""
    yield
    assert served.answering() == 1
    assert not [record for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()]


def _check(answer: bytes) -> None:
    if answer:
        status = answer.partition(b"\r\n")[0].split()[1]
        assert status.isdigit() and int(status) < 500, answer[:500]
        assert b"Traceback" not in answer


@cases(few=120)
@hypothesis.given(request=st.one_of(changed_bytes(REQUEST), st.binary(max_size=200)))
def test_any_foreign_bytes_are_answered_or_the_connection_is_closed(served, request):
    # Of many, the server waits for the rest.
    _check(_exchange(served, request, seconds=0.05))


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    tree = draw(st.one_of(changed_values(PREDICT), changed_values(INFER), VALUES))
    whole = json.dumps(tree).encode()
    return draw(st.one_of(st.just(whole), changed_bytes(whole), st.binary(max_size=50), st.just(b"[" * 9000)))


@cases(few=120)
@hypothesis.given(
    path=st.sampled_from(PATHS),
    method=st.sampled_from(["POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "BREW"]),
    kind=st.sampled_from(["application/json", "application/octet-stream", "multipart/form-data", "x", ""]),
    encoding=st.sampled_from(["", "", "gzip", "chunked"]),
    body=_bodies(),
)
def test_any_foreign_body_is_answered(served, path, method, kind, encoding, body):
    headers = [f"{method} {path} HTTP/1.1", "Host: m", "Connection: close", f"Content-Type: {kind}"]
    if encoding == "chunked":
        headers.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        headers.append(f"Content-Length: {len(body)}")
    if encoding == "gzip":
        headers.append("Content-Encoding: gzip")
    answer = _exchange(served, "\r\n".join([*headers, "", ""]).encode() + body)
    assert answer
    _check(answer)


def test_a_whole_request_of_this_kind_is_answered(served):
    assert _exchange(served, REQUEST).startswith(b"HTTP/1.1 200 ")
    assert samples.NAMES[1].encode() in _exchange(served, REQUEST)
