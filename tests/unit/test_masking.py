"""The masker: no form of a secret survives, and how the output was split into writes changes nothing."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.masking import LONGEST, MASK, Masker, forms
from penstock.errors import Invalid

SECRET = b"p\xc3\xa4ss/w+rd <1>&?"
TEXT = SECRET.decode()
KEY = b"-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\r\nx\nrest of it\n-----END KEY-----\n"


def masked(data: bytes, *secrets: bytes) -> bytes:
    masker = Masker(secrets)
    return masker.feed(data) + masker.finish()


def spread(data: bytes, columns: int, end: bytes) -> bytes:
    return end.join(data[at : at + columns] for at in range(0, len(data), columns))


FORMS = {
    "raw": SECRET,
    "query": quote(TEXT, safe="").encode(),
    "query in lower case": quote(TEXT, safe="").lower().encode(),
    "path": quote(TEXT).encode(),
    "form": quote_plus(TEXT).encode(),
    "JSON": json.dumps(TEXT)[1:-1].encode(),
    "JSON in UTF-8": json.dumps(TEXT, ensure_ascii=False)[1:-1].encode(),
    "JSON with slashes": json.dumps(TEXT)[1:-1].replace("/", r"\/").encode(),
    "JSON for HTML": json.dumps(TEXT)[1:-1].translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}).encode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_masked_and_nothing_else(name: str) -> None:
    assert masked(b"before " + FORMS[name] + b" after\n", SECRET) == b"before *** after\n"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", [b"", b"u:", b"user:", b"users:"])
@pytest.mark.parametrize(("columns", "end"), [(999, b""), (10, b"\n"), (4, b"\r\n"), (12, b"\n    ")])
def test_base64_is_masked_wherever_it_begins(
    encode: type[bytes], before: bytes, columns: int, end: bytes
) -> None:
    whole = spread(encode(before + SECRET + b"!"), columns, end)
    said = masked(b"auth: " + whole + b" end\n", SECRET)
    assert said.count(MASK) == 1
    left = said.replace(b" end\n", b"").replace(MASK, b"").replace(b"auth: ", b"")
    # What is left are characters that other bytes decide too.
    assert len(left.translate(None, b"\r\n =")) <= len(base64.b64encode(before + b"!")) + 2


def test_every_line_of_a_long_value_is_a_secret_but_not_a_short_line() -> None:
    said = masked(b"a MIIEpAIBAAKCAQEA b\nx\n  rest of it\n" + KEY, KEY)
    assert said == b"a *** b\nx\n  ***\n***"
    assert masked(json.dumps({"key": KEY.decode()}).encode(), KEY) == b'{"key": "***"}'


def test_secrets_that_overlap_are_masked_as_one() -> None:
    assert masked(b"-abcdefghi-", b"abcdef", b"defghi") == b"-***-"
    assert masked(b"-abcdefghi-abcdef-", b"abcdef", b"abcdefghi") == b"-***-***-"
    assert masked(b"x" + b"abcabca" + b"bcabca" + b"y", b"abcabca") == b"x***y"
    assert masked(b"secretsecret", b"secret") == b"******"


def test_what_is_too_short_or_too_long_is_refused() -> None:
    for secret in (b"", b"12345"):
        with pytest.raises(Invalid, match="fewer than 6 bytes"):
            Masker([secret])
    with pytest.raises(Invalid, match="more than"):
        Masker([b"x" * (LONGEST + 1)])


def test_without_secrets_nothing_is_held_back() -> None:
    masker = Masker([])
    assert (masker.feed(b"\xff any"), masker.finish()) == (b"\xff any", b"")


def test_only_what_may_become_a_secret_is_held_back() -> None:
    masker = Masker([b"secret-value"])
    assert masker.feed(b"line 1\n") == b"line 1\n"
    assert masker.feed(b"this is sec") == b"this is "
    assert masker.feed(b"ond\n") == b"second\n"


@pytest.mark.parametrize("cut", range(3, len(SECRET)))
def test_a_value_cut_off_at_the_end_does_not_leak(cut: int) -> None:
    assert (
        masked(b"it is " + SECRET[:cut], SECRET) == b"it is ***" + SECRET[:cut][len(SECRET[:cut].rstrip()) :]
    )
    half = base64.b64encode(SECRET)[:cut]
    assert masked(b"it is " + half + b"\n", SECRET) == b"it is ***\n"


SECRETS = st.lists(
    st.one_of(
        st.text("ab/ <\n", min_size=6, max_size=14).map(str.encode),
        st.binary(min_size=6, max_size=12).filter(lambda found: b"*" not in found),
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def outputs(draw: st.DrawFn) -> tuple[list[bytes], bytes, list[int]]:
    """Secrets, an output that is full of them and of their beginnings, and where it is split."""
    secrets = draw(SECRETS)
    known = [form for secret in secrets for form in (*forms(secret).plain, *forms(secret).wrapped)]
    wrapped = [spread(form, 3, b"\n ") for secret in secrets for form in forms(secret).wrapped]
    piece = st.one_of(
        st.sampled_from(known + wrapped),
        st.sampled_from(known + wrapped).flatmap(lambda form: st.just(form[: len(form) // 2])),
        st.text("ab /<\nYWI", max_size=5).map(str.encode),
    )
    data = b"".join(draw(st.lists(piece, max_size=12)))
    return secrets, data, sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))


@given(outputs())
def test_splits_change_nothing_and_no_form_survives(given: tuple[list[bytes], bytes, list[int]]) -> None:
    secrets, data, splits = given
    masker, said = Masker(secrets), b""
    for begin, end in zip([0, *splits], [*splits, len(data)], strict=True):
        said += masker.feed(data[begin:end])
        assert len(masker._carry) <= masker.longest
    said += masker.finish()
    assert said == masked(data, *secrets)
    known = [form for secret in secrets for form in (*forms(secret).plain, *forms(secret).wrapped)]
    assert [form for form in known if form in said] == []
