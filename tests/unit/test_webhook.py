"""Standard Webhooks: signatures as the specification's own example has them, and names."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from penstock.core.webhook import headers, name_of, read_secret, written
from penstock.errors import Invalid

SECRET = bytes(range(32))


def test_the_signature_is_over_id_time_and_body() -> None:
    given = headers(SECRET, "42-abc", 1614265330, b'{"test": 2432232314}')
    expected = hmac.new(SECRET, b'42-abc.1614265330.{"test": 2432232314}', hashlib.sha256).digest()
    assert given == {
        "webhook-id": "42-abc",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1," + base64.b64encode(expected).decode(),
    }


def test_a_known_answer() -> None:
    """The example of the specification's reference libraries."""
    secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    given = headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert given["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_read_as_it_was_written() -> None:
    assert read_secret(written(SECRET) + "\n") == SECRET


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_what_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="secret"):
        read_secret(text)


@pytest.mark.parametrize("text", ["", "-a", "A", "a b", "../a", "a" * 41, "ä", "a\n"])
def test_what_cannot_name_a_webhook(text: str) -> None:
    with pytest.raises(Invalid, match="cannot name"):
        name_of(text)
