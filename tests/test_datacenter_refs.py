"""Branches, tags and commits in Data Center's API."""

from pathlib import Path

import pytest
from asgi_client import client_of
from datacenter_mirror import ACME, CLOUD, Mirror, told
from fixtures_db import FixtureDb, hg_ref, repository

from mirror.upstream import datacenter_decode as decode


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """Filled once: nothing here writes."""
    return Mirror(tmp_path_factory.mktemp("datacenter"))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["AA", "zz", "domain", "feature/main", "Main-street", "main"]),
        ("orderBy=MODIFICATION", ["AA", "zz", "domain", "feature/main", "Main-street", "main"]),
        ("orderBy=alphabetical", ["AA", "Main-street", "domain", "feature/main", "main", "zz"]),
        ("orderBy=ALPHABETICAL&filterText=MAIN", ["Main-street", "domain", "feature/main", "main"]),
        (
            "orderBy=ALPHABETICAL&filterText=MAIN&boostMatches=true",
            ["main", "Main-street", "domain", "feature/main"],
        ),
        ("filterText=main&boostMatches=true", ["main", "Main-street", "domain", "feature/main"]),
        ("filterText=a_n", []),
    ],
)
def test_branches_are_found_and_ordered(mirror: Mirror, query: str, found: list[str]) -> None:
    """The newest commit first; with `boostMatches` the whole name, then names that begin with it."""
    assert mirror.names(f"projects/acme-inc/repos/tool/branches?{query}") == found


def test_matches_are_boosted_in_any_script(tmp_path: Path) -> None:
    """The whole name and its beginning are compared as the filter compares."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("acme-Inc/tool", ACME)], first=True)
    names = ("a-über", "ÜBER", "Übergang", "straße", "strasse-2")
    filled.refs("acme-Inc/tool", [hg_ref("branch", name, "a") for name in names])
    filled.store.close()
    client = client_of(tmp_path / "mirror.db")
    asked = "/rest/api/1.0/projects/acme-inc/repos/tool/branches?boostMatches=true&orderBy=ALPHABETICAL"
    for text, found in (("über", ["ÜBER", "Übergang", "a-über"]), ("STRASSE", ["straße", "strasse-2"])):
        rows = client.json(f"{asked}&filterText={text}")["values"]
        assert [row["displayId"] for row in rows] == found


def test_branches_tell_their_latest_commit(mirror: Mirror) -> None:
    """If details are requested; the default branch is marked."""
    here = "projects/acme-inc/repos/tool"
    (plain, *_) = mirror.json(f"{here}/branches?filterText=main&boostMatches=true")["values"]
    assert plain == {
        "id": "refs/heads/main", "displayId": "main", "type": "BRANCH", "latestCommit": "a" * 40,
        "latestChangeset": "a" * 40, "isDefault": True,
    }  # fmt: skip
    assert mirror.json(f"{here}/default-branch") == mirror.json(f"{here}/branches/default") == plain
    (full, *_) = mirror.json(f"{here}/branches?filterText=main&boostMatches=true&details=true")["values"]
    (latest,) = full["metadata"].values()
    assert latest == {
        "id": "a" * 40, "displayId": "a" * 11, "message": "Work on main\n", "authorTimestamp": 1577836800123,
        "author": {"name": "Ann", "emailAddress": "ann@example.com", "displayName": "jespern"},
        "parents": [{"id": "0" * 40, "displayId": "0" * 11}],
    }  # fmt: skip
    assert decode.to_branch(decode.RefJson(id="refs/heads/x", latest_commit="1")).name == "x"


def test_commits_that_refs_name_are_served(mirror: Mirror) -> None:
    """By whole or short hash, in any case; lists of commits and everything below a commit are 501."""
    here = "projects/acme-inc/repos/tool/commits"
    whole = mirror.json(f"{here}/{'a' * 40}")
    (first, *_) = mirror.json("projects/acme-inc/repos/tool/branches?filterText=AA&details=true")["values"]
    assert [whole] == list(first["metadata"].values())
    assert mirror.json(f"{here}/AAAA") == mirror.json(f"{here}/AA") == whole
    assert mirror.json(f"{here}/{'b' * 40}")["displayId"] == "b" * 11
    assert mirror.get("projects/acme-inc/repos/unread/commits/aaaa").status_code == 503


def test_tags_are_listed_and_found(mirror: Mirror) -> None:
    """Also with escaped or plain slashes; `hash` is null for a tag known to have no annotation."""
    here = "projects/acme-inc/repos/tool/tags"
    assert mirror.names(here) == ["v2", "v/1"]
    assert mirror.names(f"{here}?filterText=V2") == ["v2"]
    plain = mirror.json(f"{here}/v/1")
    assert plain == mirror.json(f"{here}/v%2F1") == mirror.json(f"{here}/refs/tags/v/1")
    assert (plain["id"], plain["type"], plain["latestCommit"], plain["hash"]) == (
        "refs/tags/v/1",
        "TAG",
        "b" * 40,
        None,
    )
    assert "hash" not in mirror.json(f"{here}/v2")
    assert mirror.get(f"{here}/none").status_code == 404


def test_unread_refs_are_not_an_empty_list(mirror: Mirror) -> None:
    """503 until they are read; an empty repository has no refs and no default branch."""
    for what in ("branches", "tags", "default-branch", "tags/v1"):
        answer = mirror.get(f"projects/acme-inc/repos/unread/{what}")
        assert (answer.status_code, answer.headers["X-Mirror-Refs"]) == (503, "not read yet")
        assert "not been read yet" in told(answer)
    assert mirror.names("projects/~ann/repos/empty/branches") == []
    answer = mirror.get("projects/~ann/repos/empty/default-branch")
    assert (answer.status_code, "no default branch" in told(answer)) == (404, True)


def test_refs_that_are_not_mirrored_are_501(tmp_path: Path) -> None:
    """With the address, or as a redirect: `branches` and `tags` have the same names at Cloud."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.store.save_upstream("cloud", "cloud", "https://api.example.com/2.0", refs="none")
    filled.repositories([repository("acme-Inc/tool", ACME)], first=True)
    filled.store.close()
    plain, leading = (client_of(filled.path, redirect_unmirrored=switch) for switch in (False, True))
    for what, there, status in (
        ("branches?limit=2", "/refs/branches?limit=2", 307),
        ("tags", "/refs/tags", 307),
        ("tags/v/1", "/refs/tags/v/1", 307),
        ("default-branch", "", 501),
    ):
        path = f"/rest/api/1.0/projects/acme-inc/repos/tool/{what}"
        answer = plain.get(path)
        assert (answer.status_code, answer.headers["X-Mirror-Refs"]) == (501, "not mirrored")
        assert told(answer) == f"This mirror holds no branches and tags; ask {CLOUD}{there}"
        answer = leading.get(path)
        assert (answer.status_code, answer.headers.get("Location", f"{CLOUD}{there}")) == (
            status,
            f"{CLOUD}{there}",
        )
