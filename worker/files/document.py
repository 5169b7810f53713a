"""JSON: an array of objects, at the top or inside an object, one object at a time.

Python's own decoder reads each object, as it reads a line of jsonl: NaN as Python writes it, and half a surrogate
pair as what it is. ijson refuses the first, and makes a question mark of the second.
"""

from __future__ import annotations

import codecs
import io
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from worker.errors import FileUnreadable
from worker.files.columns import shown
from worker.files.lines import DECODER, NO_OBJECT, TOO_DEEP, Found, ObjectReader
from worker.files.records import GUESS_RECORDS, ReadOptions, too_deep
from worker.files.sources import BUFFER_BYTES, FileSource, Source, spooled

_SPACES = " \t\r\n"
_SPACE = re.compile(f"[{_SPACES}]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_ARRAYS = 100
_SHOWN_ARRAYS = 10
_DEEPEST = 50
_LONGEST_WORD = len("-Infinity\\u00000")

Keys = tuple[str, ...]


class JsonReader(ObjectReader):
    """The objects of an array. Memory holds one at a time; a stream is written to a temporary file first.

    Inside an object the array is looked for in one pass. It must be the only array of objects at its depth.
    """

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self._source = source
        self._options = options
        self._spool: IO[bytes] | None = None if source.repeatable else spooled(source, as_text=True)
        self._path: Keys = ()
        try:
            announced = self._find()
            self._choose(self._first_objects())
        except BaseException:
            self.close()
            raise
        self.announcements = [*announced, *self.announcements]

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    def _objects(self) -> Iterator[Found]:
        with self._open() as stream:
            text = _Text(stream, self._source, self._options.max_line_bytes)
            for path, in_array, line_no, value, raw in text.document():
                if in_array and path == self._path:
                    problem = None if isinstance(value, dict) else NO_OBJECT
                    if problem is None and too_deep(value, raw):
                        problem = TOO_DEEP
                    if text.has_bad_bytes and _SURROGATE.search(raw):
                        problem = f"not valid {self._source.encoding}"
                    yield line_no, value if problem is None else {}, problem, "\\u" in raw

    def _open(self) -> io.BufferedReader:
        if self._spool is None:
            return self._source.open()
        self._spool.seek(0)
        return io.BufferedReader(open(self._spool.fileno(), "rb", buffering=0, closefd=False))

    def _find(self) -> list[str]:
        """Finds the array, and gives what to announce."""
        name = self._source.name
        with self._open() as stream:
            text = _Text(stream, self._source, self._options.max_line_bytes)
            if text.peek() == "[":
                return []
            shape = _Shape()
            try:
                for path, in_array, _, value, _ in text.document():
                    shape.see(path, in_array, value)
            except FileUnreadable:
                # What stands before the break is read; it is told then.
                if not shape.arrays:
                    raise
        found = shape.arrays
        if not found:
            raise self._no_array(shape)
        if len(found) > 1:
            keys = "".join(f".{key}" if key.isidentifier() else f'."{key}"' for key in found[0])
            raise FileUnreadable(
                f"{name} has {len(found)}{' or more' * (len(found) == _MOST_ARRAYS)} arrays of objects: "
                f"{', '.join(shown('.'.join(path)) for path in found[:_SHOWN_ARRAYS])}"
                f"{' …' * (len(found) > _SHOWN_ARRAYS)}. "
                "Write the one with the reviews to a file of its own, for example: "
                + _command(["jq", "-c", f"{keys}[]"], self._source)
            )
        self._path = found[0]
        return [f"records: the array {shown('.'.join(self._path))}"]

    def _no_array(self, shape: _Shape) -> FileUnreadable:
        name = self._source.name
        if shape.columns and shape.members:
            return FileUnreadable(
                f"{name} holds columns (as pandas writes them) instead of records. Turn them into jsonl: "
                + convert(COLUMNS, self._source)
            )
        return FileUnreadable(
            f"{name} holds no array of objects. If it is one record or several, write each on a line: "
            + _command(["jq", "-c", "."], self._source)
        )

    def _first_objects(self) -> list[dict[str, Any]]:
        first: list[Found] = []
        try:
            first.extend(itertools.islice(self._objects(), GUESS_RECORDS))
        except FileUnreadable:
            if not first:
                raise
        if not first:
            raise FileUnreadable(f"{self._source.name} is empty: its array has no records.")
        objects = [found for _, found, problem, _ in first if problem is None and found]
        if not objects:
            raise FileUnreadable(
                f"{self._source.name} holds an array without objects. If they are the texts, turn them into jsonl: "
                + convert(TEXTS, self._source)
            )
        return objects


@dataclass(slots=True)
class _Shape:
    """What a document looks like: its arrays of objects that are least deep, a hundred at most, and whether all of it
    is columns: `{"text": {"0": …}}`, or `{"text": […]}`."""

    arrays: list[Keys] = field(default_factory=list)
    members: int = 0
    columns: bool = True

    def see(self, path: Keys, in_array: bool, value: Any) -> None:
        self.members += 1
        if in_array and isinstance(value, dict):
            depth = len(self.arrays[0]) if self.arrays else len(path) + 1
            if len(path) < depth:
                self.arrays = [path]
            elif len(path) == depth and len(self.arrays) < _MOST_ARRAYS and path not in self.arrays:
                self.arrays.append(path)
        if not (len(path) == 1 if in_array else len(path) == 2 and path[1].isdecimal()):
            self.columns = False


Value = tuple[Keys, bool, int, Any, str]
"""Where a value stands, whether it is an item of the array there, its line, the value, and how it is written."""


class _Text:
    """The text of a document, read as far as needed, and values cut from it."""

    def __init__(self, stream: io.BufferedReader, source: Source, limit: int) -> None:
        self._stream = stream
        self._name = source.name
        self._limit = limit
        # Bytes that are no text become half surrogate pairs, which reject their record and no other.
        self._decoder = codecs.getincrementaldecoder(source.encoding)("surrogateescape")
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False
        self.has_bad_bytes = False
        self._more()
        self._text = self._text.removeprefix("\ufeff")

    def document(self) -> Iterator[Value]:
        """All values of the document but objects outside of arrays, which are gone through.

        Raises:
            FileUnreadable: it is broken or cut off from here on.
        """
        yield from self._values(())
        if self.peek():
            raise self._broken(
                "more follows after its end. If each line is an object, read it with --format jsonl"
            )

    def peek(self) -> str:
        """The next character that isn't white space, "" at the end."""
        while True:
            # Between the values of most files nothing stands.
            if self._at < len(self._text) and self._text[self._at] not in _SPACES:
                return self._text[self._at]
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            self._line += space[0].count("\n")
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _values(self, path: Keys) -> Iterator[Value]:
        opening = self.peek()
        if opening not in ("{", "[") or len(path) > _DEEPEST:
            yield (path, False, *self._value())
            return
        closing = "}" if opening == "{" else "]"
        self._at += 1
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            if opening == "{":
                _, key, _ = self._value() if self.peek() == '"' else self._fail("a name in quotes")
                self._take(":")
                yield from self._values((*path, key))
            else:
                self.peek()
                yield (path, True, *self._value())
            following = self.peek()
            if following not in (closing, ","):
                self._fail("','")
            self._at += 1
            if following == closing:
                return

    def _value(self) -> tuple[int, Any, str]:
        """The line, the next value, and how it is written; the cursor stands on it."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._is_cut(error) or not self._more():
                    raise self._broken(error.msg, error) from None
                if len(self._text) - self._at > self._limit + BUFFER_BYTES:
                    raise self._broken(f"a value of more than {self._limit} characters") from None
                continue
            except (ValueError, RecursionError):
                raise self._broken("nested too deeply or with too long a number") from None
            # A number may go on.
            if end < len(self._text) or not self._more():
                break
        raw = self._text[self._at : end]
        line = self._line
        self._line += raw.count("\n")
        self._at = end
        return line, value, raw

    def _take(self, character: str) -> None:
        if self.peek() != character:
            self._fail(repr(character))
        self._at += 1

    def _fail(self, expected: str) -> Any:
        raise self._broken(f"{expected} is expected")

    def _more(self) -> bool:
        """Reads on, about as much again as is held: a long value is tried a few times only."""
        if self._ended:
            return False
        data = self._stream.read(max(BUFFER_BYTES, len(self._text) - self._at))
        self._ended = not data
        try:
            added = self._decoder.decode(data, not data)
        except UnicodeDecodeError as error:
            raise FileUnreadable(
                f"{self._name} is not {error.encoding}: {error}. Choose another --encoding."
            ) from None
        if self._ended and not added:
            return False
        self.has_bad_bytes = self.has_bad_bytes or _SURROGATE.search(added) is not None
        self._text = self._text[self._at :] + added
        self._at = 0
        return True

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether a value may be right as far as it goes: the decoder stopped at what is held last."""
        return error.msg.startswith("Unterminated") or error.pos + _LONGEST_WORD > len(self._text)

    def _broken(self, why: str, error: json.JSONDecodeError | None = None) -> FileUnreadable:
        at = self._at if error is None else error.pos
        unterminated = error is not None and error.msg.startswith("Unterminated")
        line = self._line + self._text.count("\n", self._at, at)
        if self._ended and (unterminated or at >= len(self._text.rstrip())):
            return FileUnreadable(
                f"{self._name} is truncated: its JSON breaks off within line {line}. Only what stands before the "
                "break can be read. Copy or download it again."
            )
        return FileUnreadable(
            f"{self._name} is no valid JSON from line {line} on: {why}. Only what stands before can be read. "
            "Mend it there, or write it again."
        )


# Commands that turn what is nearly JSON into jsonl. No single quotes, which the shell needs.
COLUMNS = (
    'import json, sys; d = json.load(open(sys.argv[1], "rb")); [print(json.dumps(dict(zip(d, row)))) for row in '
    "zip(*(c.values() if isinstance(c, dict) else c for c in d.values()), strict=True)]"
)
TEXTS = 'import json, sys; [print(json.dumps({"text": t})) for t in json.load(open(sys.argv[1], "rb"))]'
LITERAL_LINES = (
    'import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in open(sys.argv[1], encoding="{}") '
    "if line.strip()]"
)
LITERAL_LIST = (
    "import ast, json, sys; [print(json.dumps(row)) for row in "
    'ast.literal_eval(open(sys.argv[1], encoding="{}").read())]'
)


def convert(code: str, source: Source) -> str:
    """The command that turns the file into jsonl."""
    return _command(["python3", "-c", code], source)


def _command(words: list[str], source: Source) -> str:
    before, after = "FILE", "FILE.jsonl"
    if isinstance(source, FileSource) and not source.packed:
        path = source.path.with_suffix(".jsonl")
        before = str(source.path)
        after = str(path if path != source.path else path.with_suffix(".mended.jsonl"))
    return f"{shlex.join([*words, before])} > {shlex.quote(after)}"
