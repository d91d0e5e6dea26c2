import re

import pytest
import timm

from jobs.metrics import METRICS, find_metric
from model.depth import DEPTH
from model.losses import LPIPS_TRUNKS
from model.methods import METHODS, find_method
from model.networks import NETWORKS
from model.registry import UnknownChoiceError
from model.semantic import SEMANTIC
from model.weights import WEIGHTS, fetch_command, find_weight
from model.weights.sources import HubRepository


def test_every_entry_is_complete():
    for name, weight in WEIGHTS.items():
        assert weight.name == name
        assert weight.description
        assert weight.licence
        assert weight.megabytes or name in NETWORKS, "those of networks are not known"
        assert weight.sources
        assert weight.sha256 is None or re.fullmatch("[0-9a-f]{64}", weight.sha256)


def test_an_entrys_hash_is_that_of_a_source_and_all_its_sources_have_one():
    """A source without a hash could never be used."""
    for weight in WEIGHTS.values():
        if weight.sha256:
            assert weight.sha256 in {source.sha256 for source in weight.sources}
            assert all(source.sha256 for source in weight.sources)


def test_repositories_of_timm_are_those_that_it_reads_itself():
    for name in timm.list_models(pretrained=True):
        repository = timm.get_pretrained_cfg(name).hf_hub_id or ""
        if repository.startswith("timm/"):
            assert find_weight(f"timm:{name}").sources == (HubRepository(repository),)


def test_a_model_of_transformers_needs_its_preprocessor():
    assert find_weight("hub:some/model").sources == (HubRepository("some/model", needs_preprocessor=True),)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_entry_is_somebodys(name):
    methods = [find_method(method) for method in METHODS]
    starts = {weight for method in methods for weight in method.weights(method.Options())}
    measured = {weight for metric in METRICS for weight in find_metric(metric).weights("vgg")}
    assert name in {*SEMANTIC, *DEPTH, *LPIPS_TRUNKS.values(), *starts, *measured, *NETWORKS}


def test_a_network_of_the_users_has_any_name_that_is_a_files():
    weight = find_weight("network:my-best_2.1")
    assert weight.sha256 is None
    assert fetch_command(weight.name) == "splatsweep weights fetch network:my-best_2.1 --from FILE"
    assert fetch_command("vgg16") == "splatsweep weights fetch vgg16"
    for name in ("network:", "network:.hidden", "network:a/b", "network:a--b"):
        with pytest.raises(UnknownChoiceError, match="network:NAME"):
            find_weight(name)
