"""Networks in one file: ours as safetensors with their configuration, or in Splatter Image's published layout.

Our files are read without executing anything in them: an exported file, the weights of a training, or a checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from jobs.checkpoint import evaluated_weights
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.store import Store
from jobs.features import context_widths
from jobs.keys import training_identity
from jobs.photos.domain import Domain
from jobs.reconstructor import build_reconstructor
from jobs.trained import dataset_of, find_trained, last_checkpoint
from model.methods.splatter_image.backbones.unet import UNet
from model.methods.splatter_image.predictor import GaussianPredictor
from model.official import OfficialPredictor, PublishedDataset, official_state_dict
from model.scenes import Reconstructor
from model.weights import WeightStore
from model.weights.readers import OWN_FORMAT
from results.records.atomic import write_atomically
from results.records.damage import DamagedFileError
from results.records.home import weights_folder
from results.records.training_folder import WEIGHTS_FILENAME, read_training, read_weights
from results.records.trial_folder import CHECKPOINTS_FOLDER, CONFIG_FILENAME

SUFFIXES = (".safetensors", ".pth")
#: Keys of `train` on the choice of weights, which is made in a trained network.
_OF_WEIGHTS = ("start", "keep", "keep_by")
#: Members of a file's metadata, which are texts.
_FORMAT, _CONFIG, _DOMAIN, _KEY, _STEP, _FROZEN = "format", "config", "domain", "trial", "step", "frozen"


@dataclass(frozen=True)
class OwnNetwork:
    """A network of ours: its configuration and its tensors."""

    path: Path
    sha256: str
    config: TrialConfig
    tensors: Mapping[str, Tensor]
    #: recorded number of training iterations; None where it is not recorded
    iteration: int | None = None
    #: what it was trained on; only exported files have it
    domain: Domain | None = None
    #: sha256 of the frozen weights of its training by name; empty where they are not recorded
    frozen: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> OwnNetwork:
        """An exported file, a training's weights, or a checkpoint.  Raises ValueError for any other file."""
        try:
            content = path.read_bytes()
            tensors = load(content)
            with safe_open(path, "pt") as file:
                facts = file.metadata() or {}
        except (SafetensorError, ValueError, KeyError) as error:
            raise ValueError(f"{path} is no safetensors file, or damaged: {error}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if facts.get(_FORMAT) == OWN_FORMAT:
            try:
                config = TrialConfig.recorded(json.loads(facts[_CONFIG]), path)
                domain = Domain.from_json(json.loads(facts[_DOMAIN])) if _DOMAIN in facts else None
                step = int(facts[_STEP]) if _STEP in facts else None
                frozen = {str(name): str(digest) for name, digest in json.loads(facts.get(_FROZEN, "{}")).items()}
            except DamagedFileError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DamagedFileError(path, f"its metadata are none of this version ({error})") from error
            return cls(path, sha256, config, tensors, step, domain, frozen)
        if _FORMAT in facts and facts[_FORMAT] != "pt":
            raise ValueError(f"{path} has the format {facts[_FORMAT]!r}; this version reads {OWN_FORMAT}")
        folder = path.parent.parent if path.parent.name == CHECKPOINTS_FOLDER else path.parent
        if not (folder / CONFIG_FILENAME).is_file():
            raise ValueError(
                f"{path} states no configuration, and {folder} has no {CONFIG_FILENAME}: it is no network of "
                "splatsweep's; `splatsweep export` writes files that stand alone"
            )
        config, record = TrialConfig.read(folder / CONFIG_FILENAME), read_training(folder) or {}
        step = int(path.stem) if path.stem.isdigit() else None
        return cls(path, sha256, config, evaluated_weights(tensors), step, frozen=record.get("weights", {}))

    @classmethod
    def of_trial(cls, folder: Path) -> OwnNetwork:
        """The evaluated network of the trial in a folder; that of its last checkpoint if it is not finished."""
        return cls.of_training(*find_trained(folder.parent.parent, folder.name))

    @classmethod
    def of_training(cls, folder: Path, config: TrialConfig) -> OwnNetwork:
        """The evaluated network of the training in a folder, likewise."""
        finished = read_weights(folder)
        if finished is not None:
            record, content = finished
            path = folder / WEIGHTS_FILENAME
            digest, frozen = record["weights_sha256"], record.get("weights", {})
            return cls(path, digest, config, load(content), record["step"], frozen=frozen)
        checkpoint = last_checkpoint(folder)
        tensors = checkpoint.evaluated
        digest = hashlib.sha256(save({name: t.contiguous() for name, t in tensors.items()})).hexdigest()
        return cls(folder, digest, config, tensors, checkpoint.step)

    def settings(self, dataset: str) -> dict[str, Any]:
        """Its configuration, for evaluation on one of our datasets."""
        values = training_identity(self.config)
        own = values.pop("data")
        values.pop("eval", None)  # of `train.keep: best`, which chose among checkpoints
        values["train"] = {
            key: value for key, value in values["train"].items() if key not in _OF_WEIGHTS and value != []
        }
        options = own["options"] if own["name"] == dataset else {}
        return values | {"data": {"name": dataset, "resolution": own["resolution"], "options": options}}

    def check_method(self, name: str, dataset: str) -> None:
        """Raise ValueError where `name` is another method than that of the file."""
        if name != self.config.model.name:
            raise ValueError(f"{self.path} is a file of model.name {self.config.model.name}, not of {name}")

    def check(self, config: TrialConfig) -> None:
        """Raise ValueError where a configuration changes the network or what conditions it."""
        for section in ("model", *config.sources):
            if getattr(config, section) != getattr(self.config, section):
                raise ValueError(f"{self.path}: the network is given by its file; --set must not change {section}")
        if config.data.resolution != self.config.data.resolution:
            raise ValueError(f"{self.path}: the network takes {self.config.data.resolution} px (data.resolution)")

    def load(self, network: Reconstructor) -> Reconstructor:
        """Gives `network` copies of the tensors; returns it.  Raises ValueError where they do not fit."""
        try:
            network.load_state_dict(dict(self.tensors))
        except RuntimeError as error:
            raise ValueError(f"{self.path}: {error}") from error
        return network


def export_trial(folder: Path, path: Path) -> None:
    """Write the network of the trial in a folder to a file, in the layout that the file's suffix names.

    .safetensors: our tensors, with the configuration and the facts on the training pictures, so that it stands alone;
    .pth: the layout of Splatter Image's published files.  Raises ValueError for another suffix, a trial without a
    network or weights, and a network that the published code cannot hold, naming what it is.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: the name must end in {' or '.join(SUFFIXES)}")
    content = _in_published_layout(folder) if path.suffix == ".pth" else exported(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def exported(folder: Path, dataset: Callable[[str, Mapping[str, Any], Path], Store] = open_dataset) -> bytes:
    """The network of the trial in a folder as a .safetensors file that stands alone.

    dataset: name, options and home -> the store.  Raises ValueError as above, and the errors of `dataset`.
    """
    home = folder.parent.parent
    training, config = find_trained(home, folder.name)
    own, store = OwnNetwork.of_training(training, config), dataset_of(training, config, home, dataset)
    facts = {
        _FORMAT: OWN_FORMAT,
        _CONFIG: json.dumps(config.identity()),
        _DOMAIN: json.dumps(Domain.of(store, config).as_json()),
        _KEY: folder.name,
        _STEP: str(own.iteration),
        _FROZEN: json.dumps(own.frozen, sort_keys=True),
    }
    return _in_order(save({name: tensor.contiguous() for name, tensor in own.tensors.items()}, facts))


def _in_order(content: bytes) -> bytes:
    """A safetensors file with a sorted header: equal networks are equal files.  Its writer draws the order of facts."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors are aligned
    return len(header).to_bytes(8, "little") + header + content[start:]


def _in_published_layout(folder: Path) -> bytes:
    """The network of the trial in a folder as a published file.  Raises ValueError as `export_trial` does."""
    home = folder.parent.parent
    training, config = find_trained(home, folder.name)
    _refuse_unpublished(config)
    own, weights = OwnNetwork.of_training(training, config), WeightStore(weights_folder(home))
    store = dataset_of(training, config, home)
    network = own.load(build_reconstructor(config, context_widths(config, weights), weights, initial=False))
    tensors = {name: tensor.detach().clone() for name, tensor in _official(network, store, config).items()}
    content = io.BytesIO()
    torch.save({"iteration": own.iteration, "model_state_dict": tensors}, content)
    return content.getvalue()


def _refuse_unpublished(config: TrialConfig) -> None:
    """Raise ValueError with all parts of a network that the published code has no place for."""
    options: Any = config.model
    if options.name != "splatter_image":
        raise ValueError(
            f"model.name {options.name} is not in the published layout of Splatter Image; use .safetensors"
        )
    problems = []
    if options.backbone != "unet":
        problems.append(f"model.backbone {options.backbone}")
    if options.gaussians_per_pixel != 1:
        problems.append(f"model.gaussians_per_pixel {options.gaussians_per_pixel}")
    for source, fusions in (("semantic", ("concat", "xattn")), ("depth", ("input", "xattn"))):
        section = config.sources[source]
        if section.choice != "none" and section.fusion not in fusions:
            problems.append(f"{source}.fusion {section.fusion}")
    if problems:
        raise ValueError(f"the published code cannot hold {', '.join(problems)}; use .safetensors")


def _official(network: Reconstructor, store: Store, config: TrialConfig) -> dict[str, Tensor]:
    """Tensors under published names; constants are those of the trial's own dataset."""
    assert isinstance(network, GaussianPredictor)
    assert isinstance(network.backbone, UNet)
    manifest, size = store.manifest, config.data.resolution
    focal = store.focal / (store.resolution / size)
    is_constant = not manifest.bounds_from_origin and float(focal.max() - focal.min()) < 1e-4 * float(focal.mean())
    dataset = PublishedDataset(
        near=manifest.near,
        far=manifest.far,
        fov=float(2 * torch.atan(torch.tensor(size / 2 / float(focal.mean()))) * 180 / torch.pi)
        if is_constant
        else None,
        background=manifest.background,
    )
    return official_state_dict(OfficialPredictor(network.backbone, network.head, dataset))
