"""
Operational settings: what is collected and how. One immutable generation, read and replaced as a whole.

Input: the same environment and settings file as the boot settings; output: a frozen `Operational` whose `generation`
changes exactly when its content does. Contains no secrets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, computed_field, field_validator, model_validator

from ..errors import SettingsInvalid, UnknownInstrument
from ..guard.remedy_rules import Mode
from ..guard.remedy_table import RULES, changed, parse_changes
from ..market.instrument import Market, Symbol
from ..market.resolution import Resolution
from ..market.retention import FOR_EVER, LONGEST, Retention, days_kept
from ..market.target import HistoryTarget
from . import reading
from .boot import Boot
from .reading import setting
from .tiers import DEEP, LIVE, LIVE_RESOLUTIONS, TIERS, Tier, key_now, tier_of, tier_of_given

MAX_CHANNELS_PER_CONNECTION = 50  # reference/bitget-api.md: more than 50 make a connection unstable
MAX_REQUESTS_PER_SECOND = 100.0  # 6,000 a minute per address over all endpoints (reference/bitget-api.md 2.2)
EARLIEST_DAY = date(2018, 1, 1)  # Bitget opened in 2018


STOOD_IN_FOR = (Market.SPOT, Market.USDTM)
"""Binance has these in the same units; its COIN-M sizes are contracts."""

IN_A_RUNNING_RUN = frozenset(
    {
        *("tier", "markets", "symbols_per_market", "min_volume_24h", "hysteresis", "pinned"),  # which symbols: selected
        *("symbols_per_connection", "max_channels"),
        *("history_days", "history_targets", "grid_start", "historical_rps", "backfill_concurrency", "stand_ins"),
        *("retention", "runs_kept_days", "compute_logs_kept_days"),
    }
)
"""What the live run takes while it goes on, and what does not concern it. Any other setting is read at its start."""


class Operational(BaseModel):
    """One generation of what an operator wants. Replaced as a whole, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tier: Tier = Tier.PUBLIC
    markets: tuple[Market, ...] = setting(
        (),
        "The markets to collect. coinm and usdcm need credentials.",
        write="markets from spot, usdtm, coinm, usdcm, separated by commas",
        shown="spot,usdtm (all four with credentials)",
        min_length=1,
    )
    symbols_per_market: int = setting(
        30,
        "How many symbols of each market are selected, by 24h volume. At most 30, or 150 with credentials.",
        write="a number from 1 to 30, or to 150 with credentials",
        shown="30 (150 with credentials)",
        ge=1,
    )
    min_volume_24h: float = setting(
        1_000_000.0,
        "The least volume of the last 24 hours, in USDT, that a selected symbol has.",
        write="a number of USDT, for example 1000000",
        shown="1000000",
        ge=0,
        allow_inf_nan=False,
    )
    hysteresis: float = setting(
        0.2,
        "How far a selected symbol may fall below rank and volume before it is dropped, as a fraction, so that the set "
        "does not flap at its edge.",
        write="a fraction from 0 to 1, for example 0.2",
        ge=0,
        le=1,
    )
    pinned: tuple[Symbol, ...] = setting(
        (),
        "Symbols that are always selected, beside those of `bitget-pipeline symbols pin`.",
        write="market:SYMBOL separated by commas, for example spot:BTCUSDT,usdtm:ETHUSDT",
        shown="none",
    )
    symbols_per_connection: int = setting(
        10,
        "Symbols on one websocket connection. At most 10, or 100 with credentials.",
        write="a number from 1 to 10, or to 100 with credentials",
        shown="10 (50 with credentials)",
        ge=1,
    )
    max_channels: int = setting(
        50,
        "Channels on one websocket connection; the smaller of this and the symbols' channels wins.",
        write="a number from 1 to 50",
        ge=1,
        le=MAX_CHANNELS_PER_CONNECTION,
    )
    live_resolutions: tuple[Resolution, ...] = setting(
        LIVE,
        "Resolutions of the candles built from live trades; seconds and minutes, of which the others are made, are always "
        "built. 1s, 5s and 15s need credentials.",
        write="resolutions from 1s, 5s, 15s, 1m, 5m, 15m, 1h, separated by commas",
        shown="1m,5m,15m,1h (with credentials also 1s,5s,15s)",
        min_length=1,
    )
    books: bool = setting(
        True,
        "Whether order books are collected: once a second the best levels of every symbol.",
        write="true or false",
        shown="true",
    )
    book_levels: int = setting(
        15,
        "Levels of each side of an order book that are kept. At most 15, or 50 with credentials; above 15 the full book is "
        "followed change by change.",
        write="a number from 1 to 15, or to 50 with credentials",
        shown="15 (50 with credentials)",
        ge=1,
    )
    tickers: bool = setting(
        True,
        "Whether tickers are collected live: the newest of every symbol each second in Redis, each minute in the table.",
        write="true or false",
        shown="true",
    )
    stand_ins: bool = setting(
        True,
        "Whether it is decided each hour which instruments of Binance could stand in for ours while Bitget is dark. Binance is "
        "asked for its public lists and prices. Without it nothing stands in.",
        write="true or false",
        shown="true",
    )
    failover: Literal["auto", "off"] = setting(
        "auto",
        "Whether Binance stands in for a market by itself while Bitget is dark. `bitget-pipeline failover` overrules it at run "
        "time, market by market.",
        write="auto or off",
    )
    failover_markets: tuple[Market, ...] = setting(
        STOOD_IN_FOR,
        "The markets that Binance may stand in for; `none` for none at all.",
        write="markets from spot, usdtm, separated by commas, or none",
        shown="spot,usdtm",
    )
    failover_steady_seconds: float = setting(
        180.0,
        "How long Bitget has to be well before Binance goes; doubled with every failover of the last hour, half an hour at most.",
        write="seconds from 1 to 1800, for example 180",
        shown="180",
        ge=1,
        le=1800,
    )
    history_days: int = setting(
        30,
        "How many days back the history of a selected symbol reaches; what lies before the grid goes into the archive.",
        write="a number of days from 1 to 3660",
        shown="30 (365 with credentials)",
        ge=1,
        le=3660,
    )
    history_targets: tuple[HistoryTarget, ...] = setting(
        DEEP,
        "Symbols whose history reaches back further, as SYMBOL=day or market:SYMBOL=day, while they are selected. What lies "
        "before the grid goes into the archive, month by month; `none` for no deep history.",
        write="SYMBOL=YYYY-MM-DD separated by commas, for example BTCUSDT=2020-01-01,spot:SOLUSDT=2022-06-01, or none",
        shown="BTCUSDT=2020-01-01,ETHUSDT=2021-01-01 (with credentials also BNB, ADA, DOT and LINK, USDT, from 2021-01-01)",
    )
    grid_start: date = setting(
        date(2025, 11, 1),
        "The first day of the day-by-symbol partitions, always the first of a month. Older history belongs to the "
        "archive. Fixed, not rolling: moving it renames no data but changes the grid that the UI shows.",
        write="the first day of a month as YYYY-MM-DD, for example 2026-01-01",
        shown="2025-11-01",
    )
    request_share: float = setting(
        0.9,
        "The share of the exchange's published request limits that all processes of this address plan with.",
        write="a fraction above 0, up to 1, for example 0.9",
        gt=0,
        le=1,
    )
    historical_rps: float = setting(
        40.0,
        "Ceiling for backfills in requests a second over all endpoints, beside the shared budget.",
        write="a number above 0, up to 100 (Bitget allows an address 6,000 requests a minute)",
        shown="40",
        gt=0,
        le=MAX_REQUESTS_PER_SECOND,
        allow_inf_nan=False,
    )
    request_processes: int = setting(
        10,
        "How many processes of this address may ask the exchange at once. While Redis is away nobody counts together, and each "
        "keeps to such a part of the request budget. At least all runs that dagster.yaml allows at once (9) and one command.",
        write="a number from 1 to 1000, at least the runs that Dagster may run at once",
        ge=1,
        le=1000,
    )
    backfill_concurrency: int = setting(
        8, "How many (symbol, day) keys one backfill run fetches at once.", write="a number from 1 to 64", ge=1, le=64
    )
    flush_max_rows: int = setting(
        20_000,
        "Trades in one insert into ClickHouse, at most.",
        write="a number from 1 to 1000000",
        ge=1,
        le=1_000_000,
    )
    flush_max_seconds: float = setting(
        1.0,
        "How long live trades wait for an insert into ClickHouse, at most, in seconds.",
        write="seconds above 0, up to 60, for example 1.0",
        gt=0,
        le=60,
    )
    stream_max_entries: int = setting(
        1_000_000,
        "How many batches of trades Redis holds while ClickHouse is away. Beyond, trades wait on local disk.",
        write="a number from 1000 to 100000000",
        ge=1_000,
        le=100_000_000,
    )
    spill_max_mib: int = setting(
        4_096,
        "How many MiB of trades wait in the home folder while Redis cannot take them. Before it is full, and when the disk "
        "is (10 % free), order books and then other channels are given up; trades beyond it are fetched again from the "
        "exchange's history.",
        write="a number from 16 to 1048576",
        ge=16,
        le=1_048_576,
    )
    throughput_degraded: float = setting(
        0.70,
        "Health is degraded when less than this share arrives of what the symbols' own paces let expect.",
        write="a fraction from 0 to 1, for example 0.7",
        shown="0.7",
        ge=0,
        le=1,
    )
    throughput_critical: float = setting(
        0.50,
        "Health is critical when less than this share arrives.",
        write="a fraction from 0 to 1, for example 0.5, below the one for degraded",
        shown="0.5",
        ge=0,
        le=1,
    )
    errors_degraded: float = setting(
        0.10,
        "Health is degraded when more than this share of the frames makes no sense.",
        write="a fraction from 0 to 1, for example 0.1",
        shown="0.1",
        ge=0,
        le=1,
    )
    errors_critical: float = setting(
        0.25,
        "Health is critical when more than this share of the frames makes no sense.",
        write="a fraction from 0 to 1, for example 0.25, above the one for degraded",
        shown="0.25",
        ge=0,
        le=1,
    )

    retention: tuple[Retention, ...] = setting(
        (),
        "How long things are kept, as NAME=days, 0 for ever; deleted by the daily job `housekeeping`, a partition (day, month or "
        "year) at a time, and told to the ledger as `expired`. Names: order_books, candles_1s, candles_live, trades, candles, "
        "tickers, open_interest, funding_rates, price_candles (mark and index), reconciliation (minutes without trades are shown "
        "by it), health, budget_readings. The rest (instruments, selections, the ledger, incidents, the scorecard) stays.",
        write="NAME=days separated by commas, for example order_books=3,trades=365",
        shown="order_books=7,candles_1s=30,health=90,budget_readings=400, the rest for ever",
    )
    runs_kept_days: int = setting(
        30,
        "After how many days finished runs of Dagster are deleted, with their events; 0 for never. Runs that were the last to "
        "store a partition, the last one of each job, and those with the tag `housekeeping/keep` stay.",
        write="a number of days from 0 to 36500",
        ge=0,
        le=LONGEST,
    )
    compute_logs_kept_days: int = setting(
        14,
        "After how many days what finished runs of Dagster printed is deleted; 0 for never. Not of runs with the tag "
        "`housekeeping/keep`.",
        write="a number of days from 0 to 36500",
        ge=0,
        le=LONGEST,
    )
    remediation: Mode = setting(
        Mode.ON,
        "Whether the pipeline helps itself by the table of rules below: on, dry_run (it only says what it would do) or off.",
        write="on, dry_run or off",
        shown="on",
    )
    remedies: dict[str, dict[str, float | bool]] = setting(
        {},
        "Other figures for rules of remediation, or rules that are off: `rule.figure=value` separated by commas, or in the "
        "settings file a table for each rule, `[remedies.backlog]`. Figures: hold, gone, cool_down, effect_within (seconds), "
        "per_hour, tries, off.",
        write="for example silent_subscription.hold=60,backlog.off=true",
        shown="none",
    )

    @field_validator("markets", "live_resolutions", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return tuple(dict.fromkeys(_split(value)))

    @field_validator("failover_markets", mode="before")
    @classmethod
    def _served(cls, value: object) -> object:
        return () if value == "none" else tuple(dict.fromkeys(_split(value)))

    @field_validator("failover_markets")
    @classmethod
    def _can_be_served(cls, value: tuple[Market, ...]) -> tuple[Market, ...]:
        for market in value:
            if market not in STOOD_IN_FOR:
                raise ValueError(f"nobody stands in for {market}")
        return value

    @field_validator("remedies", mode="before")
    @classmethod
    def _changes(cls, value: object) -> object:
        try:
            return parse_changes(value) if isinstance(value, str) else value
        except SettingsInvalid as error:
            raise ValueError(error.what) from None

    @field_validator("remedies")
    @classmethod
    def _no_contradiction(cls, value: dict[str, dict[str, float | bool]]) -> dict[str, dict[str, float | bool]]:
        try:
            changed(RULES, value)
        except SettingsInvalid as error:
            raise ValueError(error.what) from None
        return value

    @field_validator("pinned", mode="before")
    @classmethod
    def _symbols(cls, value: object) -> object:
        try:
            return tuple(dict.fromkeys(Symbol.parse(word) if isinstance(word, str) else word for word in _split(value)))
        except UnknownInstrument as error:
            raise ValueError(error.what) from None

    @field_validator("history_targets", mode="before")
    @classmethod
    def _targets(cls, value: object) -> object:
        words = [] if value == "none" else _split(value)
        return tuple(dict.fromkeys(HistoryTarget.parse(word) if isinstance(word, str) else word for word in words))

    @field_validator("retention", mode="before")
    @classmethod
    def _retentions(cls, value: object) -> object:
        words = [Retention.parse(word) if isinstance(word, str) else word for word in _split(value)]
        twice = {one.name for one in words if sum(other.name == one.name for other in words) > 1}
        if twice:
            raise ValueError(f"{sorted(twice)[0]} stands there twice")
        return tuple(words)

    @field_validator("history_targets")
    @classmethod
    def _since_bitget(cls, value: tuple[HistoryTarget, ...]) -> tuple[HistoryTarget, ...]:
        for target in value:
            if target.since < EARLIEST_DAY:
                raise ValueError(f"{target} begins before Bitget existed ({EARLIEST_DAY})")
        return value

    @field_validator("grid_start")
    @classmethod
    def _first_of_month(cls, value: date) -> date:
        if value.day != 1:
            raise ValueError("that is not the first day of a month")
        if value < EARLIEST_DAY:
            raise ValueError(f"that is before Bitget existed ({EARLIEST_DAY})")
        return value

    @field_validator("live_resolutions")
    @classmethod
    def _built_from_trades(cls, value: tuple[Resolution, ...]) -> tuple[Resolution, ...]:
        for resolution in value:
            if resolution not in LIVE_RESOLUTIONS:
                raise ValueError(f"candles of {resolution} are not built from live trades")
        return value

    @model_validator(mode="after")
    def _lines_in_order(self) -> Self:
        if self.throughput_critical >= self.throughput_degraded:
            raise ValueError(
                f"BITGET_PIPELINE_THROUGHPUT_CRITICAL is {self.throughput_critical:g}, not below "
                f"BITGET_PIPELINE_THROUGHPUT_DEGRADED ({self.throughput_degraded:g}) — less is worse here"
            )
        if self.errors_critical <= self.errors_degraded:
            raise ValueError(
                f"BITGET_PIPELINE_ERRORS_CRITICAL is {self.errors_critical:g}, not above "
                f"BITGET_PIPELINE_ERRORS_DEGRADED ({self.errors_degraded:g}) — more is worse here"
            )
        return self

    @model_validator(mode="after")
    def _within_the_tier(self) -> Self:
        rules = TIERS[self.tier]
        with_key = " — set BITGET_API_KEY, BITGET_SECRET_KEY and BITGET_PASSPHRASE, or"
        for market in self.markets:
            if market not in rules.allowed_markets:
                raise ValueError(
                    f"BITGET_PIPELINE_MARKETS has {market}, which needs credentials{with_key} leave it out"
                )
        for resolution in self.live_resolutions:
            if resolution.length < rules.finest.length:
                raise ValueError(
                    f"BITGET_PIPELINE_LIVE_RESOLUTIONS has {resolution}, which needs credentials{with_key} leave it out"
                )
        for name, most in (
            ("symbols_per_market", rules.max_symbols_per_market),
            ("symbols_per_connection", rules.max_symbols_per_connection),
            ("book_levels", rules.max_book_levels),
        ):
            value = getattr(self, name)
            if value > most:
                raise ValueError(
                    f"BITGET_PIPELINE_{name.upper()} is {value}, over the maximum of {most} of the {self.tier} tier — "
                    f"write a number from 1 to {most}"
                )
        kept = days_kept(self.retention)["candles"]
        if kept != FOR_EVER and (kept < self.history_days or self.history_targets):
            raise ValueError(
                f"BITGET_PIPELINE_RETENTION throws candles away after {kept} days, but more of them are wanted — keep at least "
                f"the {self.history_days} days of BITGET_PIPELINE_HISTORY_DAYS, and write none in "
                "BITGET_PIPELINE_HISTORY_TARGETS"
            )
        funding = days_kept(self.retention)["funding_rates"]
        if funding != FOR_EVER and funding < self.history_days:  # each hour would bring what each night deletes
            raise ValueError(
                f"BITGET_PIPELINE_RETENTION throws funding away after {funding} days, but more of them are wanted — keep at "
                f"least the {self.history_days} days of BITGET_PIPELINE_HISTORY_DAYS"
            )
        for symbol in self.pinned:
            if symbol.market not in self.markets:
                raise ValueError(
                    f"BITGET_PIPELINE_PINNED has {symbol}, but {symbol.market} is not collected — add "
                    f"{symbol.market} to BITGET_PIPELINE_MARKETS or leave the symbol out"
                )
        return self

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def generation(self) -> str:
        """A short name for exactly this content: equal settings have equal generations, in every process."""
        return self._named(excluding=frozenset())

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def fixed_for_a_live_run(self) -> str:
        """A short name for what a live run reads at its start alone: another one has to follow when it changes."""
        return self._named(excluding=IN_A_RUNNING_RUN)

    def _named(self, *, excluding: frozenset[str]) -> str:
        content = self.model_dump(mode="json", exclude={"generation", "fixed_for_a_live_run", *excluding})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def load_operational(
    boot: Boot, environ: Mapping[str, str] | None = None, *, with_stored_key: bool = True
) -> Operational:
    """
    Read the current generation: the environment over the settings file, over the tier's defaults.

    May be called again at any time; the settings file and the stored key are read anew, so that a key which is set or
    cleared changes the tier of running processes too. Raises SettingsInvalid, and the caller keeps the generation it has.
    """
    from . import known_keys

    environ = reading.environment() if environ is None else environ
    in_file = reading.read_file(boot.settings_file, required=False) if boot.settings_file else {}
    reading.refuse_unknown_keys(
        in_file, known_keys(), {"tier": "BITGET_API_KEY, BITGET_SECRET_KEY and BITGET_PASSPHRASE"}
    )
    if "remedies" in in_file and boot.settings_file:
        rules = {rule.name for rule in RULES}
        reading.refuse_unknown_names(in_file["remedies"], "remedies", rules, boot.settings_file, what="rule")
    given = {**in_file, **reading.from_environment(Operational, environ)}
    if "remedies" in in_file and given["remedies"] is in_file["remedies"] and boot.settings_file:
        _refuse_wrong_rules(in_file["remedies"], boot.settings_file)
    given.pop("tier", None)  # it follows from the credentials
    tier = tier_of(boot, key_now(boot)) if with_stored_key else tier_of_given(boot)
    return reading.build(Operational, given, {"tier": tier, **TIERS[tier].defaults})


def _refuse_wrong_rules(given: reading.Given, path: Path) -> None:
    """Figures of rules in the settings file that contradict themselves. Raises SettingsInvalid with the line of the first."""
    for name, figures in given.value.items() if isinstance(given.value, dict) else ():
        if not isinstance(figures, dict) or not all(isinstance(value, int | float) for value in figures.values()):
            continue  # a wrong type is told with all others
        try:
            changed(RULES, {name: figures})
        except SettingsInvalid as error:
            without = (one for one in figures if _stands(name, {k: v for k, v in figures.items() if k != one}))
            alone = (one for one, value in figures.items() if not _stands(name, {one: value}))
            wrong = next(without, next(alone, ""))
            where = reading.place_below(given, "remedies", name, path, wrong)
            raise SettingsInvalid(error.what, where=where, remedy=error.remedy) from None


def _stands(rule: str, figures: dict[str, float | bool]) -> bool:
    try:
        changed(RULES, {rule: figures})
    except SettingsInvalid:
        return False
    return True


def _split(value: object) -> list[Any]:
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]
