"""The state of the crawl between two runs: the values of the table `cursors`.

`mirror.store.cursors` reads and writes them, `mirror.sync` has the rules.
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

    - `began` is by the upstream's clock, `seen_since` by ours: rows of this listing were seen then or later.
    - `next`: the upstream's link to the next page, None before the first.
    - `landmark`: an earlier page, to detect links that go in a circle.
    - `first_size`, `last_size`: totals that the upstream reported.
    - `short`: by how many rows the previous pass was below the total.

    These belong to the current pass: `rows` on its pages, `born` of them created since its first page,
    `holes` for skipped pages, `bad` for rows not understood, `shrank` if the total fell between two pages,
    `longest` for the length of its longest page, `ended_early` if an empty or a full page ended it.
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
        """The order to request from the upstream."""
        return "created" if self.purpose == "full" else "newest-update"


# `rename` keeps the keys that earlier versions wrote into the file.
class Members(msgspec.Struct, kw_only=True, rename={"reported": "told"}):
    """An unfinished listing of members: its position, and since when (by our clock) it is read.

    `pages` and `rows` count the current pass, `reported` is the largest total that a page reported. `bad`
    says what was not understood. For `landmark` see ListingProgress.
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
    """The state of the crawl of one workspace.

    - `name`: the current name, if it differs from the configured one.
    - `whole`: it has been listed once without a gap, so new repositories are reported from then on.
    - `cursor`: when the last complete listing began, by the upstream's clock; None before the first.
    - `swept_at`: when the last full listing ended; None before the first.
    - `count_offset`: the upstream's total minus the rows that it listed. Some totals include rows that the
      caller cannot see.
    - `uncertain`: rows came and went in every pass of the last listing, so some may have been missed.
    - `absent_since`: set after a complete full listing without errors, until each repository missing from it
      (last seen before this moment) has been requested directly.
    - `gone`: the workspace does not exist any more, and the operator has confirmed that.
    - `round`: the round (see `mirror.sync.crawl`) in which it was last listed.
    - `moved_at`: when this state was written.
    - `unlisted`: existing rows that the last full listing left out.
    - `unlisted_before`: the same of the full listing before it.
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
    - `done` and `total` belong to the current phase; `total` is None if unknown.
    - `done_at`: the expected end of the run at its pace and within the budget; None if unknown.
    - `waits_until`: when the next request may be sent, and `why`; None if the run is not waiting.
    - `is_whole`: the run is a whole sync, which can be resumed if it stops early.
    - `refs_done`: the repositories whose refs were read by this run and the runs that it resumes.
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

    `pages` and `rows` count the current pass, `bad` the rows not understood; `since` is when the first page
    of this pass was requested. `stale` says that another mirror has to read them again. For `landmark` see
    ListingProgress.
    """

    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    rows: int = 0
    bad: int = 0
    passes: int = 1
    since: str = ""
    stale: bool = False


class Round(msgspec.Struct, kw_only=True):
    """When a round began, and when all workspaces had been listed in it; None if not yet."""

    began: str
    listed: str | None = None


class LastCheck(msgspec.Struct):
    """The last answer to a question that not every run asks, and when it came.

    `bucket` is the request bucket of the credential that asked, and `since` when it asked first. A list of
    workspaces with several pages resumes at `next`; `bad` says that something on an earlier page was not
    understood.
    """

    at: str
    bucket: str
    since: str = ""
    names: list[str] = []
    next: str | None = None
    landmark: Landmark | None = None
    pages: int = 0
    bad: bool = False


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """A mirrored repository that may have changed: its refs are to be read, and with `row` its row too.

    `at` is when the hint came.
    """

    # Not its name: those who may read `cursors` must learn nothing about hidden repositories.
    uuid: str
    row: bool
    at: str
