"""The wheel works without this checkout: in a fresh environment with what the lock file names."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, without this checkout on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the pinned backend."""
    folder = tmp_path_factory.mktemp("dist")
    run(
        UV,
        "build",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "-o",
        folder,
        ROOT,
        cwd=folder,
    )
    (built,) = folder.glob("bitbucket_mirror-*.whl")
    return built


def link_locked(packages: Path) -> None:
    """Put what the lock file names into a folder, from the packages that run the tests.

    They were installed by the lock file as well; to install them once more takes three times as long.
    """
    from packaging.requirements import Requirement  # slow to import

    here = Path(sysconfig.get_path("purelib"))
    for line in re.findall(r"^(\S+==.+) \\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        locked = Requirement(line)
        if locked.marker and not locked.marker.evaluate():
            continue
        found = metadata.distribution(locked.name)
        assert found.version in locked.specifier, f"not what the lock file names, {locked}: make install"
        for file in found.files or ():
            source, target = here / file, packages / file
            if ".." not in file.parts and source.suffix != ".pyc":
                _link(source, target)
                compiled = Path(cache_from_source(source))
                if source.suffix == ".py" and compiled.exists():
                    _link(compiled, Path(cache_from_source(target)))


def test_two_installations_at_once_write_different_packages() -> None:
    """`make test` unpacks both lists into one folder at the same time."""
    ours, of_developers = (
        set(re.findall(r"^([\w.-]+)==", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert "httpx" in ours
    assert "pytest" in of_developers
    assert not ours & of_developers


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def test_the_wheel_holds_the_package_and_the_scheduler_alone(wheel: Path) -> None:
    """With templates, types and the licence; without tests and data."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"mirror", "scheduler.py"}
    assert "mirror/py.typed" in names
    for path in (ROOT / "mirror" / "serve").rglob("*.html"):
        assert str(path.relative_to(ROOT)) in names
    assert any(name.endswith("/LICENSE") for name in names)


SYNCED = """import pathlib, scheduler
from mirror.cli import main
from mirror.sandbox import Sandbox, World, running
with running(Sandbox(World(40))) as box:
    upstream = f'[[upstream]]\\nname = "box"\\nkind = "sandbox"\\nurl = "{box.url}"\\n'
    pathlib.Path("mirror.toml").write_text(upstream)
    main(["sync"])
"""


@pytest.mark.timeout(300)
def test_the_wheel_works_in_a_new_environment(wheel: Path, tmp_path: Path) -> None:
    """Sync, search and the plugin, from a fresh environment in another folder."""
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    (packages,) = (tmp_path / "env").glob("lib/*/site-packages")
    link_locked(packages)
    run(UV, "pip", "install", "--python", python, "--no-deps", wheel, cwd=tmp_path)
    assert "box: complete" in run(python, "-c", SYNCED, cwd=tmp_path)
    bin_folder = python.parent
    found = json.loads(run(bin_folder / "mirror", "search", "piston", "--json", cwd=tmp_path))
    assert "jespern/django-piston" in [row["full_name"] for row in found["repositories"]]
    plugins = json.loads(run(python, "-m", "datasette", "plugins", cwd=tmp_path))
    assert "bitbucket-mirror" in [plugin["name"] for plugin in plugins]
    run(UV, "pip", "check", "--python", python, cwd=tmp_path)
