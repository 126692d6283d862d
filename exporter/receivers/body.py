"""Bodies, and how much of them may be there at once."""

import zlib

_WINDOW = {"gzip": 31, "deflate": 15}

ENCODINGS = tuple(_WINDOW)


class TooLarge(Exception):
    """The body is larger than the limit, packed or unpacked."""


class BadEncoding(Exception):
    """The body is not what its encoding says. The text has nothing of the body in it."""


class Full(Exception):
    """There is no room for more bodies just now."""


class Budget:
    """Bytes that may be held at once, by all requests of a receiver together."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, size: int) -> None:
        """Full if there is no room for `size` bytes more."""
        if size > self._left:
            raise Full
        self._left -= size

    def give_back(self, size: int) -> None:
        self._left += size


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """`body` unpacked; `encoding` is one of ENCODINGS. Never more than `limit` bytes, whatever the body claims."""
    unpacker = zlib.decompressobj(_WINDOW[encoding])
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise BadEncoding(f"the body is not {encoding}") from None
    if len(unpacked) > limit:
        raise TooLarge
    if not unpacker.eof:
        raise BadEncoding(f"the body ends before its {encoding} stream does")
    if unpacker.unused_data:
        # A second gzip member: no OTLP sender makes one, and a million empty ones would cost quadratic time.
        raise BadEncoding(f"the body goes on after its {encoding} stream")
    return unpacked


def packed_as(message: bytes) -> str | None:
    """The encoding of a gRPC message that is packed, by how it begins.

    An OTLP request can't begin with either: 1f would be a field of wire type 7, which there is none of, 78 a field 15.
    """
    if message[:2] == b"\x1f\x8b":
        return "gzip"
    if len(message) >= 2 and message[0] == 0x78 and int.from_bytes(message[:2], "big") % 31 == 0:
        return "deflate"
    return None
