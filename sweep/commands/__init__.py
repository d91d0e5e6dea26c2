"""The command line: one short function per command, one file per family of commands."""
