"""Strict readers of text, JSON, YAML and zstd: what can be written in two ways is refused.

An entry was written by a stranger. With a lenient reader, two programs may read different values
from the same bytes (a key given twice, NaN, a byte-order mark); these readers refuse such files. No
file can make them execute something, use much memory or run for long.
"""

from __future__ import annotations

import json
import math
import re
import struct
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

import yaml

from cpt_bench.documents import KeyTwiceError, refuse_key_twice
from cpt_bench.leaderboard.findings import Refused, printable

BIGGEST_INT: Final = 2**53
"""A reader that stores numbers as doubles would change larger ones."""

MAX_DOCUMENT: Final = 8 << 20
MAX_YAML: Final = 64 << 10
MAX_LINE: Final = 256 << 10
MAX_DEPTH: Final = 24
MAX_WINDOW: Final = 8 << 20
MAX_UNPACKED: Final = 256 << 20
MAX_RATIO: Final = 4000
_BLOCK: Final = 128 << 10
_BOM = b"\xef\xbb\xbf"
_MAGIC = 0xFD2FB528


def _refuse(code: str, what: str) -> NoReturn:
    raise Refused(code, what)


def text_of(data: bytes) -> str:
    """Decode UTF-8 without a byte-order mark, NUL or carriage return."""
    if data.startswith((_BOM, b"\xff\xfe", b"\xfe\xff")):
        _refuse("bom", "begins with a byte-order mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse("not-utf8", f"is not UTF-8 (byte {error.start}: {error.reason})")
    if "\r" in text:
        _refuse("line-ends", "has carriage returns; lines end in \\n alone")
    if "\0" in text:
        _refuse("control-character", "holds a NUL character")
    return text


def load_json(text: str) -> Any:
    """Read JSON with each key once, finite numbers, integers up to 2^53 and no lone surrogates."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=lambda name: _refuse("not-finite", f"holds {name}"),
            parse_int=_int,
            parse_float=_float,
        )
    except RecursionError:
        _refuse("too-deep", "is nested too deeply")
    except json.JSONDecodeError as error:
        _refuse("not-json", f"is not valid JSON ({error})")
    _check_tree(value, 0)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            _refuse("duplicate-key", f"gives the key {key!r} twice")
        if not unicodedata.is_normalized("NFC", key):
            _refuse("unicode-form", f"the key {key!r} is not in Unicode form NFC")
        found[key] = value
    return found


def _int(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > BIGGEST_INT:
        _refuse("huge-number", f"holds the whole number {digits[:20]}…, beyond 2^53")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _refuse("not-finite", f"holds {digits[:20]}, which is not finite")
    return value


def _check_tree(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        _refuse("too-deep", f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_tree(key, depth + 1)
            _check_tree(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_tree(inner, depth + 1)
    elif isinstance(value, str):
        _check_surrogates(value)


def _check_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        _refuse("lone-surrogate", f"holds half a character in {printable(ascii(text), 60)}")


def read_json(path: Path, limit: int = MAX_DOCUMENT) -> Any:
    """A JSON document, read strictly."""
    return _placed(path, lambda: load_json(text_of(read_bytes(path, limit))))


def read_bytes(path: Path, limit: int) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        _refuse("too-big", f"is larger than {limit:,} bytes")
    return data


def _placed(path: Path, read: Any) -> Any:
    try:
        return read()
    except Refused as error:
        error.where = error.where or path.name
        raise


# ------------------------------------------------------------------------------------------ rows

_Scan = Callable[[str, int], tuple[Any, int]]
_SCAN: _Scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_SCAN_HUGE: _Scan = json.JSONDecoder(parse_int=_int).scan_once  # type: ignore[attr-defined]
_HUGE = re.compile(r"[0-9]{16}")
"""A line without 16 digits in a row has no integer beyond 2^53, so the fast scanner can read it:
checking each integer in Python takes most of the time."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _make_encode() -> Callable[[Any], str]:
    """An encoder like ``json.dumps``, but set up once, not for each call: a third of the time."""
    from json import encoder

    make = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return _ENCODER.encode
    one = make(
        None, _ENCODER.default, encoder.encode_basestring, None, ": ", ", ", False, False, False
    )  # fmt: skip
    return lambda value: "".join(one(value, 0))


_ENCODE = _make_encode()


def row_of(line: bytes) -> dict[str, Any]:
    """Read one line of JSON Lines, which must be written exactly as this package writes it.

    The check is to write it again: that gives the same bytes only if no key occurs twice, numbers
    are finite and in their shortest form, and nothing is escaped or spaced in another way. (A lone
    surrogate can only be written as an escape, so it does not pass either.)
    """
    if len(line) > MAX_LINE:
        _refuse("too-big", f"is longer than {MAX_LINE:,} bytes")
    try:
        text = line.decode("utf-8")
        row, end = (_SCAN_HUGE if _HUGE.search(text) else _SCAN)(text, 0)
        if type(row) is dict and end == len(text) and _ENCODE(row) == text:
            return row
    except (ValueError, RecursionError, StopIteration):
        pass
    value = load_json(text_of(line))  # the slow reader finds out what is wrong
    if not isinstance(value, dict):
        _refuse("not-json", "is not a JSON object")
    _refuse("not-canonical", "is JSON, but not written as json.dumps(row, ensure_ascii=False)")


# ---------------------------------------------------------------------------------------- zstd


class Frame(NamedTuple):
    """The sizes in bytes that a zstd file states, read before anything is unpacked."""

    content: int
    packed: int


def read_frame(path: Path, limit: int = MAX_UNPACKED) -> Frame:
    """Check the headers and blocks of a zstd file without unpacking it.

    It must be exactly one frame with a stated size, a checksum, a small window, no dictionary, and
    nothing after it. The number of blocks limits how much unpacking can yield, so a file that would
    fill the memory is found here.
    """
    import zstandard

    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(18)
        if len(head) < 4 or struct.unpack("<I", head[:4])[0] != _MAGIC:
            _refuse("not-zstd", "is not one zstd frame (wrong first bytes)")
        try:
            header = zstandard.get_frame_parameters(head)
            start = zstandard.frame_header_size(head)
        except zstandard.ZstdError as error:
            _refuse("broken-zstd", f"has a broken zstd header ({error})")
        if header.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            _refuse("zstd-size-unknown", "does not state its unpacked size")
        if header.content_size > limit:
            _refuse("bomb", f"would unpack to {header.content_size:,} bytes; at most {limit:,}")
        if header.content_size > MAX_RATIO * size:
            _refuse("bomb", f"would unpack to {header.content_size // size:,} times its size")
        if header.window_size > max(MAX_WINDOW, 1):
            _refuse(
                "bomb", f"asks for a window of {header.window_size:,} bytes; at most {MAX_WINDOW:,}"
            )
        if header.dict_id:
            _refuse("zstd-dictionary", f"needs the dictionary {header.dict_id}")
        if not header.has_checksum:
            _refuse("zstd-no-checksum", "has no checksum")
        blocks = _walk(stream, start, size)
    if header.content_size > blocks * _BLOCK:
        _refuse("broken-zstd", f"states {header.content_size:,} bytes but has {blocks} blocks")
    return Frame(header.content_size, size)


def _walk(stream: BinaryIO, start: int, size: int) -> int:
    """Count the blocks of a frame; with its checksum, it must end where the file ends."""
    position, blocks, last = start, 0, False
    while not last:
        stream.seek(position)
        header = stream.read(3)
        if len(header) < 3:
            _refuse("truncated-zstd", "is cut off: its last block is missing")
        bits = int.from_bytes(header, "little")
        last, kind, length = bool(bits & 1), bits >> 1 & 3, bits >> 3
        if kind == 3 or length > _BLOCK:
            _refuse("broken-zstd", f"has a broken block at byte {position}")
        position += 3 + (1 if kind == 1 else length)
        blocks += 1
    position += 4
    if position > size:
        _refuse("truncated-zstd", f"is cut off: {position - size} bytes are missing")
    if position < size:
        _refuse("zstd-trailing-data", f"has {size - position} bytes after its frame")
    return blocks


def chunks(path: Path, limit: int = MAX_UNPACKED) -> Iterator[bytes]:
    """Unpack a zstd file piece by piece."""
    import zstandard

    frame, total = read_frame(path, limit), 0
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    with path.open("rb") as stream, unpacker.stream_reader(stream) as reader:
        while True:
            try:
                piece = reader.read(1 << 18)
            except zstandard.ZstdError as error:
                _refuse("broken-zstd", f"does not unpack ({error})")
            if not piece:
                break
            total += len(piece)
            if total > frame.content:
                _refuse(
                    "broken-zstd", f"unpacks to more than the {frame.content:,} bytes it states"
                )
            yield piece
    if total != frame.content:
        _refuse(
            "truncated-zstd", f"unpacks to {total:,} bytes, not the {frame.content:,} it states"
        )


def lines(path: Path, limit: int = MAX_UNPACKED, digest: Any = None) -> Iterator[bytes]:
    """Unpack a zstd file line by line, without the newlines; the last line must have one too.

    Args:
        path: The file.
        limit: The most bytes to unpack.
        digest: A hashlib object to update with the unpacked bytes.
    """
    rest, first = b"", True
    for piece in chunks(path, limit):
        if digest is not None:
            digest.update(piece)
        if first and piece.startswith(_BOM):
            _refuse("bom", "begins with a byte-order mark")
        first = False
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE:
            _refuse("too-big", f"has a line longer than {MAX_LINE:,} bytes")
        yield from whole
    if rest:
        _refuse("truncated-zstd", "its last line has no end")


# ---------------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """YAML as plain data: strings, numbers, booleans, lists, mappings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    try:
        refuse_key_twice(loader, node)
    except KeyTwiceError as error:
        _refuse("duplicate-key", f"gives the key {error.key!r} twice, {error.lines}")
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            _refuse("not-yaml", f"has the key {key!r}, which is not text")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)

_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def read_yaml(path: Path) -> Any:
    """A YAML document without tags, anchors, aliases or a key given twice."""
    return _placed(path, lambda: load_yaml(text_of(read_bytes(path, MAX_YAML))))


def load_yaml(text: str) -> Any:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                _refuse("yaml-alias", "uses an anchor or alias; write the value out")
            if tag := getattr(event, "tag", None):
                _refuse("yaml-tag", f"uses the tag {tag}; entries hold plain data")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                _refuse("too-deep", f"is nested more than {MAX_DEPTH} levels deep")
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        _refuse("not-yaml", f"is not valid YAML ({' '.join(str(error).split())[:120]})")
    _check_text(value)
    return value


def _check_text(value: Any) -> None:
    """Check text that people read: in Unicode form NFC, without invisible characters."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)
    elif isinstance(value, float) and not math.isfinite(value):
        _refuse("not-finite", f"holds {value}")
    elif isinstance(value, int) and abs(value) > BIGGEST_INT:
        _refuse("huge-number", f"holds the whole number {str(value)[:20]}…, beyond 2^53")
    elif isinstance(value, str):
        _check_surrogates(value)
        if not unicodedata.is_normalized("NFC", value):
            _refuse("unicode-form", f"{printable(value, 60)!r} is not in Unicode form NFC")
        if found := _HIDDEN.search(value):
            _refuse("control-character", f"{printable(value, 60)} holds U+{ord(found[0]):04X}")
