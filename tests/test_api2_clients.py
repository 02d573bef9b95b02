"""Released programs that read repositories, tags and projects from bitbucket.org.

Their address of Bitbucket is written in their code, so a copy of each has the mirror's address in its place.
Two of them are apart from the others (tests/clients.in); `make test` installs them.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_db import FixtureDb, hg_ref, owner, repository
from live_server import serving
from npm_packages import node_folder

from mirror.model import Project
from mirror.store import tokens

BY_URL = """
const { ScmIntegrations } = require("@backstage/integration")
const { ConfigReader } = require("@backstage/config")
const known = ScmIntegrations.fromConfig(new ConfigReader({ integrations: { bitbucketCloud: [{}] } }))
fetch(process.argv[2]).then(answer => answer.json()).then(found =>
  console.log(JSON.stringify([found.mainbranch.name, known.byUrl(found.links.html.href)?.type ?? null])))
"""
HERE = Path(sysconfig.get_path("purelib"))
APART = Path(__file__).parent.parent / ".venv/clients"
PACKAGES = {
    HERE: ("all_repos", "bucketcloner", "gitspindle", "lastversion", "nvchecker_source"),
    APART: ("bitbucket", "src"),
}
"""Where the programs are installed, and what their packages are called."""
ADDRESSES = {
    "https://api.bitbucket.org/2.0": "/2.0",
    "https://bitbucket.org/api/2.0": "/2.0",
}
REPOSITORIES = [f"busy/project-{number}" for number in range(12)]


class Clients:
    """The programs, and the mirror that they ask."""

    def __init__(self, folder: Path, address: str, token: str, own_token: str) -> None:
        self.folder, self.address, self.token, self.own_token = folder, address, token, own_token

    def run(
        self, code: str, *arguments: str, apart: bool = False, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run Python code that may import the programs, also those that are `apart`.

        `T` is a token, `O` that of the user `busy`.
        """
        begin = f"T, O = {self.token!r}, {self.own_token!r}\nimport json, sys\n"
        paths = os.pathsep.join([str(self.folder / "moved"), *([str(APART)] if apart else [])])
        return subprocess.run(
            [sys.executable, "-c", begin + code, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths, "HOME": str(self.folder), **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def told(self, code: str, *, apart: bool = False, **environment: str) -> Any:
        """Run code whose last line of output is JSON, and decode it."""
        done = self.run(code, apart=apart, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A served mirror of one workspace, and copies of the programs that ask it."""
    if not all((place / package).is_dir() for place, packages in PACKAGES.items() for package in packages):
        pytest.skip("the programs are not installed: make dev .venv/installed-clients")
    folder = tmp_path_factory.mktemp("clients")
    filled = FixtureDb(folder / "mirror.db")
    filled.store.save_upstream("cloud", "cloud", "https://api.bitbucket.org/2.0")
    busy = owner(
        "busy", uuid="{00000000-0000-4000-8000-000000000001}", account_id="557058:1", nickname="Busy"
    )
    project = Project(key="KEY", name="Key", uuid="{00000000-0000-4000-8000-0000000000aa}")
    in_it = {"project": project, "project_key": project.key, "project_name": project.name}
    clone = "https://bitbucket.org/{}.git"
    filled.repositories(
        [repository(name, busy, clone_https=clone.format(name), **in_it) for name in REPOSITORIES]
    )
    tags = [hg_ref("tag", name, digit) for name, digit in (("1.9", "b"), ("1.10", "c"), ("1.2", "d"))]
    filled.refs("busy/project-1", [hg_ref("branch", "main", "a"), *tags])
    token = tokens.create(filled.store, "tool", "read")
    own_token = tokens.create(filled.store, "own", "read", user="busy")
    filled.store.close()
    with serving(folder / "mirror.db") as address:
        for place, packages in PACKAGES.items():
            for package in packages:
                shutil.copytree(place / package, folder / "moved" / package)
        for file in folder.glob("moved/**/*.py"):
            text = file.read_text()
            for theirs, path in ADDRESSES.items():
                text = text.replace(theirs, address + path)
            file.write_text(text)
        yield Clients(folder, address, token, own_token)


def test_nvchecker_reads_the_newest_tag_and_gets_501_for_commits(clients: Clients) -> None:
    """By version and by date; the mode that reads commits fails with 501."""
    modes = {"highest": "use_max_tag = true", "latest": "use_sorted_tags = true", "commit": ""}
    sections = [
        f'[{name}]\nsource = "bitbucket"\nbitbucket = "busy/project-1"\n{how}' for name, how in modes.items()
    ]
    (clients.folder / "nvchecker.toml").write_text("\n".join(sections))
    code = "from nvchecker.__main__ import main; sys.argv[0] = 'nvchecker'; main()"
    done = clients.run(code, "-c", "nvchecker.toml", "--logger", "json")
    lines = [
        json.loads(line) for line in done.stdout.splitlines() + done.stderr.splitlines() if line[:1] == "{"
    ]
    found = {line["name"]: line["version"] for line in lines if line["event"] == "updated"}
    assert found == {"highest": "1.10", "latest": "1.10"}
    assert any(line["name"] == "commit" and "501" in line.get("error", "") for line in lines)


def test_lastversion_finds_the_newest_tag(clients: Clients) -> None:
    """It asks for downloads first, which are refused, then for tags."""
    code = "from lastversion.cli import main; main()"
    done = clients.run(code, "https://bitbucket.org/busy/project-1")
    assert done.stdout.strip() == "1.10", done.stderr


def test_all_repos_lists_what_one_is_a_member_of(clients: Clients) -> None:
    """With `role=member`, over all pages."""
    code = """from all_repos.source.bitbucket import Settings, list_repos
print(json.dumps(sorted(list_repos(Settings("busy", O, "busy")))))"""
    assert clients.told(code) == sorted(REPOSITORIES)


def test_bucketcloner_lists_workspaces_and_projects(clients: Clients) -> None:
    """It printed "No projects found" when they were not served."""
    code = "from bucketcloner.main import main; main(sys.argv[1:])"
    account = ("-e", "busy", "-t", clients.token)
    assert f"busy - {clients.address}/2.0/workspaces/busy" in clients.run(code, *account, "workspace").stdout
    assert "KEY" in clients.run(code, *account, "-w", "busy", "project").stdout


def test_python_bitbucket_cli_lists_repositories_and_branches(clients: Clients) -> None:
    """It reports every refusal as "no commits", whatever the status."""
    code = "from bitbucket.main import app; app()"
    account = {"BITBUCKET_AUTH": f"busy:{clients.token}"}
    listed = clients.run(code, "repos", "-w", "busy", apart=True, **account).stdout.split()
    assert sorted(listed) == sorted(name.partition("/")[2] for name in REPOSITORIES)
    assert clients.run(
        code, "branches", "-w", "busy", "-r", "project-1", apart=True, **account
    ).stdout.split() == ["main"]


def test_mcp_server_bitbucket_is_told_what_is_not_mirrored(clients: Clients) -> None:
    """It turned 404 into empty lists; now it reports an error with the upstream's address."""
    code = """from src.bitbucket_client import BitbucketClient
client = BitbucketClient(workspace="busy", email="busy", api_token=T)
told = {}
for name, *arguments in (
    ["list_repositories"], ["list_projects"], ["get_project", "KEY"], ["get_commit", "project-1", "aaaaaaaa"],
    ["list_branches", "project-1"], ["list_tags", "project-1"], ["list_commits", "project-1"],
    ["list_pull_requests", "project-1"], ["list_webhooks", "project-1"], ["list_pipelines", "project-1"],
    ["list_user_permissions", "project-1"], ["get_file_content", "project-1", "README"],
):
    try:
        told[name] = getattr(client, name)(*arguments)
    except Exception as error:
        told[name] = str(error)
print(json.dumps(told))"""
    settings = {
        "BITBUCKET_WORKSPACE": "busy",
        "BITBUCKET_EMAIL": "busy",
        "BITBUCKET_API_TOKEN": clients.token,
    }
    told = clients.told(code, apart=True, **settings)
    assert len(told["list_repositories"]) == len(REPOSITORIES)
    assert [one["key"] for one in told["list_projects"]] == ["KEY"] == [told["get_project"]["key"]]
    assert told["get_commit"]["hash"] == "a" * 40
    assert {one["name"] for one in told["list_tags"]} == {"1.2", "1.9", "1.10"}
    assert [one["name"] for one in told["list_branches"]] == ["main"]
    refused = [name for name in told if isinstance(told[name], str)]
    assert refused == [
        "list_commits", "list_pull_requests", "list_webhooks", "list_pipelines", "list_user_permissions",
        "get_file_content",
    ]  # fmt: skip
    assert {name: told[name] for name in refused if "501" not in told[name]} == {}


def test_git_spindle_finds_the_caller_and_repositories(clients: Clients) -> None:
    """`teams/NAME` for a person, then `users/ID`; workspaces by name."""
    code = """from gitspindle.bbapi import Bitbucket
spindle = Bitbucket("busy", O)
me = spindle.user("busy")
found = spindle.workspace("busy").repository("project-1")
print(json.dumps([me.nickname, found.full_name, found.links["clone"]["https"]]))"""
    nickname, full_name, clone = clients.told(code)
    assert (nickname, full_name) == ("Busy", "busy/project-1")
    assert clone == "https://bitbucket.org/busy/project-1.git"


def test_backstage_recognises_a_repository_by_its_link(clients: Clients, tmp_path: Path) -> None:
    """The catalog uses `links.html.href`; a link to the mirror matched nothing."""
    folder = node_folder(tmp_path, "@backstage/integration")
    (folder / "by-url.js").write_text(BY_URL)
    address = f"{clients.address}/2.0/repositories/busy/project-1"
    done = subprocess.run(
        ["node", "by-url.js", address],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == '["master","bitbucketCloud"]', done.stderr
