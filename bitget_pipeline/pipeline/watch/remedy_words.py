"""
Remediation as it is published: the rules and how they stand, and the last deeds with what came of them.

Of the live run (remediation.py) and of its supervisor (defs/remedies.py); `status` shows both together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...guard.remedy import Remedies
from ...guard.remedy_rules import Deed, Judged, Mode, Rule

SHOWN = 20


class LastDeeds:
    """The last deeds in plain words, the newest at the end."""

    def __init__(self) -> None:
        self._last: deque[dict[str, Any]] = deque(maxlen=SHOWN)

    def did(self, deed: Deed, mode: Mode, *, ok: bool, said: str, at_ms: int) -> None:
        """A deed was carried out, or could not be, or would have been; `at_ms` is market time."""
        shown = {"at_ms": at_ms, "rule": deed.rule, "action": deed.action, "target": deed.target}
        if not deed.undo or not ok or mode is not Mode.ON:
            shown |= {"because": deed.before.reason, "before": deed.before.status.value}
        self._last.append(shown | {"undo": deed.undo, "done": ok, "said": said, "number": deed.number})

    def judged(self, news: Judged) -> None:
        """What came of one."""
        for shown in self._last:
            if shown.get("number") == news.deed.number:
                shown |= {"helped": news.helped, "after": news.after.status.value}

    def follow(self, told: Iterable[Mapping[str, Any]]) -> None:
        """What another process did before this one; its numbers mean nothing here."""
        mine = list(self._last)
        self._last.clear()
        self._last.extend({name: value for name, value in one.items() if name != "number"} for one in told)
        self._last.extend(mine)

    def told(self) -> list[dict[str, Any]]:
        """All of them."""
        return list(self._last)


def standing(rules: Sequence[Rule], remedies: Remedies, *, by: str, now: float) -> dict[str, Any]:
    """Each rule with its action, its vital and how it stands, and what lasts; `by` says who goes through them."""
    return {
        "rules": [
            found | {"action": rule.action, "vital": rule.vital, "by": by}
            for rule, found in zip(rules, remedies.standing(now=now), strict=True)
        ],
        "in_force": sorted(action for action, _ in remedies.held()),
    }
