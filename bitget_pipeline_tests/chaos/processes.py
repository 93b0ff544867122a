"""
A process that somebody keeps alive, as the supervisor of an instance would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable

from bitget_pipeline.errors import PipelineError


class Supervised:
    """
    Started by `start` (which gets the number of the attempt), and again whenever it ends; `ended` hears of each end.

    `hold` and `resume` say whether it is to run at all.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[int], Awaitable[Process]],
        *,
        ended: Callable[[int, int], Awaitable[None]] | None = None,
        pause: float = 0.1,
    ) -> None:
        self.name = name
        self.starts = 0
        self.process: Process | None = None
        self._start = start
        self._ended = ended
        self._pause = pause
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._let_go = asyncio.Event()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep it alive for the length of a block; killed at its end."""
        task = asyncio.create_task(self._keep(), name=f"keep {self.name}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if self.process is not None:
                self.kill()
                await self.process.wait()

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            self.starts += 1
            number = self.starts
            try:
                process = await self._start(number)
            except (PipelineError, OSError):  # its port or folder is not free yet
                await asyncio.sleep(self._pause)
                continue
            self.process = process
            self._let_go.clear()
            waits = [asyncio.create_task(process.wait()), asyncio.create_task(self._let_go.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if process.returncode is None:
                continue  # let go: it lives on, and a successor is started
            self.process = None
            if self._ended is not None:
                await self._ended(number, process.returncode)
            await asyncio.sleep(self._pause)

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self.process is not None and self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        self.send(signal.SIGKILL)

    def let_go(self) -> Process | None:
        """Care for it no longer, and start a successor; the process, if it runs."""
        process, self.process = self.process, None
        self._let_go.set()
        return process

    @property
    def wanted(self) -> bool:
        """Whether it is to run."""
        return self._wanted.is_set()

    def hold(self) -> None:
        """Do not start it again."""
        self._wanted.clear()

    def resume(self) -> None:
        """Start it again when it does not run."""
        self._wanted.set()

    async def end(self, *, within: float = 120.0) -> int:
        """SIGTERM, and no successor; its exit code. Raises TimeoutError when it does not obey."""
        self.hold()
        process = self.process
        if process is None:
            return 0
        self.send(signal.SIGTERM)
        return await asyncio.wait_for(process.wait(), within)


async def paused(process: Supervised, seconds: float) -> None:
    """SIGSTOP, and SIGCONT after so many seconds, whatever became of it meanwhile."""
    stopped = process.process
    process.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        if stopped is not None and stopped.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                stopped.send_signal(signal.SIGCONT)
