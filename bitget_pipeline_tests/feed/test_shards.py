"""How subscriptions are spread over connections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.errors import SettingsInvalid
from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.feed.shards import ShardRules, move_connections, plan_connections
from bitget_pipeline.market.instrument import Market, Symbol

subscriptions = st.lists(
    st.builds(
        Subscription,
        symbol=st.builds(Symbol, st.sampled_from(Market), st.text("ABC", min_size=1, max_size=3)),
        channel=st.sampled_from(Channel),
    ),
    max_size=200,
)


@given(subscriptions, st.integers(1, 60), st.integers(1, 20))
def test_every_subscription_has_one_connection_and_no_limit_is_broken(subs, channels, symbols):
    """
    Nothing is lost, nothing doubled, and no connection carries more than the rules allow.
    """
    connections = plan_connections(subs, rules=ShardRules(max_channels=channels, max_symbols=symbols))

    planned = [subscription for connection in connections for subscription in connection]
    assert len(planned) == len(set(planned))
    assert set(planned) == set(subs)
    for connection in connections:
        assert 1 <= len(connection) <= channels
        assert len({subscription.symbol for subscription in connection}) <= symbols


def test_thirty_symbols_of_the_public_tier_take_three_connections_of_ten():
    """
    The loads are even, so that a break hits no more symbols than it must.
    """
    subs = [Subscription(Symbol(Market.SPOT, f"C{index}USDT"), Channel.TRADE) for index in range(30)]
    assert [len(connection) for connection in plan_connections(subs)] == [10, 10, 10]


def test_a_connection_that_may_carry_nothing_is_refused():
    """
    A limit of zero is a mistake in the settings.
    """
    with pytest.raises(SettingsInvalid):
        ShardRules(max_symbols=0)


@given(subscriptions, subscriptions, st.integers(1, 60), st.integers(1, 20), st.integers(1, 60), st.integers(1, 20))
def test_a_change_carries_all_that_is_wanted_once_and_breaks_no_limit(before, wanted, channels, symbols, more, others):
    """
    From any plan to any other, under other rules too.
    """
    current = named(plan_connections(before, rules=ShardRules(max_channels=channels, max_symbols=symbols)))
    moves = move_connections(current, wanted, rules=ShardRules(max_channels=more, max_symbols=others))

    planned = [one for carried in (*moves.carried.values(), *moves.opened) for one in carried]
    assert len(planned) == len(set(planned))
    assert set(planned) == set(wanted)
    assert moves.carried.keys() == current.keys()
    for carried in (*moves.carried.values(), *moves.opened):
        assert len(carried) <= more
        assert len({one.symbol for one in carried}) <= others


@given(st.sets(st.integers(0, 60), min_size=1), st.sets(st.integers(0, 60), min_size=1), st.integers(1, 12))
def test_a_symbol_that_stays_keeps_its_connection(before, wanted, each):
    """
    Whoever joins or leaves: what stays does not move, and no connection is opened while there is room.
    """
    rules = ShardRules(max_symbols=each)
    current = named(plan_connections(trades(before), rules=rules))
    moves = move_connections(current, trades(wanted), rules=rules)

    for name, carried in current.items():
        assert set(carried) & set(trades(wanted)) <= set(moves.carried[name])
    if moves.opened:
        assert all(len(carried) == each for carried in moves.carried.values())


def test_fewer_symbols_a_connection_move_no_more_than_they_must():
    """
    Ten on one connection, then four a connection: six move, to two new ones.
    """
    current = named(plan_connections(trades(range(10))))
    moves = move_connections(current, trades(range(10)), rules=ShardRules(max_symbols=4))
    assert moves.carried["0"] == current["0"][:4]
    assert [len(carried) for carried in moves.opened] == [3, 3]


def trades(numbers):
    return [Subscription(Symbol(Market.SPOT, f"C{number}USDT"), Channel.TRADE) for number in sorted(numbers)]


def named(connections):
    return {str(number): carried for number, carried in enumerate(connections)}
