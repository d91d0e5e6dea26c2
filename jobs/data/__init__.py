"""Datasets in one packed store.  One file per importer, one line here."""

DATASETS: dict[str, str] = {
    "chairs": "jobs.data.chairs:Chairs",
    "scans": "jobs.data.scans:Scans",
    "srn_cars": "jobs.data.srn:SrnCars",
    "srn_chairs": "jobs.data.srn:SrnChairs",
    "co3d": "jobs.data.co3d:Co3d",
    "nmr": "jobs.data.nmr:Nmr",
    "objaverse": "jobs.data.objaverse:Objaverse",
    "gso": "jobs.data.gso:Gso",
    "meshes": "jobs.data.meshes:Meshes",
}
