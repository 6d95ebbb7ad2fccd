"""What the programs in this folder share."""

import sys
from pathlib import Path

from semcast.bench.pictures import centre_crop
from semcast.cascade.device import keep_freed_memory
from semcast.errors import InputError
from semcast.images import to_image
from semcast.training.data import Photos


def summary(docstring: str | None) -> str:
    """The first line of a program's docstring, for its --help."""
    return (docstring or "").partition("\n")[0]


def command_line() -> str:
    """The command that runs, with paths outside the repository named by their last part only."""
    return f"python benchmarks/{Path(sys.argv[0]).name} " + " ".join(shown(word) for word in sys.argv[1:])


def shown(argument: str) -> str:
    """A word of a command line; of NAME=PATH, the path is shortened."""
    name, equals, value = argument.rpartition("=")
    path = Path(value)
    return name + equals + path.name if path.is_absolute() or ".." in path.parts else argument


def read_pictures(sources: list[Path], side: int | None, limit: int | None = None) -> tuple[list[str], list]:
    """Names, and a function for each that reads its centre crop [1, 3, side, side]."""
    photos = Photos(list(sources), "val")
    names = [name for name, *_ in photos.items[:limit]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two pictures are called {twice[0]}; measure their folders one after the other")
    read = lambda index: to_image(centre_crop(photos.read(index), side, names[index]))
    return names, [lambda index=index: read(index) for index in range(len(names))]


def script(main) -> None:
    """Run `main`: what is wrong with its input becomes one line and exit code 2."""
    keep_freed_memory()
    try:
        main()
    except InputError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
