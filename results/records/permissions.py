"""Permissions of files in a home: all users who can write the home can read and write its files.

Files get the permissions of the umask.  Where the home's folder is writable for its group or for all, the umask is
widened accordingly.  Secrets are written elsewhere, readable for their owner only.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_GROUP_WRITES, _OTHERS_WRITE = stat.S_IWGRP, stat.S_IWOTH


def widen_umask(home: Path) -> None:
    """Make files that this process writes from now on writable for all users who can write the home."""
    existing = next((folder for folder in (home, *home.parents) if folder.exists()), None)
    given = 0 if existing is None else _given(existing)
    mask = os.umask(0o077)
    os.umask(mask & ~given)


def inherit_permissions(path: Path) -> None:
    """Give a file that another library created the permissions of its folder, if this user may change them."""
    given = _given(path.parent) & 0o666
    mode = stat.S_IMODE(path.stat().st_mode)
    if given and mode | given != mode:
        with suppress(PermissionError):  # another's file
            path.chmod(mode | given)


def whose(path: Path) -> str | None:
    """The reason why this process may not read and write a path (owner and mode, or read-only storage); None if it may.

    For a file that does not exist, or cannot be seen, the nearest parent folder that can be seen is checked.
    """
    found = next((place for place in (path, *path.parents) if os.path.exists(place)), None)  # noqa: PTH110 - may not raise
    if found is None or os.access(found, os.R_OK | os.W_OK):
        return None
    if os.statvfs(found).f_flag & os.ST_RDONLY:
        return f"{found} lies on a file system that is mounted read-only"
    state = found.stat()
    mode = stat.filemode(state.st_mode)
    hint = "chmod -R g+rwX on its folder lets the group work in it" if state.st_uid != os.getuid() else "see its mode"
    return f"{found} belongs to {_user(state.st_uid)}, group {_group(state.st_gid)}, {mode}; {hint}"


def _given(folder: Path) -> int:
    """Permission bits that a folder requires of the files in it."""
    mode = folder.stat().st_mode
    if mode & stat.S_ISVTX:  # sticky, such as /tmp: all users may write there, each only their own files
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
