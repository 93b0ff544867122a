"""
What an operator changed: the settings file and the key, looked at every few seconds.

A file that is wrong changes nothing: the generation before stays in force everywhere, and it is said what is wrong, in this
sensor's ticks, as an incident (so as an alert) and in `status`. A key that is new is asked for in the tick that sees it, and
nothing changes before the exchange accepts it; a key that is not accepted any more lowers the tier. What is right is taken up
by the next look of `live_supervisor`.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from ..errors import CredentialsRefused, PipelineError, SettingsInvalid
from ..exchange import registry
from ..exchange.contract import Credentials, KeyVerdict
from ..history.client import HttpAddress, Patience, opened
from ..pipeline.incidents import Incident, Severity, close_incident, report_incident
from ..pipeline.watch.key_check import OUR_CLOCK, Alone, ask_account, require_read_only
from ..settings import (
    accepted,
    digest_of,
    exchange_address,
    is_being_written,
    key_now,
    refused,
    remember_acceptance,
    remember_refusal,
    ssl_context,
)
from ..storage.versions import Versions
from ..storage.warehouse import Warehouse
from .resources import PipelineResource, boot

KEY_EVERY = 300.0
"""Seconds between two questions whether the key is good, by default."""
AGAIN_AFTER = 30.0
"""Seconds after which a key that was refused once is asked for again, before that is believed; one with rights is at once."""
SETTINGS, KEY = "settings_invalid", "key_refused"
"""The kinds of incidents."""
PATIENCE = Patience(attempts=2, deadline=10.0, first_wait=0.6, longest_wait=1.0)


@dg.sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks at the settings file, and asks Bitget by a signed call whether it accepts the key: a new one at once, every one "
        "again every five minutes. A wrong file changes nothing and is told here and as an incident, and so is a new key that is "
        "refused; one that was withdrawn lowers the tier."
    ),
)
def reconfiguration(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult:
    """What is wrong now; what was told already is not told again."""
    known: dict[str, str | float] = json.loads(context.cursor) if context.cursor else {}
    now = time.time()
    name = name_of_the_key()
    if name != known.get("key", name):
        known |= {"suspected": "", "ask_key_at": 0.0}  # of another key nothing is known
    if name is not None:
        known["key"] = name
        known |= _asked(known, now)
    in_force = pipeline.in_force()
    found = {SETTINGS: str(in_force.problem or ""), KEY: refused_now()}
    for kind, what in found.items():
        if known.get(kind, "?") == what:
            continue
        try:
            asyncio.run(tell(pipeline, kind, what, at_ms=round(now * 1000)))
            known[kind] = what
        except PipelineError as error:
            context.log.info(f"the incident cannot be written: {error}")
    said = "; ".join(filter(None, found.values())) or f"generation {in_force.settings.generation} is in force"
    return dg.SensorResult(skip_reason=said, cursor=json.dumps(known))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the exchange does not accept a key, empty when it does; `final`: it need not be asked twice to be believed."""

    why: str = ""
    final: bool = False


def _asked(known: Mapping[str, str | float], now: float) -> dict[str, str | float]:
    """Ask for the key, if it is time, and take note of the answer; what of it the next tick has to know."""
    if now < float(known.get("ask_key_at", 0.0)):
        return {}
    credentials = key_now(boot())
    said = refusal_of(credentials)
    if said is None:
        return {}
    if credentials is None or not said.why:
        remember_acceptance(boot().home, credentials)
    elif said.final or known.get("suspected") or refused(boot().home, credentials):
        remember_refusal(boot().home, credentials, said.why)
    else:
        return {"suspected": said.why, "ask_key_at": now + AGAIN_AFTER}
    return {"suspected": "", "ask_key_at": now + KEY_EVERY}


def refusal_of(credentials: Credentials | None) -> Refusal | None:
    """What the exchange says of a key; None when that cannot be told now."""
    if credentials is None:
        return Refusal()
    try:
        verdict = _ask(credentials)
    except CredentialsRefused as error:
        return None if error.code in OUR_CLOCK else Refusal(str(error))
    except PipelineError:
        return None
    try:
        require_read_only(verdict, allowed=boot().allow_trading_key, where="the key that holds")
    except CredentialsRefused as error:
        return Refusal(str(error), final=True)
    return Refusal()


def name_of_the_key() -> str | None:
    """The digest of the key that is written down now, empty without; None when it cannot be read, or is being written."""
    try:
        if is_being_written(boot().settings_file, time.time()):
            return None
        credentials = key_now(boot())
    except SettingsInvalid:
        return None
    return "" if credentials is None else digest_of(credentials)


def refused_now() -> str:
    """Why the key that is written down is not used; empty when nothing is known against it."""
    try:
        credentials = key_now(boot())
    except SettingsInvalid:
        return ""
    return refused(boot().home, credentials) if credentials is not None else ""


def _ask(credentials: Credentials) -> KeyVerdict:
    place = boot()

    async def ask() -> KeyVerdict:
        proxy = place.proxy.get_secret_value() if place.proxy else None
        address = HttpAddress(
            exchange_address(place).rest_url, proxy, ssl_context(place), connect_within=3.0, answer_within=5.0
        )
        async with opened(registry.get(place.exchange), address, Alone(), patience=PATIENCE) as client:
            return await ask_account(client, credentials)

    return asyncio.run(ask())


async def tell(pipeline: PipelineResource, kind: str, what: str, *, at_ms: int) -> None:
    """One incident of a kind is open while there is something to tell, and says the newest."""
    with pipeline.warehouse() as warehouse:
        open_ones = warehouse.open_incidents(kind)
        if not what and not open_ones:
            return
        async with pipeline.history(warehouse) as history:
            await _tell(warehouse, history.versions, kind, what, at_ms)


def _held() -> str:
    """What holds although the key is refused."""
    return "the tier of the key before" if accepted(boot().home) else "the public tier"


async def _tell(warehouse: Warehouse, versions: Versions, kind: str, what: str, at_ms: int) -> None:
    open_ones = warehouse.open_incidents(kind)
    if not what:
        for one in open_ones:
            await close_incident(warehouse, versions, one, because="it is right again", at_ms=at_ms, run_id="sensor")
        return
    first = open_ones[0] if open_ones else None
    incident = Incident(
        first.incident_id if first else f"{kind}:{at_ms}",
        kind,
        Severity.DEGRADED,
        what,
        first.opened_ms if first else at_ms,
        details={"in_force": "the settings before" if kind == SETTINGS else _held()},
    )
    await report_incident(warehouse, versions, incident, run_id="sensor")
