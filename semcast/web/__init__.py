"""The page of `semcast web`: one photo's way over the link, for everyone to see and hear.

    browser -> server.py (sockets) -> guard.py (who may ask) -> app.py (routes), site.py
        -> jobs.py (the queue)
        -> worker.py, in a process of its own: work.py, radio.py, rivals.py, plots.py -> results
        -> sessions.py (in memory, until the page is closed) -> events.py -> browser

Starlette and uvicorn carry it: what it needs of a framework is routes, streams and bodies of limited size. The page in
static/ is written by hand, has no build step, and loads nothing from other hosts. No picture is ever written to a disk.
"""
