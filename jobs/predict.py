"""Reconstructs the object of a photograph with a trained network.

from jobs.predict import load_reconstructor

reconstruct = load_reconstructor("runs", "3f2a")        # a trial's key, its beginning, `NAME seed N`, or its folder
prediction = reconstruct("chair.jpg")                   # mask="auto", fov=None, focal=None
prediction.scene.gaussians                              # for methods with Gaussians
prediction.turntable(24, 256)                           # (24, 3, 256, 256) in [0, 1]
prediction.save("out")                                  # .ply, .gif, .mp4, .png
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from jobs.config import TrialConfig
from jobs.data.inspect import silhouettes_of
from jobs.device import choose_device, prepare
from jobs.evaluate import Predict, predicting
from jobs.features import LiveContext
from jobs.model_file import OwnNetwork
from jobs.photos.domain import Domain
from jobs.photos.framing import Framed, Lens, as_it_is, cropped, is_framed, seen
from jobs.photos.masks import Mask, find_mask
from jobs.photos.picture import Picture, read_picture
from jobs.precision import products
from jobs.reconstructor import build_reconstructor
from jobs.trained import dataset_of, find_trained, load_network, report_other_weights
from jobs.turntable import orbit, save_pictures
from jobs.video import VideoError, find_ffmpeg, save_video
from model.ply import write_ply
from model.scenes import GaussianScene, Scene
from model.types import Cameras
from model.weights import WeightStore
from results.records.find import find_trial_folder
from results.records.home import weights_folder
from results.records.trial_folder import MEASUREMENTS_FILENAME, read_result

log = logging.getLogger(__name__)

#: Pictures of a turntable, and their side: for Gaussians, and for fields, each of whose pixels costs network calls.
VIEWS, SIDE, SIDE_OF_FIELDS = 24, 256, 64
#: Endings of the files that `Prediction.save` may write.
ENDINGS = ("-input.png", ".png", ".gif", ".mp4", ".ply")
#: Pictures of a turntable that the sheet shows.
_SHEET = 12
#: Distance from the training pictures, in units of the farthest of these, beyond which a photograph is far from them.
_FAR = 1.0


def load_reconstructor(
    home: Path | str,
    trial: Path | str,
    *,
    sweep: str | None = None,
    seed: int | None = None,
    device: str = "auto",
) -> PhotoReconstructor:
    """The trained network of a trial, ready for photographs.

    trial: its folder, key, the beginning of it, or its name, in `sweep` and of `seed` where given
    (`results.records.find`), or the file of an exported network; device: a torch device, or "auto": the GPU if there is
    one.

    Raises ValueError for an unknown trial, one without a network or weights, one whose network takes several views,
    and one that takes the dataset's own depth.
    """
    chosen = choose_device(device)
    home = Path(home).absolute()
    file = Path(trial)
    if file.suffix == ".safetensors" and file.is_file():
        return _from_file(file, home, chosen)
    folder = find_trial_folder(str(trial), home, sweep, seed)
    home, key = folder.parent.parent, folder.name
    found, config = find_trained(home, key)
    _check(config)
    weights = WeightStore(weights_folder(home))
    context = LiveContext(config, weights, chosen)
    network = load_network(found, config, context.widths, weights, chosen)
    domain = Domain.of(dataset_of(found, config, home), config)
    return PhotoReconstructor(
        key, config, domain, predicting(network, context, config), _lowest_conditioned(folder), chosen
    )


def _from_file(file: Path, home: Path, device: torch.device) -> PhotoReconstructor:
    """The network of an exported file; the home is needed for frozen models' weights alone."""
    own = OwnNetwork.read(file)
    if own.domain is None:
        raise ValueError(
            f"{file} does not say what the network was trained on; `splatsweep export` writes files that do"
        )
    _check(own.config)
    weights = WeightStore(weights_folder(home))
    report_other_weights(file.name, own.frozen, own.config, weights.identity)
    context = LiveContext(own.config, weights, device)
    built = build_reconstructor(own.config, context.widths, weights, initial=False)
    network = prepare(own.load(built), device).eval()
    predict = predicting(network, context, own.config)
    return PhotoReconstructor(file.name, own.config, own.domain, predict, None, device)


def _check(config: TrialConfig) -> None:
    if config.model.input_views > 1:
        raise ValueError(
            f"this network takes {config.model.input_views} pictures with known cameras (model.input_views), and a "
            "photograph is one; choose a row with one"
        )


def _lowest_conditioned(folder: Path) -> float | None:
    """The lowest PSNR of an evaluated object's own source view; None before the trial is finished."""
    if read_result(folder) is None:
        return None
    rows = pq.read_table(folder / MEASUREMENTS_FILENAME, columns=["view_kind", "metric", "value"])
    wanted = pc.and_(
        pc.equal(rows["view_kind"].cast("string"), "conditioned"),
        pc.equal(rows["metric"].cast("string"), "psnr_clamped"),
    )
    lowest = pc.min(rows.filter(wanted)["value"]).as_py()
    return None if lowest is None else float(lowest)


@dataclass(frozen=True)
class PhotoReconstructor:
    """A trained network that takes photographs."""

    #: key of its trial, or name of its file
    name: str
    config: TrialConfig
    #: what it was trained on
    domain: Domain
    predict: Predict
    #: PSNR of the worst evaluated object's own source view; None where it is not known
    lowest: float | None
    device: torch.device

    @torch.inference_mode()
    def __call__(
        self,
        picture: Path | str,
        *,
        mask: Path | str = "auto",
        fov: float | None = None,
        focal: float | None = None,
    ) -> Prediction:
        """Reconstructs the object of one picture.

        mask: `auto`, `colour`, `rembg`, `none`, or the file of a mask (`jobs.photos.masks`); fov: degrees across the
        picture's width; focal: pixels of the file's picture.  A picture of the dataset's kind is read as it is, unless
        a mask is named.  Raises `PictureError` for a file that is no usable picture, and where its object cannot be
        separated from the background.
        """
        read = read_picture(Path(picture))
        lens = Lens.of(read, fov, focal)
        found: Mask | None = None
        if mask in ("auto", "none") and is_framed(read, self.domain):
            framed = as_it_is(read, self.domain, lens)
        else:
            # Where training pictures show surroundings, so may a photograph.
            wanted = "none" if mask == "auto" and not self.domain.is_plain else mask
            found = find_mask(read, wanted)
            framed = cropped(read, found, self.domain, lens)
        with products(self.config.train.precision):
            scene = self.predict(framed.source.to(self.device))
        return Prediction(self, read, lens, found, framed, scene)


@dataclass(frozen=True)
class Prediction:
    """The object of one photograph, reconstructed."""

    by: PhotoReconstructor
    picture: Picture
    lens: Lens
    #: None where the picture was read whole
    mask: Mask | None
    framed: Framed
    #: in the frame of the photograph's camera
    scene: Scene

    @torch.inference_mode()
    def turntable(self, views: int = VIEWS, side: int | None = None) -> Tensor:
        """Images (views, 3, side, side) in [0, 1] from once around the object, from the photograph's side on.

        The axis is the vertical of a camera at the height that the training pictures' cameras have.
        """
        domain, source = self.by.domain, self.framed.source
        assert source.origin is not None
        middle = source.origin[0].double().numpy()
        up = np.array([0.0, -np.cos(domain.elevation), -np.sin(domain.elevation)])
        cameras = orbit(
            source.cameras.to(self.by.device),
            middle,
            up,
            -middle,
            float(np.linalg.norm(middle)),
            domain.elevation,
            views,
            side or self.side,
        )
        images = self._images(cameras, source.background.to(self.by.device))
        return images[0].clamp(0, 1).cpu()

    def _images(self, cameras: Cameras, background: Tensor) -> Tensor:
        with products(self.by.config.train.precision):
            return self.scene.for_pictures().render(cameras, background).images

    @property
    def side(self) -> int:
        """Default side of rendered pictures."""
        if isinstance(self.scene, GaussianScene):
            return SIDE
        return max(SIDE_OF_FIELDS, self.by.domain.resolution)

    @cached_property
    def fidelity(self) -> float:
        """PSNR of the reconstruction, seen by the photograph's camera, against the picture that the network read."""
        source = self.framed.source.to(self.by.device)
        with torch.inference_mode():
            images = self._images(source.cameras, source.background).clamp(0, 1)
        return float(-10 * torch.log10((images - source.images).square().mean().clamp(min=1e-10)))

    @cached_property
    def concerns(self) -> list[str]:
        """Reasons to distrust the reconstruction, such as a photograph unlike the training pictures."""
        domain, found = self.by.domain, []
        distance = domain.distance_of(seen(self.framed), self._silhouette())
        if distance > _FAR:
            found.append(
                f"its colours or shape are {distance:.1f} times as far from the mean training picture as the farthest "
                f"of {domain.sample} training pictures"
            )
        # Compared as they are shown: a copy of an evaluated picture may differ in its last bits.
        if self.by.lowest is not None and round(self.fidelity, 1) < round(self.by.lowest, 1):
            found.append(
                f"the reconstruction seen from the photograph's own camera has {self.fidelity:.1f} dB against it; the "
                f"worst evaluated object has {self.by.lowest:.1f} dB"
            )
        return found

    def _silhouette(self) -> np.ndarray:
        if self.framed.silhouette is not None:
            return self.framed.silhouette
        image, domain = seen(self.framed), self.by.domain
        if not domain.is_plain:
            return np.ones(image.shape[1:], bool)
        (silhouette,) = silhouettes_of(image[None], None, domain.background)
        return silhouette if silhouette.any() else np.ones_like(silhouette)

    def save(
        self,
        folder: Path | str,
        *,
        stem: str | None = None,
        views: int = VIEWS,
        side: int | None = None,
    ) -> list[Path]:
        """Writes STEM.gif, STEM.mp4 (where ffmpeg is installed), STEM.png (renders), STEM-input.png (the picture that
        the network read), and STEM.ply for Gaussians; returns their paths.

        stem: by default that of the picture; side: of renders, pixels.  Where ffmpeg fails, its reason is logged.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stem = stem or self.picture.path.stem
        images = self.turntable(views, side)
        paths = [folder / f"{stem}-input.png", folder / f"{stem}.png", folder / f"{stem}.gif"]
        Image.fromarray(seen(self.framed).transpose(1, 2, 0)).save(paths[0])
        shown = np.unique(np.linspace(0, views, min(_SHEET, views), endpoint=False).astype(int))
        save_pictures(images[shown], paths[1])
        save_pictures(images, paths[2], comment=f"splatsweep trial {self.by.name}")
        ffmpeg = find_ffmpeg()
        if ffmpeg is not None:
            try:
                save_video(images, folder / f"{stem}.mp4", ffmpeg)
                paths.append(folder / f"{stem}.mp4")
            except VideoError as error:
                log.warning("%s", error)
        if isinstance(self.scene, GaussianScene):
            write_ply(self.scene.gaussians, folder / f"{stem}.ply")
            paths.append(folder / f"{stem}.ply")
        return paths

    @property
    def remarks(self) -> list[str]:
        """Sentences about how the picture was read."""
        treated = [*self.picture.remarks]
        if self.framed.as_it_is:
            treated.append("it is framed as the dataset's own pictures and is read as it is")
        elif self.mask is None:
            treated.append("the largest square in the middle is read, background included")
        else:
            treated.append(f"the object is separated by {self.mask.how}")
            treated += self.mask.remarks
        degrees = self.lens.degrees
        treated.append(f"field of view: {self.lens.origin}" + ("" if degrees is None else f", {degrees:.0f} degrees"))
        return [*treated, *self.framed.remarks]

    def as_json(self, files: Sequence[Path] = ()) -> dict[str, Any]:
        """Plain values about the prediction."""
        return {
            "picture": str(self.picture.path),
            "trial": self.by.name,
            "files": [path.name for path in files],
            "mask": None if self.mask is None else self.mask.how,
            "crop": list(self.framed.crop),
            "field_of_view_degrees": self.lens.degrees,
            "field_of_view_from": self.lens.origin,
            "fidelity_psnr": self.fidelity,
            "remarks": self.remarks,
            "concerns": self.concerns,
        }
