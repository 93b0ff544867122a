"""
The local exchange: a server that speaks Bitget's public V2 protocol (REST and socket) on this machine, and the public
part of Binance's (binance/) for whoever wants to see one stand in for the other.

Written from the protocol reference alone; it shares no code with our client. Its market is seeded: the same seed shows the
same trades, bars and listings for any moment, on every start. See config.py for what can be set, server.py for how to run
it, faults.py for the levers, admin.py for the ground truth.
"""

from .config import Address, Credential, ExchangeConfig
from .server import LocalExchange, running, serve

__all__ = ["Address", "Credential", "ExchangeConfig", "LocalExchange", "running", "serve"]
