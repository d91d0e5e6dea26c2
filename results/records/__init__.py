"""Files of a home, each fact stored once.  Writers and readers of the home import it; it needs no torch."""
