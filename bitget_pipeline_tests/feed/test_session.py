"""What one websocket connection does next, told as facts and times, without a socket."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.exchange.registry import get, substitute
from bitget_pipeline.feed.actions import Reconnect, Renew, Report, Send, Stage, Stale
from bitget_pipeline.feed.session import Session
from bitget_pipeline.feed.session_rules import SessionRules
from bitget_pipeline.market.instrument import Market, Symbol


class PlainSpelling:
    """A spelling that people can read: one frame per `size` subscriptions."""

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def subscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        names = [str(subscription.symbol) for subscription in subscriptions]
        return [json.dumps(names[start : start + self.size]) for start in range(0, len(names), self.size)]

    def unsubscribe(self, subscriptions: Sequence[Subscription]) -> list[str]:
        return [f"end {frame}" for frame in self.subscribe(subscriptions)]

    def ping(self) -> str:
        return "ping"


def trades_of(*names: str) -> list[Subscription]:
    return [Subscription(Symbol(Market.SPOT, name), Channel.TRADE) for name in names]


def run(session: Session, *, start: float, until: float) -> list[tuple[float, object]]:
    """Ask whenever the session wants to be asked; what it did and when."""
    done: list[tuple[float, object]] = []
    now = start
    while now <= until:
        done += [(now, action) for action in session.tick(now=now)]
        now = max(session.due(now=now), now + 0.001)
    return done


def test_first_it_subscribes():
    """
    Right after opening, the frames that ask for everything go out.
    """
    session = Session(PlainSpelling(), trades_of("A", "B"), now=0.0)
    assert session.tick(now=0.0) == [Send('["spot:A", "spot:B"]')]
    assert session.tick(now=0.0) == []


def test_an_acknowledged_subscription_without_data_is_asked_again_and_then_reported():
    """
    An ack proves nothing: without a first data frame in ten seconds it is repeated, after three times reported.
    """
    (quiet,) = trades_of("QUIET")
    session = Session(PlainSpelling(), [quiet], now=0.0)
    session.tick(now=0.0)
    session.acknowledged(quiet)
    done = run(session, start=0.0, until=45.0)

    again = [round(at) for at, action in done if isinstance(action, Send) and action.text != "ping"]
    assert again == [10, 20]
    reports = [(round(at), action) for at, action in done if isinstance(action, Report)]
    assert [at for at, _ in reports] == [30]
    assert session.stages() == {quiet: Stage.SILENT}
    assert session.settled


def test_a_confirmation_without_a_name_confirms_all_that_were_asked():
    """
    Some exchanges confirm a whole frame: what stays silent then reads acknowledged, and not as never heard of.
    """
    session = Session(PlainSpelling(), trades_of("A", "B"), now=0.0)
    session.tick(now=0.0)
    session.acknowledged(None)
    assert set(session.stages().values()) == {Stage.ACKNOWLEDGED}


def test_the_rules_of_an_exchange_are_those_of_its_limits():
    """
    Where no snapshot comes, a subscription may stay silent for longer before it is asked again.
    """
    substitute_for_spot = substitute(Market.SPOT)
    assert substitute_for_spot is not None
    assert SessionRules.within(get("bitget").limits).first_data_within == 10.0
    assert SessionRules.within(substitute_for_spot.limits).first_data_within == 30.0


def test_a_silent_subscription_is_tried_again_later_and_may_come_alive():
    """
    Reported is not given up: it is asked again every five minutes.
    """
    (quiet,) = trades_of("QUIET")
    session = Session(PlainSpelling(), [quiet], now=0.0)
    done = run(session, start=0.0, until=20.0)
    session.ponged()
    now = 20.0
    while now < 400.0:
        done += [(now, action) for action in session.tick(now=now)]
        session.ponged()
        now += 1.0
    assert any(318 <= at <= 330 for at, action in done if isinstance(action, Send) and action.text != "ping")
    assert session.data(quiet)
    assert session.stages() == {quiet: Stage.LIVE}


def test_first_data_frame_is_told_once():
    """
    The first frame of a subscription on a connection is special, the next ones are not.
    """
    (trades,) = trades_of("A")
    session = Session(PlainSpelling(), [trades], now=0.0)
    assert session.data(trades)
    assert not session.data(trades)
    assert not session.data(trades_of("B")[0])


def test_a_refused_subscription_is_reported_and_leaves_the_others_alone():
    """
    One bad argument does not cancel the others.
    """
    good, bad = trades_of("GOOD", "BAD")
    session = Session(PlainSpelling(), [good, bad], now=0.0)
    session.tick(now=0.0)
    session.refused(bad, "30001 does not exist")
    session.data(good)
    done = run(session, start=0.1, until=19.0)
    assert [action for _, action in done] == [Report(bad, "30001 does not exist")]
    assert session.settled


def test_ping_every_twenty_seconds_and_dead_without_pong():
    """
    Pings go out on time; an answer that stays away for fifteen seconds means that the connection is dead.
    """
    (trades,) = trades_of("A")
    session = Session(PlainSpelling(), [trades], now=0.0)
    session.data(trades)
    done = []
    now = 0.0
    while now < 60.0:
        actions = session.tick(now=now)
        done += [(now, action) for action in actions]
        if Send("ping") in actions:
            session.ponged()
        now += 0.5
    assert [at for at, action in done if action == Send("ping")] == [20.0, 40.0]

    silent = run(session, start=60.0, until=76.0)
    assert (60.0, Send("ping")) in silent
    assert next((at, type(action)) for at, action in silent if isinstance(action, Reconnect)) == (75.0, Reconnect)


def test_renewal_is_asked_for_once_before_the_day_is_over():
    """
    Before the exchange cuts a connection after 24 hours, a successor is wanted.
    """
    session = Session(
        PlainSpelling(), [], now=0.0, rules=replace(SessionRules.within(get("bitget").limits), ping_every=1e9)
    )
    done = run(session, start=0.0, until=86_400.0)
    assert [(at, type(action)) for at, action in done] == [(84_600.0, Renew)]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 150), st.integers(1, 7))
def test_never_more_than_ten_messages_in_any_second(count, size):
    """
    However much there is to say, pings included, any second holds at most ten frames, and pings are never late.
    """
    subs = trades_of(*(f"S{index}" for index in range(count)))
    rules = SessionRules(ping_every=3.0, pong_within=1e9, subscribes_per_hour=10_000)
    session = Session(PlainSpelling(size), subs, now=0.0, rules=rules)
    sent = [(at, action.text) for at, action in run(session, start=0.0, until=60.0) if isinstance(action, Send)]
    times = [at for at, _ in sent]
    for first, eleventh in zip(times, times[10:], strict=False):
        assert eleventh - first > 1.0
    pings = [at for at, text in sent if text == "ping"]
    assert all(later - earlier <= 3.2 for earlier, later in zip([0.0, *pings], pings, strict=False))
    asked = {name for _, text in sent if text != "ping" for name in json.loads(text)}
    assert asked == {str(subscription.symbol) for subscription in subs}


def test_the_hourly_allowance_of_subscribe_requests_is_kept():
    """
    What does not fit into 240 requests an hour waits.
    """
    subs = trades_of(*(f"S{index}" for index in range(100)))
    rules = SessionRules(ping_every=1e9, renew_after=1e9, retry_silent_every=30.0)
    session = Session(PlainSpelling(1), subs, now=0.0, rules=rules)
    sent = [at for at, action in run(session, start=0.0, until=3599.0) if isinstance(action, Send)]
    assert len(sent) <= 240


def test_a_subscription_begun_anew_ends_first():
    """
    Its end and its beginning go out one after the other, and it has to show data as if it were new.
    """
    one, other = trades_of("A", "B")
    session = Session(PlainSpelling(), [one, other], now=0.0)
    session.tick(now=0.0)
    session.data(one)
    session.data(other)
    assert session.again(one, now=5.0)
    sent = [action.text for _, action in run(session, start=5.0, until=6.0) if isinstance(action, Send)]
    assert sent == ['end ["spot:A"]', '["spot:A"]']
    assert session.stages() == {one: Stage.ASKED, other: Stage.LIVE}
    assert session.data(one)


def test_beginning_anew_keeps_within_the_allowance_of_the_hour():
    """
    Each costs two frames of the 240 an hour; what has no room is refused, and the stream that flows goes on.
    """
    (one,) = trades_of("A")
    session = Session(PlainSpelling(), [one], now=0.0)
    session.data(one)
    granted = 0
    for second in range(1, 3000):
        granted += session.again(one, now=float(second))
        session.data(one)
    assert granted == 119
    assert session.stages() == {one: Stage.LIVE}
    assert session.again(one, now=3605.0)
    assert not session.again(*trades_of("UNKNOWN"), now=3606.0)


def pumped(
    session: Session, *, start: float, until: float, every: float, heard: Sequence[Subscription]
) -> list[object]:
    """The session's actions while these bring something again and again; pongs come."""
    done: list[object] = []
    now = start
    while now < until:
        session.heard(heard, now=now)
        session.ponged()
        done += session.tick(now=now)
        now += every
    return done


def quiet_after(session: Session, *, start: float, until: float) -> list[tuple[float, object]]:
    """What it does and when, while nothing but pongs comes."""
    done: list[tuple[float, object]] = []
    now = start
    while now < until:
        session.ponged()
        done += [(round(now), action) for action in session.tick(now=now) if action != Send("ping")]
        now += 1.0
    return done


def test_one_that_falls_silent_against_its_own_pace_is_begun_anew():
    """
    A trade a second, then nothing: after some fifteen seconds it is unsubscribed and subscribed, and what it missed has to
    be proven. Its neighbour with a trade in half a minute is left alone.
    """
    busy, slow = trades_of("BUSY", "SLOW")
    session = Session(PlainSpelling(), [busy, slow], now=0.0)
    for one in (busy, slow):
        session.data(one)
    for minute in range(6):
        pumped(session, start=60.0 * minute, until=60.0 * minute + 60, every=1.0, heard=[busy])
        session.heard([slow], now=60.0 * minute + 30)
        session.heard([slow], now=60.0 * minute + 59.5)
    done = quiet_after(session, start=360.0, until=378.0)
    stale = [(at, action) for at, action in done if isinstance(action, Stale)]
    assert [action.subscription for _, action in stale] == [busy]
    assert 373 <= stale[0][0] <= 376
    assert [action.text for _, action in done if isinstance(action, Send)] == ['end ["spot:BUSY"]', '["spot:BUSY"]']
    assert session.stages()[busy] is Stage.ASKED


def test_the_next_connection_knows_how_long_a_silence_may_be():
    """
    A symbol that brings its snapshot and nothing else after a reconnect is judged by the pace it had before.
    """
    (one,) = trades_of("BUSY")
    before = Session(PlainSpelling(), [one], now=0.0)
    before.data(one)
    pumped(before, start=0.0, until=60.0, every=1.0, heard=[one])

    for paces, expected in ((before.paces(), [one]), (None, [])):
        session = Session(PlainSpelling(), [one], now=100.0, paces=paces)
        session.data(one)
        done = quiet_after(session, start=100.0, until=118.0)
        assert [action.subscription for _, action in done if isinstance(action, Stale)] == expected


def test_a_silence_that_a_snapshot_confirms_is_doubted_ever_more_seldom():
    """
    The exchange answers with a snapshot and then nothing: the market is quiet. It is asked again after twice as long.
    """
    (one,) = trades_of("QUIET")
    session = Session(PlainSpelling(), [one], now=0.0)
    session.data(one)
    pumped(session, start=0.0, until=60.0, every=1.0, heard=[one])
    moments = []
    now = 60.0
    while now < 400.0:
        session.ponged()
        for action in session.tick(now=now):
            if isinstance(action, Stale):
                moments.append(now)
        session.data(one)
        now += 1.0
    between = [later - earlier for earlier, later in pairwise(moments)]
    assert len(between) >= 2
    assert all(later >= 1.8 * earlier for earlier, later in pairwise(between))


def test_one_that_does_not_come_back_replaces_the_connection():
    """
    It delivered on this connection, fell silent, and three requests brought nothing: the connection is to blame.
    """
    (one,) = trades_of("MUTE")
    session = Session(PlainSpelling(), [one], now=0.0)
    session.data(one)
    pumped(session, start=0.0, until=60.0, every=1.0, heard=[one])
    done = [action for _, action in quiet_after(session, start=60.0, until=120.0)]
    assert any(isinstance(action, Reconnect) and "spot:MUTE fell silent" in action.reason for action in done)
    asked = [action.text for action in done if isinstance(action, Send)]
    assert asked == ['end ["spot:MUTE"]', '["spot:MUTE"]', '["spot:MUTE"]', '["spot:MUTE"]']


def test_a_rest_is_refused_when_half_of_the_hour_is_used_up():
    """
    To end and to ask again costs two frames here; they are granted while as much as half of the allowance is left for
    what must be, and again an hour later.
    """
    (one,) = trades_of("A")
    session = Session(PlainSpelling(), [one], now=0.0, rules=SessionRules(subscribes_per_hour=8))
    assert session.affords_rest([one], now=1.0)
    assert session.again(one, now=2.0)
    assert not session.affords_rest([one], now=3.0)
    assert session.affords_rest([one], now=3601.0)


def test_one_that_brings_its_snapshot_and_nothing_else_is_doubted_within_minutes_and_ever_more_seldom():
    """
    Its pace is not known: it is asked for again after two minutes, and after twice as long each time it is answered.
    """
    (one,) = trades_of("NEW")
    session = Session(PlainSpelling(), [one], now=0.0)
    session.data(one, snapshot=True)
    moments = []
    for now in range(3600):
        session.ponged()
        moments += [now for action in session.tick(now=float(now)) if isinstance(action, Stale)]
        session.data(one, snapshot=True)
    assert 119 <= moments[0] <= 122
    between = [later - earlier for earlier, later in pairwise(moments)]
    assert [round(each / 120) for each in between] == [2, 4, 8, 16][: len(between)]
    assert len(between) >= 3


def test_one_that_is_not_answered_by_a_snapshot_is_not_asked_again_while_its_pace_is_not_known():
    """
    Where an exchange sends none, quiet could not be told from mute: asking again would end in another socket.
    """
    (one,) = trades_of("NEW")
    session = Session(PlainSpelling(), [one], now=0.0)
    session.data(one)
    assert not any(isinstance(action, Stale) for _, action in quiet_after(session, start=0.0, until=3600.0))


def test_many_quiet_ones_are_doubted_together_and_leave_half_of_the_hour():
    """
    Fifty symbols that trade every ten minutes or so, and whose paces are not known yet: one frame ends and one begins many.
    """
    chance = random.Random(5)
    quiet = trades_of(*(f"Q{number}" for number in range(50)))
    session = Session(PlainSpelling(size=50), quiet, now=0.0)
    next_trade = {one: chance.expovariate(1 / 600) for one in quiet}
    frames = stale = 0
    for now in range(3600):
        session.ponged()
        if traded := [one for one, at in next_trade.items() if at <= now]:
            session.heard(traded, now=float(now))
            next_trade |= {one: now + chance.expovariate(1 / 600) for one in traded}
        for action in session.tick(now=float(now)):
            frames += isinstance(action, Send) and action.text != "ping"
            stale += isinstance(action, Stale)
        for one in quiet:
            session.data(one, snapshot=True)
    assert stale > 100
    assert frames <= 120
    assert set(session.stages().values()) == {Stage.LIVE}
