"""Credentials are read in all their forms, refused with a remedy, and never shown."""

import base64
from pathlib import Path

import pytest

from mirror.config import CLOUD_URL, UpstreamConfig
from mirror.credentials import ANONYMOUS, read_credential, read_secret
from mirror.errors import ConfigError
from mirror.upstream.connect import bucket_of


@pytest.mark.parametrize(
    ("text", "form", "user", "secret"),
    [
        ("me@example.com:ATATT3x=ab", "basic", "me@example.com", "ATATT3x=ab"),
        ("me:to:ken", "basic", "me", "to:ken"),
        ("ATCTT3xFf", "bearer", "", "ATCTT3xFf"),
        ("oauth:KEY:SEC:RET", "oauth", "KEY", "SEC:RET"),
        ("\ufeff  ATCTT3xFf \r\n", "bearer", "", "ATCTT3xFf"),
    ],
)
def test_the_form_follows_from_the_content(text: str, form: str, user: str, secret: str) -> None:
    """Colons decide; spaces and byte order marks around the secret are ignored."""
    found = read_credential("env:TOKEN", {"TOKEN": text})
    assert (found.form, found.user, found.secret) == (form, user, secret)


def test_a_credential_file_is_read(tmp_path: Path) -> None:
    """A final line end is ignored."""
    (tmp_path / "token").write_text("me@example.com:s3cret\n")
    assert read_credential(f"file:{tmp_path}/token").secret == "s3cret"


@pytest.mark.parametrize(
    "text", ["", "  \n", ":s3cr", "s3cr:", "oauth:s3cr", "oauth::s3cr", "s3\ncr", "s3 cr", "s3ćr"]
)
def test_an_invalid_credential_is_refused_without_repeating_it(text: str) -> None:
    """The error names the setting and the forms, not the content."""
    with pytest.raises(ConfigError, match="env:TOKEN") as caught:
        read_credential("env:TOKEN", {"TOKEN": text})
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("text", ['"me@example.com:s3cret"', "'s3cret'", '"oauth:key:s3cret"\n', '""'])
def test_a_credential_in_quotation_marks_is_refused(tmp_path: Path, text: str) -> None:
    """Sent with them, it would be a wrong password, which may lock the account."""
    (tmp_path / "token").write_text(text)
    for source in ("env:TOKEN", f"file:{tmp_path}/token"):
        with pytest.raises(ConfigError, match="in quotation marks; write it without them") as refused:
            read_credential(source, {"TOKEN": text})
        assert "s3cret" not in str(refused.value)


def test_an_unreadable_credential_says_what_to_do(tmp_path: Path) -> None:
    """Missing variables and files, directories and binary files each get a remedy."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge").write_text("x" * 70_000)
    for source, words in [
        ("env:NOT_THERE", "export NOT_THERE"),
        (f"file:{tmp_path}/none", "create it"),
        (f"file:{tmp_path}", "not a regular file"),
        (f"file:{tmp_path}/none", "no such file"),
        (f"file:{tmp_path}/binary", "UTF-8"),
        (f"file:{tmp_path}/huge", "too large"),
        ("s3cret", "never the secret itself"),
    ]:
        with pytest.raises(ConfigError, match=words) as caught:
            read_credential(source, {})
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["\ufeffa webhook secret\r\n", " \ufeff a webhook secret ", "a webhook secret\n"]
)
def test_a_byte_order_mark_is_stripped(tmp_path: Path, text: str) -> None:
    """Editors put it before the text; files and variables are read by one function."""
    (tmp_path / "secret").write_text(text, encoding="utf-8")
    assert read_secret(f"file:{tmp_path}/secret", {}) == "a webhook secret"
    assert read_secret("env:HOOK", {"HOOK": text}) == "a webhook secret"


def test_an_undecodable_secret_says_so(tmp_path: Path) -> None:
    """The message speaks of a secret, not of a login."""
    for source, words in [
        ("env:HOOK", "export HOOK"),
        (f"file:{tmp_path}/none", "with the secret alone in it"),
    ]:
        with pytest.raises(ConfigError, match=f"^secret {source}.*{words}"):
            read_secret(source, {})


def test_no_credential_means_anonymous() -> None:
    """Without a source there is no secret and no header."""
    assert read_credential(None) is ANONYMOUS
    assert ANONYMOUS.authorization is None
    assert ANONYMOUS.redacted("text") == "text"


def test_headers_follow_the_form() -> None:
    """Basic is base64 of both halves in UTF-8, Bearer the token alone; OAuth must fetch a token."""
    headers = [
        read_credential("env:T", {"T": text}).authorization for text in ("Jürg:pass", "token", "oauth:K:S")
    ]
    assert headers == ["Basic SsO8cmc6cGFzcw==", "Bearer token", None]


@pytest.mark.parametrize("text", ["me:s3cret", "s3cret", "oauth:key:s3cret"])
def test_the_secret_is_never_shown(text: str) -> None:
    """Not in repr, str or the name of the bucket, and texts that repeat it are redacted."""
    found = read_credential("env:T", {"T": text})
    basic = found.basic.removeprefix("Basic ")
    assert "s3cret" not in f"{found!r}{found!s}{found.bucket}"
    assert "s3cret" not in found.redacted("you sent s3cret!")
    assert basic not in found.redacted(f"you sent {basic}!")


def test_a_secret_is_redacted_in_every_encoding() -> None:
    """An upstream may repeat it as in an address or in JSON."""
    found = read_credential("env:T", {"T": 'a@b.c:ATATT3x/"secret=é'})
    said = 'a%40b.c:ATATT3x%2F%22secret%3D%C3%A9 ATATT3x/\\"secret=\\u00e9'
    assert found.redacted(said) == "a%40b.c:[secret] [secret]"
    for secret in (
        "s3cret\u00ff>?",
        "s3cret\u00ff>?1",
        "s3cret\u00ff>?12",
    ):  # filled up with one sign, two, none
        found = read_credential("env:T", {"T": f"me:{secret}"})
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            said = encode(secret.encode()).decode().rstrip("=")
            assert found.redacted(f"<{said}>") == "<[secret]>"


def test_the_budget_bucket_is_the_account_that_the_upstream_counts() -> None:
    """Tokens of one user share a bucket, access tokens do not; strangers have one too."""
    bucket = {text: read_credential("env:T", {"T": text}).bucket for text in ("me:1", "me:2", "1", "2")}
    assert bucket["me:1"] == bucket["me:2"] != bucket["1"] != bucket["2"]
    assert ANONYMOUS.bucket == "anonymous"


def test_a_server_has_one_budget_however_its_address_is_written() -> None:
    """Two upstreams of one account would spend it twice; another port may be another server."""
    urls = ("", CLOUD_URL, "https://API.Bitbucket.org:443/2.0", "https://api.bitbucket.org:8443/2.0")
    *one, other = (bucket_of(UpstreamConfig(name="cloud", url=url), ANONYMOUS) for url in urls)
    assert set(one) == {"anonymous@api.bitbucket.org"}
    assert other == "anonymous@api.bitbucket.org:8443"
