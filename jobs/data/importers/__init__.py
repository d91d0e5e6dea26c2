"""One file a dataset format; the registry is `jobs.data.DATASETS`."""
