"""Datasets in one packed store.  One file per importer, one line here."""

DATASETS: dict[str, str] = {
    "chairs": "jobs.data.importers.chairs:Chairs",
    "scans": "jobs.data.importers.scans:Scans",
    "srn_cars": "jobs.data.importers.srn:SrnCars",
    "srn_chairs": "jobs.data.importers.srn:SrnChairs",
    "co3d": "jobs.data.importers.co3d:Co3d",
    "nmr": "jobs.data.importers.nmr:Nmr",
    "objaverse": "jobs.data.importers.objaverse:Objaverse",
    "gso": "jobs.data.importers.gso:Gso",
    "meshes": "jobs.data.importers.meshes:Meshes",
    "transforms": "jobs.data.importers.transforms:Transforms",
    "colmap": "jobs.data.importers.colmap:Colmap",
}
