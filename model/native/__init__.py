"""Compiled CPU code with two entry points: `rasterise` draws Gaussians, `accelerate` speeds up a network's layers.

    model.native.rasterise.rasterise(gaussians, cameras, background)   -> images, inverse depths; differentiable
    model.native.accelerate.accelerate(network)                        -> the same network, faster

Both share one library (`csrc/`), its vector types (`csrc/vectors.inc`) and its threads (`csrc/threads.hpp`),
which are torch's own.

The path of a network: `tracing` records its torch calls, `lowering` replaces those that `layers` supports, `recorder`
converts them to steps, and `graph_executor` runs many steps in one call.
"""
