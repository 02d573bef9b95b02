"""Bodies of webhooks: those recorded from real servers, our own of the same shape, and broken ones."""

import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_client import NEW, OLD, body_of

from mirror.decoding import ref_name
from mirror.serve.exchange import ApiError
from mirror.serve.webhook_events import Malformed, read_event
from mirror.serve.webhooks import verify_signature

RECORDED = Path(__file__).resolve().parents[2] / "shared/recorded/cloud2"
PLUGIN = "jenkinsci-bitbucket-branch-source-plugin"
SERVER = RECORDED.parent / "datacenter" / PLUGIN
PUSHES = sorted(
    path
    for path in RECORDED.glob("*/*.json")
    if "ush" in path.name or path.name.startswith("webhook__cloud__")
)


@pytest.mark.skipif(not PUSHES, reason="the recorded bodies are not here")
@pytest.mark.parametrize("path", PUSHES, ids=lambda path: path.name)
def test_recorded_pushes_are_understood(path: Path) -> None:
    """Every ref in a real push is an update, with its commits."""
    body = path.read_bytes()
    told = json.loads(body)
    if "push" not in told:
        assert read_event("pullrequest:created", body, datacenter=False) is None
        return
    (found,) = read_event("repo:push", body, datacenter=False) or []
    assert (found.uuid, found.full_name) == (told["repository"]["uuid"], told["repository"]["full_name"])
    wanted = [
        tuple(side and side["target"]["hash"] for side in (change["old"], change["new"]))
        for change in told["push"]["changes"]
    ]
    assert [(update.old, update.new and update.new.target_hash) for update in found.updates] == wanted
    assert not found.row


SERVER_PUSHES = sorted(
    path for path in SERVER.glob("webhook__server__*.json") if "refs_changed" in path.read_text("utf-8")
)


@pytest.mark.skipif(not SERVER_PUSHES, reason="the recorded bodies are not here")
@pytest.mark.parametrize("path", SERVER_PUSHES, ids=lambda path: path.name)
def test_recorded_pushes_to_data_center_are_understood(path: Path) -> None:
    """With zeros for missing refs, and without new tags, whose hash may be that of an annotation."""
    body = path.read_bytes()
    told = json.loads(body)
    (found,) = read_event("repo:refs_changed", body, datacenter=True) or []
    assert found.uuid == f"id:{told['repository']['id']}"
    none = "0" * 40
    wanted = [
        tuple(None if side == none else side for side in (change["fromHash"], change["toHash"]))
        for change in told["changes"]
        if change["ref"]["type"] == "BRANCH" or change["toHash"] == none
    ]
    assert [(update.old, update.new and update.new.target_hash) for update in found.updates] == wanted


SIGNED = [
    (RECORDED / PLUGIN / "webhook__cloud__signed_payload.json",
     "sha256=f205c729821c6954aff2afe72b965c34015b4baf96ea8ddc2cc44999c014a035"),
    (SERVER / "webhook__server__signed_payload.json",
     "sha256=4ffba9e7b58ea3d7e1a230446e8c92baea0aeec89b73f598932387254f0de13e"),
]  # fmt: skip
"""Bodies that Bitbucket Cloud and Data Center signed, with the signatures that they sent."""


@pytest.mark.skipif(not SIGNED[0][0].exists(), reason="the recorded bodies are not here")
@pytest.mark.parametrize(("path", "signature"), SIGNED, ids=["cloud", "datacenter"])
def test_signatures_of_real_servers_are_verified(path: Path, signature: str) -> None:
    """With the recorded secret; another digit is another signature."""
    secret, body = "Gkvl$k$wyNpQAF42", path.read_bytes()
    verify_signature(secret, body, signature)
    for wrong in (signature[:-1] + "0", signature.replace("sha256", "sha1"), ""):
        with pytest.raises(ApiError, match=r"signature|Signature"):
            verify_signature(secret, body, wrong)


def test_a_push_to_cloud_carries_all_of_its_heads() -> None:
    """Commit, author, message and parents as in a listing, and a tag's annotation."""
    body = body_of("cloud_push.json", NAME="any/name", UUID="{u}", OLD=OLD, NEW=NEW)
    (found,) = read_event("repo:push", body, datacenter=False) or []
    branch, tag = found.updates
    assert branch.new is not None
    assert (branch.kind, branch.name, branch.old, branch.new.target_hash) == ("branch", "main", OLD, NEW)
    assert branch.new.target_date == "2026-05-16T07:36:56.000000Z"
    assert (branch.new.target_author, branch.new.target_author_name) == (
        "Ann Smith <ann@example.com>",
        "Ann Smith",
    )
    assert branch.new.target_parents == ("0123456789abcdef0123456789abcdef01234567",)
    assert tag.new is not None
    assert (tag.kind, tag.old, tag.new.message) == ("tag", None, "One\n")


def test_a_push_to_data_center_has_hashes_alone() -> None:
    """Zeros mean none, projects are workspaces. The commit of a tag is for the upstream to tell."""
    words = {"SLUG": "slug", "KEY": "KEY", "OLD": OLD, "NEW": NEW}
    body = body_of("datacenter_refs_changed.json", **words)
    (found,) = read_event("repo:refs_changed", body, datacenter=True) or []
    assert (found.uuid, found.full_name) == ("id:4711", "KEY/slug")
    assert found.is_private
    (shown,) = read_event("repo:refs_changed", body.replace(b"false", b"true"), datacenter=True) or []
    assert not shown.is_private
    assert [(update.kind, update.name, update.old) for update in found.updates] == [
        ("branch", "main", OLD),
    ]
    deleted = body_of("datacenter_refs_changed.json", **{**words, "NEW": "0" * 40, "OLD": "0" * 40})
    (found,) = read_event("repo:refs_changed", deleted, datacenter=True) or []
    assert [(update.kind, update.name, update.new) for update in found.updates] == [
        ("branch", "main", None),
        ("tag", "v1", None),
    ]


def test_renamed_and_forked_repositories_become_hints() -> None:
    """For the fork, not its parent; for the new name, not the old one."""
    body = body_of("cloud_fork.json", NAME="any/name", UUID="{u}", FORK="else/name", FORKUUID="{f}")
    assert [(found.uuid, found.row) for found in read_event("repo:fork", body, datacenter=False) or []] == [
        ("{f}", True)
    ]
    body = body_of("datacenter_modified.json", SLUG="after", KEY="KEY")
    (found,) = read_event("repo:modified", body, datacenter=True) or []
    assert (found.full_name, found.row) == ("KEY/after", True)


def test_other_events_are_ignored() -> None:
    """Pull requests, comments, a test of the connection, and events of the other kind of server."""
    for event in ("pullrequest:fulfilled", "diagnostics:ping", "", "repo:refs_changed"):
        assert read_event(event, b"{}", datacenter=False) is None
    assert read_event("repo:push", b"{}", datacenter=True) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"push": 3}', b"\xff\xfe", b"[" * 100_000, b'{"repository": {"uuid": 1}}',
     b'{"repository": {"uuid": "{u}", "full_name": "a/b"}}'],
)  # fmt: skip
def test_a_broken_body_is_malformed(body: bytes) -> None:
    """No other error is raised, for any body."""
    with pytest.raises(Malformed):
        read_event("repo:push", body, datacenter=False)


WRONG_HASHES = [
    "not-a-hash",
    "<b>x</b>",
    "a" * 100_000,
    "a" * 39,
    "a" * 41,
    "g" * 40,
    "0" * 40,
    "",
    "a" * 40 + "\n",
]


@pytest.mark.parametrize("wrong", WRONG_HASHES, ids=lambda text: text[:12])
def test_an_invalid_hash_is_malformed(wrong: str) -> None:
    """The old one, the new one, a parent, of Cloud and Data Center; the message does not repeat it."""
    cloud = {"NAME": "a/b", "UUID": "{u}", "OLD": OLD, "NEW": NEW}
    server = {"SLUG": "slug", "KEY": "KEY", "OLD": OLD, "NEW": NEW}
    parent = "0123456789abcdef0123456789abcdef01234567"
    bodies = [("repo:push", body_of("cloud_push.json", **cloud).replace(parent.encode(), b"NEW"), False)]
    bodies[0] = (bodies[0][0], bodies[0][1].replace(b'"NEW"', json.dumps(wrong).encode()), False)
    for side in ("OLD", "NEW"):
        text = json.dumps(wrong)[1:-1]
        bodies.append(("repo:push", body_of("cloud_push.json", **{**cloud, side: text}), False))
        if wrong != "0" * 40:  # there it stands for none
            file = "datacenter_refs_changed.json"
            bodies.append(("repo:refs_changed", body_of(file, **{**server, side: text}), True))
    for event, body, datacenter in bodies:
        with pytest.raises(Malformed, match="40 or 64 hexadecimal digits") as caught:
            read_event(event, body, datacenter=datacenter)
        assert len(str(caught.value)) < 100


NAMES = [
    "main", "feature/x", "@atlaskit/activity@1.0.3", 'special-"$;><&#_=@!|.,/test', "ü/ß", "a.b", "-x", "@",
    "x@y", "HEAD", "a" * 250, "x.locked", "", " ", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[1]",
    "a\\b", "a\x7f", "a\nb", "a\tb", "/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock", "a.lock/b", "a@{1}",
    "a/b.",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_names_are_checked_by_gits_rules() -> None:
    """Compared with git itself; names too long for file systems are refused too."""
    for name in NAMES:
        done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
        with contextlib.nullcontext() if done.returncode == 0 else pytest.raises(ValueError, match="git"):
            assert ref_name(name) == name
    for name in ("a" * 256, "ü" * 128, "a/" * 2_500 + "b"):
        with pytest.raises(ValueError, match="git"):
            ref_name(name)


@pytest.mark.parametrize("datacenter", [False, True])
def test_a_push_with_a_name_that_git_refuses_is_malformed(datacenter: bool) -> None:
    """No part of it is applied."""
    file = "datacenter_refs_changed.json" if datacenter else "cloud_push.json"
    words = {"NAME": "a/b", "UUID": "{u}", "SLUG": "slug", "KEY": "KEY", "OLD": OLD, "NEW": NEW}
    body = body_of(file, **words).replace(b'"v1"', b'"a..b"')
    with pytest.raises(Malformed, match="git accepts no ref"):
        read_event("repo:refs_changed" if datacenter else "repo:push", body, datacenter=datacenter)


@pytest.mark.parametrize("change", ["null", "5", "[]", "{}", '{"new": {"name": 5}}'])
@pytest.mark.parametrize("datacenter", [False, True])
def test_a_change_of_an_unknown_shape_is_left_to_the_run(change: str, datacenter: bool) -> None:
    """The other changes of the push are read, and the repository is to be requested."""
    file = "datacenter_refs_changed.json" if datacenter else "cloud_push.json"
    words = {"NAME": "a/b", "UUID": "{u}", "SLUG": "slug", "KEY": "KEY", "OLD": OLD, "NEW": NEW}
    event, body = "repo:refs_changed" if datacenter else "repo:push", body_of(file, **words)
    whole = read_event(event, body, datacenter=datacenter)
    odd = re.sub(rb'("changes":\s*\[)', lambda found: found[0] + f"{change}, ".encode(), body)
    assert odd != body
    assert whole is not None
    assert whole[0].updates
    assert read_event(event, odd, datacenter=datacenter) == whole


def test_hashes_are_read_in_either_length_and_case() -> None:
    """SHA-256 has 64 digits; the mirror stores lower case."""
    body = body_of("cloud_push.json", NAME="a/b", UUID="{u}", OLD="A" * 40, NEW="b" * 64)
    (found,) = read_event("repo:push", body, datacenter=False) or []
    assert (found.updates[0].old, found.updates[0].new and found.updates[0].new.target_hash) == (
        "a" * 40,
        "b" * 64,
    )


def test_refs_of_a_mercurial_repository_are_left_to_the_run() -> None:
    """Their names follow other rules than git's."""
    body = body_of("cloud_push.json", NAME="a/b", UUID="{u}", OLD=OLD, NEW=NEW)
    body = body.replace(b'"full_name"', b'"scm": "hg", "full_name"')
    (found,) = read_event("repo:push", body, datacenter=False) or []
    assert (found.uuid, list(found.updates)) == ("{u}", [])


@given(
    st.binary(max_size=200), st.sampled_from(["repo:push", "repo:fork", "repo:updated", "x"]), st.booleans()
)
def test_random_bytes_are_malformed(body: bytes, event: str, datacenter: bool) -> None:
    """Or without any event."""
    with contextlib.suppress(Malformed):
        assert read_event(event, body, datacenter=datacenter) is None
