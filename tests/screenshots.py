"""Take the pictures of docs/images/ anew: a mirror with a past, in a real browser.

python tests/screenshots.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from browser_fixtures import browser, fill_lived_in, served_at

FOLDER = Path(__file__).resolve().parent.parent / "docs/images"


class Picture(NamedTuple):
    """A page in one width and one scheme; `typed` goes into its search box."""

    name: str
    path: str
    width: int
    scheme: str
    typed: str = ""
    height: int = 800


PICTURES = (
    Picture("home", "/", 1280, "light", "django", 720),
    Picture("repository-dark", "/-/r/jespern/django-piston", 1280, "dark", height=900),
    Picture("status", "/-/mirror-status", 1280, "light", height=1000),
    Picture("questions", "/-/questions", 1280, "light", height=760),
    Picture("search-phone", "/-/search?q=django", 390, "light", height=760),
    Picture("repository-phone-dark", "/-/r/jespern/django-piston", 390, "dark", height=760),
)


def take(running: Any, address: str, token: str, picture: Picture, folder: Path) -> None:
    """Take one picture."""
    context = running.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme=picture.scheme,
        extra_http_headers={"Authorization": f"Bearer {token}"},
    )
    page = context.new_page()
    page.goto(address + picture.path)
    if picture.typed:
        page.keyboard.type(picture.typed)
        page.wait_for_selector("[role=option]")
        page.keyboard.press("ArrowDown")
    page.screenshot(path=folder / f"{picture.name}.png")
    context.close()


def main() -> None:
    """Take them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, browser() as running:
        path = Path(place) / "mirror.db"
        token = fill_lived_in(path)
        with served_at(path) as address:
            for picture in PICTURES:
                take(running, address, token, picture, folder)


if __name__ == "__main__":
    main()
