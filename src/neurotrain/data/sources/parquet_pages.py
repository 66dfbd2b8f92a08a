"""What the pages of a Parquet file claim to unpack to, read before anything is unpacked.

A footer tells sizes of columns, and so does each page; readers believe the page and take that much memory. A few
hundred bytes of pages may claim gigabytes each whatever the footer says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from neurotrain.data.sources.base import SampleFormatError
from neurotrain.data.sources.parquet_footer import ParquetFooter

_WINDOW = 64 * 2**10
"""Bytes read of a page at first: its header, with statistics, is nearly always shorter."""

_LONGEST = 16 * 2**20
"""Bytes of a page's header."""

_MOST = 1_000_000
"""Pages of a column in a row group."""

_BOOL, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (1, 2), 3, 6, 7, 8, 9, 10, 11, 12
"""Types of Thrift's compact protocol; those between byte and I64 are whole numbers too."""

_DEEPEST = 8
_UNPACKED, _PACKED = 2, 3

Read = Callable[[int, int], bytes]
"""Bytes of a file: from where, how many."""


def check_pages(
    footer: ParquetFooter, read: Read, *, columns: Sequence[str], groups: Sequence[int], largest: int
) -> None:
    """Walk from page to page of some columns and add up what they claim.

    Args:
        footer: of the file.
        read: of the file.
        columns: dotted names of leaves, or of what holds them.
        groups: numbers of row groups.
        largest: bytes that a row group may unpack to.

    Raises:
        SampleFormatError: if it claims more, or pages are not where the footer says.
    """
    totals = dict.fromkeys(groups, 0)
    for number, name, start, end in _chunks(footer, columns, groups):
        where = f"{footer.uri}: row group {number}"
        if not 4 <= start <= end <= footer.size:
            raise SampleFormatError(f"{where} is corrupted: {name!r} lies at bytes {start} to {end} of {footer.size}")
        try:
            totals[number] += _claimed(read, start, end, most=largest - totals[number])
        except _BrokenPageError as error:
            raise SampleFormatError(f"{where} is corrupted: {name!r}: {error}") from None
        except _TooLargeError:
            raise SampleFormatError(
                f"{where}: the pages of {name!r} claim to unpack to more than {largest} bytes: raise largest_group"
            ) from None


def chunk_ranges(footer: ParquetFooter, *, columns: Sequence[str], groups: Sequence[int]) -> list[tuple[int, int]]:
    """Where some columns of some row groups lie in a file: from where, how many bytes.

    Args:
        footer: of the file.
        columns: dotted names of leaves.
        groups: numbers of row groups.
    """
    found = [(start, end - start) for _, _, start, end in _chunks(footer, columns, groups)]
    return [(start, length) for start, length in found if 0 <= start <= start + length <= footer.size]


def _chunks(
    footer: ParquetFooter, columns: Sequence[str], groups: Sequence[int]
) -> Iterator[tuple[int, str, int, int]]:
    """Row group, column, begin and end of each column in each row group."""
    wanted = set(columns)
    for number in groups:
        group = footer.metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            path = chunk.path_in_schema.split(".")
            if any(".".join(path[:length]) in wanted for length in range(1, len(path) + 1)):
                first, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset
                start = min(first, dictionary) if chunk.has_dictionary_page and dictionary else first
                yield number, chunk.path_in_schema, start, start + chunk.total_compressed_size


class _BrokenPageError(ValueError):
    pass


class _TooLargeError(ValueError):
    pass


def _claimed(read: Read, start: int, end: int, *, most: int) -> int:
    total, at = 0, start
    for _ in range(_MOST):
        if at >= end:
            return total
        header, unpacked, packed = _page(read, at, end)
        at += header + packed
        total += unpacked
        if packed < 0 or unpacked < 0 or at > end:
            raise _BrokenPageError(f"a page of {packed} bytes that unpacks to {unpacked} does not fit there")
        if total > most:
            raise _TooLargeError
    raise _BrokenPageError(f"it has more than {_MOST} pages")


def _page(read: Read, start: int, end: int) -> tuple[int, int, int]:
    """Length of a page's header, and its bytes unpacked and packed."""
    window = _WINDOW
    while True:
        length = min(window, end - start)
        try:
            return page_header(read(start, length))
        except IndexError:
            if length < window or window >= _LONGEST:
                raise _BrokenPageError(f"the page at byte {start} is cut off") from None
            window *= 16
        except ValueError as error:
            raise _BrokenPageError(f"the page at byte {start} is none ({error})") from None


def page_header(data: bytes) -> tuple[int, int, int]:
    """Read Parquet's ``PageHeader``, of which only the sizes are looked at.

    Args:
        data: begins with it.

    Returns:
        Length of the header, bytes of the page unpacked, bytes of it as it is stored.

    Raises:
        IndexError: if the data end within it.
        ValueError: if it is none.

    Reference:
        ``parquet.thrift`` of Apache Parquet, ``PageHeader``; "Thrift compact protocol encoding".

    Example:
        >>> page_header(bytes([0x15, 0x00, 0x15, 0x08, 0x15, 0x06, 0x00]))
        (7, 4, 3)
    """
    reader = _Compact(data)
    sizes: dict[int, int] = {}
    for field, kind in reader.fields():
        if field in (_UNPACKED, _PACKED) and _BYTE < kind <= _I64:
            sizes[field] = reader.number()
        else:
            reader.skip(kind, 0)
    if sizes.keys() != {_UNPACKED, _PACKED}:
        raise ValueError("it tells no sizes")
    return reader.at, sizes[_UNPACKED], sizes[_PACKED]


class _Compact:
    """Thrift's compact protocol, as far as it takes to pass over it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        found = self.data[self.at]
        self.at += 1
        return found

    def varint(self) -> int:
        found = shift = 0
        while shift < 70:
            part = self.byte()
            found |= (part & 0x7F) << shift
            shift += 7
            if part < 0x80:
                return found
        raise ValueError("a number without end")

    def number(self) -> int:
        found = self.varint()
        return found >> 1 ^ -(found & 1)  # zigzag

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a structure; the caller takes its value before the next."""
        field = 0
        while head := self.byte():
            field = field + (head >> 4) if head >> 4 else self.number()
            yield field, head & 0x0F

    def skip(self, kind: int, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("it nests too deeply")
        if kind in _BOOL:
            return
        if kind in (_BYTE, _DOUBLE, _BINARY):
            length = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self.varint()
            self.at += length
            if self.at > len(self.data):
                raise IndexError("the data end")
        elif _BYTE < kind <= _I64:
            self.varint()
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind in (_LIST, _SET):
            head = self.byte()
            count = head >> 4 if head >> 4 < 15 else self.varint()
            self._skip_all(count, (head & 0x0F,), depth)
        elif kind == _MAP:
            count = self.varint()
            kinds = self.byte() if count else 0
            self._skip_all(count, (kinds >> 4, kinds & 0x0F), depth)
        else:
            raise ValueError(f"a value of type {kind}")

    def _skip_all(self, count: int, kinds: tuple[int, ...], depth: int) -> None:
        if count > len(self.data):
            raise IndexError("the data end")
        for _ in range(count):
            for kind in kinds:
                self.at += kind in _BOOL  # in a list they take a byte each
                self.skip(kind, depth + 1)
