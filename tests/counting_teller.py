"""A reader of what was sent that counts how many texts it decodes."""

from mirror.addresses import Teller, Told


class CountingTeller(Teller):
    """Counts what it decodes, of Bitbucket Cloud."""

    def __init__(self) -> None:
        super().__init__("https://api.bitbucket.org/2.0")
        self.decoded = 0

    def __call__(self, raw: bytes) -> Told:
        self.decoded += 1
        return super().__call__(raw)
