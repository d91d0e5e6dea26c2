"""Tiny sources in the exact public layouts: every image is blank except for a red dot at one world point.

Cameras and the dot's pixel are computed by each format's own definition; nothing here uses the code under test.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from jobs.data.prepare import prepare
from jobs.data.store import Store

#: The red point of every world; it lies on no axis.
POINT = np.array([0.21, -0.13, 0.17])
CENTRES = np.array([[1.4, 0.3, 0.5], [-0.6, 1.5, 0.9], [-1.2, -1.1, 0.4]])
RED = (255, 0, 0)


@dataclass(frozen=True)
class Layout:
    """A dataset's layout: functions that write a source and import it."""

    name: str
    write: Callable[[Path], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Callable[[Path], Path]] = field(default_factory=dict)

    def prepare(self, source: Path, home: Path, **options: Any) -> Store:
        files = {role: [path(source)] for role, path in self.files.items()}
        merged = {**self.options, **options}
        return Store.open(prepare(self.name, merged, home, workers=1, source=source, files=files))


def axes(centre: np.ndarray) -> np.ndarray:
    """The axes right, down and forward (3, 3), as rows, of a camera that looks slightly past the origin; z is up."""
    forward = np.array([0.05, 0.02, -0.03]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def subsample_views(centre: np.ndarray, point: np.ndarray = POINT) -> np.ndarray:
    """The red point in the frame of a camera: right, down, forward."""
    return axes(centre) @ (point - centre)


def dotted(width: int, height: int, place: np.ndarray, background: int, radius: int = 1) -> np.ndarray:
    """An image (height, width, 3) with a red square around the pixel at `place` (x, y)."""
    column, row = np.floor(place).astype(int)
    assert radius < column < width - radius - 1
    assert radius < row < height - radius - 1
    picture = np.full((height, width, 3), background, np.uint8)
    picture[row - radius : row + radius + 1, column - radius : column + radius + 1] = RED
    return picture


# ---- ShapeNet-SRN -------------------------------------------------------------------------------------------------

SRN_SIZE = 32


def write_srn_object(
    folder: Path,
    centres: np.ndarray = CENTRES,
    *,
    size: int = SRN_SIZE,
    one_line: bool = True,
    alpha: bool = False,
    world_to_camera: bool = False,
) -> None:
    """intrinsics.txt speaks of 128 px, whatever the pictures' size; pictures with alpha keep it at a half."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    flag = "1\n" if world_to_camera else ""
    (folder / "intrinsics.txt").write_text(f"131.250000 64.000000 64.000000 0.\n0. 0. 0.\n1.\n128 128\n{flag}")
    for view, centre in enumerate(centres):
        x, y, z = subsample_views(centre)
        picture = dotted(size, size, np.array([131.25 * x / z + 64, 131.25 * y / z + 64]) * size / 128, 255)
        if alpha:
            picture = np.dstack([picture, np.full((size, size), 128, np.uint8)])
        Image.fromarray(picture).save(folder / "rgb" / f"{view:06d}.png")
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = axes(centre).T, centre
        words = [f"{value:.9f}" for value in (np.linalg.inv(pose) if world_to_camera else pose).ravel()]
        lines = [" ".join(words)] if one_line else [" ".join(words[i : i + 4]) for i in range(0, 16, 4)]
        (folder / "pose" / f"{view:06d}.txt").write_text("\n".join(lines) + "\n")


def write_srn_cars(root: Path) -> None:
    write_srn_object(root / "cars_train" / "a")
    write_srn_object(root / "cars_train" / "b", one_line=False, alpha=True)
    write_srn_object(root / "cars_val" / "c")
    write_srn_object(root / "cars_test" / "d", one_line=False, world_to_camera=True)


# ---- CO3D ---------------------------------------------------------------------------------------------------------

CO3D_SIZE = 128
#: NDC focal lengths (x, y) of the preprocessed sequences.
CO3D_FOCAL = np.array([2.1, 2.3])


def pytorch3d(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R, T of `x_camera = x_world R + T`; the camera's x axis points left, y up, z forward."""
    right, down, forward = axes(centre)
    rotation = np.stack([-right, -down, forward], axis=1)
    return rotation, -centre @ rotation


def ndc(centre: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """PyTorch3D's screen coordinates of the point: x points left, y up."""
    rotation, translation = pytorch3d(centre)
    seen = POINT @ rotation + translation
    return focal * seen[:2] / seen[2]


def write_co3d_preprocessed(root: Path) -> None:
    rotations, translations = {}, {}
    for split, names in {"train": ["110_1_2", "111_3_4"], "val": ["112_5_6"], "test": ["113_7_8"]}.items():
        folder = root / "co3d_hydrant_for_gs" / split
        rotations, translations = {}, {}
        for name in names:
            (folder / name).mkdir(parents=True)
            places = [64 - ndc(centre, CO3D_FOCAL) * 64 for centre in CENTRES]
            full = np.stack([dotted(128, 128, place, 180) for place in places]) / 255.0
            foreground = np.stack([dotted(128, 128, place, 0) for place in places]) / 255.0
            np.save(folder / name / "images_full.npy", full.transpose(0, 3, 1, 2).astype(np.float32))
            np.save(folder / name / "images_fg.npy", foreground.transpose(0, 3, 1, 2).astype(np.float32))
            np.save(folder / name / "focal_lengths.npy", np.tile(CO3D_FOCAL, (3, 1, 1)).astype(np.float32))
            (folder / name / "frame_order.txt").write_text("00007.png\n00001.png\n00104.png\n")
            pairs = [pytorch3d(centre) for centre in CENTRES]
            rotations[name], translations[name] = (
                np.stack(part).astype(np.float32) for part in zip(*pairs, strict=True)
            )
        (folder / "unfinished").mkdir()  # without frame_order.txt
        (folder / "unknown").mkdir()  # of which the archives have no cameras
        (folder / "unknown" / "frame_order.txt").write_text("00000.png\n")
        np.savez(folder / "camera_Rs.npz", **rotations)
        np.savez(folder / "camera_Ts.npz", **translations)


#: Raw pictures: width, height, and the principal point in pixels.
RAW_WIDTH, RAW_HEIGHT, RAW_PRINCIPAL = 240, 300, np.array([132.0, 141.0])
RAW_FOCAL = np.array([250.0, 260.0])  # pixels


def write_co3d_raw(root: Path) -> None:
    """Four sequences; the second has NDC of the other kind, null members and the mask at another size."""
    frames, sequences, lists = [], [], {"train": [], "val": [], "test": []}
    for name, split in {"110_1_2": "train", "111_3_4": "train", "112_5_6": "val", "113_7_8": "test"}.items():
        isotropic = name != "111_3_4"
        half = np.full(2, RAW_WIDTH / 2) if isotropic else np.array([RAW_WIDTH, RAW_HEIGHT]) / 2
        for number, centre in enumerate(CENTRES):
            frame = _raw_frame(root, name, number, centre, half, small_mask=not isotropic)
            frame["viewpoint"] |= {"intrinsics_format": "ndc_isotropic"} if isotropic else {}
            frames.append(frame)
            lists[split].append([name, number, frame["image"]["path"]])
        if not isotropic:  # two frames that cannot be used, and one in no list
            for number, part in enumerate(("mask", "viewpoint"), start=3):
                frames.append({**frames[-1], "frame_number": number, part: None})
                lists[split].append([name, number, "hydrant/x.jpg"])
            frames.append({**frames[-1], "frame_number": 5})
        cloud = f"hydrant/{name}/pointcloud.ply"
        trimesh.PointCloud(POINT + np.array([[0, 0, 0], [0.3, 0, 0], [0, 0.2, 0.1]])).export(root / cloud)
        sequences.append(
            {
                "sequence_name": name,
                "category": "hydrant",
                "point_cloud": {"path": cloud},
                "viewpoint_quality_score": 1.0,
            }
        )
    sequences.append({"sequence_name": "999_0_0", "category": "hydrant", "point_cloud": None})
    folder = root / "hydrant"
    for file, content in {"frame": frames[::-1], "sequence": sequences}.items():
        with gzip.open(folder / f"{file}_annotations.jgz", "wt", encoding="utf-8") as stream:
            json.dump(content, stream)
    (folder / "set_lists").mkdir()
    (folder / "set_lists" / "set_lists_fewview_dev.json").write_text(json.dumps(lists))


def _raw_frame(
    root: Path, name: str, number: int, centre: np.ndarray, half: np.ndarray, small_mask: bool
) -> dict[str, Any]:
    folder = root / "hydrant" / name
    for part in ("images", "masks", "depths", "depth_masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rotation, translation = pytorch3d(centre)
    place = RAW_PRINCIPAL - ndc(centre, RAW_FOCAL)
    picture = dotted(RAW_WIDTH, RAW_HEIGHT, place, 200, radius=4)
    mask = (dotted(RAW_WIDTH, RAW_HEIGHT, place, 0, radius=4)[..., 0] > 0) * np.uint8(255)
    image = f"frame{number + 1:06d}"  # the number in the name is another one
    Image.fromarray(picture).save(folder / "images" / f"{image}.jpg", quality=95, subsampling=0)
    mask_size = (RAW_WIDTH // 2, RAW_HEIGHT // 2) if small_mask else (RAW_WIDTH, RAW_HEIGHT)
    Image.fromarray(mask).resize(mask_size, Image.Resampling.BOX).save(folder / "masks" / f"{image}.png")
    depth = np.full((RAW_HEIGHT, RAW_WIDTH), subsample_views(centre)[2] / 2, np.float16)
    Image.fromarray(depth.view(np.uint16)).save(folder / "depths" / f"{image}.jpg.geometric.png")
    Image.fromarray(mask).save(folder / "depth_masks" / f"{image}.png")
    principal = (np.array([RAW_WIDTH, RAW_HEIGHT]) / 2 - RAW_PRINCIPAL) / half
    return {
        "sequence_name": name,
        "frame_number": number,
        "frame_timestamp": float(number),
        "image": {"path": f"hydrant/{name}/images/{image}.jpg", "size": [RAW_HEIGHT, RAW_WIDTH]},
        "depth": {
            "path": f"hydrant/{name}/depths/{image}.jpg.geometric.png",
            "scale_adjustment": 2.0,
            "mask_path": f"hydrant/{name}/depth_masks/{image}.png",
        },
        "mask": {"path": f"hydrant/{name}/masks/{image}.png", "mass": 81.0},
        "viewpoint": {
            "R": rotation.tolist(),
            "T": translation.tolist(),
            "focal_length": (RAW_FOCAL / half).tolist(),
            "principal_point": principal.tolist(),
        },
        "meta": None,
    }


# ---- NMR ----------------------------------------------------------------------------------------------------------

NMR_FOCAL = 3.7320509
#: Their world is y-up: (x, y, z) there is (x, -z, y) in a z-up one.
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def write_nmr(root: Path) -> None:
    """The second synset has inverse matrices only, the third no list."""
    for synset, inverse_only in {"02958343": False, "03001627": True, "99999999": False}.items():
        for split, names in {"train": ["a1", "b2"], "val": ["c3"], "test": ["d4"]}.items():
            listing = [f"{synset[:3]}{name}" for name in names]
            for name in listing:
                _write_nmr_object(root / synset / name, inverse_only)
            if synset != "99999999":
                (root / synset / f"softras_{split}.lst").write_text("\n".join(listing) + "\n\n")
    (root / "views.txt").write_text("02958343 029d4 2\n03001627 030d4 1\n")


def _write_nmr_object(folder: Path, inverse_only: bool) -> None:
    (folder / "image").mkdir(parents=True)
    arrays = {}
    for view, centre in enumerate(CENTRES):
        x, y, z = subsample_views(centre)
        place = 32 + 32 * NMR_FOCAL * np.array([x, y]) / z
        Image.fromarray(dotted(64, 64, place, 255)).save(folder / "image" / f"{view:04d}.png")
        pose = np.eye(4)  # world-to-camera, of the y-up world
        pose[:3, :3] = axes(centre) @ Z_UP_TO_Y_UP.T
        pose[:3, 3] = -axes(centre) @ centre
        arrays[f"world_mat_inv_{view}"] = np.linalg.inv(pose)
        if not inverse_only:
            arrays[f"world_mat_{view}"] = pose[:3]
            arrays[f"world_mat_inv_{view}"] = np.linalg.inv(pose)[:3]
        arrays[f"camera_mat_{view}"] = np.diag([NMR_FOCAL, NMR_FOCAL, 1, 1])
    np.savez(folder / "cameras.npz", **arrays)


# ---- Objaverse and Google Scanned Objects -------------------------------------------------------------------------

FIELD_OF_VIEW = np.radians(49.134342641202636)


def write_renders(folder: Path, size: int = 256) -> None:
    """Writes three views, last to first; transparent pixels are black."""
    folder.mkdir(parents=True)
    for view, centre in reversed(list(enumerate(CENTRES))):
        right, down, forward = axes(centre)
        pose = np.stack([right, -down, -forward])  # OpenGL's axes
        x, y, z = pose @ (POINT - centre)
        focal = size / 2 / np.tan(FIELD_OF_VIEW / 2)
        place = np.array([size / 2 + focal * x / -z, size / 2 - focal * y / -z])
        colour = dotted(size, size, place, 0, radius=2)
        Image.fromarray(np.dstack([colour, colour[..., 0]])).save(folder / f"{view:03d}.png")
        np.save(folder / f"{view:03d}.npy", np.column_stack([pose, -pose @ centre]))


def write_objaverse(root: Path) -> None:
    uids = ["9f0b", "1c2d", "77aa"]
    for uid in uids:
        write_renders(root / uid)
    write_renders(root / "unlisted")
    (root / "lvis-annotations-filtered.json").write_text(json.dumps(uids))


def write_gso(root: Path) -> None:
    for name in ("Schäferhund_青い", "Big_Dot"):
        write_renders(root / name / "render_mvs_25" / "model")


# ---- Meshes -------------------------------------------------------------------------------------------------------


def write_meshes(root: Path) -> None:
    """Writes boxes of different shapes in every format."""
    root.mkdir(exist_ok=True)
    for number, suffix in enumerate(("glb", "ply", "off", "stl", "obj"), start=1):
        box = trimesh.creation.box((1, 1 + number / 4, 2))
        box.vertices[0] *= 1 + number / 10
        box.visual.vertex_colors = [200, 40 * number, 30, 255]
        folder = root / f"kind_{number % 2}"
        folder.mkdir(exist_ok=True)
        box.export(folder / f"box.{suffix}")


# ---- Posed pictures -----------------------------------------------------------------------------------------------

#: Width, height, focal lengths and principal point of the photographs.
PHOTO = {"w": 200, "h": 160, "fl_x": 180.0, "fl_y": 190.0, "cx": 104.0, "cy": 78.0}


def photo(
    path: Path, centre: np.ndarray, *, alpha: bool = False, size: tuple[int, int] = (200, 160), scale: float = 1.0
) -> None:
    """Writes the image of the camera `PHOTO`; with alpha, only a disc around the dot is opaque, and the rest black."""
    x, y, z = subsample_views(centre)
    place = np.array([PHOTO["fl_x"] * x / z + PHOTO["cx"], PHOTO["fl_y"] * y / z + PHOTO["cy"]]) * scale
    picture = dotted(*size, place, 90, radius=3)
    if alpha:
        rows, columns = np.indices(size[::-1])
        near = (columns - place[0]) ** 2 + (rows - place[1]) ** 2 < 30**2
        picture = np.dstack([np.where(near[..., None], picture, 0), near * 255]).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))


def opengl(centre: np.ndarray) -> np.ndarray:
    """Camera-to-world (4, 4) with OpenGL's axes."""
    right, down, forward = axes(centre)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack([right, -down, -forward], axis=1), centre
    return pose


def write_transforms(root: Path) -> None:
    """Writes one object each in NeRF's synthetic format, nerfstudio's and instant-ngp's; the last has a mask file."""
    nerf = root / "lego"
    for split in ("train", "val", "test"):
        frames = []
        for view, centre in enumerate(CENTRES):
            x, y, z = subsample_views(centre)
            place = 64 + 140 * np.array([x, y]) / z
            colour = dotted(128, 128, place, 0, radius=3)
            (nerf / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.dstack([colour, colour[..., 0]])).save(nerf / split / f"r_{view}.png")
            frames.append(
                {"file_path": f"./{split}/r_{view}", "rotation": 0.01, "transform_matrix": opengl(centre).tolist()}
            )
        angle = 2 * np.arctan(64 / 140)
        (nerf / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    studio, frames = root / "studio", []
    for view, centre in enumerate(CENTRES):
        photo(studio / "images" / f"frame_{view:05d}.png", centre, alpha=True)
        frames.append({"file_path": f"images/frame_{view:05d}.png", "transform_matrix": opengl(centre)[:3].tolist()})
    shared = {**PHOTO, "k1": 0.0, "k2": 0, "p1": 0, "p2": 0.0, "camera_model": "OPENCV", "applied_scale": 1.0}
    (studio / "transforms.json").write_text(json.dumps({**shared, "frames": frames[::-1]}))
    ngp, frames = root / "ngp", []
    for view, centre in enumerate(CENTRES):
        photo(ngp / "rgb" / f"{view}.jpg", centre)
        photo(ngp / "mask.png", centre, alpha=True)
        with Image.open(ngp / "mask.png") as cut_out:
            cut_out.getchannel("A").save(ngp / "rgb" / f"{view}_mask.png")
        own = {**PHOTO, "sharpness": 20.0, "mask_path": f"rgb/{view}_mask.png"}
        frames.append({"file_path": f"./rgb/{view}.jpg", "transform_matrix": opengl(centre).tolist(), **own})
    (ngp / "mask.png").unlink()
    (ngp / "transforms.json").write_text(json.dumps({"aabb_scale": 4, "frames": frames}))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """The quaternion, real part first, of a rotation (3, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation).as_quat()[[3, 0, 1, 2]]


def write_colmap_text(
    folder: Path, camera: str = "1 PINHOLE 200 160 180 190 104 78", points: int = 30, *, unit: float = 1.0
) -> None:
    """Writes the reconstruction of one object as text; its second image sees no point.

    `unit`: the factor of all lengths.
    """
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"# Camera list with one line of data per camera:\n{camera}\n")
    lines = ["# Image list with two lines of data per image:"]
    for view, centre in enumerate(CENTRES):
        name = f"a photo {view}.jpg"
        photo(folder / "images" / name, centre)
        (folder / "masks").mkdir(exist_ok=True)
        photo(folder / "cut.png", centre, alpha=True)
        with Image.open(folder / "cut.png") as cut_out:
            cut_out.getchannel("A").save(folder / "masks" / f"{name}.png")
        q, t = quaternion(axes(centre)), -axes(centre) @ centre * unit
        pose = " ".join(f"{value:.12g}" for value in (*q, *t))
        lines += [f"{view + 1} {pose} 1 {name}", "" if view == 1 else "10.5 11.5 -1 20 30 1"]
    (folder / "cut.png").unlink()
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    around = (np.random.default_rng(0).normal(size=(points, 3)) * 0.1 + POINT) * unit
    rows = [f"{n} {x} {y} {z} 10 20 30 0.5 1 0 2 1" for n, (x, y, z) in enumerate(around, start=1)]
    (model / "points3D.txt").write_text("# 3D point list\n" + "\n".join(rows) + "\n")


def write_colmap_binary(folder: Path) -> None:
    """Writes the same in COLMAP's binary format, with a SIMPLE_RADIAL camera without distortion and square pixels."""
    write_colmap_text(folder)
    model, written = folder / "sparse" / "0", (folder / "images", folder / "masks")
    for file in model.iterdir():
        file.unlink()
    (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 7, 1, 200, 160, 180, 190, 104, 78))
    images = struct.pack("<Q", len(CENTRES))
    for view, centre in enumerate(CENTRES):
        pose = (*quaternion(axes(centre)), *(-axes(centre) @ centre))
        images += struct.pack("<i7di", view + 1, *pose, 7) + f"a photo {view}.jpg".encode() + b"\0"
        images += struct.pack("<Q", 2) + struct.pack("<2dq", 1, 2, -1) * 2
    (model / "images.bin").write_bytes(images)
    around = np.random.default_rng(0).normal(size=(30, 3)) * 0.1 + POINT
    points = struct.pack("<Q", len(around))
    for number, point in enumerate(around):
        points += (
            struct.pack("<Q3d3Bd", number, *point, 1, 2, 3, 0.5) + struct.pack("<Q", 2) + struct.pack("<4i", 1, 0, 2, 1)
        )
    (model / "points3D.bin").write_bytes(points)
    assert all(path.is_dir() for path in written)


def write_colmap(root: Path) -> None:
    write_colmap_text(root / "text")
    write_colmap_binary(root / "binary")


LAYOUTS = {
    "srn_cars": Layout("srn_cars", write_srn_cars),
    "co3d_preprocessed": Layout("co3d", write_co3d_preprocessed, {"layout": "preprocessed"}),
    "co3d_raw": Layout("co3d", write_co3d_raw, {"layout": "raw", "normalised": True, "depth": True}),
    "nmr": Layout("nmr", write_nmr, files={"source_views": lambda root: root / "views.txt"}),
    "objaverse": Layout("objaverse", write_objaverse),
    "gso": Layout("gso", write_gso),
    "meshes": Layout("meshes", write_meshes, {"views": 2, "image_size": 16, "supersampling": 1}),
    "transforms": Layout("transforms", write_transforms, {"image_size": 64}),
    "colmap": Layout("colmap", write_colmap, {"image_size": 64}),
}


@pytest.fixture
def layouts() -> dict[str, Layout]:
    """Every public layout, by name."""
    return LAYOUTS


@pytest.fixture
def assert_seen() -> Callable[..., None]:
    """A check (store, object, distance that its source camera is scaled to) that cameras and images agree."""

    def check(store: Store, name: str, source_distance: float | None = None, tolerance: float = 0.6) -> None:
        row = store.objects.set_index("object").loc[name]
        frames = np.arange(row["first_frame"], row["first_frame"] + row["num_frames"])
        for order in (frames, np.roll(frames, 1)):  # with each of two views as the source
            views = store.views(order[None], store.resolution)
            cameras = views.cameras
            centre = CENTRES[order[0] - row["first_frame"]]
            point = subsample_views(centre) * (source_distance / np.linalg.norm(centre) if source_distance else 1.0)
            for view in range(len(order)):
                matrix = cameras.world_to_camera[0, view].numpy()
                seen = matrix[:3, :3] @ point + matrix[:3, 3]
                assert seen[2] > 0
                place = seen[:2] / seen[2] * cameras.focal[0, view].numpy() + cameras.principal[0, view].numpy()
                np.testing.assert_allclose(dot_in(views.images[0, view].numpy()), place, atol=tolerance)

    return check


def dot_in(picture: np.ndarray) -> np.ndarray:
    """The centre (x, y) of the red pixels of an image (3, H, W)."""
    red = np.clip(picture[0] - np.maximum(picture[1], picture[2]) - 0.2, 0, None)
    rows, columns = np.indices(red.shape) + 0.5
    assert red.sum() > 0, "there is no red dot"
    return np.array([(columns * red).sum(), (rows * red).sum()]) / red.sum()
