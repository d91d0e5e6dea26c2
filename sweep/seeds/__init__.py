"""Seeds until rows are decided (`seeds: {at_least: 3, at_most: 12, until: decided}`).

`rows` computes from recorded scores which seeds each row should have, for the plan; `source` hands trials to an
executor and adds seeds while they run.  `results.sequential` is the test.
"""
