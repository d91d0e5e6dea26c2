"""Datasets in one packed store.  One file per importer, one line here."""

DATASETS: dict[str, str] = {
    "chairs": "jobs.data.chairs:Chairs",
    "scans": "jobs.data.scans:Scans",
}
