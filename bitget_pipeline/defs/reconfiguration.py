"""
What an operator changed: the settings file and the key, looked at every few seconds.

A file that is wrong changes nothing: the generation before stays in force everywhere, and it is said what is wrong, in this
sensor's ticks, as an incident (so as an alert) and in `status`. A key that the exchange does not accept any more lowers the
tier the same way. What is right is taken up by the next look of `live_supervisor`.
"""

import asyncio
import json
import time
from collections.abc import Callable

import dagster as dg

from ..errors import CredentialsRefused, PipelineError, SettingsInvalid
from ..exchange import registry
from ..exchange.contract import Credentials
from ..history.client import HttpAddress, Patience, opened
from ..pipeline.incidents import Incident, Severity, close_incident, report_incident
from ..pipeline.watch.key_check import OUR_CLOCK, Alone, ask_account, require_read_only
from ..settings import exchange_address, forget_refusal, key_now, refused, remember_refusal, ssl_context
from ..storage.versions import Versions
from ..storage.warehouse import Warehouse
from .resources import PipelineResource, boot

KEY_EVERY = 300.0
"""Seconds between two questions whether the key is good, by default."""
AGAIN_AFTER = 30.0
"""Seconds after which a key that was refused once is asked for again, before that is believed."""
SETTINGS, KEY = "settings_invalid", "key_refused"
"""The kinds of incidents."""
PATIENCE = Patience(attempts=2, deadline=10.0, first_wait=0.6, longest_wait=1.0)


@dg.sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks at the settings file and, every five minutes, asks Bitget by a signed call whether it accepts the key. A wrong "
        "file changes nothing and is told here and as an incident; a key that was withdrawn lowers the tier."
    ),
)
def reconfiguration(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult:
    """What is wrong now; what was told already is not told again."""
    known: dict[str, str | float] = json.loads(context.cursor) if context.cursor else {}
    now = time.time()
    suspected = known.pop("suspected", "")
    if now >= float(known.get("ask_key_at", 0.0)):
        why = refusal_of_the_key()
        if why is not None:
            known["ask_key_at"] = now + KEY_EVERY
            if why and not suspected and not refused_now():
                known |= {"suspected": why, "ask_key_at": now + AGAIN_AFTER}
            else:
                take_note(why)
    elif suspected:
        known["suspected"] = suspected
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


def refusal_of_the_key(ask: Callable[[Credentials], object] | None = None) -> str | None:
    """Why the exchange does not accept our key; empty when it does, or there is none; None when that cannot be told now."""
    try:
        credentials = key_now(boot())
    except SettingsInvalid:
        return None
    if credentials is None:
        return ""
    try:
        (ask or _ask)(credentials)
    except CredentialsRefused as error:
        return None if error.code in OUR_CLOCK else str(error)
    except PipelineError:
        return None
    return ""


def take_note(why: str) -> None:
    """Remember that the key is refused, or that it is good again."""
    credentials = key_now(boot())
    if why and credentials is not None:
        remember_refusal(boot().home, credentials, why)
    else:
        forget_refusal(boot().home)


def refused_now() -> str:
    """Why the key that holds is not used; empty when nothing is known against it."""
    try:
        credentials = key_now(boot())
    except SettingsInvalid:
        return ""
    return refused(boot().home, credentials) if credentials is not None else ""


def _ask(credentials: Credentials) -> None:
    place = boot()

    async def ask() -> None:
        proxy = place.proxy.get_secret_value() if place.proxy else None
        address = HttpAddress(
            exchange_address(place).rest_url, proxy, ssl_context(place), connect_within=3.0, answer_within=5.0
        )
        async with opened(registry.get(place.exchange), address, Alone(), patience=PATIENCE) as client:
            verdict = await ask_account(client, credentials)
        require_read_only(verdict, allowed=place.allow_trading_key, where="the key that holds")

    asyncio.run(ask())


async def tell(pipeline: PipelineResource, kind: str, what: str, *, at_ms: int) -> None:
    """One incident of a kind is open while there is something to tell, and says the newest."""
    with pipeline.warehouse() as warehouse:
        open_ones = warehouse.open_incidents(kind)
        if not what and not open_ones:
            return
        async with pipeline.history(warehouse) as history:
            await _tell(warehouse, history.versions, kind, what, at_ms)


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
        details={"in_force": "the settings before stay in force" if kind == SETTINGS else "the public tier"},
    )
    await report_incident(warehouse, versions, incident, run_id="sensor")
