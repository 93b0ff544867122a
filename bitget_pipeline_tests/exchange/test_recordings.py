"""Reality: every recorded V2 message is understood, every V1 and V3 message is refused by name."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal

import msgspec
import pytest

from bitget_pipeline.errors import ForeignGeneration, MalformedPage
from bitget_pipeline.exchange.bitget.adapter import Bitget
from bitget_pipeline.exchange.contract import (
    Acknowledged,
    BookFrame,
    CandlesFrame,
    Channel,
    Frame,
    Subscription,
    SubscriptionRefused,
    TickerFrame,
    TradesFrame,
)
from bitget_pipeline.market.candle import Resolution
from bitget_pipeline.market.instrument import Market, Status, Symbol

from ..recordings import BITGET, bitget

NOW_MS = 1_791_000_000_000  # a little after the newest recording
SPOT_BTC = Symbol(Market.SPOT, "BTCUSDT")
KINDS: dict[str, type] = {"ack": Acknowledged, "error": SubscriptionRefused, "books": BookFrame, "ticker": TickerFrame}
KINDS |= {"trade": TradesFrame, "candle": CandlesFrame}


def recordings(pattern: str) -> list[str]:
    return sorted(path.name for path in BITGET.glob(pattern))


def decoded(name: str) -> Frame:
    return Bitget().decode(bitget(name), received_ms=NOW_MS)


def enveloped(name: str) -> bytes:
    """An answer of which the source kept the data alone, in the envelope it came in."""
    return b'{"code":"00000","msg":"success","requestTime":1790358274804,' + bitget(name)[1:]


@pytest.mark.parametrize("name", recordings("ws_*.json") + recordings("doc_ws_*.json"))
def test_every_recorded_frame_is_understood(name: str) -> None:
    """A V2 frame becomes the kind of frame its file name says."""
    kind = next(
        kind for word, kind in KINDS.items() if word in name.replace("books_error", "error").replace("trade_ack", "ack")
    )
    if "ack" in name:
        kind = Acknowledged
    assert isinstance(decoded(name), kind)


@pytest.mark.parametrize("name", recordings("v1_ws_*.json") + recordings("v3_ws_*.json"))
def test_frames_of_other_generations_are_refused_by_name(name: str) -> None:
    """A V1 or V3 frame is refused with its generation and what to do."""
    with pytest.raises(ForeignGeneration, match=f"{name[:2].upper()} message") as refusal:
        decoded(name)
    assert "/v2/ws/public" in refusal.value.remedy


@pytest.mark.parametrize(
    ("name", "market"),
    [("v1_rest_spot_products_excerpt.json", Market.SPOT), ("v1_rest_mix_contracts_excerpt.json", Market.USDTM)],
)
def test_answers_of_the_first_generation_are_refused_by_name(name: str, market: Market) -> None:
    """A V1 instrument list is not read as a V2 one."""
    with pytest.raises(ForeignGeneration, match="V1"):
        Bitget().read_instruments(market, 200, bitget(name))


def test_answers_of_the_third_generation_are_refused_by_name() -> None:
    """A V3 instrument row resembles a V2 one and is refused all the same."""
    body = (
        b'{"code":"00000","data":[{"symbol":"BTCUSDT","category":"SPOT","baseCoin":"BTC","quoteCoin":"USDT",'
        b'"pricePrecision":"2","quantityPrecision":"6","status":"online"}]}'
    )
    with pytest.raises(ForeignGeneration, match="V3"):
        Bitget().read_instruments(Market.SPOT, 200, body)


def test_a_recorded_trade_keeps_its_values() -> None:
    """Id beyond 2^53, milliseconds, price, size and side arrive as they were sent."""
    frame = decoded("ws_spot_trade_update.json")
    assert isinstance(frame, TradesFrame)
    assert frame.batch.symbol == SPOT_BTC
    assert not frame.batch.snapshot
    assert frame.batch.rejected == 0
    assert frame.batch.trades == [(1487438024184414208, 1790358780904, 83715.7, 0.000012, True, True)]


def test_a_recorded_book_keeps_its_text_and_sequence() -> None:
    """Levels stay text, and the sequence numbers chain from snapshot to updates."""
    frames = [decoded(f"ws_usdtm_books_{name}.json") for name in ("snapshot_seq", "update_seq_1", "update_seq_2")]
    snapshot, first, second = frames
    assert isinstance(snapshot, BookFrame)
    assert isinstance(first, BookFrame)
    assert isinstance(second, BookFrame)
    assert snapshot.snapshot
    assert snapshot.asks == [("0.01039", "4499.23"), ("0.0104", "116536.86")]
    assert first.prev_seq == snapshot.seq
    assert second.prev_seq == first.seq
    assert decoded("ws_usdtm_books_snapshot_2024.json").bids[0] == ("0.5420", "468")  # type: ignore[union-attr]


def test_a_fixed_depth_book_says_its_depth() -> None:
    """books15 is told from the full book."""
    frame = decoded("ws_spot_books15.json")
    assert isinstance(frame, BookFrame)
    assert (frame.depth, frame.checksum, frame.seq) == (15, 0, None)


def test_a_recorded_refusal_names_the_stream() -> None:
    """An integer error code and the subscription it is about."""
    frame = decoded("ws_usdtm_books_error_30001.json")
    assert isinstance(frame, SubscriptionRefused)
    assert frame.code == 30001
    assert frame.subscription == Subscription(Symbol(Market.USDTM, "NOPEUSDT"), Channel.BOOKS)


def test_bars_of_a_frame_without_outer_time_are_read() -> None:
    """Eight columns, ascending, the flat forming bar included."""
    frame = decoded("ws_spot_candle1m_snapshot_no_ts.json")
    assert isinstance(frame, CandlesFrame)
    assert frame.snapshot
    assert frame.resolution is Resolution.M1
    assert [candle.open_ms for candle in frame.candles] == [1790358660000, 1790358720000, 1790358780000]
    assert frame.candles[0] == (1790358660000, 83765.17, 83765.17, 83738.85, 83738.85, 0.701343, 58742.42150798)
    assert frame.candles[-1].base_volume == 0


def test_a_recorded_futures_ticker_carries_funding_and_open_interest() -> None:
    """The futures fields are read, and its USDT volume is its quote volume."""
    frame = decoded("ws_usdtm_ticker.json")
    assert isinstance(frame, TickerFrame)
    ticker = frame.ticker
    assert ticker.symbol == Symbol(Market.USDTM, "STORJUSDT")
    assert (ticker.funding_rate, ticker.open_interest, ticker.usdt_volume_24h) == (0.0001, 8572031.1, 1355483.45089)
    assert ticker.at.isoformat() == "2024-10-31T00:00:23.155000+00:00"


@pytest.mark.parametrize(
    ("body", "resolution", "rows"),
    [
        (bitget("rest_spot_candles_1m.json"), Resolution.M1, 4),
        (enveloped("rest_spot_history_candles_1m_data_only.json"), Resolution.M1, 5),
        (bitget("rest_spot_history_candles_1h.json"), Resolution.H1, 12),
    ],
)
def test_recorded_pages_of_bars_are_read_whole(body: bytes, resolution: Resolution, rows: int) -> None:
    """Every row of a real page becomes a bar, in order, and its text is its value."""
    page = Bitget().read_candles(SPOT_BTC, resolution, 200, body)
    wire = sorted(msgspec.json.decode(body)["data"])
    assert len(page) == rows
    assert page.rejected == []
    assert [tuple(candle) for candle in page] == [(int(row[0]), *(float(value) for value in row[1:7])) for row in wire]


def test_the_page_of_the_stream_and_of_history_agree() -> None:
    """The same minutes from the candle channel and from history-candles have the same bars."""
    frame = decoded("ws_spot_candle1m_snapshot_no_ts.json")
    page = Bitget().read_candles(SPOT_BTC, Resolution.M1, 200, enveloped("rest_spot_history_candles_1m_data_only.json"))
    assert isinstance(frame, CandlesFrame)
    assert frame.candles[:2] == page[:2]


def test_a_documented_page_that_contradicts_itself_is_malformed() -> None:
    """Two different bars with one open time are never chosen between."""
    hours = bitget("rest_spot_history_candles_1h.json")
    twice = msgspec.json.decode(hours)
    twice["data"].append([twice["data"][0][0], *twice["data"][1][1:]])
    with pytest.raises(MalformedPage, match="two different bars"):
        Bitget().read_candles(SPOT_BTC, Resolution.H1, 200, msgspec.json.encode(twice))


def test_bars_aligned_to_another_time_zone_are_refused() -> None:
    """The documentation's monthly bars open at 16:00 UTC: asked for as days, none of them makes sense."""
    with pytest.raises(MalformedPage, match="not aligned to UTC"):
        Bitget().read_candles(SPOT_BTC, Resolution.D1, 200, bitget("doc_rest_spot_history_candles.json"))


def test_recorded_books_over_http_keep_their_digits() -> None:
    """Text levels stay text; number levels keep trailing zeros."""
    spot = Bitget().read_book(SPOT_BTC, 200, bitget("rest_spot_orderbook.json"))
    futures = Bitget().read_book(Symbol(Market.USDTM, "BTCUSDT"), 200, bitget("rest_usdtm_merge_depth.json"))
    assert spot.asks[0] == ("84522.77", "0.9968160000000000")
    assert (len(spot.bids), len(futures.bids), len(futures.asks)) == (12, 100, 100)
    assert futures.asks[2] == ("84497.0", "0.0001")
    assert ("84502.3", "0.0610") in futures.asks


def test_a_recorded_contract_has_exact_steps() -> None:
    """Tick = priceEndStep × 10^-pricePlace, step = sizeMultiplier, empty times are no times."""
    page = Bitget().read_instruments(Market.USDCM, 200, enveloped("rest_usdcm_contracts_data_only.json"))
    (contract,) = page.instruments
    assert contract.symbol == Symbol(Market.USDCM, "BTCPERP")
    assert (contract.price_step, contract.size_step) == (Decimal("0.1"), Decimal("0.0001"))
    assert (contract.kind, contract.status, contract.exchange_status) == ("perpetual", Status.TRADING, "normal")
    assert contract.listed_at is None
    assert contract.delists_at is None


def test_documented_answers_of_the_spot_market_are_read() -> None:
    """Symbols, tickers, trades, time and book in the documentation's shape."""
    exchange = Bitget()
    (pair,) = exchange.read_instruments(Market.SPOT, 200, bitget("doc_rest_spot_symbols.json")).instruments[:1]
    assert pair.symbol == SPOT_BTC
    assert exchange.read_tickers(Market.SPOT, 200, bitget("doc_rest_spot_tickers.json"))[0].symbol == SPOT_BTC
    assert exchange.read_server_time(200, bitget("doc_rest_time.json")) == 1688008631614
    for name in ("doc_rest_spot_fills.json", "doc_rest_spot_fills_history.json"):
        trades = exchange.read_trades(SPOT_BTC, 200, bitget(name), received_ms=NOW_MS)
        assert trades == sorted(trades, key=lambda trade: (trade.ts_ms, trade.trade_id))
        assert len(trades) > 1
    assert exchange.read_book(SPOT_BTC, 200, bitget("doc_rest_spot_orderbook.json")).snapshot


def test_trade_ids_carry_the_time_of_every_recorded_fill() -> None:
    """(id >> 22) + epoch is the exchange's own time, to the millisecond, and seeks to it."""
    exchange = Bitget()
    rows = [line.split(",") for line in bitget("rest_spot_fills_excerpt.csv").decode().splitlines()[1:]]
    assert len(rows) == 25
    for ts_ms, trade_id, *_ in rows:
        assert exchange.trade_time_ms(int(trade_id)) == int(ts_ms)
        assert exchange.id_at(int(ts_ms)) <= int(trade_id) < exchange.id_at(int(ts_ms) + 1)


def test_fills_history_gets_its_milliseconds_back() -> None:
    """Times cut to the second and capitalised sides, as fills-history sends them, become the exact trades of fills."""
    rows = [line.split(",") for line in bitget("rest_spot_fills_excerpt.csv").decode().splitlines()[1:]]
    body = msgspec.json.encode(
        {
            "code": "00000",
            "data": [
                {"tradeId": trade_id, "side": side.capitalize(), "price": price, "size": size, "ts": ts_ms[:-3] + "000"}
                for ts_ms, trade_id, side, price, size in rows
            ],
        }
    )
    trades = Bitget().read_trades(SPOT_BTC, 200, body, received_ms=NOW_MS)
    assert [(str(t.ts_ms), str(t.trade_id), t.buy) for t in reversed(trades)] == [
        (r[0], r[1], r[2] == "buy") for r in rows
    ]
    assert all(trade.exact_ms for trade in trades)


def test_every_recording_is_the_one_its_source_entry_describes() -> None:
    """Each file has an entry with source, commit, licence and its sha256, and no entry lacks its file."""
    entries = re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", (BITGET / "SOURCES.md").read_text(), flags=re.M | re.S)
    assert {name for name, _ in entries} == {path.name for path in BITGET.iterdir()} - {"SOURCES.md"}
    for name, entry in entries:
        assert hashlib.sha256(bitget(name)).hexdigest() in entry, name
        assert re.search(r"source: .+; commit: .+\n- licence: .+", entry), name
