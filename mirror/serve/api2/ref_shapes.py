"""Branches, tags and commits in the shapes of API 2.0: pure functions, as those of `shapes`."""

import json

from mirror.addresses import escaped, hrefs
from mirror.api2_extras import changed
from mirror.api2_objects import ref_object, seconds
from mirror.queries.rows import RefRow, RepositoryRow
from mirror.serve.api2.shapes import Shapes
from mirror.serve.exchange import Json


class RefShapes(Shapes):
    """Shapes for one request, including those of refs."""

    def ref(self, repository: RepositoryRow, row: RefRow, extra: Json | None = None) -> Json:
        """Shape a branch or a tag with the commit that it points to."""
        links = self._at(repository.upstream_id)
        if extra is not None:
            return changed(ref_object(repository, row, links.api, links.web), extra, links.api, links.web)
        url, name = self._links.repository(repository.full_name), escaped(row.name)
        is_tag = row.kind == "tag"
        shaped: Json = {
            "name": row.name,
            "type": "tag" if is_tag else "branch" if row.heads is None else "named_branch",
            "target": self._target(repository, row),
            "links": hrefs(
                self=f"{url}/refs/{'tags' if is_tag else 'branches'}/{name}",
                commits=f"{url}/commits/{name}",
                html=links.ref_html(repository.full_name, row.kind, row.name),
            ),
        }
        if is_tag:
            tagger = None if row.tagger is None else {"type": "author", "raw": row.tagger}
            shaped |= {"message": row.message, "date": seconds(row.date), "tagger": tagger}
        elif row.heads is not None:
            shaped["heads"] = [self._commit(url, one) for one in json.loads(row.heads)]
        return shaped

    def commit(self, repository: RepositoryRow, row: RefRow, extra: Json | None = None) -> Json:
        """Shape the commit of a ref as an object of its own."""
        url = f"{self._links.repository(repository.full_name)}/commit/{row.target_hash}"
        shaped: Json = self.ref(repository, row, extra)["target"]
        more = hrefs(comments=f"{url}/comments", statuses=f"{url}/statuses", approve=f"{url}/approve")
        shaped["links"] = {**shaped.get("links", {}), **more}
        return shaped

    def _target(self, repository: RepositoryRow, row: RefRow) -> Json:
        url = self._links.repository(repository.full_name)
        parents = None if row.target_parents is None else json.loads(row.target_parents)
        return {
            **self._commit(url, row.target_hash),
            "date": seconds(row.target_date),
            "author": self._author(row),
            "message": row.target_message,
            "parents": None if parents is None else [self._commit(url, one) for one in parents],
            "repository": self.short_repository(repository),
        }

    def _author(self, row: RefRow) -> Json | None:
        """Shape the author of a commit: the line in the commit, and the account, if there is one."""
        if row.target_author is None and row.target_author_name is None and row.target_author_uuid is None:
            return None
        shaped: Json = {"type": "author", "raw": row.target_author}
        if row.target_author_name is not None or row.target_author_uuid is not None:
            user: Json = {"type": "user", "display_name": row.target_author_name}
            if row.target_author_uuid is not None:
                user["uuid"] = row.target_author_uuid
                user["links"] = hrefs(self=self._links.user(row.target_author_uuid))
            shaped["user"] = user
        return shaped

    def _commit(self, repository: str, name: str) -> Json:
        return {"type": "commit", "hash": name, "links": hrefs(self=f"{repository}/commit/{name}")}
