"""The writer behind the served API 1.0 (`mirror.serve.writes.Writer`): its forms in, names out."""

from mirror.upstream.writes import Settings
from mirror.write.choice import Known
from mirror.write.forms import Form, settings_of
from mirror.write.writer import PassThrough


class ServedWriter:
    """Passes on what holders of a token with the scope `write` ask for; `by` is the token's name."""

    def __init__(self, writes: PassThrough) -> None:
        self._writes = writes

    def create_repository(self, owner: str, form: Form, *, by: str) -> str:
        """Create a repository and return its full name."""
        return self._writes.create(owner, settings_of(form), by=by).full_name

    def update_repository(self, full_name: str, form: Form, *, by: str) -> str:
        """Change what the form mentions and return the full name after it."""

        def change(known: Known) -> Settings:
            return settings_of(form, known.fork_policy)

        return self._writes.update(full_name, change, by=by).full_name

    def delete_repository(self, full_name: str, *, by: str) -> None:
        """Delete a repository."""
        self._writes.delete(full_name, by=by)

    def fork_repository(self, full_name: str, owner: str, form: Form, *, by: str) -> str:
        """Fork a repository into a namespace and return the fork's full name."""
        return self._writes.fork(full_name, owner, settings_of(form), by=by).full_name
