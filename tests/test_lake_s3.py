"""Exports into an object store: a local S3 server, if one is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_db import LATER, fill_mixed, hg_ref
from lake_reader import held

from mirror.errors import ConfigError, StoreError
from mirror.lake.export import ExportOptions, export
from mirror.lake.place import Place

moto = pytest.importorskip("moto.server", reason="moto is not installed; `make test-lake` installs it")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The options of an address in an empty store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"?scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    server.stop()


def test_a_lake_in_an_object_store_is_as_one_in_a_folder(bucket: str, tmp_path: Path) -> None:
    """Full, nothing, what changed, compacted; read back by the manifest."""
    filled = fill_mixed(tmp_path / "mirror.db")
    Place(f"s3://lake{bucket}").fs.create_dir("lake")
    place = Place(f"s3://lake/bitbucket/{bucket}")
    assert str(place) == "s3://lake/bitbucket"
    whats = list[tuple[str, bool, str]]()
    for options in (ExportOptions(), ExportOptions(), ExportOptions(), ExportOptions(compact=True)):
        if len(whats) == 2:
            filled.refs("jespern/django-piston", [hg_ref("tag", "v9", "9")], at=LATER)
        done = export(filled.path, place, options)
        whats.append((done.what, done.compacted, done.place))
    assert [what for what, _, _ in whats] == ["full", "nothing", "changes", "nothing"]
    assert whats[-1] == ("nothing", True, "s3://lake/bitbucket")
    assert len(place.list("_manifests")) == 4
    for name in place.list(""):
        contents = place.read(name)
        assert contents
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(contents)
    export(filled.path, Place(str(tmp_path / "lake")), ExportOptions())
    filled.store.close()
    assert held(tmp_path / "copy") == held(tmp_path / "lake")


def test_what_a_store_refuses_is_told_in_a_line(bucket: str, tmp_path: Path) -> None:
    """A bucket that does not exist; an invalid option."""
    filled = fill_mixed(tmp_path / "mirror.db")
    filled.store.close()
    missing = Place(f"s3://none/x{bucket.replace('&allow_bucket_creation=true', '')}")
    with pytest.raises(StoreError, match="s3://none/x: cannot be read or written") as error:
        export(filled.path, missing, ExportOptions())
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="s3://lake: cannot be used"):
        Place("s3://lake?no=such")
