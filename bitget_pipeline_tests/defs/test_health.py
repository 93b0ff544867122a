"""What the health sensor tells Dagster."""

from __future__ import annotations

import dagster as dg

from bitget_pipeline.defs.health import events
from bitget_pipeline.pipeline.watch import Health, Status


def test_the_connections_of_the_live_run_are_observed():
    """
    An observation has figures that plot (frames a second, subscriptions that deliver) and a table of the connections.
    """
    socket = {"age": 12.0, "frames_per_second": 7.5, "live": 9, "asked": 0, "silent": 1, "refused": 0}
    socket |= {"opened": 2, "reconnects": 1, "last_reason": "no pong within 15 s", "frames": 100}
    facts = {"connections": {"socket-0": socket}, "frames_per_second": 7.5, "connected": 1}
    observation, *_ = events(Health(Status.HEALTHY, ["all is well"], facts=facts))
    assert isinstance(observation, dg.AssetObservation)
    metadata = observation.metadata
    assert (metadata["subscriptions live"].value, metadata["subscriptions silent"].value) == (9, 1)
    assert metadata["frames_per_second"].value == 7.5
    assert "| socket-0 | 12 | 7.5 | 9 | 0 | 1 | 2 | 1 | no pong within 15 s |" in metadata["connections"].value
