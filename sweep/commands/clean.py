"""`splatsweep clean`: removes what no plan needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table

from results.clean import KINDS
from results.invocation import command, home_command
from sweep.commands.common import DEFAULT_HOME, AsJson, Home, console, say

if TYPE_CHECKING:
    from results.clean import Survey, Waste

_LISTED = 8


def clean(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"What to remove: {', '.join(KINDS)}.  Default: all that no plan or setting keeps.",
            metavar="KIND",
            show_default=False,
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only list; the default.")] = False,
    store: Annotated[
        str | None,
        typer.Option(
            help="Also delete the runs of removed trials from this MLflow store.", metavar="URI", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what no plan needs (trials, trainings, optimiser states, datasets, caches); remove it with --yes.

    A removed trial is also removed from MLflow and from reports; a removed failure runs again with the next
    `splatsweep run`.  Running trials are kept.  Datasets from your folders, earlier plans, and optimiser states of
    run.keep_optimizer are removed only if their kind is named.

    Example: [bold]splatsweep clean[/]

    Example: [bold]splatsweep clean failed optimisers --yes[/]
    """
    from results.address import expanded_address
    from results.clean import remove, survey
    from results.store import ResultStore

    home, wanted = home.absolute(), kinds or []
    if store is not None:
        store = expanded_address(store)
        ResultStore.of(home, store)  # refuses what is no address of a store
    if unknown := [kind for kind in wanted if kind not in KINDS]:
        raise ValueError(f"{unknown[0]!r} is no kind of file; allowed: {', '.join(KINDS)}")
    if yes and dry_run:
        raise ValueError("--yes removes and --dry-run does not; give one of them")
    store_of = _store_of(home)
    found = survey(home, store_of, _is_imported)
    chosen = found.chosen(wanted)
    if as_json:
        content = {"removed": yes, "chosen": [waste.as_json() for waste in chosen]}
        content["others"] = [waste.as_json() for waste in found.wastes if waste not in chosen]
        print(json.dumps(content, indent=2))
    else:
        _show(found, chosen, home)
    if yes and chosen:
        freed = remove(chosen, home, store_of, lambda keys: _forget(home, keys, store))
        say(f"Removed {decimal(freed)}; `splatsweep report` writes reports without it")
        # Such as trainings and datasets that only the removed trials had.
        if left := survey(home, store_of, _is_imported).chosen([]):
            more = decimal(sum(waste.size for waste in left))
            say(f"No plan or setting keeps {more} more; to list it: {home_command(home, 'clean')}")
    elif chosen and not as_json:
        console.print("Nothing was removed; add --yes to remove these.")


def _store_of(home: Path) -> Any:
    from jobs.data.prepare import store_path

    def store_of(config: Mapping[str, Any]) -> Path | None:
        data = config.get("data", {})
        try:
            return store_path(data["name"], data.get("options", {}), home)
        except (KeyError, TypeError, ValueError):  # of another version, or edited by hand
            return None

    return store_of


def _is_imported(folder: Path) -> bool:
    """Whether a dataset came from a folder of the user's; true where that is not known."""
    from jobs.data.prepare import needs_source

    try:
        return needs_source(json.loads((folder / "manifest.json").read_text())["importer"])
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _forget(home: Path, keys: Sequence[str], store: str | None) -> None:
    """Deletes the runs of trials.  Raises `ResultsError` where a store cannot be written; the trials stay then."""
    if not keys:
        return
    from jobs.mlflow_store import forget
    from results.address import default_uri
    from results.errors import ResultsError
    from results.store_errors import store_problem

    for uri in dict.fromkeys([store or default_uri(home), default_uri(home)]):
        try:
            forget(home, keys, uri)
        except Exception as error:  # any error of a database or a server
            problem = store_problem(uri, error, "written", command("sync", None, home))
            raise ResultsError(f"no file was removed: {problem}") from error


def _show(found: Survey, chosen: Sequence[Waste], home: Path) -> None:
    sizes = Table(box=None, pad_edge=False)
    for heading in ("sweep", "trials", "size"):
        sizes.add_column(heading, justify="left" if heading == "sweep" else "right", overflow="fold")
    for sweep in found.sweeps:
        sizes.add_row(sweep.sweep or "(no plan, or an earlier one)", str(sweep.trials), decimal(sweep.size))
    if found.sweeps:
        console.print(sizes)
        console.print()
    for remark in found.remarks:
        console.print(remark, style="yellow")
    for kind, meaning in KINDS.items():
        of_kind = [waste for waste in chosen if waste.kind == kind]
        kept = [waste for waste in found.wastes if waste.kind == kind and waste not in chosen]
        if of_kind:
            console.print(f"{kind}: {meaning}: {len(of_kind)}, {decimal(sum(waste.size for waste in of_kind))}")
            _list(of_kind)
        if kept:
            size, why = decimal(sum(waste.size for waste in kept)), kept[0].reserved
            console.print(f"{kind}: {meaning}: {len(kept)}, {size}, kept" + (f": {why}" if why else ""), style="dim")
    if not chosen:
        console.print("There is nothing to remove" + ("." if home.exists() else f": {home} does not exist."))


def _list(wastes: Sequence[Waste]) -> None:
    for waste in sorted(wastes, key=lambda waste: -waste.size)[:_LISTED]:
        console.print(f"  {decimal(waste.size):>9}  {waste.path.parent.name}/{waste.path.name}")
    if len(wastes) > _LISTED:
        console.print(f"  and {len(wastes) - _LISTED} more, which --json lists")
