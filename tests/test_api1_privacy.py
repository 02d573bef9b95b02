"""API 1.0 shows no private byte to those who may not see it: every address, every kind of caller."""

from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from callers import MixedMirror
from examples import examples
from fixtures_db import SECRETS, FixtureDb, owner, repository
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.model import Repository
from mirror.serve.api1.routes import READERS
from mirror.store import tokens

PRIVATE = ("jespern/arriving", "brodie/hg-project", "brodie/buried-treasure")
PUBLIC = ("jespern/django-piston", "jespern/shown", "mcatalbas/copy", "dchambers/django-piston")
WORDS = ("a", "arriving", "hidden", "secret", "treasure", "hg-project", "jespern", "brodie/", "business", "")
FORMS = ("", "format=yaml", "format=xml", "callback=f")


def _addresses() -> list[str]:
    """Every address of the API, with the names of public and private owners and repositories in it."""
    found = []
    for pattern in READERS:
        if "<slug>" in pattern:
            for full_name in (*PUBLIC, *PRIVATE):
                who, _, slug = full_name.partition("/")
                names = {"<owner>": who, "<slug>": slug}
                found.append("/".join(names.get(part, part) for part in pattern))
        elif "<owner>" in pattern:
            owners = ("jespern", "brodie", "mcatalbas", "dchambers")
            found += ["/".join(who if part == "<owner>" else part for part in pattern) for who in owners]
        elif pattern == ("repositories",):
            found += [f"repositories?name={word}" for word in WORDS]
        else:
            found.append("/".join(pattern))
    return found


def _strangers(mixed: MixedMirror) -> dict[str, tuple[AsgiClient, dict[str, Any]]]:
    return {
        "anonymous": (mixed.served, {}),
        "revoked": (mixed.served, {"headers": bearer(mixed.tokens["revoked"])}),
        "expired": (mixed.served, {"headers": bearer(mixed.tokens["expired"])}),
        "bad": (mixed.served, {"headers": basic("jespern", mixed.tokens["bad"])}),
        "untrusted name": (mixed.served, {"headers": basic("jespern", "any")}),
        "oauth": (mixed.served, {"headers": {"Authorization": 'OAuth oauth_token="x"'}}),
        "forged login": (mixed.served, {"cookies": {"ds_actor": "eyJhIjp7ImlkIjoicm9vdCJ9fQ.x"}}),
        "trusted elsewhere": (mixed.trusting, {"headers": {**basic("jespern", "x"), "Host": "evil.example"}}),
        "trusted behind a proxy": (
            mixed.trusting,
            {"headers": {**basic("jespern", "x"), "X-Forwarded-For": "192.0.2.1"}},
        ),
        "trusted, nobody": (mixed.trusting, {"headers": basic("nobody", "x")}),
    }


STRANGERS = (
    "anonymous", "revoked", "expired", "bad", "untrusted name", "oauth", "forged login", "trusted elsewhere",
    "trusted behind a proxy", "trusted, nobody",
)  # fmt: skip


UNSAID = ("anonymous", "oauth", "forged login")
"""Those who sent no Basic or Bearer credential; all others are told that theirs is not accepted."""


def _shown(content: bytes, path: str) -> list[bytes]:
    """List the secrets in an answer, apart from those that the question itself named."""
    asked = path.lower().encode()
    return [secret for secret in SECRETS if secret.lower() in content.lower() and secret.lower() not in asked]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_strangers_see_no_private_byte(mixed: MixedMirror, stranger: str) -> None:
    """Answers, lists, searches and their counts, events, forks, errors; in every format."""
    served, how = _strangers(mixed)[stranger]
    for form in FORMS if stranger == "anonymous" else FORMS[:1]:
        for path in _addresses():
            answer = served.get(f"/1.0/{path}{'&' if '?' in path else '?'}{form}", **how)
            assert _shown(answer.content, path) == [], path
            if stranger not in UNSAID:
                assert answer.status_code == 401, path
                continue
            if any(name in path for name in PRIVATE):
                assert answer.status_code == 404, path
            if path.partition("/")[0] == "user":
                assert answer.status_code == 401, path


def test_counts_for_strangers_leave_private_repositories_out(mixed: MixedMirror) -> None:
    """Counts of searches, forks, events and followers cover only public rows."""
    get = mixed.served.json
    for word in ("arriving", "secret", "hidden", "treasure", "hg-project", "brodie/"):
        assert get(f"/1.0/repositories?name={word}") == {"query": word, "count": 0, "repositories": []}
    assert get("/1.0/repositories/brodie") == []
    assert get("/1.0/users/brodie/events") == {"count": 0, "events": []}
    assert get("/1.0/repositories/jespern/shown/events") == {"count": 0, "events": []}
    assert [one["slug"] for one in get("/1.0/users/jespern")["repositories"]] == ["django-piston", "shown"]


def test_private_forks_are_not_counted(tmp_path: Path) -> None:
    """The count is the upstream's minus the hidden forks; null if the upstream sent none."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("a/b", forks_count=2), repository("a/untold")])
    for name, private in (("c/b", False), ("d/b", True)):
        fork = repository(name, parent_uuid="{a/b}", parent_full_name="a/b", is_private=private)
        filled.repositories([fork])
    token = tokens.create(filled.store, "any")
    served = client_of(tmp_path / "mirror.db")
    assert served.json("/1.0/repositories/a/b")["forks_count"] == 1
    assert served.json("/1.0/repositories/a/b", headers=bearer(token))["forks_count"] == 2
    assert served.json("/1.0/repositories/a/untold")["forks_count"] is None
    filled.store.close()


def test_only_token_holders_see_the_private_past_of_a_public_repository(mixed: MixedMirror) -> None:
    """Branches from before it was made public are events only for callers who see everything."""
    path = "/1.0/repositories/jespern/shown/events"
    assert mixed.served.json(path)["count"] == 0
    told = mixed.served.json(path, headers=bearer(mixed.tokens["read"]))
    assert "branch secret-branch deleted" in {one["description"] for one in told["events"]}


def test_a_fork_does_not_name_its_private_parent(mixed: MixedMirror) -> None:
    """That it is a fork is public; the parent is not."""
    told = mixed.served.json("/1.0/repositories/mcatalbas/copy")
    assert (told["is_fork"], told["fork_of"]) == (True, None)
    headers = bearer(mixed.tokens["read"])
    assert (
        mixed.served.json("/1.0/repositories/mcatalbas/copy", headers=headers)["fork_of"]["slug"]
        == "arriving"
    )


def test_only_token_holders_see_an_unmirrored_parent(mixed_db: FixtureDb) -> None:
    """The mirror does not know whether such a parent is private."""
    mixed_db.repositories([repository("a/b", parent_uuid="{elsewhere}", parent_full_name="else/where")])
    token = make_tokens(mixed_db.store)["read"]
    served = client_of(mixed_db.path)
    assert served.json("/1.0/repositories/a/b")["fork_of"] is None
    told = served.json("/1.0/repositories/a/b", headers=bearer(token))["fork_of"]
    assert (told["owner"], told["slug"]) == ("else", "where")
    mixed_db.store.close()


@pytest.mark.parametrize("how", ["bearer", "basic", "parameter"])
@pytest.mark.parametrize("token", ["read", "write"])
def test_holders_of_a_token_see_everything_that_lives(mixed: MixedMirror, token: str, how: str) -> None:
    """By header, as a Basic password, or in the address; tombstones are 404 for them too."""
    said: dict[str, Any] = {
        "bearer": {"headers": bearer(mixed.tokens[token])},
        "basic": {"headers": basic("anybody", mixed.tokens[token])},
        "parameter": {"params": {"access_token": mixed.tokens[token]}},
    }[how]
    told = mixed.served.json("/1.0/repositories/jespern/arriving", **said)
    assert (told["is_private"], told["description"]) == (True, "Arriving soon")
    assert "secret-tag" in mixed.served.json("/1.0/repositories/jespern/arriving/tags", **said)
    assert mixed.served.get("/1.0/repositories/brodie/buried-treasure", **said).status_code == 404
    params = {"params": {**said.pop("params", {}), "name": "arriving"}}
    assert mixed.served.json("/1.0/repositories", **params, **said)["count"] == 1


@pytest.mark.parametrize(
    ("name", "sees", "sees_not"),
    [
        ("jespern", {"jespern/arriving", "jespern/once-hidden"}, {"brodie/hg-project"}),
        ("JESPERN", {"jespern/arriving"}, {"brodie/hg-project"}),
        ("brodie", {"brodie/hg-project"}, {"jespern/arriving"}),
        ("mcatalbas", {"brodie/hg-project"}, {"jespern/arriving"}),
        ("dchambers", set(), {"jespern/arriving", "brodie/hg-project"}),
    ],
)
def test_a_trusted_user_name_sees_its_own_repositories(
    mixed: MixedMirror, name: str, sees: set[str], sees_not: set[str]
) -> None:
    """Those of the user and of the user's workspaces, with any password."""
    headers = basic(name, "any password")
    for full_name in sees:
        assert mixed.trusting.json(f"/1.0/repositories/{full_name}", headers=headers)["is_private"], full_name
    for full_name in sees_not:
        assert mixed.trusting.get(f"/1.0/repositories/{full_name}", headers=headers).status_code == 404
    mine = mixed.trusting.get("/1.0/user/repositories", headers=headers)
    assert mine.status_code == 200
    assert not any(full_name.partition("/")[2].encode() in mine.content for full_name in sees_not)


def test_a_trusted_name_may_not_write(mixed_path: Path) -> None:
    """A name without a checked password is enough to read, never to write."""
    served = client_of(mixed_path, trust_basic_user=True, writes=True, writer=object())
    answer = served("DELETE", "/1.0/repositories/jespern/arriving", headers=basic("jespern", "x"))
    assert answer.status_code == 401


def test_private_answers_forbid_caching(mixed: MixedMirror) -> None:
    """No cache may give one caller's answer to the next caller."""
    answer = mixed.served.get("/1.0/repositories/jespern/arriving", headers=bearer(mixed.tokens["read"]))
    assert answer.headers["cache-control"] == "private, no-store"
    told = mixed.served.get(f"/1.0/repositories/jespern/arriving?access_token={mixed.tokens['read']}")
    assert told.headers["cache-control"] == "private, no-store"
    assert "Authorization" in mixed.served.get("/1.0/repositories/jespern/django-piston").headers["vary"]


NAMES = st.text("abcdefgh", min_size=3, max_size=8)


@settings(max_examples=examples(15))
@given(
    rows=st.dictionaries(
        st.tuples(NAMES, NAMES), st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8
    ),
    data=st.data(),
)
def test_random_private_rows_stay_hidden(
    tmp_path_factory: pytest.TempPathFactory,
    rows: dict[tuple[str, str], tuple[bool, bool]],
    data: st.DataObject,
) -> None:
    """In any mix of public and private, living and gone, with forks: strangers see only public ones."""
    filled = FixtureDb(tmp_path_factory.mktemp("any") / "mirror.db")
    made = list[Repository]()
    for (who, slug), (private, _) in rows.items():
        parent = data.draw(st.sampled_from([None, *made]))
        said = {"parent_uuid": parent.uuid, "parent_full_name": parent.full_name} if parent else {}
        secret = f"zz{slug}zz" if private else slug
        made.append(
            repository(f"{who}/{secret}", owner(who), uuid=f"{{{who}/{slug}}}", is_private=private, **said)
        )
    filled.repositories(made)
    for one, (_, gone) in zip(made, rows.values(), strict=True):
        if gone:
            filled.gone(one.full_name)
    filled.store.close()
    served = client_of(filled.store.path)
    shown = [not private and not gone for private, gone in rows.values()]
    living = {one.full_name for one, is_shown in zip(made, shown, strict=True) if is_shown}
    for who in {who for who, _ in rows}:
        listed = served.json(f"/1.0/repositories/{who}")
        assert {f"{one['owner']}/{one['slug']}" for one in listed} == {
            full_name for full_name in living if full_name.partition("/")[0] == who
        }
        for path in (f"users/{who}", f"users/{who}/events", f"repositories?name={who}/"):
            assert b"zz" not in served.get(f"/1.0/{path}").content
    assert served.json("/1.0/repositories?name=zz")["count"] == 0
    for full_name in living:
        for tail in ("", "/forks", "/events", "/followers"):
            assert b"zz" not in served.get(f"/1.0/repositories/{full_name}{tail}").content


@pytest.mark.parametrize("form", FORMS)
def test_hidden_and_missing_give_the_same_bytes(mixed: MixedMirror, form: str) -> None:
    """At every route and in every format, also for deleted ones."""
    routes = [pattern[3:] for pattern in READERS if pattern[:1] == ("repositories",) and len(pattern) >= 3]
    assert len(routes) > 7
    for route in routes:
        answers = set()
        for name in ("jespern/arriving", "jespern/nothing-", "brodie/buried-treasure"):
            answer = mixed.served.get(f"/1.0/repositories/{'/'.join((name, *route))}?{form}")
            headers = {key: value for key, value in answer.headers.items() if key != "content-length"}
            told = str(headers).replace(name, "NAME")
            answers.add((answer.status_code, answer.content.replace(name.encode(), b"NAME"), told))
        assert len(answers) == 1, route
        assert next(iter(answers))[0] == 404


@pytest.mark.parametrize(
    ("method", "route"),
    [("PUT", ""), ("DELETE", ""), ("POST", "/fork")],
)
def test_writes_do_not_tell_hidden_from_missing(mixed_db: FixtureDb, method: str, route: str) -> None:
    """A user's token does not reveal which private repositories others have."""
    token = tokens.create(mixed_db.store, "of dchambers", "write", user="dchambers")
    served = client_of(mixed_db.path, writer=object(), writes=True)
    told = set()
    for name in ("jespern/arriving", "jespern/nothing-"):
        answer = served(
            method, f"/1.0/repositories/{name}{route}", headers=bearer(token), data={"name": "copy"}
        )
        told.add((answer.status_code, answer.content.replace(name.encode(), b"NAME")))
    assert len(told) == 1
    assert next(iter(told))[0] == 404
