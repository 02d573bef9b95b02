"""Splitting a crawl: equal loads, whole workspaces, working configurations, and their settings."""

from pathlib import Path
from random import Random

import pytest
from cli_runner import Folder
from fixtures_db import FixtureDb, repository

from mirror.config import UpstreamConfig, from_toml, read_config
from mirror.errors import ConfigError
from mirror.store.files import open_reader
from mirror.sync.split import KnownWorkspace, configuration_of, hours_of, known_workspaces, split


def workspace(name: str, count: int) -> KnownWorkspace:
    return KnownWorkspace(name=name, repositories=count, hours=hours_of(count, refs="api", members=True))


def test_every_workspace_is_in_one_share_and_loads_are_equal() -> None:
    """As far as the largest workspace allows."""
    random = Random(1)
    all_of_them = [workspace(f"w{number}", int(random.paretovariate(1.1) * 10)) for number in range(500)]
    for mirrors in (1, 2, 7, 40):
        shares = split(all_of_them, mirrors)
        names = [name for share in shares for name in share.workspaces]
        assert sorted(names) == sorted(one.name for one in all_of_them)
        assert sum(share.repositories for share in shares) == sum(one.repositories for one in all_of_them)
        hours = [share.hours for share in shares]
        most = max(one.hours for one in all_of_them)
        assert max(hours) <= max(most, 4 / 3 * sum(hours) / mirrors)
        assert shares == split(list(reversed(all_of_them)), mirrors)
    with pytest.raises(ConfigError, match="only 500 workspaces are known"):
        split(all_of_them, 501)


def test_refs_by_git_and_members_count_as_they_cost() -> None:
    """In hours of the usual budgets: 950 requests to the API, 57,000 by git."""
    assert hours_of(200, refs="api", members=True) == pytest.approx((1 + 1 + 2 + 200) / 950)
    assert hours_of(200, refs="git", members=False) == pytest.approx((1 + 2) / 950 + 400 / 57_000)
    assert hours_of(0, refs="none", members=False) == pytest.approx(2 / 950)


def test_what_is_known_of_workspaces(tmp_path: Path) -> None:
    """Owners of living repositories, and configured ones; only these if there are any."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("Ann/one"), repository("Ann/two"), repository("bob/three")])
    filled.gone("bob/three")
    filled.store.close()
    connection = open_reader(filled.path)
    found = known_workspaces(connection, UpstreamConfig(name="cloud"))
    assert {one.name: one.repositories for one in found} == {"Ann": 2}
    named = UpstreamConfig(name="cloud", workspaces=("ann", "new"))
    assert {one.name: one.repositories for one in known_workspaces(connection, named)} == {"ann": 2, "new": 0}
    assert known_workspaces(connection, UpstreamConfig(name="other")) == []
    assert known_workspaces(None, UpstreamConfig(name="other")) == []
    connection.close()


def test_a_printed_configuration_is_the_given_one_but_for_its_own(tmp_path: Path) -> None:
    """Every other setting is kept; reading it again gives the same."""
    config = from_toml(
        """timezone = "UTC"
        export_to = "s3://lake/x"
        [[upstream]]
        name = "cloud"
        refs = "git"
        members = false
        credential = "env:OLD"
        timeout = "7s"
        accept_missing = ["a/b"]
        retry = { attempts = 3 }
        """
    )
    share = split([workspace("ann", 3), workspace("bob", 2)], 1)[0]
    text = configuration_of(config, config.upstreams[0], share, number=3, names_file=None)
    again = from_toml(text)
    assert (again.database, again.timezone, again.export_to) == ("mirror-3.db", "UTC", "s3://lake/x")
    (upstream,) = again.upstreams
    assert upstream.workspaces == ("ann", "bob")
    assert upstream.credential == "env:BITBUCKET_TOKEN_3"
    assert (upstream.refs, upstream.members) == ("git", False)
    assert (float(upstream.timeout), upstream.retry.attempts) == (7.0, 3)
    assert upstream.accept_missing == ("a/b",)


def test_the_command_writes_configurations_that_are_read(tmp_path: Path) -> None:
    """Into a folder, with lists of workspaces beside them; a second time it refuses."""
    folder = Folder(tmp_path)
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository(f"owner-{number}/tool") for number in range(7)])
    filled.store.close()
    text = 'database = "mirror.db"\nexport_to = "lake"\n[[upstream]]\nname = "cloud"\n'
    (tmp_path / "mirror.toml").write_text(text)
    done = folder.run("plan-split", "--mirrors", "3", "--out", "split")
    assert done.code == 0
    assert len(done.out.splitlines()) == 3
    split = [read_config(tmp_path / f"split/mirror-{n}.toml") for n in (1, 2, 3)]
    names = [one.upstreams[0].workspaces or () for one in split]
    assert {one.export_to for one in split} == {str(tmp_path / "lake")}
    assert sorted(name for some in names for name in some) == [f"owner-{number}" for number in range(7)]
    assert folder.run("plan-split", "--mirrors", "2").out.count("[[upstream]]") == 2
    for wrong, why in (
        (("3", "--out", "split"), "split/mirror-1.toml: exists"),
        (("3", "--out", ""), "--out is empty"),
        (("3", "--out", "mirror.db"), "mirror.db: is a file; give a folder"),
        (("8",), "only 7 workspaces are known"),
        (("0",), "--mirrors 0: give at least 1"),
    ):
        done = folder.run("plan-split", "--mirrors", *wrong)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert why in done.err
    assert {path.name for path in tmp_path.glob("*.toml")} == {"mirror.toml"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"),
        ("# nothing\n\n", "names no workspace; name some, or leave"),
        ("ann\nbob/tool\n", "'bob/tool' is not a workspace"),
    ],
)
def test_a_file_of_workspaces_that_is_none_is_refused(text: str | None, why: str, tmp_path: Path) -> None:
    """With its path and the reason."""
    (tmp_path / "mirror.toml").write_text('[[upstream]]\nname = "cloud"\nworkspaces_from = "names.txt"\n')
    if text is not None:
        (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"names\.txt.*" + why):
        read_config(tmp_path / "mirror.toml")


def test_workspaces_come_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    """Thousands of names, once each; `workspaces` beside it is refused."""
    path = tmp_path / "mirror.toml"
    path.write_text('[[upstream]]\nname = "cloud"\nworkspaces_from = "names.txt"\n')
    names = [f"team-{number}" for number in range(5_000)]
    (tmp_path / "names.txt").write_text("# all\n" + "\n".join([*names, "team-1 # again"]) + "\n")
    assert read_config(path).upstreams[0].workspaces == tuple(names)
    path.write_text('[[upstream]]\nname = "cloud"\nworkspaces = ["a"]\nworkspaces_from = "names.txt"\n')
    with pytest.raises(ConfigError, match="remove one of the two"):
        read_config(path)
