"""Which files are signals, by suffix. Imports nothing heavy, so that a command line can ask before any work."""

from pathlib import Path

WRITTEN = {".wav": "WAV", ".flac": "FLAC"}
META, DATA, ARCHIVE = ".sigmf-meta", ".sigmf-data", ".sigmf"
SIGMF = (META, DATA, ARCHIVE)
CFILE = ".cfile"
SIGNAL_SUFFIXES = (*WRITTEN, *SIGMF, CFILE)  # that are written
ONLY_READ = (".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".rf64", ".w64", ".raw")


def is_signal(path: Path) -> bool:
    """Whether a file of this name is taken for a signal. .raw is one, too, though none that is read without a pipe."""
    return path.suffix.lower() in (*SIGNAL_SUFFIXES, *ONLY_READ)
