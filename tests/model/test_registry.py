import pytest

from model.registry import RegistryError, resolve


@pytest.mark.parametrize(
    ("entry", "missing"),
    [
        ("model.losses.l2:L3", r"there is no 'L3' in module model\.losses\.l2"),
        ("model.losses.l9:L9", r"there is no module model\.losses\.l9"),
        ("nodel.losses.l2:L2", "there is no module nodel;"),
        ("model.losses.l2", "there is no '' in module"),
    ],
)
def test_an_entry_that_leads_nowhere_is_named(entry, missing):
    with pytest.raises(RegistryError, match=f"loss 'mine' is registered as '{entry}', and {missing}"):
        resolve({"mine": entry}, "mine", "loss")


def test_a_package_that_a_choice_needs_is_missing_under_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import a_package_that_is_missing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        resolve({"mine": "needy:Loss"}, "mine", "loss")
