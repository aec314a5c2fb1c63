"""`spec.source.filter`: a condition on columns, parsed without evaluating anything. Pure.

    condition  = all {"or" all}
    all        = one {"and" one}
    one        = "not" one | "(" condition ")" | column | value comparison column
               | column (comparison value | ["not"] "in" "(" value {"," value} ")" | "is" ["not"] "null")
    comparison = "==" | "!=" | "<" | "<=" | ">" | ">="
    column     = a name, or any text between backquotes
    value      = a number | true | false | text between quotes (' or ", doubled inside; dates and times in ISO 8601)

Nulls are as in SQL: a comparison with one is neither true nor false, and rows count only where the condition is true.
Words such as `and` may be in upper case. A column alone is a condition if it is boolean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

from almanac.api import JobError, Reason

FIELD = "spec.source.filter"

Value = str | bool | Decimal


@dataclass(frozen=True, slots=True)
class Comparison:
    column: str
    sign: str
    value: Value


@dataclass(frozen=True, slots=True)
class Membership:
    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class IsNull:
    column: str


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean column by itself."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


@dataclass(frozen=True, slots=True)
class All:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    conditions: tuple[Condition, ...]


Condition = Comparison | Membership | IsNull | Flag | Not | All | Either


def parse(text: str) -> Condition:
    """The condition that `text` writes.

    Raises:
        JobError: InvalidSpec, naming the position of what is wrong.
    """
    return _Parser(text).whole()


def columns(condition: Condition) -> frozenset[str]:
    """The columns that a condition reads."""
    match condition:
        case Not(inner):
            return columns(inner)
        case All(several) | Either(several):
            return frozenset().union(*map(columns, several))
        case _:
            return frozenset({condition.column})


_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TOKENS = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?(?![\w.]))
    | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<quoted>`[^`]+`)
    | (?P<word>[^\W\d][\w.]*)
    | (?P<sign>==|!=|<=|>=|<(?!>)|>)
    | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)
_MAX_DEPTH = 50
_KEYWORDS = ("and", "or", "not", "in", "is", "null", "true", "false")
_INSTEAD = {"=": "==", "<>": "!=", "&": "and", "&&": "and", "|": "or", "||": "or", "!": "not", "~": "not"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int

    @property
    def keyword(self) -> str:
        """The keyword that this token is, in lower case; else its own text if it is a sign or a mark."""
        if self.kind == "word":
            return self.text.lower() if self.text.lower() in _KEYWORDS else ""
        return self.text if self.kind in ("sign", "mark", "end") else ""


def _tokens(text: str) -> Iterator[_Token]:
    end = len(text.rstrip())
    position = 0
    while position < end:
        found = _TOKENS.match(text, position)
        if found is None or found.lastgroup is None:
            raise _wrong_character(text, position + len(text[position:]) - len(text[position:].lstrip()))
        yield _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup))
        position = found.end()
    yield _Token("end", "", end)


def _wrong_character(text: str, position: int) -> JobError:
    rest = text[position:]
    if rest[0] in "'\"`":
        return _error(text, position, f"the quote {rest[0]} is not closed")
    other = next((sign for sign in sorted(_INSTEAD, key=len, reverse=True) if rest.startswith(sign)), None)
    if other:
        return _error(text, position, f"write `{_INSTEAD[other]}` instead of `{other}`")
    return _error(text, position, f"`{rest.split()[0][:20]}` is not understood")


def _error(text: str, position: int, words: str) -> JobError:
    start, end = max(position - 30, 0), position + 30
    near = f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
    return JobError(Reason.INVALID_SPEC, f"{FIELD}: {words}, at character {position + 1} of `{near}`")


class _Parser:
    """Recursive descent over the grammar above, one method a rule."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Condition:
        condition = self._condition()
        if self._peek.kind != "end":
            raise self._unexpected("`and`, `or` or the end")
        return condition

    def _condition(self) -> Condition:
        several = [self._all()]
        while self._take("or"):
            several.append(self._all())
        return several[0] if len(several) == 1 else Either(tuple(several))

    def _all(self) -> Condition:
        several = [self._one()]
        while self._take("and"):
            several.append(self._one())
        return several[0] if len(several) == 1 else All(tuple(several))

    def _one(self) -> Condition:
        if self._take("not"):
            with self._deeper():
                return Not(self._one())
        if self._take("("):
            with self._deeper():
                condition = self._condition()
            self._expect(")")
            return condition
        if self._is_column:
            return self._about(self._column())
        value = self._value("a column, a value, `not` or `(`")
        sign = self._sign()
        if sign is None or not self._is_column:
            raise self._unexpected("a comparison such as ==" if sign is None else "a column")
        return Comparison(self._column(), _MIRRORED[sign], value)

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _error(self._text, self._peek.position, f"nested more than {_MAX_DEPTH} deep")
        yield
        self._depth -= 1

    def _about(self, column: str) -> Condition:
        """What follows a column's name."""
        sign = self._sign()
        if sign:
            return Comparison(column, sign, self._value("a value"))
        if self._take("is"):
            negated = self._take("not")
            self._expect("null")
            return Not(IsNull(column)) if negated else IsNull(column)
        negated = self._take("not")
        if self._take("in"):
            self._expect("(")
            values = [self._value("a value")]
            while self._take(","):
                values.append(self._value("a value"))
            self._expect(")")
            return Not(Membership(column, tuple(values))) if negated else Membership(column, tuple(values))
        if negated:
            raise self._unexpected("`in`")
        return Flag(column)

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    @property
    def _is_column(self) -> bool:
        return self._peek.kind == "quoted" or (self._peek.kind == "word" and not self._peek.keyword)

    def _take(self, keyword: str) -> bool:
        """Step over `keyword` if it comes next."""
        found = self._peek.keyword == keyword
        self._next += found
        return found

    def _expect(self, keyword: str) -> None:
        if not self._take(keyword):
            raise self._unexpected(f"`{keyword}`")

    def _column(self) -> str:
        token = self._peek
        self._next += 1
        return token.text.strip("`")

    def _sign(self) -> str | None:
        if self._peek.kind != "sign":
            return None
        self._next += 1
        return self._tokens[self._next - 1].text

    def _value(self, wanted: str) -> Value:
        token = self._peek
        if token.kind not in ("number", "text") and token.keyword not in ("true", "false"):
            raise self._unexpected(wanted)
        self._next += 1
        if token.kind == "number":
            return Decimal(token.text)
        if token.kind == "text":
            quote = token.text[0]
            return token.text[1:-1].replace(quote * 2, quote)
        return token.keyword == "true"

    def _unexpected(self, wanted: str) -> JobError:
        token = self._peek
        found = f"`{token.text}`" if token.text else "the end"
        hint = {"null": ": write `is null` or `is not null`"}.get(token.keyword, "")
        if wanted == "a value" and self._is_column:
            hint = ": put text between quotes"
        if token.kind == "number" and self._next and self._tokens[self._next - 1].kind == "number":
            hint = ": put dates between quotes"
        return _error(self._text, token.position, f"expected {wanted}, found {found}{hint}")
