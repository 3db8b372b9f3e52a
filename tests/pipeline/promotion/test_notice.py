"""What a receiver believes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature

from heliograph.pipeline.promotion.notice import (
    ID,
    SIGNATURE,
    TIMESTAMP,
    NotGenuine,
    Notice,
    read_notice,
    sign,
    verify,
)
from tests.waiting import DEADLINE

SECRET, DELIVERY, NOW = "a shared secret", "76ace406-a344", 1_795_398_647


def body_of(alias: str = "champion", entity: str = "model_version_alias") -> bytes:
    data = {"name": "tiny", "alias": alias, "version": "3"}
    return json.dumps({"entity": entity, "action": "created", "data": data}).encode()


def headers_of(body: bytes, secret: str = SECRET, at: str = str(NOW)) -> dict[str, str]:
    return {ID: DELIVERY, TIMESTAMP: at, SIGNATURE: sign(secret, DELIVERY, at, body)}


@given(secret=st.text(min_size=1), payload=st.text())
def test_the_signature_is_mlflow_s(secret: str, payload: str) -> None:
    expected = _generate_hmac_signature(secret, DELIVERY, str(NOW), payload)
    assert sign(secret, DELIVERY, str(NOW), payload.encode()) == expected


def test_a_genuine_notice_is_read() -> None:
    body = body_of()
    assert read_notice(headers_of(body), body, SECRET, NOW) == Notice("tiny", 3, DELIVERY)
    lower = {key.lower(): value for key, value in headers_of(body).items()}
    assert read_notice(lower, body, SECRET, NOW) == Notice("tiny", 3, DELIVERY)


def test_other_events_are_no_notice() -> None:
    for body in (body_of(alias="challenger"), body_of(entity="prompt_alias")):
        assert read_notice(headers_of(body), body, SECRET, NOW) is None


@given(place=st.integers(0, len(body_of()) - 1), bits=st.integers(1, 255))
def test_a_changed_body_is_refused(place: int, bits: int) -> None:
    body = bytearray(body_of())
    body[place] ^= bits
    with pytest.raises(NotGenuine, match="is not that of this body"):
        verify(headers_of(body_of()), bytes(body), SECRET, NOW)


@given(secret=st.text(min_size=1).filter(lambda text: text != SECRET))
def test_another_secret_is_refused(secret: str) -> None:
    with pytest.raises(NotGenuine, match="by this secret"):
        verify(headers_of(body_of(), secret), body_of(), SECRET, NOW)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (ID, "76ace406-a345"),
        (ID, f"{DELIVERY}.1"),
        (TIMESTAMP, str(NOW + 1)),
        (TIMESTAMP, "now"),
        (TIMESTAMP, ""),
        (TIMESTAMP, "٣"),
        (SIGNATURE, ""),
        (SIGNATURE, "v1,"),
        (SIGNATURE, "v1,é\udc80"),
    ],
)
def test_a_changed_header_is_refused(header: str, value: str) -> None:
    with pytest.raises(NotGenuine):
        verify({**headers_of(body_of()), header: value}, body_of(), SECRET, NOW)


@pytest.mark.parametrize("header", [ID, TIMESTAMP, SIGNATURE])
def test_a_missing_header_is_named(header: str) -> None:
    headers = headers_of(body_of())
    del headers[header]
    with pytest.raises(NotGenuine, match=f"{header} is missing"):
        verify(headers, body_of(), SECRET, NOW)


def test_where_the_parts_are_divided_is_signed_too() -> None:
    """The same signed bytes, with the boundary between id, time and body elsewhere."""
    headers = headers_of(b"17.rest")
    headers |= {ID: f"{DELIVERY}.{NOW}", TIMESTAMP: "17"}
    assert sign(SECRET, headers[ID], "17", b"rest") == headers[SIGNATURE]
    with pytest.raises(NotGenuine):
        verify(headers, b"rest", SECRET, 17)


def test_what_is_old_is_refused() -> None:
    headers = headers_of(body_of())
    for now in (NOW - 300, NOW, NOW + 300):
        verify(headers, body_of(), SECRET, now)
    for now in (NOW - 301, NOW + 301):
        with pytest.raises(NotGenuine, match="s ago, and 300 s are allowed"):
            verify(headers, body_of(), SECRET, now)
    with pytest.raises(NotGenuine, match="allowed"):
        read_notice(headers_of(body_of(), at="0"), body_of(), SECRET)  # by this machine's clock


def test_an_empty_secret_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="the secret is empty"):
        verify(headers_of(body_of(), ""), body_of(), "", NOW)


def test_a_receiver_needs_nothing_but_python() -> None:
    root = Path(__file__).parents[3]
    code = (
        "import sys; sys.path.insert(0, '.');"
        "from heliograph.pipeline.promotion.notice import read_notice"
    )
    # -S: without the installed packages.
    subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=root, check=True, timeout=DEADLINE)
