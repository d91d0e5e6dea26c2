"""Addresses of MLflow stores: their kinds, and how they are printed without secrets."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from results.errors import ResultsError
from results.records.home import database_file, user_path

#: databases, accessed through SQLAlchemy; a driver may follow a plus: postgresql+psycopg://
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
#: tracking servers
SERVERS = ("http", "https")

# A user name and password in front of a host, up to the last @ of the word, since a password may hold one unescaped.
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):\S*@")
_SECRET_OPTION = re.compile(r"(?i)([?&](?:\w*password|passwd|pwd|token|odbc_connect)=)[^&\s]*")
_SQLITE = "sqlite:///"
#: scheme with the driver's name, for %-encoded paths: with the short form MLflow would create a folder with the
#: encoded name
_ENCODED = "sqlite+pysqlite:///"
_FILE = re.compile(r"sqlite(\+\w+)?:///(?P<path>[^?]*)")
#: prefix of a database driver's message: (sqlite3.OperationalError) database is locked
_FROM_DRIVER = re.compile(r"\((\w+\.)+\w+\) ")


class AddressError(ResultsError):
    """An address that is none of an MLflow store; the message does not quote it."""


def check_address(uri: str) -> None:
    """Raises `AddressError` where the address is none of an MLflow store."""
    kind = _kind(uri)
    if kind not in (*DATABASES, *SERVERS):
        beginnings = ", ".join(f"{name}://" for name in (*DATABASES, *SERVERS))
        raise AddressError(f"not the address of an MLflow store; allowed: {beginnings}")
    if kind == "sqlite" and not (sqlite_path(uri) or "").startswith("/"):
        raise AddressError("the path of a SQLite file must be absolute, as in sqlite:////data/mlflow.db")
    try:
        parts = urlsplit(uri)
        has_place = bool(parts.hostname) if kind in SERVERS else bool(parts.path.strip("/")) or bool(parts.query)
        _ = parts.port
    except ValueError:
        reason = "its port must be a number, and special characters of its password %-encoded"
        raise AddressError(f"not an address: {reason}") from None
    if not has_place:
        lacks = "a host, as in http://localhost:5000" if kind in SERVERS else "a database, as in postgresql://host/name"
        raise AddressError(f"the address lacks {lacks}")


def is_database(uri: str) -> bool:
    """Whether the store is a database, and not a server."""
    return _kind(uri) in DATABASES


def sqlite_path(uri: str) -> str | None:
    """The file of a SQLite store; None for any other."""
    found = _FILE.match(uri)
    return unquote(found["path"]) if found else None


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite store; special characters are %-encoded."""
    plain = str(path.absolute())
    encoded = plain.replace("%", "%25").replace("?", "%3F")
    return f"{_SQLITE if plain == encoded else _ENCODED}{encoded}"


def expanded_address(uri: str) -> str:
    """An address as a user writes it, with the `~` of a SQLite file's path expanded."""
    path = sqlite_path(uri)
    return uri if path is None or not path.startswith("~") else sqlite_uri(user_path(path))


def default_uri(home: Path) -> str:
    """The address of a home's own store: one SQLite file."""
    return sqlite_uri(database_file(home))


def without_secrets(text: str) -> str:
    """Any text, with passwords and tokens of the addresses in it replaced by `***`."""
    return _SECRET_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def reason(error: Exception) -> str:
    """The decisive line of an error, without secrets.

    Errors of databases state the cause after a hint for programmers and before the statement; those of servers go
    on with pages.
    """
    lines = [line.strip() for line in without_secrets(str(error)).splitlines() if line.strip()]
    telling = [line for line in lines if _FROM_DRIVER.match(line)]
    return (telling or lines or [type(error).__name__])[0]


def _kind(uri: str) -> str:
    return uri.partition("://")[0].partition("+")[0]


#: where `splatsweep ui` serves a database
UI_HOST, UI_PORT = "127.0.0.1", 5000
#: MLflow's pages have two views, one for language models and one for trainings; addresses may name it
_TRAINING_VIEW = "workflowType=machine_learning"


def experiment_page(base: str, experiment_id: str | None) -> str:
    """The address of an experiment's page, or of the list of experiments, on the MLflow UI at `base`."""
    where = f"experiments/{experiment_id}/runs" if experiment_id is not None else "experiments"
    return f"{base.rstrip('/')}/#/{where}?{_TRAINING_VIEW}"


def run_page(uri: str, experiment_id: str, run_id: str) -> str:
    """The address of a run's page: on a tracking server, or on `splatsweep ui` where the store is a database."""
    base = f"http://{UI_HOST}:{UI_PORT}" if is_database(uri) else without_secrets(uri).rstrip("/")
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}?{_TRAINING_VIEW}"
