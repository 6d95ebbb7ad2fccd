"""`semcast web`: the link as a page, in a browser."""

import ipaddress
from pathlib import Path

from ..cascade.models import find_model
from ..errors import InputError, require
from ..files import check_file
from .common import notice

PASSWORD_MIN = 8  # characters
PASSWORD_BYTES = 4096  # of the file


def web(args) -> None:
    loopback, password = is_loopback(args.host), read_password(args.password_file)
    if not loopback and password is None:
        raise InputError(
            f"--host {args.host} lets others in, so a password is needed: --password-file FILE with a line of "
            f"{PASSWORD_MIN} characters or more"
        )
    find_model(args.model)
    require("semcast web", "starlette", "uvicorn")
    from ..web.server import listen, serve
    from ..web.site import Config

    sockets = listen(args.host, args.port)
    port = sockets.getsockname()[1]
    address = f"http://{'localhost' if loopback else args.host}:{port}/"
    notice("%s - Ctrl-C ends it", address)
    serve(Config(model=args.model, password=password, loopback=loopback), sockets, address if args.open else None)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_password(path: Path | None) -> str | None:
    """The first line of the file."""
    if path is None:
        return None
    check_file(path, "password", PASSWORD_BYTES)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    password = lines[0].strip() if lines else ""
    if len(password) < PASSWORD_MIN:
        raise InputError(f"{path} holds no password: its first line must have {PASSWORD_MIN} characters or more")
    return password
