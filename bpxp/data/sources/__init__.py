"""Sources of data sets: IDX files, folders of them, downloads."""
