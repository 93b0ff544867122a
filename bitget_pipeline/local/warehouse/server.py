"""
ClickHouse's HTTP interface on this machine: the asynchronous half of the server.

From sockets (aiohttp) to `work.py`, which runs in the engine's threads, and back through `answers.py`. Started by `serve`
in `service.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from ... import telemetry
from .answers import Voice
from .asked import Asked, check_credentials, understood
from .config import WarehouseConfig
from .engine import Engine
from .neighbours import stranger
from .refusals import Refusal, refusal
from .sessions import Session, Sessions
from .statements import Insert, NeedMore, first_word, goes_on_after_semicolon, insert_with_data
from .work import Work

log = telemetry.get_logger(__name__)
T = TypeVar("T")

# Data are handed to the engine in pieces of about this size: the hop to another thread costs some 50 µs.
_PIECE = 1 << 20
# A statement without data must fit into memory; ClickHouse's own bound (max_query_size, a setting) is far lower.
_LONGEST_STATEMENT = 64 << 20
# Before an error is sent the rest of the request is read, else the client sees a reset connection instead of the error.
_MOST_DRAINED = 256 << 20


class Job:
    """One statement on its way: what its end, good or bad, has to find."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.work: Work | None = None
        self.session: Session | None = None
        self.pending: Future[Any] | None = None
        self.pending_here: asyncio.Future[Any] | None = None
        self.may_be_killed = True
        self.released = False


class Server:
    """Requests in, answers out."""

    def __init__(self, config: WarehouseConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self.sessions = Sessions(engine, most=config.max_sessions)
        self._running: dict[str, Job] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def application(self) -> web.Application:
        """The routes of ClickHouse's HTTP interface."""
        application = web.Application(middlewares=[self._neighbours_only])
        for path in ("/ping", "/replicas_status"):
            application.router.add_get(path, _ok)
        application.router.add_get("/", self._statement, allow_head=False)
        application.router.add_head("/", _ok)
        application.router.add_post("/", self._statement)
        return application

    @web.middleware
    async def _neighbours_only(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if (why := stranger(request)) is not None:
            await _drain(request)
            return self._voice(request).refuse(why, None)
        return await handler(request)

    def _voice(self, request: web.Request) -> Voice:
        return Voice(request, timezone=self._engine.timezone, version=self._engine.version)

    # ------------------------------------------------------------ one request

    async def _statement(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and "query" not in request.query:
            return await _ok(request)
        voice = self._voice(request)
        asked: Asked | None = None
        try:
            check_credentials(request, self._config)
            asked = await understood(request)
            await self._run(asked, voice)
        except ConnectionError:  # the client left in the middle of its answer
            log.debug("warehouse.client_left", query_id=asked.query_id if asked else "")
        except Exception as error:
            why = error if isinstance(error, Refusal) else _unexpected(error)
            if voice.response is None:
                await _drain(request)
                return voice.refuse(why, asked)
            with suppress(ConnectionError):
                await voice.broke(why)
        return voice.response or voice.refuse(refusal(210, "The connection was lost."), asked)

    async def _run(self, asked: Asked, voice: Voice) -> None:
        """Run what is asked and send the answer. Raises refusals."""
        if asked.query_id in self._running:
            raise refusal(216, f"Query with id = {asked.query_id} is already running.")
        job = Job(asked)
        self._running[asked.query_id] = job
        self._quiet.clear()
        try:
            insert = await _read_statement(asked)
            if asked.session_id:
                job.session = self.sessions.take(
                    asked.session_id, timeout=asked.session_timeout, must_exist=asked.session_check
                )
            if insert is None:
                await self._answer(job, voice)
            else:
                await self._insert(job, insert, voice)
        finally:
            if not job.released:
                # A task of its own, so that a request that is cancelled (once more) does not cut it short.
                ending = asyncio.get_running_loop().create_task(self._end(job))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
                await asyncio.shield(ending)

    async def _answer(self, job: Job, voice: Voice) -> None:
        answer = await self._in_engine(job, lambda: self._begin(job).select(job.asked.text))
        work = job.work
        assert work is not None
        if not answer.more:
            self._release(job)  # before the answer is out: the client's next request may need the session
            await voice.begin(job.asked, answer)
            return
        await voice.begin(job.asked, answer)
        while (piece := await self._in_engine(job, work.next)) is not None:
            await voice.more(piece)
        self._release(job)
        await voice.end()

    async def _insert(self, job: Job, insert: Insert, voice: Voice) -> None:
        asked = job.asked
        first = asked.text[insert.data_from :]
        if insert.format == "Values":
            first = await _whole(first, asked.body)
            if goes_on_after_semicolon(first):
                raise refusal(62, "Syntax error (Multi-statements are not allowed): send one statement at a time.")
        await self._in_engine(job, lambda: self._begin(job).insert(insert, first))
        work = job.work
        assert work is not None
        waiting = bytearray()
        async for piece in asked.body:
            waiting += piece
            if len(waiting) >= _PIECE:
                data, waiting = bytes(waiting), bytearray()
                await self._in_engine(job, partial(work.append, data))
        job.may_be_killed = False  # all is here: what was sent whole is stored, even if the sender is gone by then
        answer = await self._in_engine(job, partial(work.finish, bytes(waiting)))
        self._release(job)
        await voice.begin(asked, answer)

    def _begin(self, job: Job) -> Work:
        if job.session is None:
            job.work = Work(self._engine.open(), job.asked, loan=None)
        else:
            job.work = Work(job.session.handle, job.asked, loan=job.session.loan)
        return job.work

    async def _in_engine(self, job: Job, do: Callable[[], T]) -> T:
        """Run in a thread of the engine; when this request is cancelled meanwhile, `_end` sees to the thread."""
        # A client's KILL QUERY must not wait behind the statements it is to end either.
        pool = self._engine.killers if first_word(job.asked.text[:200]) == b"KILL" else self._engine.pool
        pending = pool.submit(do)
        here = asyncio.wrap_future(pending)
        # Whether anybody still waits for it or not, its error is taken note of.
        here.add_done_callback(lambda done: done.cancelled() or done.exception())
        job.pending, job.pending_here = pending, here
        return await asyncio.shield(here)

    async def _end(self, job: Job) -> None:
        """After a failure or a cancellation: kill what still runs, let go of the handle, free the session."""
        loop = asyncio.get_running_loop()
        pending, here = job.pending, job.pending_here
        if pending is not None and here is not None and not pending.cancel():  # if it has begun, it must be ended
            while not pending.done():
                # Again and again: the statement may not have reached the engine yet when it is killed first.
                if job.may_be_killed:
                    await loop.run_in_executor(self._engine.killers, self._engine.kill, job.asked.query_id)
                await asyncio.wait([here], timeout=0.1)
        if job.work is not None and not job.work.ended:
            await loop.run_in_executor(self._engine.pool, job.work.end)
        self._release(job)

    def _release(self, job: Job) -> None:
        """The session and the query id are free again."""
        if job.released:
            return
        job.released = True
        if job.session is not None:
            self.sessions.give_back(job.session, end=job.asked.close_session)
        self._running.pop(job.asked.query_id, None)
        if not self._running:
            self._quiet.set()

    # ------------------------------------------------------------ the end

    async def finish(self, *, within: float) -> None:
        """Wait until nothing runs; after `within` seconds kill what does."""
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), within)
        for query_id in list(self._running):
            log.warning("warehouse.killed_at_stop", query_id=query_id)
            await loop.run_in_executor(self._engine.killers, self._engine.kill, query_id)

    async def close(self) -> None:
        """Let go of all handles, once no request is left."""
        await self._quiet.wait()
        self.sessions.close()


async def _read_statement(asked: Asked) -> Insert | None:
    """Read until it is clear what is asked; any other statement than an insert with data is read to its end."""
    while True:
        try:
            insert = insert_with_data(asked.text, complete=False)
        except NeedMore:
            piece = await anext(asked.body, None)
            if piece is None:
                return insert_with_data(asked.text, complete=True)
            asked.text += piece
            _bounded(len(asked.text))
        else:
            break
    if insert is None:
        asked.text = await _whole(asked.text, asked.body)
    return insert


async def _whole(begun: bytes, body: AsyncIterator[bytes]) -> bytes:
    """All of a statement that must be seen as a whole."""
    pieces, size = [begun], len(begun)
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        _bounded(size)
    return b"".join(pieces)


def _bounded(size: int) -> None:
    if size > _LONGEST_STATEMENT:
        raise refusal(62, f"Max query size exceeded: a statement may have {_LONGEST_STATEMENT >> 20} MiB.")


def _unexpected(error: Exception) -> Refusal:
    """An error nobody foresaw: told to the client, and in full to the log."""
    log.error("warehouse.unexpected", error=repr(error), exc_info=error)
    return refusal(1001, f"{type(error).__name__}: {error}")


async def _drain(request: web.Request) -> None:
    """Read what is left of the request's body."""
    drained = 0
    with suppress(Exception):  # the client is gone, or the body is malformed: the error is all that counts
        async for piece in request.content.iter_any():
            drained += len(piece)
            if drained > _MOST_DRAINED:
                return


async def _ok(request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n", content_type="text/html")
