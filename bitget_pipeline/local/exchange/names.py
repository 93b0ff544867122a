"""
The coins of the simulated market: well-known leaders with plausible prices, and made-up names for the long tail.

Prices are rough levels of autumn 2026 in USDT; only their order of magnitude matters.
"""

from __future__ import annotations

from .noise import seed_of

# Most active first.
LEADERS: tuple[tuple[str, float], ...] = (
    ("BTC", 84000.0),
    ("ETH", 2750.0),
    ("SOL", 132.0),
    ("XRP", 2.05),
    ("DOGE", 0.148),
    ("BGB", 3.6),
    ("BNB", 850.0),
    ("SUI", 1.55),
    ("ADA", 0.43),
    ("PEPE", 0.0000046),
    ("LINK", 12.8),
    ("AVAX", 13.6),
    ("TRX", 0.281),
    ("LTC", 86.0),
    ("BONK", 0.0000098),
    ("HYPE", 34.0),
    ("ENA", 0.262),
    ("WLD", 0.63),
    ("AAVE", 168.0),
    ("NEAR", 2.12),
    ("UNI", 6.3),
    ("ARB", 0.214),
    ("ONDO", 0.51),
    ("OP", 0.325),
    ("APT", 2.45),
    ("TON", 1.58),
    ("SHIB", 0.0000086),
    ("BCH", 525.0),
    ("DOT", 2.31),
    ("FIL", 1.62),
    ("ATOM", 2.53),
    ("ICP", 4.4),
    ("INJ", 6.1),
    ("TIA", 0.66),
    ("SEI", 0.146),
    ("ETC", 13.9),
    ("XLM", 0.247),
    ("HBAR", 0.142),
    ("ALGO", 0.143),
    ("VET", 0.0137),
    ("JUP", 0.25),
    ("PYTH", 0.082),
    ("STRK", 0.117),
    ("WIF", 0.38),
    ("FLOKI", 0.0000475),
    ("LDO", 0.71),
    ("CRV", 0.42),
    ("RENDER", 1.72),
    ("FET", 0.245),
    ("TAO", 290.0),
    ("KAS", 0.045),
    ("GALA", 0.0074),
    ("SAND", 0.152),
    ("MANA", 0.163),
    ("AXS", 0.89),
    ("EOS", 0.21),
    ("CHZ", 0.03),
    ("APE", 0.23),
    ("COMP", 34.0),
    ("MKR", 1450.0),
    ("SNX", 0.52),
    ("DYDX", 0.19),
    ("GMX", 8.4),
    ("PENDLE", 2.2),
    ("JTO", 0.47),
    ("ORDI", 4.1),
    ("IMX", 0.31),
    ("GRT", 0.051),
    ("RUNE", 0.69),
    ("ZEC", 310.0),
    ("DASH", 52.0),
    ("XMR", 390.0),
    ("QNT", 81.0),
    ("EGLD", 8.7),
    ("THETA", 0.39),
    ("KAVA", 0.13),
    ("MINA", 0.088),
    ("ROSE", 0.016),
    ("ZIL", 0.0061),
    ("IOTA", 0.108),
)

_HEADS = ("ZO", "KA", "MI", "RU", "TE", "LO", "VA", "NI", "SO", "PA", "GE", "HU", "BI", "DO", "FY", "XE")
_MIDDLES = ("R", "N", "L", "K", "V", "ST", "M", "PH", "RA", "ND", "X", "T", "LI", "QU", "G", "Z")
_TAILS = ("A", "O", "IX", "ON", "U", "AR", "EX", "IO", "Y", "AI", "US", "EN", "OR", "IN", "ET", "IS")


def tail_coin(number: int) -> tuple[str, float]:
    """The made-up coin of that number: its name (distinct for 65,536 numbers) and a price between 0.00001 and 100."""
    scrambled = (number * 40_503 + 12_345) & 0xFFFF
    name = _HEADS[scrambled & 15] + _MIDDLES[(scrambled >> 4) & 15] + _TAILS[(scrambled >> 8) & 15]
    name += ("", "D", "P", "FI", "GO", "2", "CAT", "INU", "AI", "X", "DAO", "PAY", "BOT", "ETH", "NET", "SWAP")[
        scrambled >> 12
    ]
    h = seed_of("tail-price", number)
    digits = 1.0 + (h & 0xFFFF) / 65536.0 * 9.0
    return name, digits * 10.0 ** (((h >> 16) % 7) - 5)
