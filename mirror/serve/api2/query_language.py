"""Bitbucket's query language: parses the text of `q` into a tree, and compiles that into SQL.

::

    either     = both *("OR" both)
    both       = term *("AND" term)
    term       = "(" either ")" / field operator literal / field ["NOT"] "IN" "(" literal *("," literal) ")"
    operator   = "=" / "!=" / "~" / "!~" / ">" / ">=" / "<" / "<="
    literal    = string / number / date / "true" / "false" / "null"

Words are case-insensitive; AND binds tighter than OR. Strings are in double quotes, with a backslash before
each quote or backslash inside. Source: developer.atlassian.com/cloud/bitbucket/rest/intro/#filtering.

Fields become known SQL expressions, literals become parameters. Null equals only null, is neither greater nor
less than anything, and contains nothing. ``!=``, ``!~`` and ``NOT IN`` are the exact opposites of ``=``,
``~`` and ``IN``. ``~`` ignores case (`str.casefold`).
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from mirror.api2_extras import unpacked
from mirror.times import normalised

LONGEST = 8000  # characters of a query
DEEPEST = 40  # levels of brackets: the parser calls itself for each
MOST_COMPARISONS = 100  # SQLite limits the depth of an expression
# Bytes of a packed extra that is read: visitors' SQL may pass any, which unpack to a thousand times as many.
_LONGEST_EXTRA = 4096

LiteralKind = Literal["text", "number", "date", "boolean", "null"]

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |   (?P<text>"(?:[^"\\]|\\.)*")
    |   (?P<date>\d{4}-\d{2}-\d{2}(?:T[\d:.]+(?:Z|[+\- ]\d{2}:?\d{2})?)?(?![\w.]))
    |   (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
    |   (?P<operator>[<>!]=|!~|[=~<>])
    |   (?P<mark>[(),])
    |   (?P<word>[A-Za-z_][\w.]*)""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_WORDS: dict[str, LiteralKind] = {"true": "boolean", "false": "boolean", "null": "null"}

_DIGITS = re.compile(r"0*(\d+)", re.ASCII)
_LARGEST_NUMBER = 2**63 - 1
_KINDS = {
    "text": 'a text: "..."',
    "number": "a number",
    "date": "a date",
    "boolean": "true or false",
    "object": "an object, which can only be compared with null",
}


class QueryError(ValueError):
    """A query that cannot be parsed or answered; the message says why."""


class Value(msgspec.Struct, frozen=True):
    """A literal: its kind, and its text (of a string, without quotes)."""

    kind: LiteralKind
    text: str


class Comparison(msgspec.Struct, frozen=True):
    """A field compared with a literal; ``IN`` and ``NOT IN`` have several."""

    field: str
    operator: str
    values: tuple[Value, ...]


class Joined(msgspec.Struct, frozen=True):
    """Conditions that must all hold (AND), or of which at least one must (OR)."""

    word: Literal["AND", "OR"]
    parts: tuple["Expression", ...]


Expression = Comparison | Joined


class _Token(NamedTuple):
    kind: str
    text: str


def parse(text: str) -> Expression:
    """Parse a query; raises QueryError that says what is wrong with it."""
    if len(text) > LONGEST:
        raise QueryError(f"it is longer than {LONGEST} characters")
    return _Parser(list(_tokens(text))).whole()


def _tokens(text: str) -> Iterator[_Token]:
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise QueryError("it contains characters that texts cannot have")
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise QueryError(f"{text[place : place + 30]!r} cannot be read")
        place = found.end()
        kind = found.lastgroup or ""
        if kind != "space":
            yield _Token(kind, found[0])


class _Parser:
    """A recursive-descent parser, with one method for each rule of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self._comparisons = 0

    def whole(self) -> Expression:
        """Parse the whole query."""
        expression = self._either(0)
        if self._place < len(self._tokens):
            raise QueryError(f"AND, OR or the end was expected, not {self._next().text!r}")
        return expression

    def _either(self, depth: int) -> Expression:
        return self._joined("OR", lambda: self._both(depth))

    def _both(self, depth: int) -> Expression:
        return self._joined("AND", lambda: self._term(depth))

    def _joined(self, word: Literal["AND", "OR"], part: Callable[[], Expression]) -> Expression:
        parts = [part()]
        while self._takes_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _term(self, depth: int) -> Expression:
        if depth > DEEPEST:
            raise QueryError(f"brackets are deeper than {DEEPEST}")
        token = self._next()
        if token.text == "(":
            inside = self._either(depth + 1)
            self._expect(")")
            return inside
        if token.kind != "word" or token.text.lower() in {"and", "or", "in", "not", *_WORDS}:
            raise QueryError(f"a field was expected, not {token.text!r}")
        self._comparisons += 1
        if self._comparisons > MOST_COMPARISONS:
            raise QueryError(f"it has more than {MOST_COMPARISONS} comparisons")
        return self._comparison(token.text.lower())

    def _comparison(self, field: str) -> Comparison:
        token = self._next()
        if token.kind == "operator":
            return Comparison(field, token.text, (self._value(),))
        word = token.text.lower()
        if word == "not" and self._takes_word("IN"):
            return Comparison(field, "NOT IN", self._values())
        if word == "in":
            return Comparison(field, "IN", self._values())
        raise QueryError(f"an operator was expected after {field}, not {token.text!r}")

    def _values(self) -> tuple[Value, ...]:
        self._expect("(")
        values = [self._value()]
        while (token := self._next()).text == ",":
            values.append(self._value())
        if token.text != ")":
            raise QueryError(f"')' was expected, not {token.text!r}")
        return tuple(values)

    def _value(self) -> Value:
        token = self._next()
        match token.kind:
            case "text":
                return Value("text", re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL))
            case "number" | "date" as kind:
                return Value(kind, token.text)
        word = token.text.lower()
        if word not in _WORDS:
            raise QueryError(f"a value was expected, not {token.text!r}; put texts in double quotes")
        return Value(_WORDS[word], word)

    def _next(self) -> _Token:
        if self._place == len(self._tokens):
            raise QueryError("it ends too early")
        self._place += 1
        return self._tokens[self._place - 1]

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.text != text:
            raise QueryError(f"{text!r} was expected, not {token.text!r}")

    def _takes_word(self, word: str) -> bool:
        if self._place < len(self._tokens):
            token = self._tokens[self._place]
            if token.kind == "word" and token.text.upper() == word:
                self._place += 1
                return True
        return False


class Field(msgspec.Struct, frozen=True):
    """A field that can be queried: its SQL expression and the kind of its values.

    `among` is a condition that holds if the field equals one of ``:values``, and that can use an index.
    """

    sql: str
    kind: Literal["text", "number", "date", "boolean", "object"] = "text"
    among: str = ""


class Condition(msgspec.Struct, frozen=True):
    """A condition in SQL, in brackets if it needs them, with its parameters."""

    sql: str
    values: dict[str, Any]


def condition_of(query: str, fields: Mapping[str, Field]) -> Condition:
    """Compile a query; raises QueryError that says what is wrong with it."""
    compiler = _Compiler(fields)
    return Condition(compiler.expression(parse(query)), compiler.values)


def register(connection: sqlite3.Connection) -> None:
    """Register the functions that conditions and orders call."""
    connection.create_function("mirror_contains", 2, _contains, deterministic=True)
    connection.create_function("mirror_match", 2, _match, deterministic=True)
    connection.create_function("mirror_natural", 1, natural, deterministic=True)
    connection.create_function("mirror_sent_name", 1, _sent_name, deterministic=True)


def pattern_of(folded: str) -> str:
    """Return the pattern of LIKE for texts that contain a text; `containing` needs both."""
    plain = folded.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{plain}%"


def containing(sql: str, pattern: str, folded: str) -> str:
    """Return a condition: an expression contains a text, in any case; both are names of parameters."""
    # LIKE is fast, but folds ASCII only. Python folds the texts that have other letters.
    return (
        f"({sql} LIKE {pattern} ESCAPE '\\' OR ({sql} GLOB '*[^ -~]*' AND mirror_contains({sql}, {folded})))"
    )


def _contains(text: str, folded: str) -> bool:
    return folded in text.casefold()


def _match(text: str, folded: str) -> int:
    """Return 0 if a text is another one, in any case, 1 if it begins with it, else 2."""
    text = text.casefold()
    return 0 if text == folded else 1 if text.startswith(folded) else 2


@lru_cache(maxsize=1024)
def _sent_name(extra: bytes) -> str | None:
    """Return the `name` in an extra; None if it has none or cannot be read."""
    if len(extra) > _LONGEST_EXTRA:
        return None
    try:
        sent = unpacked(extra).get("name")
    except ValueError:
        return None
    return sent[0] if isinstance(sent, list) and sent and isinstance(sent[0], str) else None


def natural(text: str) -> str:
    """Return a key that sorts numbers in a text by value: ``v1.9`` before ``v1.10``.

    A number is replaced by ``0``, its length in six digits, and its digits without leading zeros.
    """
    return _DIGITS.sub(lambda found: f"0{len(found[1]):06}{found[1]}", text)


class _Compiler:
    """Writes conditions and collects their parameters."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields
        self.values = dict[str, Any]()

    def expression(self, part: Expression) -> str:
        """Compile an expression."""
        if isinstance(part, Comparison):
            return self._comparison(part)
        return "(" + f" {part.word} ".join(self.expression(one) for one in part.parts) + ")"

    def _comparison(self, one: Comparison) -> str:
        field = self._fields.get(one.field)
        if field is None:
            known = ", ".join(sorted(self._fields))
            raise QueryError(f"{one.field} is not a field of this listing; its fields are {known}")
        match one.operator:
            case "=" | "IN":
                return self._among(one, field)
            case "!=" | "NOT IN":
                return self._not_among(one, field)
            case "~" | "!~":
                return self._containing(one, field)
        if field.kind in ("boolean", "object") or one.values[0].kind == "null":
            raise QueryError(f"{one.field} {one.operator} {one.values[0].text} has no meaning")
        return f"{field.sql} {one.operator} {self._parameter(one, field, one.values[0])}"

    def _among(self, one: Comparison, field: Field) -> str:
        """Compile ``=`` and ``IN``. SQLite limits chains of OR, so this makes a list."""
        values, has_null = self._list(one, field)
        found = (field.among or f"{field.sql} IN (:values)").replace(":values", values)
        if not has_null:
            return f"({found})"
        return f"({field.sql} IS NULL OR {found})" if values else f"{field.sql} IS NULL"

    def _not_among(self, one: Comparison, field: Field) -> str:
        """Compile ``!=`` and ``NOT IN``."""
        values, has_null = self._list(one, field)
        if not values:
            return f"{field.sql} IS NOT NULL"
        return f"({field.sql} IN ({values})) IS {'FALSE' if has_null else 'NOT TRUE'}"

    def _list(self, one: Comparison, field: Field) -> tuple[str, bool]:
        """Bind the literals of a list except null; also return whether null is among them."""
        literals = [value for value in one.values if value.kind != "null"]
        parameters = [self._parameter(one, field, value) for value in literals]
        return ", ".join(parameters), len(literals) < len(one.values)

    def _containing(self, one: Comparison, field: Field) -> str:
        """Compile ``~`` and ``!~``."""
        value = one.values[0]
        if field.kind != "text" or value.kind != "text":
            raise QueryError(f"{one.field} {one.operator} ... takes only a text in double quotes")
        folded = value.text.casefold()
        holds = containing(field.sql, self._bound(pattern_of(folded)), self._bound(folded))
        return holds if one.operator == "~" else f"({field.sql} IS NULL OR NOT {holds})"

    def _parameter(self, one: Comparison, field: Field, value: Value) -> str:
        """Bind a literal; raises QueryError if it is not of the field's kind."""
        if field.kind == "date" and value.kind in ("date", "text"):
            return self._bound(_moment(one.field, value.text))
        if field.kind != value.kind:
            raise QueryError(f"{one.field} is {_KINDS[field.kind]}, not {value.text[:100]}")
        if field.kind == "number":
            return self._bound(_number(value.text))
        return self._bound(value.text == "true" if field.kind == "boolean" else value.text)

    def _bound(self, value: Any) -> str:
        name = f"q{len(self.values)}"
        self.values[name] = value
        return f":{name}"


def _number(text: str) -> int | float:
    if "." in text:
        return float(text)
    try:
        number = int(text)
    except ValueError:  # Python refuses to read thousands of digits
        return float(text)
    return number if abs(number) <= _LARGEST_NUMBER else float(text)


def _moment(field: str, text: str) -> str:
    """Read a date. An unescaped ``+`` arrives as a space."""
    try:
        return normalised(text[:10] + text[10:].replace(" ", "+"))
    except (ValueError, OverflowError):
        raise QueryError(f"{field} is a date such as 2026-11-01T10:00:00+00:00, not {text[:100]!r}") from None
