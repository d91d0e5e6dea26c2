"""Permissions of what is written into a home: whoever can write the home can read and write what is in it.

Files get the permissions of the umask; where the home is a group's, which its folder says, the umask is widened to
what the folder gives.  Secrets are written elsewhere, for their owner alone.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_GROUP_WRITES, _OTHERS_WRITE = stat.S_IWGRP, stat.S_IWOTH


def widen_umask(home: Path) -> None:
    """Let what this process writes from now on be written by all who can write the home."""
    existing = next((folder for folder in (home, *home.parents) if folder.exists()), None)
    given = 0 if existing is None else _given(existing)
    mask = os.umask(0o077)
    os.umask(mask & ~given)


def open_as_folder(path: Path) -> None:
    """Give a file that another library made the permissions that its folder gives, where it is ours to change."""
    given = _given(path.parent) & 0o666
    mode = stat.S_IMODE(path.stat().st_mode)
    if given and mode | given != mode:
        with suppress(PermissionError):  # another's file
            path.chmod(mode | given)


def whose(path: Path) -> str | None:
    """Owner and mode, in words, of a path that this process may not both read and write; None where it may.

    For a file that does not exist, the nearest existing parent folder is checked.
    """
    found = next((place for place in (path, *path.parents) if place.exists()), None)
    if found is None or os.access(found, os.R_OK | os.W_OK):
        return None
    state = found.stat()
    mode = stat.filemode(state.st_mode)
    hint = "chmod -R g+rwX on its folder lets the group work in it" if state.st_uid != os.getuid() else "see its mode"
    return f"{found} belongs to {_user(state.st_uid)}, group {_group(state.st_gid)}, {mode}; {hint}"


def _given(folder: Path) -> int:
    """Bits that a folder's own permissions say all in it shall have."""
    mode = folder.stat().st_mode
    if mode & stat.S_ISVTX:  # as /tmp: all may write there, each what is theirs
        return 0
    return (0o070 if mode & _GROUP_WRITES else 0) | (0o007 if mode & _OTHERS_WRITE else 0)


def _user(number: int) -> str:
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def _group(number: int) -> str:
    import grp

    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return f"{number}"
