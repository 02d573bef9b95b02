"""The state of the crawl between two runs: the values of the table `cursors`.

They are plain values; `mirror.store.cursors` reads and writes them, and `mirror.sync` knows the rules. Some
keys in the file are older than the names of the fields (`rename`).
"""

from typing import Literal

import msgspec

Purpose = Literal["full", "incremental"]


class Landmark(msgspec.Struct, frozen=True):
    """An earlier page of a listing: its link onward, and a hash of its rows.

    `last` is the hash of the page before this one. `idle` counts pages that held nothing new.
    """

    link: str | None = None
    rows: int = 0
    last: int = 0
    idle: int = 0


class ListingProgress(msgspec.Struct, kw_only=True):
    """A listing of repositories that has begun.

    `began` is by the upstream's clock, `seen_since` by ours: rows that this listing has seen carry that
    moment or a later one. `next` is the upstream's link to the next page, None before the first. `landmark`
    is an earlier page, to detect links that go in a circle.

    Counts are of rows, sizes are the totals that the upstream reports. These belong to the current pass:
    `rows` that its pages held, `born` of them created since its first page, `holes` pages that were skipped,
    `bad` rows that were not understood, `shrank` whether the total fell between two pages. `short` is by how
    many rows the pass before was below the total. `longest` is the length of the
    longest page of this pass, `ended_early` says that a page without rows, or a full one, ended it.
    """

    purpose: Purpose
    began: str
    seen_since: str
    next: str | None = None
    landmark: Landmark | None = None
    first_size: int | None = None
    last_size: int | None = None
    shrank: bool = False
    pages: int = 0
    rows: int = 0
    passes: int = 1
    pass_began: str = ""
    born: int = 0
    holes: int = 0
    bad: int = 0
    short: int = 0
    longest: int = 0
    ended_early: bool = False
    oldest_update: str | None = None
    ordered: bool = True

    @property
    def order(self) -> Literal["created", "newest-update"]:
        """How the upstream is asked to sort."""
        return "created" if self.purpose == "full" else "newest-update"


class Members(msgspec.Struct, kw_only=True, rename={"reported": "told"}):
    """An unfinished listing of members: its position, and since when (by our clock) it is read.

    `pages` and `rows` count those of this pass, `reported` is the largest total that a page reported. `bad`
    says what was not understood. For `landmark` see Listing.
    """

    seen_since: str
    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    rows: int = 0
    reported: int = 0
    bad: str | None = None
    passes: int = 1


class WorkspaceState(msgspec.Struct, kw_only=True, rename={"count_offset": "surplus", "uncertain": "doubt"}):
    """The crawl of one workspace, between any two requests.

    - `name`: the current name, where it differs from the configured one.
    - `whole`: it has been listed once without a gap, so whatever is new since then is reported as new.
    - `cursor`: when the last complete listing began, by the upstream's clock; None before the first.
    - `swept_at`: when the last full listing ended; None before the first.
    - `count_offset`: the upstream's total less the rows that it listed. Some totals count rows that the
      caller cannot see.
    - `uncertain`: rows came and went in every pass of the last listing, so some may have been missed.
    - `absent_since`: set after a complete full listing without errors, until each repository that it did not
      name (last seen before this moment) has been asked for by itself.
    - `gone`: the workspace does not exist any more, and the operator has confirmed that.
    - `round`: the round (see `mirror.sync.scope`) in which it was listed last.
    - `moved_at`: when this state was written.
    - `unlisted`: the rows that the last full listing left out although they exist.
    - `unlisted_before`: those of the full listing before it.
    """

    owner_uuid: str | None = None
    name: str | None = None
    listing: ListingProgress | None = None
    members: Members | None = None
    whole: bool = False
    cursor: str | None = None
    swept_at: str | None = None
    count_offset: int = 0
    uncertain: bool = False
    absent_since: str | None = None
    gone: bool = False
    round: str | None = None
    moved_at: str | None = None
    unlisted: tuple[int, ...] = ()
    unlisted_before: tuple[int, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a run, for status displays; written every two seconds, and when the run stops early.

    - `what` is counted: pages of listings, repositories whose refs are read, repositories compared.
    - `done` and `total` belong to the present phase; a `total` of None is not known.
    - `done_at`: when the whole run will be done, at its pace and within the budget; None where not known.
    - `waits_until`: until when nothing is asked, and `why`; None while it asks.
    - `is_whole`: the run is a whole sync, whose place is kept where it stops early.
    - `refs_done`: the repositories whose refs were read, by this run and those that it carries on.
    """

    run_id: int
    what: str
    done: int
    total: int | None
    at: str
    done_at: str | None = None
    waits_until: str | None = None
    why: str | None = None
    is_whole: bool = False
    refs_done: int = 0


class RefsListing(msgspec.Struct, frozen=True, kw_only=True):
    """A listing of one repository's branches and tags, between two pages of it.

    `pages` and `rows` count those of this pass, `bad` the rows not understood; `since` is when the first page
    of this pass was asked for. For `landmark` see Listing.
    """

    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    rows: int = 0
    bad: int = 0
    passes: int = 1
    since: str = ""


class Round(msgspec.Struct, kw_only=True):
    """When a round began, and when all workspaces had been listed in it, if they all were."""

    began: str
    listed: str | None = None


class LastCheck(msgspec.Struct):
    """The last answer to a question that need not be asked in every run, and when it came.

    `bucket` is the request bucket of the credential that asked. A list of workspaces that takes several
    pages goes on at `next`; `bad` says that something on the pages before it was not understood.
    """

    at: str
    bucket: str
    names: list[str] = []
    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    bad: bool = False


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """A mirrored repository that may have changed, to be requested: its `row` too, or only its refs.

    `at` is when the hint came. It holds no name: a reader of `cursors` must not learn what a webhook
    said of hidden repositories.
    """

    uuid: str
    row: bool
    at: str
