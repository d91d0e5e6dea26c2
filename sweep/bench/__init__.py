"""The benchmarks, by name: `splatsweep bench NAME`.  Each is a function `run(quick: bool) -> BenchResult`."""

#: Benchmark -> "module:function", imported when it is run.
BENCHES: dict[str, str] = {
    "step": "sweep.bench.step:run",
    "raster": "sweep.bench.raster:run",
    "sweep": "sweep.bench.sweep:run",
    "report": "sweep.bench.report:run",
}
