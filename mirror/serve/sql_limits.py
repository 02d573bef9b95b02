"""Limits of memory and time for the SQL of visitors.

SQLite calls the progress handler (Datasette's time limit) only between steps of a loop, not inside a function
and not while it prepares a statement. So each function must be fast for the longest possible value, a
statement may call only few of them, and the work of preparing a statement is estimated first.
"""

import os
import re
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any, Self

LONGEST_VALUE = 250_000  # the size limit for a text or BLOB that SQL makes or reads, in bytes
LONGEST_SQL = 16_000
LARGEST_RESULT = 20_000_000  # characters and bytes in all rows of a statement; JSON may be six times as long
MOST_FUNCTIONS = 200  # the most function calls in the text of one statement

# The most calls of LIKE or GLOB. Their time grows with the length of the text times that of the pattern.
MOST_PATTERNS = 10

# The most characters of a statement once its common table expressions are copied to where they are used.
LONGEST_COPIED = 2_000_000

# A statement is interrupted once the process has this many bytes more of its own than at its start.
MOST_MEMORY = 150_000_000

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LONGEST_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: LONGEST_SQL,
    sqlite3.SQLITE_LIMIT_COLUMN: 400,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 5_000,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[(?P<square>[^\]]*)\]
    | --[^\n]* | /\*.*?(?:\*/|\Z) | (?P<word>(?!\ufeff)[\w$\x80-\U0010ffff]+) | (?P<sign>[^\s\ufeff])""",
    re.VERBOSE | re.DOTALL,
)  # between words, U+FEFF is a space to SQLite


# The prefix of views that may read withheld columns. Statements of visitors must not contain it. SQLite gives
# an authorizer only the name of the view that reads, and any common table expression could have that name.
RESERVED = "mirror_shown_"

# What joins by columns of the same name. SQLite does not ask an authorizer about these columns. Comments may
# follow the word, or U+FEFF, a space to SQLite. Texts may contain the words: Datasette looks for 'USING FTS',
# and visitors look for 'natural language'.
_JOINS = re.compile(
    r"(?:using|natural)[\s\ufeff]*(?:\(|/\*|--|join|cross|full|inner|left|outer|right)", re.IGNORECASE
)

# Begins each trusted statement, so that a visitor's statement never gets the cached form of a trusted one.
_OURS = f"/* {secrets.token_hex(16)} */"


class BoundedConnection(sqlite3.Connection):
    """A connection for the SQL of visitors; `bound` sets its limits once it is ready."""

    functions = 0
    patterns = 0
    is_trusted = False
    is_public = False
    """Whether its statements are those of strangers, or of visitors who may see no more."""
    guarded = frozenset[str]()
    """Names of which a visitor's statement may contain none if it joins by columns of the same name."""

    def bound(self) -> None:
        """Set SQLite's limits, and replace the functions whose time is quadratic."""
        for limit, most in _LIMITS.items():
            self.setlimit(limit, most)
        for name, arguments, function in _FUNCTIONS:
            self.create_function(name, arguments, function, deterministic=True)
        self.execute("PRAGMA temp_store = MEMORY")  # so that `own_memory` includes what a statement sorts

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Allow the program's own statements to read what is withheld from the visitor."""
        self.is_trusted = True
        try:
            yield
        finally:
            self.is_trusted = False

    def may_call(self, function: str) -> bool:
        """Count a call in the statement being prepared; return whether the statement is within its limits."""
        self.functions += 1
        self.patterns += function in ("like", "glob")
        return self.functions <= MOST_FUNCTIONS and self.patterns <= MOST_PATTERNS

    def refuse_joins(self, sql: str) -> None:
        """Raise OperationalError if a visitor's statement joins by names of columns that may be withheld."""
        if _JOINS.search(sql) and any(name in sql.lower() for name in self.guarded):
            raise sqlite3.OperationalError("USING and NATURAL may read withheld columns here: join by ON")

    def cursor(self, factory: Any = None) -> Any:
        """Return a cursor that checks each statement before SQLite prepares it."""
        return super().cursor(factory or _Cursor)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Run a statement by such a cursor: what it inherits prepares statements without one."""
        return self.cursor().execute(sql, parameters)

    def set_progress_handler(self, handler: Callable[[], Any] | None, n: int) -> None:
        """Interrupt a statement also if the process has grown too much."""
        if handler is None:
            super().set_progress_handler(None, n)
            return
        most = own_memory() + MOST_MEMORY

        def check() -> bool:
            return bool(handler()) or own_memory() > most

        super().set_progress_handler(check, n)


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> Self:
        connection = self.connection
        if isinstance(connection, BoundedConnection):
            connection.functions = connection.patterns = 0
            if connection.is_trusted:
                return super().execute(f"{_OURS} {sql}", parameters)
            connection.refuse_joins(sql)
        if RESERVED in sql.lower():
            raise sqlite3.OperationalError(f"names that begin with {RESERVED} are reserved")
        if copies(sql) * len(sql) > LONGEST_COPIED:
            raise sqlite3.OperationalError("too many uses of common table expressions")
        return super().execute(sql, parameters)

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        """Return the next rows; raises OperationalError if they are too large to be written as JSON."""
        return self._bounded(super().fetchmany(size))

    def fetchall(self) -> list[Any]:
        """Return all further rows; raises OperationalError as `fetchmany` does."""
        return self._bounded(super().fetchall())

    def _bounded(self, rows: list[Any]) -> list[Any]:
        if self.connection.is_trusted:  # type: ignore[attr-defined]  # no answer to a visitor
            return rows
        size = sum(len(value) for row in rows for value in row if isinstance(value, (str, bytes)))
        if size > LARGEST_RESULT:
            raise sqlite3.OperationalError(f"the rows are larger than {LARGEST_RESULT:,} bytes")
        return rows


def copies(sql: str) -> int:
    """Return an upper bound of how often SQLite copies a common table expression when it prepares."""
    # SQLite copies an expression to each use, together with the expressions in it, so the uses multiply. Any
    # name before AS ( counts as a definition, and any other occurrence of the name as a use.
    tokens = [found for found in map(_token, _TOKEN.finditer(sql[:LONGEST_SQL])) if found]
    defined = Counter(name for place in range(len(tokens)) if (name := _defined_at(tokens, place)))
    if not defined:
        return 1
    used = Counter(
        name
        for name, after in zip(tokens, [*tokens[1:], ""], strict=True)
        if name in defined and after != "."
    )
    return prod(max(1, used[name] - times) ** times for name, times in defined.items())


def _token(found: re.Match[str]) -> str:
    """Return a name in lower case or a sign; "" for a comment, two quotes for a string."""
    if found["sign"] or found["word"]:
        return str(found[0]).lower()
    if found["square"] is not None:
        return f"{found['square']}".lower() or "''"
    quote = found[0][0]
    if quote in "-/":
        return ""
    return found[0][1:-1].replace(quote * 2, quote).lower() or "''"


def _defined_at(tokens: list[str], place: int) -> str:
    """Return the name that an `AS (` at a place defines; "" if there is none."""
    if tokens[place] != "as" or place == 0:
        return ""
    after = [one for one in tokens[place + 1 : place + 4] if one not in ("not", "materialized")]
    if after[:1] != ["("]:
        return ""
    before = place - 1
    if tokens[before] == ")":
        while before > 0 and tokens[before] != "(":
            before -= 1
        before -= 1
    return tokens[before] if before >= 0 else ""


def own_memory() -> int:
    """Return the memory of this process in bytes, files aside; 0 if the system does not report it."""
    descriptor = _statm(os.getpid())
    if descriptor is None:
        return 0
    # A statement that reads much of the mirror, which is mapped, makes many of its pages resident.
    _, resident, of_files, *_ = os.pread(descriptor, 100, 0).split()
    return (int(resident) - int(of_files)) * _PAGE


@cache
def _statm(process: int) -> int | None:
    """Open the file with the memory use of a process, once for each process."""
    try:
        return os.open(f"/proc/{process}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


_PAGE = os.sysconf("SC_PAGE_SIZE")


def _text(value: Any) -> str:
    """Convert a value to text as SQLite does."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _instr(whole: Any, part: Any) -> int | None:
    if whole is None or part is None:
        return None
    if isinstance(whole, bytes) and isinstance(part, bytes):
        return whole.find(part) + 1
    return _text(whole).find(_text(part)) + 1


def _replace(whole: Any, old: Any, new: Any) -> str | None:
    if whole is None or old is None or new is None:
        return None
    text, before, after = _text(whole), _text(old), _text(new)
    if not before:
        return text
    if len(text) + text.count(before) * (len(after) - len(before)) > LONGEST_VALUE:
        return " " * (LONGEST_VALUE + 1)  # SQLite refuses a value that is too long
    return text.replace(before, after)


def _trimmed(*, left: bool, right: bool) -> Callable[[Any, Any], str | None]:
    def trim(whole: Any, characters: Any) -> str | None:
        if whole is None or characters is None:
            return None
        text, cut = _text(whole), set(_text(characters))
        start, end = 0, len(text)
        while left and start < end and text[start] in cut:
            start += 1
        while right and end > start and text[end - 1] in cut:
            end -= 1
        return text[start:end]

    return trim


_FUNCTIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("instr", 2, _instr),
    ("replace", 3, _replace),
    ("trim", 2, _trimmed(left=True, right=True)),
    ("ltrim", 2, _trimmed(left=True, right=False)),
    ("rtrim", 2, _trimmed(left=False, right=True)),
)
