"""API 2.0 read by other people's tools: atlassian-python-api, and the npm package `bitbucket`."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_db import FixtureDb, fill_mixed, hg_ref, owner, repository
from live_server import serving
from npm_packages import node_folder

from mirror.store import tokens

BRANCHES = ("main", "feature/one", "feature/two three", 'say"hi"', "50%", *(f"b{n:02}" for n in range(20)))
SCRIPT = """
const { Bitbucket } = require("bitbucket")
const [, , address, token, branches] = process.argv
const client = new Bitbucket({ baseUrl: address, auth: { token }, notice: false })
async function all(first) {
  let { data } = await first
  const values = [...data.values]
  while (client.hasNextPage(data)) {
    data = (await client.getNextPage(data)).data
    values.push(...data.values)
  }
  return values
}
async function main() {
  const workspace = "busy", repo_slug = "project-3"
  const said = {}
  said.workspaces = (await all(client.workspaces.getWorkspaces({ pagelen: 2 }))).map(w => w.slug)
  said.global = (await all(client.repositories.listGlobal({ pagelen: 10 }))).map(r => r.full_name)
  said.repositories = (await all(client.repositories.list({ workspace, pagelen: 7 }))).map(r => r.slug)
  said.one = (await client.repositories.get({ workspace, repo_slug })).data.full_name
  said.refs = (await all(client.repositories.listRefs({ workspace, repo_slug, pagelen: 4 }))).map(r => r.name)
  said.tags = (await all(client.repositories.listTags({ workspace, repo_slug }))).map(r => r.name)
  said.branch = []
  for (const name of JSON.parse(branches))
    said.branch.push((await client.repositories.getBranch({ workspace, repo_slug, name })).data.name)
  said.members = (await all(client.workspaces.getMembersForWorkspace({ workspace: "brodie" })))
    .map(m => m.user.username)
  try { await client.repositories.get({ workspace, repo_slug: "none" }) }
  catch (error) { said.refused = [error.status, error.error.error.message] }
  console.log(JSON.stringify(said))
}
main().catch(error => { console.error(error); process.exit(1) })
"""


class World:
    """A mirror with a busy workspace, served, and a token for it."""

    def __init__(self, filled: FixtureDb, address: str, token: str) -> None:
        self.filled, self.address, self.token = filled, address, token

    def slugs(self, condition: str = "1") -> list[str]:
        """The slugs of living repositories, in the order in which they are listed."""
        rows = self.filled.store.rows(
            f"SELECT slug FROM repositories WHERE deleted_at IS NULL AND {condition} ORDER BY created_at, id"
        )
        return [row[0] for row in rows]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Made once: nothing here writes."""
    path = tmp_path_factory.mktemp("tools") / "mirror.db"
    filled = fill_mixed(path)
    busy = owner("busy", avatar_url="https://example.com/busy.png")
    filled.repositories([repository(f"busy/project-{n}", busy, is_private=n % 3 == 0) for n in range(25)])
    refs = [hg_ref("branch", name, "a") for name in BRANCHES] + [hg_ref("tag", "v/1", "b")]
    filled.refs("busy/project-3", refs)
    token = tokens.create(filled.store, "tool", "read")
    with serving(path) as address:
        yield World(filled, address, token)


@pytest.fixture
def cloud(world: World) -> Any:
    """The client of atlassian-python-api."""
    bitbucket = pytest.importorskip("atlassian.bitbucket", reason="atlassian-python-api is not installed")
    return bitbucket.Cloud(url=world.address, token=world.token)


def test_atlassian_lists_workspaces_and_their_repositories(world: World, cloud: Any) -> None:
    """Every `next` is followed; the caller's workspaces are all of the token's."""
    workspaces = {workspace.slug: workspace for workspace in cloud.workspaces.each()}
    assert {"busy", "brodie", "jespern"} <= set(workspaces)
    listed = [row.slug for row in workspaces["busy"].repositories.each()]
    assert listed == world.slugs("full_name LIKE 'busy/%'")
    searched = workspaces["busy"].repositories.each(q='name ~ "project-1"', sort="-name")
    assert [row.slug for row in searched][:2] == ["project-19", "project-18"]


def test_atlassian_lists_everything(world: World, cloud: Any) -> None:
    """The list of all repositories, which Bitbucket removed."""
    listed = [row.slug for row in cloud.repositories.each(pagelen=7)]
    assert listed == world.slugs()


def test_atlassian_finds_one_repository_in_three_ways(world: World, cloud: Any) -> None:
    """By slug, by name, by uuid."""
    workspace = cloud.workspaces.get("busy")
    found = workspace.repositories.get("project-4")
    assert workspace.repositories.get("project-4", by="name").uuid == found.uuid
    assert cloud.repositories.get("busy", "project-4").uuid == found.uuid
    assert workspace.repositories.exists("project-4")
    assert not workspace.repositories.exists("none")
    assert found.created_on == "2011-11-20T18:25:29.000000+00:00"


def test_atlassian_reads_refs_one_by_one(cloud: Any) -> None:
    """It requests each branch again by name, with slashes and quotes."""
    found = cloud.repositories.get("busy", "project-3")
    assert {branch.name for branch in found.branches.each(pagelen=4)} >= set(BRANCHES[:2])
    assert found.branches.get("feature/one").hash == "a" * 40
    assert [tag.name for tag in found.tags.each()] == ["v/1"]


def test_atlassian_reads_members(cloud: Any) -> None:
    """With their users."""
    (member,) = cloud.workspaces.get("brodie").members.each()
    assert member.user["username"] == "mcatalbas"


def test_atlassian_raises_on_refusals(cloud: Any) -> None:
    """The message of the error is what the server said."""
    with pytest.raises(Exception, match="may not have access to this repository"):
        cloud.repositories.get("busy", "none")


def test_npm_bitbucket_reads_everything(world: World, tmp_path: Path) -> None:
    """Workspaces, repositories, refs, one ref, members, following every `next`; and a refusal."""
    folder = node_folder(tmp_path, "bitbucket")
    (folder / "script.js").write_text(SCRIPT)
    done = subprocess.run(
        ["node", "script.js", f"{world.address}/2.0", world.token, json.dumps(BRANCHES[:5])],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"busy", "brodie", "jespern"} <= set(said["workspaces"])
    assert [name.partition("/")[2] for name in said["global"]] == world.slugs()
    assert said["repositories"] == world.slugs("full_name LIKE 'busy/%'")
    assert said["one"] == "busy/project-3"
    assert said["refs"] == sorted([*BRANCHES, "v/1"])
    assert said["tags"] == ["v/1"]
    assert said["branch"] == list(BRANCHES[:5])
    assert said["members"] == ["mcatalbas"]
    assert said["refused"][0] == 404
    assert said["refused"][1].startswith("You may not have access")
