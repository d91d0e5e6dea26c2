"""Public interface of sweep files: `from sweep.spec import load_sweep`."""

from sweep.file.diagnostics import Mistake, SweepError
from sweep.file.load import load_sweep
from sweep.file.schema import GridBlock, RunOptions, Sweep, Tracking

__all__ = ["GridBlock", "Mistake", "RunOptions", "Sweep", "SweepError", "Tracking", "load_sweep"]
