"""Integrations: the browser's search, feeds, shells, manual pages, Prometheus."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import feedparser  # type: ignore[import-untyped]
import pytest
import yaml
from asgi_client import AsgiClient, client_of
from click.testing import CliRunner
from fixtures_db import LATER, fill_public, repository
from prometheus_client.parser import text_string_to_metric_families

from mirror.cli.main import FILES, mirror
from mirror.config import read_config
from mirror.errors import ConfigError

NAMESPACE = "{http://a9.com/-/spec/opensearch/1.1/}"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public mirror with some changes."""
    filled = fill_public(tmp_path_factory.mktemp("fits") / "mirror.db")
    filled.repositories([repository("ubernostrum/django-registration", description="edited")], at=LATER)
    filled.store.close()
    return filled.path


@pytest.fixture(scope="module")
def served(path: Path) -> AsgiClient:
    """It, served behind a path of another server."""
    return client_of(path, public_url="https://tools.example/mirror")


def test_browsers_find_the_search_and_are_told_addresses_with_the_prefix(served: AsgiClient) -> None:
    """Each page links to the description, whose addresses work."""
    page = served.get("/mirror/-/search").text
    assert 'rel="search" type="application/opensearchdescription+xml"' in page
    assert 'href="/mirror/-/search.xml"' in page
    answer = served.get("/mirror/-/search.xml")
    assert answer.headers["content-type"].startswith("application/opensearchdescription+xml")
    urls = {
        url.get("type"): url.get("template") or ""
        for url in ET.fromstring(answer.text).iter(f"{NAMESPACE}Url")  # noqa: S314 - our own
    }
    assert urls["text/html"] == "https://tools.example/mirror/-/search?q={searchTerms}"
    suggested = urls["application/x-suggestions+json"].replace("{searchTerms}", "piston")
    query, names, _, addresses = served.get(suggested.removeprefix("https://tools.example")).json()
    assert (query, names[0]) == ("piston", "jespern/django-piston")
    assert addresses[0] == "https://tools.example/mirror/-/r/jespern/django-piston"


def test_owners_and_repositories_have_feeds_that_their_pages_name(served: AsgiClient) -> None:
    """With only their own changes and their name as the title."""
    for page, title in (
        ("/mirror/-/u/ubernostrum", "Changes of ubernostrum"),
        ("/mirror/-/r/ubernostrum/django-registration", "Changes of ubernostrum/django-registration"),
    ):
        text = served.get(page).text
        address = text.partition('type="application/atom+xml"')[2].partition('href="')[2].partition('"')[0]
        feed = feedparser.parse(served.get(address.replace("&amp;", "&")).text)
        assert feed.feed.title == title
        assert {entry.title.split()[0] for entry in feed.entries} == {"ubernostrum/django-registration"}


@pytest.fixture(scope="module")
def metrics(served: AsgiClient) -> str:
    """What Prometheus reads."""
    return served.get("/mirror/-/metrics").text


def test_quantiles_are_told_by_summaries_alone(metrics: str) -> None:
    """As Prometheus requires; every family has a help text and a type."""
    for family in text_string_to_metric_families(metrics):
        quantiles = [sample for sample in family.samples if "quantile" in sample.labels]
        assert family.type == "summary" or not quantiles, family.name
        assert family.documentation
        assert family.type != "unknown"


def test_promtool_finds_nothing(metrics: str) -> None:
    """Where it is installed (Debian's package prometheus)."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=metrics, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_dashboard_asks_for_metrics_that_there_are(metrics: str) -> None:
    """Each expression of contrib/grafana names a metric of this program."""
    known = {family.name for family in text_string_to_metric_families(metrics)}
    known |= {f"{name}_{end}" for name in known for end in ("total", "bucket", "count", "sum")}
    expressions = [target["expr"] for panel in _board()["panels"] for target in panel["targets"]]
    assert len(expressions) >= 8
    for expression in expressions:
        names = {word for word in _words(expression) if word.startswith("bitbucket_mirror_")}
        assert names, expression
        assert names <= known | {f"bitbucket_mirror_{name}" for name in _SILENT}, expression


_SILENT = ("upstream_answers_total", "upstream_requests_total", "runs_total", "answer_seconds_bucket")
"""Metrics that have no sample before the first sync or the first answer."""


def _board() -> dict[str, Any]:
    text = (Path(__file__).parent.parent / "contrib/grafana/bitbucket-mirror.json").read_text()
    return json.loads(text)  # type: ignore[no-any-return]


def test_the_dashboard_is_complete_after_an_import(tmp_path: Path) -> None:
    """As Grafana does it: inputs are replaced by the user's choice, and keys with underscores removed."""
    (asked,) = _board()["__inputs"]
    assert (asked["type"], asked["pluginId"], asked["pluginName"]) == (
        "datasource",
        "prometheus",
        "Prometheus",
    )
    kept = {name: value for name, value in _board().items() if not name.startswith("__")}
    text = json.dumps(kept).replace(f"${{{asked['name']}}}", "chosen")
    assert "${" not in text
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    expressions = list[str]()
    for panel in panels:
        targets = panel["targets"]
        assert len({target["refId"] for target in targets}) == len(targets)
        for one in (panel, *targets):
            assert one["datasource"] == {"type": "prometheus", "uid": "chosen"}, panel["title"]
        expressions += [target["expr"] for target in targets]
    promtool = shutil.which("promtool")
    if promtool:
        rules = [{"record": f"panel:query:{at}", "expr": one} for at, one in enumerate(expressions)]
        (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
        command = [promtool, "check", "rules", str(tmp_path / "rules.yml")]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in text).split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_their_completion(shell: str) -> None:
    """A script that calls this program; an unknown shell is refused."""
    done = CliRunner().invoke(mirror, ["completions", shell])
    assert done.exit_code == 0
    assert f"_MIRROR_COMPLETE={shell}_complete" in done.output
    asked = {
        "_MIRROR_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "mirror inv",
        "COMP_CWORD": "inv" if shell == "fish" else "1",
    }
    words = CliRunner(env=asked).invoke(mirror, [], prog_name="mirror").output
    assert "inventory" in words
    assert CliRunner().invoke(mirror, ["completions", "csh"]).exit_code == 2


def test_the_manual_page_has_every_command_and_no_fault() -> None:
    """Checked by groff or mandoc, if one is installed."""
    page = CliRunner().invoke(mirror, ["man"]).output
    for name in FILES:
        assert f"\n.SS mirror {name}".replace("-", r"\-") in page, name
    groff = shutil.which("groff")
    if groff:
        checked = subprocess.run(
            [groff, "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True, check=False
        )
        assert checked.stderr == ""
        assert "mirror.db" in checked.stdout


def _init(folder: Path, **environment: str) -> Path:
    path = folder / "mirror.toml"
    done = CliRunner(env=environment).invoke(mirror, ["init", "--from-env", str(path)])
    if done.exception:
        raise done.exception
    return path


def test_a_configuration_is_written_from_the_environment(tmp_path: Path) -> None:
    """Texts, lists, numbers and flags; settings without a variable keep their defaults."""
    path = _init(
        tmp_path,
        MIRROR_DATABASE="/srv/m.db",
        MIRROR_UPSTREAM_URL="https://bitbucket.example/rest/api/1.0",
        MIRROR_UPSTREAM_KIND="datacenter",
        MIRROR_UPSTREAM_WORKSPACES="ONE, ~two",
        MIRROR_UPSTREAM_CREDENTIAL="env:TOKEN",
        MIRROR_SERVE_PORT="9000",
        MIRROR_SERVE_WRITES="true",
        MIRROR_SITE_TITLE='"\\\x7f',
        TOKEN="hunter2",
    )
    config = read_config(path)
    (upstream,) = config.upstreams
    assert (config.database, upstream.kind, upstream.workspaces) == (
        "/srv/m.db",
        "datacenter",
        ("ONE", "~two"),
    )
    assert (upstream.credential, config.serve.port, config.serve.writes) == ("env:TOKEN", 9000, True)
    assert config.site_title == '"\\\x7f'
    assert "hunter2" not in path.read_text()


@pytest.mark.parametrize("text", ['"one,two"', "'one'", '"one","two"'])
def test_a_variable_in_quotation_marks_is_refused(tmp_path: Path, text: str) -> None:
    """They would be part of a name."""
    with pytest.raises(ConfigError, match="MIRROR_UPSTREAM_WORKSPACES is in quotation marks"):
        _init(tmp_path, MIRROR_UPSTREAM_WORKSPACES=text)


def test_variables_of_other_programs_do_no_harm(tmp_path: Path) -> None:
    others = {"MIRROR_TOKEN": "x", "MIRROR_URL": "y", "MIRROR": "z", "MIRRORS_DATABASE": "w"}
    assert read_config(_init(tmp_path, **others)).database == f"{tmp_path}/data/mirror.db"


def test_without_variables_no_workspace_is_made_up(tmp_path: Path) -> None:
    """The example in the file of `mirror init` is for people to replace."""
    assert read_config(_init(tmp_path)).upstreams[0].workspaces is None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MIRROR_UPSTREAM_CREDENTIAL": "hunter2"}, "env:NAME or file:PATH"),
        ({"MIRROR_UPSTREAM_WEBHOOK_SECRET": "hunter2"}, "env:NAME or file:PATH"),
        ({"MIRROR_UPSTREAM_KIND": "clud"}, "did you mean 'cloud'"),
        ({"MIRROR_SERVE_PORT": "many"}, "MIRROR_SERVE_PORT = 'many': write it like 8001"),
        ({"MIRROR_SERVE_PORT": "70000"}, "the variables"),
        ({"MIRROR_SERVE_PORT": '80\nhost = "0.0.0.0"'}, "write it like 8001"),
        ({"MIRROR_UPSTREM_KIND": "cloud"}, "did you mean 'MIRROR_UPSTREAM_KIND'?"),
        ({"MIRROR_SERVE_PROT": "8001"}, "did you mean 'MIRROR_SERVE_PORT'?"),
        ({"MIRROR_ALERT_ON": "failed"}, "MIRROR_ALERT_ON is the variable of no setting"),
    ],
)
def test_wrong_variables_are_refused_before_there_is_a_file(
    tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    """The message never repeats a secret."""
    with pytest.raises(ConfigError, match=words) as error:
        _init(tmp_path, **variables)
    assert "hunter2" not in str(error.value)
    assert not list(tmp_path.iterdir())
