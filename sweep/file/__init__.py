"""sweep.yaml -> `Sweep`: YAML with positions, inheritance, overrides, checks and diagnostics."""
