"""Bitbucket's query language: parses the text of `q` into a tree.

::

    either     = both *("OR" both)
    both       = term *("AND" term)
    term       = "(" either ")" / field operator literal / field ["NOT"] "IN" "(" literal *("," literal) ")"
    operator   = "=" / "!=" / "~" / "!~" / ">" / ">=" / "<" / "<="
    literal    = string / number / date / "true" / "false" / "null"

Words are case-insensitive; AND binds tighter than OR. Strings are in double quotes, with a backslash before
each quote or backslash inside. Source: developer.atlassian.com/cloud/bitbucket/rest/intro/#filtering.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

LONGEST = 8000
DEEPEST = 40
MOST_COMPARISONS = 100

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
_WORDS: dict[str, tuple[LiteralKind, bool | None]] = {
    "true": ("boolean", True),
    "false": ("boolean", False),
    "null": ("null", None),
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


class AllOf(msgspec.Struct, frozen=True):
    """Conditions that must all hold."""

    parts: tuple["Expression", ...]


class AnyOf(msgspec.Struct, frozen=True):
    """Conditions of which at least one must hold."""

    parts: tuple["Expression", ...]


Expression = Comparison | AllOf | AnyOf


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
        raise QueryError("it holds characters that no text has")
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
        parts = [self._every(depth)]
        while self._takes_word("or"):
            parts.append(self._every(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _every(self, depth: int) -> Expression:
        parts = [self._term(depth)]
        while self._takes_word("and"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

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
        if word == "not" and self._takes_word("in"):
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
            case "number":
                return Value("number", token.text)
            case "date":
                return Value("date", token.text)
        kind, _ = _WORDS.get(token.text.lower(), (None, None))
        if kind is None:
            raise QueryError(f"a value was expected, not {token.text!r}; texts stand in double quotes")
        return Value(kind, token.text.lower())

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
            if token.kind == "word" and token.text.lower() == word:
                self._place += 1
                return True
        return False
