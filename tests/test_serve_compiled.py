"""Templates are compiled once: by the server before it answers, and on the disk for the next start."""

from pathlib import Path

from asgi_client import client_of
from jinja2 import DictLoader, Environment

from mirror.serve.pages.templates import FIRST_PAGE, install, prepare_first_page


def test_the_first_page_compiles_nothing(public_path: Path) -> None:
    """Everything was compiled before the server announced its address."""
    client = client_of(public_path)
    environment = client.datasette.jinja_env
    prepare_first_page(environment)
    before = set(environment.cache)
    assert client.get("/").status_code == 200
    assert set(environment.cache) == before
    assert {name for _, name in before} == set(FIRST_PAGE)


def test_templates_are_read_from_the_disk(tmp_path: Path) -> None:
    """Unless the text has changed, or the folder cannot be written."""
    texts = {"a.html": "one"}

    def rendered(folder: Path) -> tuple[str, int]:
        known = dict[str, bytes]()
        environment = Environment(loader=DictLoader(texts), autoescape=True)
        install(environment, folder, known=known, on_disk=True)
        return environment.get_template("a.html").render(), len(known)

    assert [rendered(tmp_path), rendered(tmp_path)] == [("one", 1), ("one", 0)]
    texts["a.html"] = "two"
    assert [rendered(tmp_path), rendered(tmp_path)] == [("two", 1), ("two", 0)]
    assert [one.suffix for one in (tmp_path / "__pycache__").iterdir()] == [".jinja"]
    (tmp_path / "file").write_text("")
    assert rendered(tmp_path / "file") == ("two", 1)
