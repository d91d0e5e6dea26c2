"""`Plan` -> done: driver, executors, progress, stop, submit."""
