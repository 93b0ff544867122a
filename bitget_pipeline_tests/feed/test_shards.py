"""How subscriptions are spread over connections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.errors import SettingsInvalid
from bitget_pipeline.exchange.contract import Channel, Subscription
from bitget_pipeline.feed.shards import ShardRules, plan_connections
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
