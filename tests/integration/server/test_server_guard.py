"""Who may in: closed by default, on every path; and what a browser may be made to do."""

from __future__ import annotations

import hashlib
import http.client
import re
import sqlite3
import stat
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from browser import Browser
from playhouse import Playhouse, Told

from penstock.server.app import create_app
from penstock.server.guard import COOKIE, HEADERS, MAX_BODY, OPEN

#: Without the schema and the script's own address space: what the application routes.
UNGUARDED = {"/healthz", "/login", "/static"}


def routed(house: Playhouse) -> list[tuple[str, str]]:
    """Every (method, path) of the application, parameters filled in."""
    assert house.control
    found = []
    for path, operations in create_app(house.control).openapi()["paths"].items():
        found += [(method.upper(), re.sub(r"{\w+}", "0", path)) for method in operations]
    pages = ["/", "/deliveries/x", "/environments", "/services/shop", "/v1/openapi.json", "/nothing"]
    return [*found, *(("GET", page) for page in pages)]


def test_nothing_answers_without_a_token(house: Playhouse) -> None:
    paths = routed(house)
    assert len(paths) > 20
    with house.client(accept="application/json") as nobody:
        answers = {(m, p): nobody.request(m, p, json={} if m == "POST" else None) for m, p in paths}
    assert {call: a.status_code for call, a in answers.items() if a.status_code != 401} == {}
    assert {a.headers["www-authenticate"] for a in answers.values()} == {"Bearer"}
    assert {a.json()["word"] for a in answers.values()} == {"refused"}


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Basic cGVuOnN0b2Nr", "bearer", "Bearer \xff", "TOKEN", "Token TOKEN"],
)
def test_a_wrong_token_is_none(house: Playhouse, header: str) -> None:
    given = header.replace("TOKEN", house.token).encode("latin-1")
    answer = httpx.get(
        f"{house.url}/v1/status", headers={b"authorization": given}, trust_env=False, verify=False
    )
    assert answer.status_code == 401


def test_a_token_is_kept_only_as_a_hash(house: Playhouse) -> None:
    once = house.home.run / "token.once"
    assert stat.S_IMODE(once.stat().st_mode) == 0o600
    kept = [path for path in house.home.path.rglob("*") if path.is_file() and path != once]
    assert kept
    assert [path for path in kept if house.token.encode() in path.read_bytes()] == []


def test_the_open_paths_are_the_few_that_are_meant(house: Playhouse) -> None:
    assert {path.rstrip("/") for path in OPEN} == UNGUARDED
    at_pages = house.url.replace("127.0.0.1", "localhost")
    with httpx.Client(base_url=at_pages, trust_env=False, verify=False) as nobody:
        assert nobody.get("/healthz").text == "ok\n"
        assert nobody.get("/login").status_code == 200
        assert nobody.get("/static/style.css").status_code == 200
        assert nobody.get("/static/../../guard.py").status_code in (401, 404)
        assert nobody.get("/static/..%2f..%2fguard.py").status_code in (401, 404)


def test_the_users_own_socket_needs_no_token_and_is_only_the_users(house: Playhouse) -> None:
    path = house.home.api_socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path), verify=False), base_url="http://localhost"
    ) as owner:
        assert owner.get("/v1/health").json()["ok"] is True


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "10.0.0.1:7070"]
)
def test_a_forged_host_is_refused_even_with_a_token(house: Playhouse, host: str) -> None:
    with house.client(authorization=f"Bearer {house.token}", host=host) as client:
        assert client.get("/v1/health").status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:7070", "[::1]", "[::1]:7070"])
def test_a_host_of_this_machine_is_let_in(house: Playhouse, host: str) -> None:
    with house.client(authorization=f"Bearer {house.token}", host=host) as client:
        assert client.get("/v1/health").status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8600", "http://localhost:1"]
)
def test_a_page_of_another_origin_changes_nothing(house: Playhouse, told: Told, origin: str) -> None:
    with house.client(authorization=f"Bearer {house.token}", origin=origin) as client:
        answer = client.post(f"/v1/deliveries/{told.good['id']}/abort")
    assert answer.status_code == 403


def request(house: Playhouse, *headers: tuple[str, str]) -> int:
    """The status of a POST whose body never comes."""
    connection = http.client.HTTPConnection(urlsplit(house.url).netloc, timeout=10)
    connection.putrequest("POST", "/v1/policies")
    for name, value in (("authorization", f"Bearer {house.token}"), *headers):
        connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_body_is_bounded(house: Playhouse) -> None:
    assert request(house, ("content-length", str(MAX_BODY + 1))) == 413
    assert request(house, ("transfer-encoding", "chunked")) == 413
    assert request(house, ("content-length", "\xb2")) in (400, 413)


def test_nobody_unknown_makes_the_server_read_a_long_form(house: Playhouse) -> None:
    at_pages = house.url.replace("127.0.0.1", "localhost")
    with httpx.Client(base_url=at_pages, trust_env=False, verify=False) as nobody:
        assert nobody.post("/login", data={"token": "x" * 4000}).status_code == 401
        assert nobody.post("/login", data={"token": "x" * 5000}).status_code == 413


def test_every_answer_carries_the_headers_that_bind_browsers(house: Playhouse, told: Told) -> None:
    with house.client() as client:
        answers = [client.get(path) for path in ("/", "/v1/status", "/static/live.js", "/nothing")]
    with house.client(accept="*/*") as nobody:
        answers.append(nobody.get("/"))
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.url
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


# --- signing in -----------------------------------------------------------------------------------------


@pytest.fixture
def browser(house: Playhouse) -> httpx.Client:
    headers = {"accept": "text/html"}
    url = house.url.replace("127.0.0.1", "localhost")
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False, verify=False)


def test_people_are_sent_to_sign_in_and_then_to_the_pages(
    house: Playhouse, told: Told, browser: httpx.Client
) -> None:
    with browser:
        refused = browser.get("/environments")
        assert (refused.status_code, refused.headers["location"]) == (303, "/login")
        wrong = browser.post("/login", data={"token": "wrong"})
        assert wrong.status_code == 401
        assert "not known" in wrong.text
        assert not browser.cookies
        right = browser.post("/login", data={"token": f" {house.token}\n"})
        assert (right.status_code, right.headers["location"]) == (303, "/")
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "domain" not in cookie
        assert house.token not in cookie, "whoever reads it has no token"
        assert browser.get("/environments").status_code == 200


def test_no_cookie_of_ours_is_ever_sent_to_a_service(house: Playhouse, browser: httpx.Client) -> None:
    """Services are at 127.0.0.1, and cookies know no ports: people sign in at localhost alone."""
    with house.client(accept="text/html") as client:
        sent = client.get("/")
        assert sent.headers["location"] == f"{house.pages}/"
        assert client.get("/slos?after=a").headers["location"] == f"{house.pages}/slos?after=a"
        assert client.get("/login").headers["location"] == f"{house.pages}/login"
        answer = client.post("/login", data={"token": house.token})
        assert "set-cookie" not in answer.headers
    with house.client(cookie=f"{COOKIE}={house.session()}") as client:
        assert client.get("/v1/health").status_code == 401
    assert all(address.startswith("http://127.0.0.1:") for address in addresses(house))


def addresses(house: Playhouse) -> list[str]:
    with house.client() as client:
        return [row["address"] for row in client.get("/v1/status").json()["services"]]


@pytest.mark.parametrize("other", ["a@b=1; ", "=; ;;", "x" * 3000 + "=1; ", 'q="; '])
def test_other_peoples_cookies_do_no_harm(house: Playhouse, browser: httpx.Client, other: str) -> None:
    with browser:
        headers = {"cookie": f"{other}{COOKIE}={house.session()}"}
        assert browser.get("/v1/health", headers=headers).status_code == 200


@pytest.mark.parametrize("kind", ["a token", "ended", "of a token that was taken back", "made up"])
def test_a_session_is_no_token_and_ends(house: Playhouse, browser: httpx.Client, kind: str) -> None:
    word = {"a token": house.token, "made up": "x" * 43}.get(kind) or house.session()
    if kind in ("ended", "of a token that was taken back"):
        column, value = ("expires", 1.0) if kind == "ended" else ("token", "00")
        with sqlite3.connect(house.home.store, timeout=30) as store:
            hashed = hashlib.sha256(word.encode()).hexdigest()
            store.execute(f"UPDATE sessions SET {column} = ? WHERE hash = ?", (value, hashed))
        store.close()
    with browser:
        answer = browser.get("/", headers={"cookie": f"{COOKIE}={word}"})
        assert (answer.status_code, answer.headers.get("location")) == (303, "/login")
    with house.client(authorization=f"Bearer {house.session()}") as client:
        assert client.get("/v1/health").status_code == 401


@pytest.mark.parametrize(("host", "status"), [("evil.example:7070", 421), ("localhost:7070", 403)])
def test_a_refusal_is_a_page_for_a_browser(house: Playhouse, host: str, status: int) -> None:
    given = {"host": host, "origin": "http://evil.example", "accept": "text/html,*/*"}
    with house.client(**given) as client:
        answer = client.post("/login")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "<h1>That did not work</h1>" in answer.text
    assert "open http://localhost:7070/" in answer.text
    assert "evil" not in answer.text


def test_people_who_come_by_number_can_sign_in_too(house: Playhouse, told: Told, short_tmp: Path) -> None:
    """Told by a browser: what it sends along depends on the way on which a page was reached."""
    browser = Browser(short_tmp)
    try:
        browser.open(f"{house.url}/environments")
        browser.until("location.hostname == 'localhost' && document.querySelector('input[name=token]')")
        browser.until(
            f"(document.querySelector('input').value = '{house.token}', document.forms[0].submit(), 1)"
        )
        browser.until("location.pathname == '/' && document.querySelector('h1').innerText == 'Deliveries'")
        browser.open(f"{house.url}/environments")
        browser.until(
            "location.hostname == 'localhost' && document.querySelector('h1').innerText == 'What runs where'"
        )
    finally:
        browser.close()


def test_static_files_are_our_own_and_small(house: Playhouse) -> None:
    import penstock.server

    folder = Path(penstock.server.__file__).with_name("static")
    files = {path.name: path for path in folder.iterdir()}
    assert set(files) == {"live.js", "log.js", "style.css"}
    assert len(files["live.js"].read_text().splitlines()) <= 25
    assert len(files["log.js"].read_text().splitlines()) <= 200
    assert all("://" not in path.read_text() for path in files.values())
