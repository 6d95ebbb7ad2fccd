"""Server-sent events: a page hears of its session's jobs while it is open. The open stream is also what keeps it."""

import asyncio
import json
from collections.abc import AsyncIterator

from .session import Session
from .sessions import Sessions

HEARTBEAT_S = 15.0  # so that proxies keep the connection, and we notice when it is gone


async def stream(session: Session, sessions: Sessions) -> AsyncIterator[str]:
    """Each job as JSON, at first and whenever it has changed; jobs that change faster than they are sent are skipped."""
    news, sent = asyncio.Event(), {}
    session.streams.add(news)
    session.left = None
    try:
        yield "retry: 2000\n\n"
        while not session.ended:
            news.clear()
            for job in list(session.jobs.values()):
                if sent.get(job.name) != job.version:
                    sent[job.name] = job.version
                    yield f"data: {json.dumps(job.as_json(), allow_nan=False, separators=(',', ':'))}\n\n"
            try:
                await asyncio.wait_for(news.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield ": still here\n\n"
        yield "event: ended\ndata: {}\n\n"
    finally:
        session.streams.discard(news)
        if not session.streams:
            session.left = sessions.clock()
