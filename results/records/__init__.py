"""Records: what lies on disk, each fact once.  Writers and readers of the home import it; it needs no torch."""
