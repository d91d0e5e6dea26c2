"""The command line: one short function a command, one file a family of commands."""
