r"""Selectors as text: which series a query means.

    api.latency{route="/pay", host!~"canary.*"}[5m]
    ----------- ------------- ---------------  ----
    name        matcher       matcher          range

The language is PromQL, and the library promql-parser reads it. Around it stands a tokenizer of ours, for
two things that the library does not do:

    it quotes dotted names     api.latency{route="/pay"}  ->  {"api.latency",route="/pay"}
    it knows positions         a fault is told with its line and column

Only a bare selector is answered for now; every other expression is refused where it stops to be one. Regular
expressions are RE2's: their time is linear in the text, whatever the asker wrote (Python's own can be made
to hold the interpreter for seconds).

Two labels are virtual: they can be matched although no client sent them.

    kind       counter, gauge, timer or set; a tag of that name, where there is one, is seen instead
    quantile   quantile="0.95" asks for that quantile of timers and selects none of them away; on other kinds
               it is a label like any other
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import promql_parser
import re2

from collector.errors import CollectorError
from collector.model import Kind, Series

NAME: Final = "__name__"
KIND: Final = "kind"
QUANTILE: Final = "quantile"
KIND_NAMES: Final = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.TIMER: "timer", Kind.SET: "set"}

_SELECTOR_ONLY: Final = 'only a selector can be answered, like api.latency{route="/pay"}[5m]'
_QUOTE_NAME: Final = 'a name with other characters than letters, digits, "_", ":" and "." is quoted: {"a-b"}'
_LONGEST: Final = 200  # characters of a problem or a remedy: both may quote what was asked
_REMEMBERED: Final = 10_000  # values of a label
_REGEX_MEMORY: Final = 2**20  # bytes; RE2 gets slower beyond it, but stays linear

_TOKEN: Final = re.compile(
    r"""
    (?P<blank> [ \t\r\n]+ | \#[^\n]* )
  | (?P<string> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | `[^`]*` )
  | (?P<name> [A-Za-z_:][A-Za-z0-9_:]*(?:\.[A-Za-z0-9_:]+)* )
  | (?P<number> [0-9][0-9A-Za-z_.]* )
  | (?P<mark> =~|!~|!=|==|<=|>=|[-+*/%^=<>(){}\[\],@] )
    """,
    re.VERBOSE,
)
_OPERATORS: Final = {*"+-*/%^<>", "==", "!=", "<=", ">=", "and", "or", "unless"}
_NOT_PLAIN: Final = re.compile(r"[^a-zA-Z0-9_:]")
_QUANTILE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")


class QueryError(CollectorError):
    """A query that cannot be answered: `problem` at `line` and `column` (from 1), `remedy` what to do.

    `offset` is the position in characters from the start of the text.
    """

    def __init__(self, problem: str, text: str, offset: int, remedy: str = _SELECTOR_ONLY) -> None:
        problem, remedy = problem[:_LONGEST], remedy[:_LONGEST]
        self.problem = problem
        self.remedy = remedy
        self.offset = offset
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - text.rfind("\n", 0, offset)
        super().__init__(f"{self.line}:{self.column}: {problem}: {remedy}")


class Op(StrEnum):
    """How a matcher compares; regular expressions match the whole value."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


class Regex:
    """A compiled regular expression for whole values, and what it said of the values seen before.

    Values repeat from series to series, and a look-up costs a fiftieth of a match through the binding.
    """

    __slots__ = ("_compiled", "_seen")

    def __init__(self, pattern: str) -> None:
        """Raises re2.error for what RE2 does not read."""
        options = re2.Options()
        options.log_errors = False
        options.dot_nl = True  # as Prometheus compiles them
        options.max_mem = _REGEX_MEMORY
        self._compiled = re2.compile(pattern, options)
        self._seen: dict[str, bool] = {}

    def matches(self, value: str) -> bool:
        """Whether the whole value matches."""
        found = self._seen.get(value)
        if found is None:
            found = self._compiled.fullmatch(value) is not None
            if len(self._seen) < _REMEMBERED:
                self._seen[value] = found
        return found


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; a label that a series does not have counts as empty."""

    label: str
    op: Op
    value: str
    regex: Regex | None = None

    @property
    def negative(self) -> bool:
        """Whether it selects what does not compare."""
        return self.op in (Op.NOT_EQUAL, Op.NOT_REGEX)

    def accepts(self, value: str) -> bool:
        """Whether a label with this value is selected."""
        if self.regex is None:
            return (value == self.value) is not self.negative
        return self.regex.matches(value) is not self.negative


class Quantile(NamedTuple):
    """A quantile asked for: as written, and as a number from 0 to 1."""

    text: str
    value: float


@dataclass(frozen=True, slots=True)
class Selector:
    """What `parse_selector` understood; `range` in seconds, None where none was given.

    `name` is None when the query has none, or has only `__name__` matchers other than "=". A name is
    matched as written, and by its form with "_" for each character that PromQL's plain names do not have.
    """

    name: str | None
    matchers: tuple[Matcher, ...]
    range: float | None = None
    quantile: Quantile | None = None

    def matches(self, series: Series) -> bool:
        """Whether a series is selected."""
        if self.name is not None and not self._named(series.name):
            return False
        wanted = self.quantile if series.kind is not Kind.TIMER else None
        if not self.matchers and wanted is None:
            return True
        labels = {KIND: KIND_NAMES[series.kind], **series.labels()}
        if wanted is not None and labels.get(QUANTILE) != wanted.text:
            return False
        return all(
            _name_accepted(one, series.name) if one.label == NAME else one.accepts(labels.get(one.label, ""))
            for one in self.matchers
            if one.label != QUANTILE or series.kind is not Kind.TIMER
        )

    def _named(self, name: str) -> bool:
        if name == self.name:
            return True
        # One character becomes one: names of another length need no look.
        return len(name) == len(self.name or "") and underscored(name) == self.name


def underscored(name: str) -> str:
    """The plain form of a name: "api.latency" -> "api_latency"."""
    return _NOT_PLAIN.sub("_", name)


def _name_accepted(matcher: Matcher, name: str) -> bool:
    """One form of the name has to match, or, where the matcher is a negative one, neither."""
    if matcher.negative:
        return matcher.accepts(name) and matcher.accepts(underscored(name))
    return matcher.accepts(name) or matcher.accepts(underscored(name))


def parse_selector(text: str) -> Selector:
    """Reads a selector; QueryError for anything else."""
    walk = _Walk(text)
    walk.selector()
    try:
        expression = promql_parser.parse(quote_dotted(walk.tokens))
    except ValueError as error:
        raise walk.error(str(error), walk.tokens[0], "give a name, or a matcher that needs a value") from None
    if isinstance(expression, promql_parser.MatrixSelector):
        seconds, vector = expression.range.total_seconds(), expression.vector_selector
    elif isinstance(expression, promql_parser.VectorSelector):
        seconds, vector = None, expression
    else:
        raise walk.error("this is not a selector", walk.tokens[0])
    return _selector(walk, vector, seconds)


def _selector(walk: _Walk, vector: promql_parser.VectorSelector, seconds: float | None) -> Selector:
    name = vector.name
    quantile: Quantile | None = None
    matchers: list[Matcher] = []
    found = vector.matchers.matchers
    # A dotted name before the braces has become a matcher, which has no token among those in the braces.
    inside = found[len(found) - len(walk.matchers) :]
    for one in found[: len(found) - len(walk.matchers)]:
        name = one.value
    for one, (label, op, value) in zip(inside, walk.matchers, strict=True):
        matcher = Matcher(one.name, Op(op), one.value, walk.regexes.get(value.at))
        if matcher.label == NAME and matcher.op is Op.EQUAL:
            name = matcher.value
        elif matcher.label == QUANTILE and matcher.value:
            if quantile is not None:
                raise walk.error("a second quantile", label, "ask for one quantile at a time")
            quantile = _quantile(walk, matcher, label, value)
        else:
            matchers.append(matcher)
    return Selector(name, tuple(matchers), seconds, quantile)


def _quantile(walk: _Walk, matcher: Matcher, label: _Token, value: _Token) -> Quantile:
    remedy = 'ask for one quantile with "=": quantile="0.95"'
    if matcher.op is not Op.EQUAL:
        raise walk.error(f'a quantile is computed, so "{matcher.op}" cannot find one', label, remedy)
    if not _QUANTILE.fullmatch(matcher.value) or float(matcher.value) > 1:
        raise walk.error(f'"{matcher.value}" is not a number from 0 to 1', value, remedy)
    return Quantile(matcher.value, float(matcher.value))


# ---------------------------------------------------------------------- tokens


class _Token(NamedTuple):
    """A piece of the text, `at` characters from its start; the last one is of kind "end"."""

    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    """The tokens without blanks and comments; QueryError for what is none."""
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] in "\"'`":
                raise QueryError("a string without an end", text, at, f"close it with {text[at]}")
            raise QueryError(f"{text[at]!r} is not expected here", text, at, _QUOTE_NAME)
        kind = str(match.lastgroup)
        if kind != "blank":
            tokens.append(_Token(kind, match[0], at))
        at = match.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens


def quote_dotted(tokens: list[_Token]) -> str:
    """The text of the tokens with each dotted name written as PromQL has it: quoted, in braces.

    Labels are quoted too, all of them: some plain ones are words of PromQL.
    """
    written: list[str] = []
    depth = 0
    named = ""  # the quoted name that the next brace takes in
    for token, after in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        dotted = token.kind == "name" and "." in token.text
        if token.kind == "name" and depth:
            written.append(f'"{token.text}"')
        elif dotted and after.text == "{":
            named = f'"{token.text}",'
        elif dotted:
            written.append(f'{{"{token.text}"}}')
        else:
            written.append(token.text + named if token.text == "{" else token.text)
            named = "" if token.text == "{" else named
        depth += (token.text == "{") - (token.text == "}")
    return " ".join(written)


class _Walk:
    """Walks over the tokens of a selector and refuses whatever makes it something else."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.tokens = _tokens(text)
        self.matchers: list[tuple[_Token, str, _Token]] = []  # (label, operator, value)
        self.regexes: dict[int, Regex] = {}  # by the offset of the value
        self._next = 0
        self._names = 0

    def error(self, problem: str, token: _Token, remedy: str = _SELECTOR_ONLY) -> QueryError:
        """A QueryError at a token."""
        return QueryError(problem, self._text, token.at, remedy)

    def selector(self) -> None:
        """selector = [ name ] [ "{" matchers "}" ] [ "[" duration "]" ]"""
        first = self._peek
        if first.kind == "end":
            raise self.error("the query is empty", first)
        if first.kind == "name":
            self._name(self._take())
        elif first.text != "{":
            raise self._not_a_selector(first)
        if self._peek.text == "{":
            self._matchers(self._take())
        if self._peek.text == "[":
            self._range(self._take())
        if self._peek.kind != "end":
            raise self._not_a_selector(self._peek)

    @property
    def _peek(self) -> _Token:
        return self.tokens[self._next]

    def _take(self) -> _Token:
        token = self.tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _name(self, token: _Token) -> None:
        self._names = 1
        if self._peek.text == "(":
            raise self.error(f"the function {token.text}() is not answered", token)
        if "." not in token.text and not _plain_name(token.text):
            remedy = f'quote it where a metric has this name: {{"{token.text}"}}'
            raise self.error(f"{token.text} is a word of PromQL", token, remedy)

    def _matchers(self, brace: _Token) -> None:
        """matchers = [ matcher *( "," matcher ) [ "," ] ]"""
        while self._peek.text != "}":
            self._one_matcher(self._take())
            if self._peek.text == ",":
                self._take()
            elif self._peek.text == "or":
                remedy = 'use a regular expression: label=~"a|b"'
                raise self.error('"or" between matchers is not answered', self._peek, remedy)
            elif self._peek.kind == "end":
                raise self.error("a brace without an end", brace, "close it with }")
            elif self._peek.text != "}":
                raise self.error(f'"{self._peek.text}" is not expected here', self._peek, "write a comma")
        self._take()
        if not self.matchers and not self._names:
            raise self.error("an empty selector", brace, "give a name or a matcher")

    def _one_matcher(self, label: _Token) -> None:
        """matcher = label ( "=" / "!=" / "=~" / "!~" ) string, or a name as a string alone"""
        if label.kind == "end":
            raise self.error("a brace without an end", label, "close it with }")
        if label.kind not in ("name", "string") or (label.kind == "name" and ":" in label.text):
            remedy = 'write label="value", and quote a label with other characters: "a-b"="value"'
            raise self.error(f'"{label.text}" is not a label', label, remedy)
        written = self._string(label) if label.kind == "string" else label.text
        if label.kind == "string" and self._peek.text in (",", "}"):
            self._only_name(label)
            self.matchers.append((label, Op.EQUAL, label))
            return
        op = self._take()
        if op.text not in set(Op):
            remedy = 'write label="value" with one of = != =~ !~'
            raise self.error(f"no operator after the label {label.text}", op, remedy)
        value = self._take()
        if value.kind != "string":
            raise self.error("a value is a string", value, f'write {label.text}{op.text}"value"')
        pattern = self._string(value)
        if op.text in (Op.REGEX, Op.NOT_REGEX):
            self.regexes[value.at] = self._regex(value, pattern)
        if written == NAME and op.text == Op.EQUAL:
            self._only_name(label)
        self.matchers.append((label, op.text, value))

    def _only_name(self, token: _Token) -> None:
        self._names += 1
        if self._names > 1:
            raise self.error("a second name", token, "give one name, or match __name__ with =~")

    def _string(self, token: _Token) -> str:
        try:
            literal = promql_parser.parse(token.text)
        except ValueError as error:
            raise self.error(str(error), token, "mend the string, or quote it with `") from None
        assert isinstance(literal, promql_parser.StringLiteral)
        return literal.val

    def _regex(self, token: _Token, pattern: str) -> Regex:
        """Compiles; what the library's own check refuses is refused here, where its place is known."""
        try:
            regex = Regex(pattern)
            promql_parser.parse(f'{{"x",y=~{token.text}}}')
        except (re2.error, ValueError) as error:
            why = error.args[0]
            problem = why.decode("utf-8", "replace") if isinstance(why, bytes) else why
            raise self.error(
                f"bad regular expression: {problem}", token, "write it in RE2's syntax"
            ) from None
        return regex

    def _range(self, bracket: _Token) -> None:
        """range = duration, as in [5m] or [1h30m]"""
        duration = self._take()
        if self._peek.text.startswith(":"):
            raise self.error("subqueries are not answered", bracket)
        remedy = "write a duration: [5m], [1h30m]"
        if duration.kind != "number" or self._take().text != "]":
            raise self.error("this is not a range", bracket, remedy)
        try:
            promql_parser.parse(f"x[{duration.text}]")
        except ValueError as error:
            raise self.error(str(error), duration, remedy) from None

    def _not_a_selector(self, token: _Token) -> QueryError:
        if token.text in ("offset", "@"):
            problem = f"{token.text} is not answered"
        elif token.text in _OPERATORS:
            problem = f"the operator {token.text} is not answered"
        elif token.text == "(":
            problem = "parentheses are not answered"
        else:
            problem = f"{token.text} is not expected here"
        return self.error(problem, token, _QUOTE_NAME if token.text == "-" else _SELECTOR_ONLY)


def _plain_name(name: str) -> bool:
    """Whether a name means a metric where it stands alone; `on`, `bool` and `inf` do not."""
    try:
        return isinstance(promql_parser.parse(name), promql_parser.VectorSelector)
    except ValueError:
        return False
