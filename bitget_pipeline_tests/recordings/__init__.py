"""Raw messages as exchanges sent them, one a file; each folder says in SOURCES.md where they come from."""

from __future__ import annotations

from pathlib import Path

BITGET = Path(__file__).parent / "bitget"
BINANCE = Path(__file__).parent / "binance"


def bitget(name: str) -> bytes:
    """One message of Bitget's, byte for byte."""
    return (BITGET / name).read_bytes()


def binance(name: str) -> bytes:
    """One message of Binance's, byte for byte."""
    return (BINANCE / name).read_bytes()
