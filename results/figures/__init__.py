"""Figures of the report, one file each.  Frames or arrays go in, pictures come out; no pyplot."""
