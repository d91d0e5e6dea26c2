"""The arithmetic of a trial (backend, execution, precision, device), as recorded in its run's tags."""

from __future__ import annotations

from results.records.arithmetic import Arithmetic, arithmetic_tags, recorded_arithmetic

ON_GPU = Arithmetic(backend="gsplat", execution="compiled", precision="bf16", device="cuda")
ON_CPU = Arithmetic(backend="cpu", execution="eager", precision="float32", device="cpu")


def test_tags_hold_every_field():
    tags = arithmetic_tags([ON_GPU.as_json()])
    assert tags["splatsweep.arithmetic.backend"] == "gsplat"
    assert recorded_arithmetic({**tags, "splatsweep.key": "f00d"}) == ON_GPU.as_json()


def test_a_trial_that_went_on_elsewhere_has_both_in_order():
    tags = arithmetic_tags([ON_GPU.as_json(), ON_CPU.as_json()])
    assert recorded_arithmetic(tags) == {
        "backend": "gsplat then cpu",
        "execution": "compiled then eager",
        "precision": "bf16 then float32",
        "device": "cuda then cpu",
    }


def test_what_is_not_recorded_has_no_tag():
    assert arithmetic_tags([]) == {}
    assert recorded_arithmetic({"splatsweep.key": "f00d"}) == {}
    without = Arithmetic(backend=None, execution="eager", precision="tf32", device="cuda")
    assert "backend" not in recorded_arithmetic(arithmetic_tags([without.as_json()]))
