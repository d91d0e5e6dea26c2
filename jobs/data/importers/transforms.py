"""Posed pictures in the JSON of NeRF's synthetic scenes, nerfstudio and instant-ngp.

Layouts: bmild/nerf (`transforms_{train,val,test}.json`, `camera_angle_x`), nerfstudio (data conventions),
NVlabs/instant-ngp (NeRF dataset tips).  All keep camera-to-world matrices with OpenGL's axes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.importers.files import files_under, inside, read_json
from jobs.data.importers.posed import Camera, Capture, Posed, Shot, surroundings, uniform
from jobs.data.importers.poses import FROM_OPENGL
from jobs.data.store import SPLITS

#: Names of files with an object's frames.
LISTINGS = ("transforms.json", "transforms_*.json")
#: Suffixes to try; NeRF's synthetic scenes name images without one.
ENDINGS = ("", ".png", ".jpg", ".jpeg", ".webp")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
#: Camera models that are pinhole cameras if their distortion is zero.
PINHOLE = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
OTHER_LENSES = ("is_fisheye", "equirectangular", "latlong", "orthographic", "ftheta_p0", "rolling_shutter")


@dataclass(frozen=True)
class Transforms(Posed):
    """Objects are folders with `transforms.json`, or `transforms_train.json` and its like."""

    description = "posed pictures of objects: the JSON of NeRF-synthetic, nerfstudio or instant-ngp"
    needs_source = (
        "transforms.json, or transforms_train.json, _val, _test: in it, or in a folder for each object; matrices from "
        "camera to world with OpenGL's axes (x right, y up, z backwards)"
    )

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(files_under(folder, *LISTINGS))

    def folders(self) -> list[Path]:
        return sorted({file.parent for file in files_under(self.root, *LISTINGS)})

    def capture(self, folder: Path, split: str) -> Capture:
        files = _files(folder, split)
        shots: dict[str, Shot] = {}
        for file in files:
            for shot in self._shots(folder, file, split):
                shots.setdefault(str(shot.picture), shot)
        there = sorted(folder.glob("transforms*.json"))
        notes = [f"its frames are those of {', '.join(file.name for file in files)}"] if len(there) > len(files) else []
        return Capture(tuple(shots.values()), notes=(*notes, *surroundings(shots.values())))

    def _shots(self, folder: Path, file: Path, split: str) -> list[Shot]:
        content = read_json(file)
        frames = content.get("frames") if isinstance(content, dict) else None
        if not isinstance(frames, list):
            raise UnreadableObjectError(f"{file}: no list of frames")
        listed = content.get(f"{split}_filenames")
        chosen = {posixpath.normpath(str(path)) for path in listed} if isinstance(listed, list) else None
        shots = []
        for number, frame in enumerate(frames):
            if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
                raise UnreadableObjectError(f"{file}: frame {number} has no file_path")
            if chosen is not None and posixpath.normpath(frame["file_path"]) not in chosen:
                continue
            try:
                shots.append(self._shot(folder, file, {**content, **frame}))
            except (TypeError, ValueError) as error:
                if isinstance(error, UnreadableObjectError):
                    raise
                raise UnreadableObjectError(f"{file}: frame {frame['file_path']!r}: {error}") from error
        return shots

    def _shot(self, folder: Path, file: Path, frame: Mapping[str, Any]) -> Shot:
        """A frame; keys that it lacks are taken from the top level of the file."""
        _reject_distortion(frame, file)
        matrix = np.array(frame.get("transform_matrix"), dtype=np.float64)
        if matrix.shape not in ((3, 4), (4, 4)):
            raise UnreadableObjectError(
                f"{file}: transform_matrix of {frame['file_path']!r} is {matrix.shape}, not 4 x 4"
            )
        return Shot(
            picture=self._picture(folder, file, frame["file_path"]),
            camera=_camera(frame, file),
            world_to_camera=FROM_OPENGL @ np.linalg.inv(uniform(matrix, file)),
            mask=self._named(folder, file, frame.get("mask_path")),
            depth=self._named(folder, file, frame.get("depth_file_path") or frame.get("depth_path")),
            depth_unit=_depth_unit(frame, file) if self.options.depth else None,
        )

    def _named(self, folder: Path, file: Path, path: Any) -> Path | None:
        """A file that the JSON names, relative to itself."""
        if path is None:
            return None
        if not isinstance(path, str):
            raise UnreadableObjectError(f"{file}: {path!r} is not a path")
        relative = folder.relative_to(self.root).as_posix()
        return inside(self.root, path if posixpath.isabs(path) else posixpath.join(relative, path), file)

    def _picture(self, folder: Path, file: Path, path: str) -> Path:
        named = self._named(folder, file, path)
        assert named is not None
        found = next((other for ending in ENDINGS if (other := named.with_name(named.name + ending)).is_file()), None)
        if found is None:
            raise UnreadableObjectError(f"{file}: its picture {path!r} is missing: there is no {named}")
        return found


def _files(folder: Path, split: str) -> list[Path]:
    """The files with an object's frames: that of its split, one for all splits, or those of all splits."""
    own, whole = folder / f"transforms_{split}.json", folder / "transforms.json"
    for file in (own, whole):
        if file.is_file():
            return [file]
    every = [folder / f"transforms_{other}.json" for other in SPLITS]
    return [file for file in every if file.is_file()] or sorted(folder.glob("transforms_*.json"))


def _reject_distortion(frame: Mapping[str, Any], file: Path) -> None:
    """Raises `UnreadableObjectError`, naming the parameter or the camera model, for cameras with distortion."""
    bent = {key: frame[key] for key in DISTORTION if _is_set(frame.get(key))}
    if bent:
        values = ", ".join(f"{key} {value}" for key, value in bent.items())
        raise UnreadableObjectError(
            f"{file}: its cameras have distortion ({values}); undistort the pictures first, e.g. by "
            "colmap image_undistorter"
        )
    model = frame.get("camera_model", PINHOLE[0])
    if model not in PINHOLE:
        raise UnreadableObjectError(
            f"{file}: camera_model {model!r}; allowed, without distortion: {', '.join(PINHOLE)}"
        )
    for key in OTHER_LENSES:
        if _is_set(frame.get(key)):
            raise UnreadableObjectError(f"{file}: {key} {frame[key]!r}: not a pinhole camera")


def _depth_unit(frame: Mapping[str, Any], file: Path) -> float | None:
    """instant-ngp's factor of 16-bit depth images, which nerfstudio's files lack."""
    unit = frame.get("integer_depth_scale")
    if unit is None:
        return None
    if not (np.isfinite(float(unit)) and float(unit) > 0):
        raise UnreadableObjectError(f"{file}: integer_depth_scale is {unit!r}, not a positive number")
    return float(unit)


def _is_set(value: Any) -> bool:
    return any(map(_is_set, value)) if isinstance(value, list) else bool(value)


def _camera(frame: Mapping[str, Any], file: Path) -> Camera:
    """Intrinsics in any of the variants: focal lengths in pixels, or fields of view in radians or degrees."""
    size = (int(frame["w"]), int(frame["h"])) if frame.get("w") and frame.get("h") else None
    principal = (float(frame["cx"]), float(frame["cy"])) if "cx" in frame and "cy" in frame else None
    if frame.get("fl_x"):
        focal = float(frame["fl_x"]), float(frame.get("fl_y") or frame["fl_x"])
        return Camera(size, focal, principal)
    if frame.get("camera_angle_x"):
        angle = frame.get("camera_angle_y")
        return Camera(size, None, principal, (float(frame["camera_angle_x"]), None if angle is None else float(angle)))
    for across, down in (("x_fov", "y_fov"), ("fov", "")):
        if frame.get(across):
            other = frame.get(down)
            fov = float(np.radians(float(frame[across]))), None if other is None else float(np.radians(float(other)))
            return Camera(size, None, principal, fov)
    raise UnreadableObjectError(f"{file}: no focal length: one of fl_x, camera_angle_x, x_fov is needed")
