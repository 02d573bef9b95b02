"""The sandbox's data: deterministic, always with the known examples and oddities, true to every edit."""

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.sandbox import (
    ANONYMOUS,
    TOKEN,
    EditError,
    Sandbox,
    World,
    person,
    repository_refs,
    utc_now,
    visible_repositories,
)
from mirror.sandbox.exchange import Request

SORTS = ("created_on", "-created_on", "updated_on", "-updated_on", "name", "slug", "-full_name")


def ask(sandbox: Sandbox, path: str, query: str = "", who: str = "Bearer sandbox") -> Any:
    headers = {"host": "sandbox", "authorization": who}
    answer = sandbox.answer(Request("GET", f"/2.0/{path}", query, headers))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def walk(sandbox: Sandbox, path: str, query: str) -> list[Any]:
    """Follow the pages to the end."""
    rows: list[Any] = []
    while True:
        page = ask(sandbox, path, query)
        rows += page["values"]
        if "next" not in page:
            return rows
        query = page["next"].partition("?")[2]


def full_names(world: World) -> set[str]:
    return {row["full_name"] for row in visible_repositories(world)}


def test_the_examples_of_the_first_document_are_always_there() -> None:
    """Even a world that is too small for them has the eleven repositories."""
    for size in (0, 11, 50, 3000):
        world = World(size)
        rows = {row["full_name"]: row for row in visible_repositories(world)}
        assert len(rows) == max(size, 11)
        piston = rows["jespern/django-piston"]
        assert (piston["followers_count"], piston["scm"]) == (173, "hg")
        assert piston["description"] == "Piston is a Django mini-framework creating APIs."
        assert piston["mainbranch"] == {"type": "named_branch", "name": "default"}
        assert [ref["name"] for ref in repository_refs(world, "jespern/django-piston")] == [
            "default",
            "0.2.1",
            "0.2.2",
            "0.2.3",
            "tip",
        ]
        private = {name for name, row in rows.items() if row["is_private"]}
        assert private >= {
            "jespern/arriving",
            "jespern/jespern",
            "jespern/jespern-jekyll",
            "jespern/bitbucket-issue-query",
            "erik/org.eclipse.mylyn.bitbucket",
            "brodie/hg-project",
        }
        assert rows["mcatalbas/codeigniter"]["name"] == "CodeIgniter"
        assert rows["dchambers/django-piston"]["parent"]["full_name"] == "jespern/django-piston"
        assert rows["ubernostrum/django-registration"]["followers_count"] == 159
        assert rows["ubernostrum/django-profiles"]["followers_count"] == 60


def test_the_same_seed_gives_the_same_world() -> None:
    """Two worlds of one seed are equal to the last ref. Another seed gives another world."""
    one, two, other = World(300), World(300), World(300, seed=2)
    assert list(visible_repositories(one)) == list(visible_repositories(two))
    assert all(repository_refs(one, name) == repository_refs(two, name) for name in full_names(one))
    assert list(visible_repositories(one)) != list(visible_repositories(other))


def test_a_world_of_a_million_repositories_starts_at_once() -> None:
    """A page or a repository of a huge workspace is answered without generating its other rows."""
    sandbox = Sandbox(World(1_000_000, workspaces=1))
    page = ask(sandbox, "repositories/big", "pagelen=100&page=5000&sort=created_on")
    assert page["size"] > 999_000
    assert len(page["values"]) == 100
    slug = page["values"][7]["slug"]
    assert ask(sandbox, f"repositories/big/{slug}")["uuid"] == page["values"][7]["uuid"]
    assert len(sandbox.world._rows) < 50


def test_names_and_owners_follow_zipfs_law() -> None:
    """The first workspaces are much larger than the last; popular names have many owners."""
    rows = list(visible_repositories(World(5000)))
    owners = Counter(row["full_name"].split("/")[0] for row in rows).most_common()
    assert owners[0][1] > 5 * owners[10][1]
    names = Counter(row["slug"] for row in rows).most_common()
    assert names[0][1] >= 8
    assert names[-1][1] == 1
    assert 0.1 < sum(row["is_private"] for row in rows) / len(rows) < 0.2
    assert len({row["uuid"] for row in rows}) == len(rows) == len({row["full_name"].lower() for row in rows})


def test_forks_share_the_name_of_their_parent_and_are_listed_by_it() -> None:
    """`parent`, `forks_count` and the list of forks agree."""
    world = World(2000)
    sandbox = Sandbox(world)
    rows = list(visible_repositories(world))
    children = Counter(row["parent"]["full_name"] for row in rows if row.get("parent"))
    assert len(children) > 30
    for row in rows:
        assert row["forks_count"] == children[row["full_name"]]
        if row.get("parent"):
            assert row["parent"]["full_name"].split("/")[1] == row["slug"]
            assert "slug" not in row["parent"]
    name, count = children.most_common(1)[0]
    assert ask(sandbox, f"repositories/{name}/forks")["size"] == count


def test_every_oddity_of_repositories_occurs() -> None:
    """A default world contains everything that breaks a naive parser."""
    rows = list(visible_repositories(World()))
    shapes = {json.dumps(row["mainbranch"], sort_keys=True) for row in rows if "mainbranch" in row}
    assert {"null", "{}"} < shapes
    assert any("mainbranch" not in row for row in rows)
    assert {row["mainbranch"]["type"] for row in rows if row.get("mainbranch")} == {"branch", "named_branch"}
    assert {"parent" in row for row in rows} == {True, False}
    assert {"workspace" in row for row in rows} == {"project" in row for row in rows} == {True, False}
    assert any("." not in row["updated_on"] for row in rows)
    assert any(row["updated_on"] < row["created_on"] for row in rows)
    assert any(row["full_name"] != row["full_name"].lower() for row in rows)
    assert any(not row["description"].isascii() for row in rows)
    assert any("\r\n" in row["description"] for row in rows)
    assert {row["website"] for row in rows} >= {None, ""}
    assert Counter(row["language"] for row in rows)[""] > len(rows) / 4
    assert any(row["size"] == 0 for row in rows)
    assert {row["owner"]["type"] for row in rows} == {"user", "team"}
    assert any("username" not in row["owner"] for row in rows)
    assert len({row["links"]["self"]["href"].partition("/repositories")[0] for row in rows}) == 3
    world = World()
    users = [
        ref["target"]["author"].get("user", {})
        for name in full_names(world)
        for ref in repository_refs(world, name)
    ]
    assert any(user and not user.keys() & {"username", "nickname"} for user in users)
    assert any("https://" in row["name"] for row in rows)
    assert any(row["slug"] != row["name"].lower().replace(" ", "-") for row in rows)


def test_every_oddity_of_refs_occurs() -> None:
    """Closed branches, odd names, tags in three shapes, authors without account, uuid or e-mail."""
    world = World()
    by_repository = {name: repository_refs(world, name) for name in full_names(world)}
    refs = [ref for found in by_repository.values() for ref in found]
    assert {len(ref["heads"]) for ref in refs if "heads" in ref} == {0, 1, 2}
    tags = [ref for ref in refs if ref["type"] == "tag"]
    assert {"absent" if "tagger" not in tag else type(tag["tagger"]).__name__ for tag in tags} == {
        "absent",
        "NoneType",
        "dict",
    }
    names = {ref["name"] for ref in refs}
    assert all(any(sign in name for name in names) for sign in "/\"' #%@;" if sign != "'")
    assert any(
        {ref["name"] for ref in found if ref["type"] == "tag"}
        & {ref["name"] for ref in found if ref["type"] != "tag"}
        for found in by_repository.values()
    )
    authors = [ref["target"]["author"] for ref in refs]
    assert any("user" not in author for author in authors)
    assert any("<" not in author["raw"] for author in authors)
    assert any("uuid" not in author.get("user", {"uuid": ""}) for author in authors)
    assert any(author.get("user", {}).get("type") == "app_user" for author in authors)
    assert {len(ref["target"]["parents"]) for ref in refs} == {0, 1, 2}
    assert any("merge_strategies" not in ref for ref in refs if ref["type"] == "branch")
    counts = [len(found) for found in by_repository.values()]
    assert min(counts) == 0
    assert max(counts) > 200
    special = {ref["name"]: ref for ref in by_repository["1team/special-refs"] if ref["type"] == "tag"}
    link = special['special-"$;><&#_=@!|.,/test']["links"]["self"]["href"]
    assert link.endswith("/refs/tags/special-%22$;%3E%3C&%23_=@!%7C.,/test")


def test_only_members_and_tokens_see_private_repositories() -> None:
    """Anonymous callers see public ones, people also those of their workspaces, a token all."""
    world = World()
    everything = list(visible_repositories(world, TOKEN))
    public = [row["full_name"] for row in everything if not row["is_private"]]
    assert [row["full_name"] for row in visible_repositories(world, ANONYMOUS)] == public
    jespern = {row["full_name"] for row in visible_repositories(world, person("jespern"))}
    assert jespern - set(public) == {
        row["full_name"]
        for row in everything
        if row["is_private"] and row["full_name"].split("/")[0] in {"jespern", "erik", "brodie"}
    }


@settings(max_examples=examples(12))
@given(pagelen=st.integers(1, 130), sort=st.sampled_from(SORTS), who=st.sampled_from(["", "Bearer sandbox"]))
def test_pages_of_any_length_and_order_contain_each_repository_once(
    pagelen: int, sort: str, who: str
) -> None:
    """Rows are neither lost nor repeated, and in the requested order."""
    sandbox = Sandbox(World(180))
    query, rows = f"pagelen={pagelen}&sort={sort}", []
    while query:
        headers = {"host": "sandbox"} | ({"authorization": who} if who else {})
        page = json.loads(sandbox.answer(Request("GET", "/2.0/repositories/big", query, headers)).body)
        assert page["pagelen"] == min(100, pagelen)
        rows += page["values"]
        query = page.get("next", "").partition("?")[2]
    caller = TOKEN if who else ANONYMOUS
    expected = {
        row["uuid"]
        for row in visible_repositories(sandbox.world, caller)
        if row["full_name"].startswith("big/")
    }
    assert len(rows) == page["size"] == len(expected)
    assert {row["uuid"] for row in rows} == expected
    keys = [row[sort.lstrip("-")].lower().replace("+00:00", "").ljust(26, "\0") for row in rows]
    assert keys == sorted(keys, reverse=sort.startswith("-"))


ACTIONS = st.sampled_from(
    [
        "touch",
        "push",
        "rename",
        "transfer",
        "delete",
        "create",
        "make_private",
        "make_public",
        "swap",
        "restore",
    ]
)


def act(
    sandbox: Sandbox, action: str, names: tuple[str, str], number: int, deleted: list[str]
) -> dict[str, Any]:
    """Perform one edit."""
    name, other = names
    match action:
        case "rename":
            return sandbox.do("rename", name, name=f"New Name {number % 7}")
        case "transfer":
            return sandbox.do("transfer", name, to=other.partition("/")[0])
        case "create":
            return sandbox.do("create", workspace=name.partition("/")[0], name=f"made-{number % 9}")
        case "swap":
            return sandbox.do("swap_names", name, **{"with": other})
        case "restore":
            return sandbox.do("restore", deleted[number % len(deleted)] if deleted else name)
        case _:
            return sandbox.do(action, name)


@settings(max_examples=examples(15))
@given(history=st.lists(st.tuples(ACTIONS, st.integers(0, 10**6), st.integers(0, 10**6)), max_size=25))
def test_every_edit_updates_every_order(history: list[tuple[str, int, int]]) -> None:
    """After any history, all orders contain the same repositories, sorted, with their current names."""
    sandbox = Sandbox(World(60, workspaces=2))
    world = sandbox.world
    for sort in SORTS:  # make the orders, so that they have to follow
        for slug in sandbox.workspaces():
            walk(sandbox, f"repositories/{slug}", f"sort={sort}")
    deleted: list[str] = []
    for action, first, second in history:
        rows = list(visible_repositories(world))
        row, other = rows[first % len(rows)], rows[second % len(rows)]
        try:
            edited = act(sandbox, action, (row["full_name"], other["full_name"]), second, deleted)
        except EditError:
            assert list(visible_repositories(world)) == rows
            continue
        if action == "delete":
            deleted.append(edited["uuid"])
        elif action != "restore":
            home = edited["repository"].partition("/")[0]
            newest = ask(sandbox, f"repositories/{home}", "sort=-updated_on&pagelen=1")
            assert edited["uuid"] == newest["values"][0]["uuid"] or action == "swap"
    expected = {row["uuid"]: row for row in visible_repositories(world, origin="http://sandbox")}
    for sort in SORTS:
        listed = {
            row["uuid"]: row
            for slug in sandbox.workspaces()
            for row in walk(sandbox, f"repositories/{slug}", f"sort={sort}&pagelen=7")
        }
        assert listed == expected
    for uuid, row in expected.items():
        assert ask(sandbox, f"repositories/{row['full_name']}")["uuid"] == uuid
        assert ask(sandbox, f"repositories/%7B%7D/{uuid}")["full_name"] == row["full_name"]


def test_every_edit_has_a_later_date_even_if_the_clock_stands_still() -> None:
    """Two edits within one tick of the clock have different dates."""
    moment = utc_now()
    sandbox = Sandbox(World(30, now=lambda: moment))
    stamps = [sandbox.do("touch", "jespern/jespern")["updated_on"] for _ in range(5)]
    assert all(earlier < later for earlier, later in pairwise(stamps))


def test_refs_change_as_edited() -> None:
    """Branches and tags are created, moved and deleted; nothing else changes."""
    sandbox = Sandbox(World())
    world, name = sandbox.world, "mcatalbas/codeigniter"
    before = {(ref["type"], ref["name"]): ref["target"]["hash"] for ref in repository_refs(world, name)}
    sandbox.do("create_branch", name, name="feature/new")
    sandbox.do("create_tag", name, name="v9", annotated=False)
    sandbox.do("push", name)
    after = {(ref["type"], ref["name"]): ref["target"]["hash"] for ref in repository_refs(world, name)}
    assert after.keys() - before.keys() == {("branch", "feature/new"), ("tag", "v9")}
    assert [key for key in before if before[key] != after[key]] == [("branch", "master")]
    sandbox.do("move_tag", name, name="v9")
    sandbox.do("delete_branch", name, name="feature/new")
    last = {(ref["type"], ref["name"]): ref["target"]["hash"] for ref in repository_refs(world, name)}
    assert last.keys() - before.keys() == {("tag", "v9")}
    assert last["tag", "v9"] != after["tag", "v9"]
    with pytest.raises(EditError, match="no branch"):
        sandbox.do("delete_branch", name, name="feature/new")


def test_the_first_push_creates_the_main_branch_and_moves_mercurials_tip() -> None:
    """The pseudo tag tip follows each push."""
    sandbox = Sandbox(World())
    sandbox.do("push", "1team/never-pushed")
    (branch,) = repository_refs(sandbox.world, "1team/never-pushed")
    assert branch["name"] == "master"
    sandbox.do("push", "jespern/django-piston")
    refs = {
        ref["name"]: ref["target"]["hash"] for ref in repository_refs(sandbox.world, "jespern/django-piston")
    }
    assert refs["tip"] == refs["default"]


def test_a_push_of_tags_may_leave_the_date_unchanged() -> None:
    """With `tags_touch` off, a new tag shows in the refs only."""
    sandbox = Sandbox(World())
    sandbox.options.tags_touch = False
    before = ask(sandbox, "repositories/mcatalbas/codeigniter")["updated_on"]
    assert sandbox.do("create_tag", "mcatalbas/codeigniter", name="quiet")["updated_on"] == before
    assert sandbox.do("create_branch", "mcatalbas/codeigniter", name="loud")["updated_on"] > before


def test_a_touch_or_a_transfer_does_not_change_refs() -> None:
    """Their dates, authors and commits stay the same."""
    sandbox = Sandbox(World(600, workspaces=2))
    for row in list(visible_repositories(sandbox.world))[40:80]:
        before = [
            (ref["name"], ref["target"]["date"], ref["target"]["author"]["raw"])
            for ref in repository_refs(sandbox.world, row["full_name"])
        ]
        sandbox.do("touch", row["full_name"])
        moved = sandbox.do("transfer", row["full_name"], to="erik")["repository"]
        after = [
            (ref["name"], ref["target"]["date"], ref["target"]["author"]["raw"])
            for ref in repository_refs(sandbox.world, moved)
        ]
        assert before == after


def test_a_workspace_is_deleted_and_restored_with_its_repositories() -> None:
    """Until it is restored, nothing in it is found, by name or uuid."""
    sandbox = Sandbox(World())
    before = list(visible_repositories(sandbox.world))
    row = ask(sandbox, "repositories/big")["values"][0]
    sandbox.do("delete_workspace", workspace="big")
    assert "big" not in sandbox.workspaces()
    assert not any(name.startswith("big/") for name in full_names(sandbox.world))
    for path in (
        "repositories/big",
        "workspaces/big",
        f"repositories/{row['full_name']}",
        f"repositories/{{}}/{row['uuid']}",
    ):
        assert sandbox.answer(Request("GET", f"/2.0/{path}")).status == 404
    sandbox.do("restore_workspace", workspace="big")
    assert list(visible_repositories(sandbox.world)) == before


def test_members_who_are_removed_lose_access() -> None:
    """They no longer see the private repositories of the workspace."""
    sandbox = Sandbox(World())
    name = "erik/org.eclipse.mylyn.bitbucket"
    jespern = person("jespern")
    assert name in {row["full_name"] for row in visible_repositories(sandbox.world, jespern)}
    assert sandbox.do("remove_member", workspace="erik", name="jespern")["members"] == ["erik"]
    assert name not in {row["full_name"] for row in visible_repositories(sandbox.world, jespern)}
    sandbox.do("add_member", workspace="erik", name="jespern")
    assert name in {row["full_name"] for row in visible_repositories(sandbox.world, jespern)}
    with pytest.raises(EditError, match="already"):
        sandbox.do("add_member", workspace="erik", name="jespern")


def test_the_last_member_of_a_workspace_cannot_be_removed() -> None:
    """As at Bitbucket, and everything in a workspace is by one of its members."""
    sandbox = Sandbox(World())
    sandbox.do("remove_member", workspace="erik", name="jespern")
    with pytest.raises(EditError, match="last member"):
        sandbox.do("remove_member", workspace="erik", name="erik")


def test_followers_may_change_without_a_new_date() -> None:
    """An edit changes `updated_on` unless `touch` is off."""
    sandbox = Sandbox(World())
    name = "jespern/django-piston"
    before = ask(sandbox, f"repositories/{name}")["updated_on"]
    assert sandbox.do("edit", name, fields={"followers": 174}, touch=False)["updated_on"] == before
    assert ask(sandbox, f"repositories/{name}")["followers_count"] == 174
    with pytest.raises(EditError, match="cannot be edited"):
        sandbox.do("edit", name, fields={"uuid": "x"})
    with pytest.raises(EditError, match="cannot be"):
        sandbox.do("edit", name, fields={"followers": "many"})


@pytest.mark.parametrize(("size", "workspaces"), [(-1, None), (1 << 24, None), (10, 0)])
def test_an_impossible_world_is_refused(size: int, workspaces: int | None) -> None:
    """The message names the limits."""
    with pytest.raises(ValueError, match="a world has from"):
        World(size, workspaces=workspaces)
