"""
The Lua scripts, read from storage/lua/. Each file says what its keys, arguments and answers are.

Only commands of Redis 6.2 are used. Redis runs a script as a whole: what it writes together is never seen in part.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def script(name: str) -> str:
    """The text of storage/lua/<name>.lua."""
    return (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
