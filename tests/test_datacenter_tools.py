"""Data Center's API read by other people's tools: stashy, atlassian-python-api, and one of npm.

Jenkins and Renovate are not run: their requests, as their sources write them, are sent in their order.
"""

import http.client
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fixtures_db import fill_mixed, hg_ref, owner, repository
from live_server import serving
from npm_packages import node_folder

from mirror.store import tokens

BRANCHES = ("main", "feature/one", "feature/two", *(f"b{number:02}" for number in range(40)))
SLUGS = [f"project-{number:02}" for number in range(30)]
SCRIPT = """
import { createBitbucketServerClient } from "@coderabbitai/bitbucket/server"
const [, , address, token] = process.argv
const client = createBitbucketServerClient({
  baseUrl: `${address}/rest`, headers: { Authorization: `Bearer ${token}` },
})
async function all(path, params = {}) {
  const values = []
  for (let start = 0; start !== undefined;) {
    const query = { ...params.query, start, limit: 7 }
    const { data } = await client.GET(path, { params: { ...params, query } })
    values.push(...data.values)
    start = data.isLastPage ? undefined : data.nextPageStart
  }
  return values
}
const here = { projectKey: "BUSY", repositorySlug: "project-03" }
const one = "/api/latest/projects/{projectKey}/repos/{repositorySlug}"
const said = {}
said.version = (await client.GET("/api/latest/application-properties")).data.version
said.projects = (await all("/api/latest/projects")).map(p => p.key)
said.slugs = (await all("/api/latest/projects/{projectKey}/repos", { path: here })).map(r => r.slug)
said.found = (await all("/api/latest/repos", { query: { name: "ject-2" } })).map(r => r.slug)
said.one = (await client.GET(one, { params: { path: here } })).data.project.key
said.branches = (await all(`${one}/branches`, { path: here, query: { orderBy: "ALPHABETICAL" } }))
  .map(b => b.displayId)
said.default = (await client.GET(`${one}/default-branch`, { params: { path: here } })).data.displayId
said.tags = (await all(`${one}/tags`, { path: here })).map(t => t.id)
said.users = (await all("/api/latest/users", { query: { filter: "cata" } })).map(u => u.slug)
const refused = await client.GET(`${one}/pull-requests`, { params: { path: here } })
said.refused = [refused.response.status, refused.error.errors[0].message]
const missing = await client.GET(one, { params: { path: { ...here, repositorySlug: "none" } } })
said.missing = [missing.response.status, missing.error.errors[0].exceptionName]
console.log(JSON.stringify(said))
"""


class ServedMirror:
    """The address of a mirror, and a token for it."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address, token


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedMirror]:
    """A mirror with a busy workspace; made once, since nothing here writes."""
    path = tmp_path_factory.mktemp("tools") / "mirror.db"
    filled = fill_mixed(path)
    busy = owner("busy", kind="workspace", display_name="Busy")
    filled.repositories(
        [
            repository(
                f"busy/{slug}",
                busy,
                is_private=at % 3 == 0,
                main_branch="main",
                clone_https=f"https://bitbucket.example/busy/{slug}.git",
                clone_ssh=f"ssh://git@bitbucket.example/busy/{slug}.git",
            )
            for at, slug in enumerate(SLUGS)
        ]
    )
    refs = [hg_ref("branch", name, "a") for name in BRANCHES] + [hg_ref("tag", "v/1", "b")]
    filled.refs("busy/project-03", refs)
    token = tokens.create(filled.store, "tool", "read")
    filled.store.close()
    with serving(path) as address:
        yield ServedMirror(address, token)


def test_stashy_reads_projects_repositories_and_refs(world: ServedMirror) -> None:
    """Every page is followed; the token is the password of a Basic login, or a Bearer one."""
    stashy = pytest.importorskip("stashy", reason="stashy is not installed")
    for stash in (
        stashy.connect(world.address, "whoever", world.token),
        stashy.client.Stash(world.address, token=world.token),
    ):
        assert {"busy", "~jespern", "~brodie"} <= {project["key"] for project in stash.projects.list()}
        assert stash.projects["BUSY"].get()["name"] == "Busy"
        assert [row["slug"] for row in stash.projects["busy"].repos.list()] == SLUGS
        assert {row["slug"] for row in stash.repos.all()} >= {*SLUGS, "arriving"}
        found = stash.projects["BUSY"].repos["project-03"]
        assert found.get()["public"] is False
        assert [row["displayId"] for row in found.branches(orderBy="ALPHABETICAL", details=True)] == sorted(
            BRANCHES
        )
        assert {row["displayId"] for row in found.branches("FEATURE")} == {"feature/one", "feature/two"}
        assert found.default_branch["displayId"] == "main"
        assert [row["id"] for row in found.tags()] == ["refs/tags/v/1"]
        assert list(found.forks()) == []
        session = stash._client._session
        session.close()


def test_stashy_raises_on_refusals(world: ServedMirror) -> None:
    """Pull requests are refused instead of an empty list; so are missing objects and wrong credentials."""
    stashy = pytest.importorskip("stashy", reason="stashy is not installed")
    stash = stashy.connect(world.address, "whoever", world.token)
    with pytest.raises(stashy.errors.GenericException, match=r"501: .*holds no pull requests"):
        list(stash.projects["busy"].repos["project-03"].pull_requests.all())
    with pytest.raises(stashy.errors.GenericException, match=r"501: .*holds no commits"):
        list(stash.projects["busy"].repos["project-03"].commits("main"))
    with pytest.raises(stashy.errors.NotFoundException, match="Repository busy/none does not exist"):
        stash.projects["busy"].repos["none"].get()
    stash._client._session.close()
    nobody = stashy.connect(world.address, "whoever", "wrong")
    with pytest.raises(stashy.errors.AuthenticationException, match="401"):
        nobody.projects.list()
    nobody._client._session.close()


@pytest.fixture
def bitbucket(world: ServedMirror) -> Iterator[Any]:
    """The client of atlassian-python-api for servers."""
    atlassian = pytest.importorskip("atlassian", reason="atlassian-python-api is not installed")
    with atlassian.Bitbucket(url=world.address, token=world.token) as client:
        yield client


def test_atlassian_reads_projects_and_repositories(bitbucket: Any) -> None:
    """By key and slug, whatever their case."""
    assert {"busy", "~brodie"} <= {project["key"] for project in bitbucket.project_list(limit=3)}
    assert bitbucket.project("BUSY")["name"] == "Busy"
    assert bitbucket.project_exists("busy")
    assert not bitbucket.project_exists("nobody")
    assert [row["slug"] for row in bitbucket.repo_list("BUSY", limit=7)] == SLUGS
    assert [row["slug"] for row in bitbucket.repo_list("~brodie")] == ["hg-project"]
    assert bitbucket.get_repo("busy", "project-04")["public"] is True
    assert bitbucket.repo_exists("busy", "project-04")
    assert not bitbucket.repo_exists("busy", "none")


def test_atlassian_reads_refs_and_users(bitbucket: Any) -> None:
    """Branches with their latest commits, its default."""
    branches = list(bitbucket.get_branches("busy", "project-03", limit=9))
    assert {row["displayId"] for row in branches} == set(BRANCHES)
    (latest,) = branches[0]["metadata"].values()
    assert latest["author"]["emailAddress"] == "jesper@example.com"
    boosted = bitbucket.get_branches("busy", "project-03", filter="one", boost_matches=True)
    assert [row["displayId"] for row in boosted] == ["feature/one"]
    assert bitbucket.get_default_branch("busy", "project-03")["id"] == "refs/heads/main"
    assert [row["displayId"] for row in bitbucket.get_tags("busy", "project-03")] == ["v/1"]
    assert bitbucket.get_project_tags("busy", "project-03", "v/1")["latestCommit"] == "b" * 40
    assert [user["slug"] for user in bitbucket.get_users("cata")["values"]] == ["mcatalbas"]
    (right,) = bitbucket.project_users("~brodie")
    assert (right["user"]["slug"], right["permission"]) == ("mcatalbas", "PROJECT_ADMIN")


def test_atlassian_raises_on_refusals(bitbucket: Any) -> None:
    """With the mirror's message, which has the upstream's address."""
    with pytest.raises(
        Exception, match=r"holds no pull requests; ask https://api\.example\.com/2\.0/repositories/busy"
    ):
        list(bitbucket.get_pull_requests("busy", "project-03"))
    with pytest.raises(Exception, match="Repository busy/none does not exist"):
        bitbucket.get_repo("busy", "none")


def test_atlassian_raises_on_a_wrong_credential(world: ServedMirror) -> None:
    """It reads the message of a 401 only with the exact content type of a real server."""
    atlassian = pytest.importorskip("atlassian", reason="atlassian-python-api is not installed")
    with (
        atlassian.Bitbucket(url=world.address, token="wrong") as client,
        pytest.raises(Exception, match="credential is not accepted"),
    ):
        list(client.project_list())


def test_atlassian_s_objects_read_a_server(world: ServedMirror) -> None:
    """Its other client reads as much as from a real server; the rest it requests from web pages."""
    server = pytest.importorskip("atlassian.bitbucket.server", reason="atlassian-python-api is not installed")
    with server.Server(url=world.address, token=world.token) as client:
        project = client.projects.get("BUSY")
        assert (project.key, project.name, project.type) == ("busy", "Busy", "NORMAL")
        assert {"busy", "~brodie"} <= {one.key for one in client.projects.each()}
        assert [row.slug for row in client.personal_repositories("brodie").each()] == ["hg-project"]


class Client:
    """Sends requests with a token; their targets are whole addresses, as Jenkins writes them."""

    def __init__(self, world: ServedMirror) -> None:
        self._base = world.address
        self._headers = {"Authorization": f"Bearer {world.token}"}

    def send(self, target: str, method: str = "GET") -> tuple[int, Any]:
        """Return the status, and the decoded body, None if it has none."""
        connection = http.client.HTTPConnection(urlsplit(self._base).netloc, timeout=20)
        connection.request(method, f"{self._base}/rest/api/1.0/{target}", headers=self._headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def read(self, target: str) -> Any:
        """Return the body of what must be answered."""
        status, body = self.send(target)
        assert status == 200, (target, body)
        return body

    def pages(self, target: str, limit: int) -> list[Any]:
        """Return all rows of a listing: each page has the next one's `start` and `limit`."""
        rows, start, mark = list[Any](), 0, "&" if "?" in target else "?"
        while True:
            page = self.read(f"{target}{mark}start={start}&limit={limit}")
            rows += page["values"]
            if page["isLastPage"]:
                return rows
            start, limit = page["nextPageStart"], page["limit"]


def test_a_scan_by_jenkins_is_answered_except_for_files(world: ServedMirror) -> None:
    """The plugin Bitbucket Branch Source (936.1 and later): an organisation folder, then each repository."""
    jenkins = Client(world)
    assert jenkins.read("projects/BUSY")["key"] == "busy"
    found = jenkins.pages("projects/BUSY/repos", 200)
    assert [row["slug"] for row in found if not row.get("archived")] == SLUGS
    assert {row["slug"] for row in jenkins.pages("projects/~brodie/repos", 200)} == {"hg-project"}
    here = "projects/BUSY/repos/project-03"
    row = jenkins.read(here)
    assert (row["public"], row["project"]["key"], row["scmId"]) == (False, "busy", "git")
    assert {link["name"] for link in row["links"]["clone"]} == {"http", "ssh"}
    assert jenkins.read(f"{here}/branches/default")["displayId"] == "main"
    branches = jenkins.pages(f"{here}/branches", 20)
    assert {branch["displayId"] for branch in branches} == set(BRANCHES)
    (one,) = jenkins.pages(f"{here}/branches?filterText=feature%2Fone", 200)
    assert one["latestCommit"] == "a" * 40
    assert jenkins.read(f"{here}/tags/v/1")["latestCommit"] == "b" * 40
    for head in (*branches[:1], *jenkins.pages(f"{here}/tags", 200)):
        commit = jenkins.read(f"{here}/commits/{head['latestCommit']}")
        assert (commit["id"], commit["parents"]) == (
            head["latestCommit"],
            [{"id": "0" * 40, "displayId": "0" * 11}],
        )
        assert commit["authorTimestamp"] > 0
    file = f"{here}/browse/Jenkinsfile?at={'a' * 40}"
    assert jenkins.send(file, "HEAD") == (501, None)
    for refused in (file, f"{file}&type=true&blame=false", f"{here}/pull-requests?start=0&limit=200"):
        assert jenkins.send(refused)[0] == 501, refused
    assert jenkins.send(f"{here}/commits/{'a' * 40}/builds", "POST")[0] == 501


def test_a_lookup_by_renovate_is_answered(world: ServedMirror) -> None:
    """`platform=bitbucket-server` with `autodiscover` and `dryRun=lookup`, which asks for no pull request."""
    renovate = Client(world)
    assert renovate.read("application-properties")["version"].startswith("8.")
    assert renovate.read("users/brodie")["slug"] == "brodie"
    found = renovate.pages("repos?permission=REPO_WRITE&state=AVAILABLE", 100)
    assert {f"{row['project']['key']}/{row['slug']}" for row in found} >= {f"busy/{slug}" for slug in SLUGS}
    row = renovate.read("projects/busy/repos/project-03")
    assert "origin" not in row
    assert {link["name"]: link["href"] for link in row["links"]["clone"]}["ssh"].startswith("ssh://")
    assert renovate.read("projects/busy/repos/project-03/branches/default")["displayId"] == "main"
    for refused in ("browse/renovate.json?limit=20000", "pull-requests?state=ALL&limit=100"):
        assert renovate.send(f"projects/busy/repos/project-03/{refused}")[0] == 501


def test_npm_s_client_reads_everything(world: ServedMirror, tmp_path: Path) -> None:
    """Projects, repositories, refs, users, following every `nextPageStart`; and refusals."""
    folder = node_folder(tmp_path, "@coderabbitai/bitbucket")
    (folder / "script.mjs").write_text(SCRIPT)
    done = subprocess.run(
        ["node", "script.mjs", world.address, world.token],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["version"].startswith("8.")
    assert {"busy", "~jespern"} <= set(said["projects"])
    assert said["slugs"] == SLUGS
    assert said["found"] == SLUGS[20:]
    assert said["one"] == "busy"
    assert said["branches"] == sorted(BRANCHES)
    assert (said["default"], said["tags"], said["users"]) == ("main", ["refs/tags/v/1"], ["mcatalbas"])
    assert said["refused"][0] == 501
    assert said["missing"] == [404, "com.atlassian.bitbucket.repository.NoSuchRepositoryException"]
