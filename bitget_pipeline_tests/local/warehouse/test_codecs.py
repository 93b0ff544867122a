"""Compressed requests are read whatever their pieces; compressed answers are what others can read."""

from __future__ import annotations

import gzip
import zlib

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.local.warehouse.codecs import SERVED, chosen_encoding, decoder, encoder
from bitget_pipeline.local.warehouse.refusals import Refusal

COMPRESS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "": bytes,
}
DECOMPRESS = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "lz4": lz4.frame.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    "": bytes,
}


@given(
    encoding=st.sampled_from(sorted(COMPRESS)),
    frames=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5),
    size=st.integers(1, 50),
)
def test_a_row_of_frames_is_read_in_pieces_of_any_size(encoding, frames, size):
    """clickhouse-connect compresses every block as a frame of its own; the network cuts where it likes."""
    sent = b"".join(COMPRESS[encoding](frame) for frame in frames)
    decode = decoder(encoding)
    got = b"".join(plain for at in range(0, len(sent), size) for plain in decode.feed(sent[at : at + size]))
    decode.finish()

    assert got == b"".join(frames)


@given(encoding=st.sampled_from([*SERVED, ""]), pieces=st.lists(st.binary(max_size=300), max_size=5))
def test_an_answer_is_read_by_anyone(encoding, pieces):
    """Pieces compressed here, undone by the formats' own libraries."""
    encode = encoder(encoding)
    sent = b"".join([*(encode.feed(piece) for piece in pieces), encode.finish()])

    assert DECOMPRESS[encoding](sent) == b"".join(pieces)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_a_body_that_ends_too_early_or_is_garbage_is_refused(encoding):
    """Half an upload is no upload."""
    whole = COMPRESS[encoding](b"1,2\n" * 1000)
    half = decoder(encoding)
    list(half.feed(whole[: len(whole) // 2]))
    with pytest.raises(Refusal, match="ends in the middle"):
        half.finish()
    with pytest.raises(Refusal, match="not valid"):
        list(decoder(encoding).feed(b"this is no compressed data at all"))


def test_the_cheapest_accepted_encoding_is_chosen():
    """By our order, whatever the client's; none where nothing fits."""
    assert chosen_encoding("gzip, br;q=0.9, lz4;q=0.5") == "lz4"
    assert chosen_encoding("gzip;q=0, deflate") == "deflate"
    assert chosen_encoding("br") == ""


def test_an_unknown_encoding_is_refused_by_name():
    """With what would be understood."""
    with pytest.raises(Refusal, match="gzip, deflate, zstd, lz4"):
        decoder("snappy")
