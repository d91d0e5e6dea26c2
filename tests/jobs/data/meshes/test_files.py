"""Special cases of mesh files: unused vertices, transparency, linear colours, extensions, textures."""

import json
import struct
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import trimesh
from PIL import Image

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.inspect import check
from jobs.data.meshes.files import read_parts
from jobs.data.meshes.gltf import Material
from jobs.data.meshes.ray_tracing import Hits, Mesh, Rig, render
from jobs.data.meshes.textured_mesh import TexturedMesh
from jobs.data.prepare import prepare
from jobs.data.store import Store

OPTIONS = {
    "views": 4,
    "image_size": 32,
    "supersampling": 2,
    "ambient": 1.0,
    "val_geometries": 0,
    "test_geometries": 0,
}
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
FACES = np.array([[0, 1, 2], [0, 2, 3]])
#: Rows from the top: red, green.
TWO_ROWS = np.array([[[255, 0, 0]] * 2, [[0, 255, 0]] * 2], np.uint8)


def import_(folder, home, **options) -> Store:
    return Store.open(prepare("meshes", {**OPTIONS, **options}, home, workers=1, source=folder))


def look(parts, x: float = 0.5, y: float = 0.5) -> tuple[list[int], float]:
    """Colour (0 to 255) and opacity at a point of the square."""
    mesh = TexturedMesh.join(parts)
    for face, triangle in enumerate(mesh.mesh.vertices[mesh.mesh.faces]):
        weights = np.linalg.solve(np.vstack([triangle[:, :2].T, np.ones(3)]), [x, y, 1])
        if weights.min() >= -1e-9:
            hits = Hits(np.array([[x, y, 0]]), np.array([face]), weights[None])
            return np.rint(mesh.colour(hits)[0] * 255).astype(int).tolist(), float(mesh.opacity(hits)[0])
    raise AssertionError("beside the square")


# ---- glTF, written by hand


def write_glb(path, *, material=None, image=None, colours=None, header=None, keep_texture=False) -> None:
    """Writes the square as a .glb file of these parts, following the specification."""
    blobs = [SQUARE.astype("<f4").tobytes(), FACES.astype("<u2").tobytes(), SQUARE[:, :2].astype("<f4").tobytes()]
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]},
        {"bufferView": 1, "componentType": 5123, "count": FACES.size, "type": "SCALAR"},
        {"bufferView": 2, "componentType": 5126, "count": 4, "type": "VEC2"},
    ]
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 2}, "indices": 1}
    content = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}]}
    if colours is not None:
        blobs.append(np.asarray(colours, "<f4").tobytes())
        accessors.append({"bufferView": 3, "componentType": 5126, "count": 4, "type": "VEC4"})
        primitive["attributes"]["COLOR_0"] = 3
    if material is not None:
        primitive["material"] = 0
        content["materials"] = [material]
    if image is not None:
        stream = BytesIO()
        Image.fromarray(image).save(stream, format="PNG")
        blobs.append(stream.getvalue())
        content |= {"images": [{"bufferView": len(blobs) - 1, "mimeType": "image/png"}], "textures": [{"source": 0}]}
        if not keep_texture:
            material.setdefault("pbrMetallicRoughness", {})["baseColorTexture"] = {"index": 0}
    views, binary = [], b""
    for blob in blobs:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(blob)})
        binary += blob + b"\0" * (-len(blob) % 4)
    content |= {"accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(binary)}]}
    content |= {"meshes": [{"primitives": [primitive]}], **(header or {})}
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<2I", len(text), 0x4E4F534A) + text + struct.pack("<2I", len(binary), 0x004E4942) + binary
    path.write_bytes(struct.pack("<3I", 0x46546C67, 2, 12 + len(chunks)) + chunks)


@pytest.mark.parametrize(
    "names",
    [
        ["KHR_draco_mesh_compression"],
        ["EXT_meshopt_compression", "KHR_mesh_quantization"],
        ["KHR_texture_basisu"],
        ["VENDOR_unheard_of"],
    ],
)
def test_a_gltf_that_requires_what_is_not_read_is_refused_by_its_name(tmp_path, names):
    write_glb(tmp_path / "m.glb", header={"extensionsRequired": [*names, "KHR_materials_unlit"]})
    with pytest.raises(ValueError, match=rf"m.glb: requires the glTF extensions? {', '.join(names)}, which"):
        read_parts(tmp_path / "m.glb", tmp_path, 64)


def test_a_gltf_that_claims_to_be_large_is_not_allocated(tmp_path):
    accessors = [{"componentType": 5126, "count": 10**6, "type": "VEC3"}]
    write_glb(tmp_path / "m.glb", header={"accessors": accessors})
    with pytest.raises(UnreadableObjectError, match=r"an accessor of 1000000 elements in a file of \d{3} bytes"):
        read_parts(tmp_path / "m.glb", tmp_path, 64)


def test_a_gltf_that_merely_uses_an_extension_is_read(tmp_path):
    write_glb(tmp_path / "m.glb", header={"extensionsUsed": ["VENDOR_unheard_of"]})
    assert len(read_parts(tmp_path / "m.glb", tmp_path, 64)) == 1


def test_materials_determine_the_mapping_of_textures(tmp_path):
    """Without the transform the square's upper half reads the texture's lower half; moved by half, the upper."""
    for offset, expected in (([0, 0], [0, 255, 0]), ([0, 0.5], [255, 0, 0])):
        write_glb(tmp_path / "m.glb", material={"pbrMetallicRoughness": {}}, image=TWO_ROWS)
        content = (tmp_path / "m.glb").read_bytes()
        moved = json.dumps({"index": 0, "extensions": {"KHR_texture_transform": {"offset": offset}}})
        material = {"pbrMetallicRoughness": {"baseColorTexture": json.loads(moved)}}
        write_glb(tmp_path / "m.glb", material=material, image=TWO_ROWS, keep_texture=True)
        assert content != (tmp_path / "m.glb").read_bytes()
        assert look(read_parts(tmp_path / "m.glb", tmp_path, 64), 0.5, 0.75)[0] == expected


def test_turned_and_scaled_textures():
    turned = Material.read(
        {
            "pbrMetallicRoughness": {
                "baseColorTexture": {
                    "index": 0,
                    "texCoord": 1,
                    "extensions": {"KHR_texture_transform": {"rotation": np.pi / 2, "scale": [2, 3], "offset": [5, 7]}},
                }
            }
        }
    )
    # The specification: translation x rotation x scale of the column (u, v, 1).
    np.testing.assert_allclose(turned.transform @ [1, 0, 1], [5, 5], atol=1e-12)
    np.testing.assert_allclose(turned.transform @ [0, 1, 1], [8, 7], atol=1e-12)
    assert turned.coordinates == 1


def test_colour_factors_of_gltf_are_linear(tmp_path):
    """Half of the linear intensity is 188 of 255 in sRGB; 0.2140 of it is 127."""
    factor = {"pbrMetallicRoughness": {"baseColorFactor": [0.5, 0.2140, 1, 1]}}
    write_glb(tmp_path / "m.glb", material=factor)
    assert look(read_parts(tmp_path / "m.glb", tmp_path, 64)) == ([188, 127, 255], 1)


def test_factors_and_colours_of_vertices_multiply_a_texture_in_linear_light(tmp_path):
    grey = np.full((2, 2, 3), 188, np.uint8)  # half of the light
    material = {"pbrMetallicRoughness": {"baseColorFactor": [1, 0.5, 1, 1]}}
    write_glb(tmp_path / "m.glb", material=material, image=grey, colours=[[1, 1, 0.5, 1]] * 4)
    colour, _ = look(read_parts(tmp_path / "m.glb", tmp_path, 64))
    np.testing.assert_allclose(colour, [188, 137, 137], atol=1)


def test_the_diffuse_colour_of_a_specular_glossy_material_counts(tmp_path):
    glossy = {"diffuseFactor": [0.5, 1, 1, 1], "diffuseTexture": {"index": 0}, "specularFactor": [0.5, 0.5, 0.5]}
    material = {
        "pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]},
        "extensions": {"KHR_materials_pbrSpecularGlossiness": glossy},
    }
    write_glb(tmp_path / "m.glb", material=material, image=np.full((2, 2, 3), 255, np.uint8), keep_texture=True)
    assert look(read_parts(tmp_path / "m.glb", tmp_path, 64))[0] == [188, 255, 255]


@pytest.mark.parametrize(
    "header",
    [
        {"images": [{"bufferView": 3, "mimeType": "image/ktx2"}]},
        {"images": [{"bufferView": 0, "mimeType": "image/png"}]},
        {"textures": [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]},
        {"textures": []},
    ],
)
def test_a_texture_of_gltf_that_cannot_be_read_is_no_white_one(tmp_path, header):
    write_glb(tmp_path / "m.glb", material={}, image=TWO_ROWS, header=header)
    with pytest.raises(ValueError, match=r"m.glb: the texture of material 0 is missing, damaged,"):
        read_parts(tmp_path / "m.glb", tmp_path, 64)


@pytest.mark.parametrize("texture", ["", [], None])
def test_what_is_no_texture_of_gltf_leaves_the_materials_colour(tmp_path, texture):
    plain = {"baseColorFactor": [1, 0, 0, 1], "baseColorTexture": texture}
    write_glb(tmp_path / "m.glb", material={"pbrMetallicRoughness": plain}, image=TWO_ROWS, keep_texture=True)
    assert look(read_parts(tmp_path / "m.glb", tmp_path, 64))[0] == [255, 0, 0]


def test_a_plain_texture_of_gltf_stays_as_it_is(tmp_path):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_glb(tmp_path / "m.glb", material={}, image=np.dstack([every] * 3))
    (part,) = read_parts(tmp_path / "m.glb", tmp_path, 64)
    np.testing.assert_array_equal(np.rint(part.picture[..., 0] * 255), every)


HALF_CLEAR = np.array([[[255, 0, 0, 255], [255, 0, 0, 102]]] * 2, np.uint8)


@pytest.mark.parametrize(
    ("material", "left", "right"),
    [
        ({}, 1.0, 1.0),
        ({"alphaMode": "OPAQUE"}, 1.0, 1.0),
        ({"alphaMode": "BLEND"}, 1.0, 0.4),
        ({"alphaMode": "MASK"}, 1.0, 0.0),
        ({"alphaMode": "MASK", "alphaCutoff": 0.3}, 1.0, 1.0),
        ({"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.5]}}, 0.5, 0.2),
    ],
)
def test_cut_outs_and_blending_of_gltf(tmp_path, material, left, right):
    write_glb(tmp_path / "m.glb", material=dict(material), image=HALF_CLEAR)
    parts = read_parts(tmp_path / "m.glb", tmp_path, 64)
    assert [look(parts, x)[1] for x in (0.2, 0.8)] == pytest.approx([left, right])
    assert any("OPAQUE" in note for note in TexturedMesh.join(parts).notes) == (
        material.get("alphaMode", "OPAQUE")[0] == "O"
    )


def test_opacity_of_vertices_blends(tmp_path):
    write_glb(tmp_path / "m.glb", material={"alphaMode": "BLEND"}, colours=[[1, 1, 1, 0.25]] * 4)
    assert look(read_parts(tmp_path / "m.glb", tmp_path, 64))[1] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("kind", "colour", "expected"),
    [
        ("float", "200 100 51", [200, 100, 51]),
        ("float", "0.5 1 0", [128, 255, 0]),
        ("float", "1.5 1 0", [255, 255, 0]),
        ("uchar", "200 100 1", [200, 100, 1]),
        ("ushort", "51455 25700 257", [200, 100, 1]),
        ("float", "70000 1 0", r"m.ply: colours up to 70000; allowed: up to 1 or 255"),
        ("int", "70000 1 0", r"m.ply: colours up to 70000; allowed: up to 255 or 65535"),
    ],
)
def test_the_range_of_colours_in_ply_follows_from_their_type_and_the_largest(tmp_path, kind, colour, expected):
    properties = [f"float {axis}" for axis in "xyz"] + [f"{kind} {name}" for name in ("red", "green", "blue")]
    header = ["ply", "format ascii 1.0", "element vertex 4", *(f"property {each}" for each in properties)]
    vertices = [f"{x:g} {y:g} {z:g} {colour}" for x, y, z in SQUARE]
    lines = [*header, "element face 2", "property list uchar int vertex_indices", "end_header", *vertices]
    (tmp_path / "m.ply").write_text("\n".join([*lines, "3 0 1 2", "3 0 2 3", ""]))
    if isinstance(expected, str):
        with pytest.raises(UnreadableObjectError, match=expected):
            read_parts(tmp_path / "m.ply", tmp_path, 64)
    else:
        assert look(read_parts(tmp_path / "m.ply", tmp_path, 64)) == (expected, 1)


@pytest.mark.parametrize("colour", ["200 100 51", "0.784 0.392 0.2"])
def test_colours_of_obj_vertices_may_be_bytes(tmp_path, colour):
    vertices = [f"v {x} {y} {z} {colour}\n" for x, y, z in SQUARE]
    (tmp_path / "m.obj").write_text("".join(vertices) + "f 1 2 3\nf 1 3 4\n")
    assert look(read_parts(tmp_path / "m.obj", tmp_path, 64)) == ([200, 100, 51], 1)


@pytest.mark.parametrize("colour", ["200 100 51 255", "200 100 51", "0.784 0.392 0.2 1.0"])
def test_colours_of_off_vertices(tmp_path, colour):
    vertices = [f"{x} {y} {z}  {colour} # corner\n" for x, y, z in SQUARE]
    (tmp_path / "m.off").write_text("# no OFF yet\nCOFF 4 2 0\n\n" + "".join(vertices) + "3 0 1 2\n3 0 2 3\n")
    assert look(read_parts(tmp_path / "m.off", tmp_path, 64)) == ([200, 100, 51], 1)


@pytest.mark.parametrize(
    ("extra", "transform", "reason"),
    [
        ({"name": [1]}, {}, r"damaged, or no .glb file \(TypeError: "),
        ({}, {"scale": ["a", 1]}, r"damaged, or no .glb file \(ValueError: "),
        ({}, {"offset": [1e308, 0]}, "a texture coordinate is not finite"),
    ],
)
def test_a_malformed_material_of_gltf_is_named_with_its_file(tmp_path, extra, transform, reason):
    texture = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    material = {"pbrMetallicRoughness": {"baseColorTexture": texture, **extra}}
    write_glb(tmp_path / "m.glb", material=material, image=TWO_ROWS, keep_texture=True)
    with pytest.raises(UnreadableObjectError, match=f"m.glb: {reason}"):
        read_parts(tmp_path / "m.glb", tmp_path, 64)


@pytest.mark.parametrize(
    ("accessor", "shape"), [({"count": 2, "type": "VEC4"}, r"\(2, 4\)"), ({"count": 4, "type": "VEC2"}, r"\(4, 2\)")]
)
def test_colours_that_do_not_fit_the_vertices_are_refused(tmp_path, accessor, shape):
    write_glb(tmp_path / "m.glb", colours=[[1, 1, 1, 1]] * 4)
    content = (tmp_path / "m.glb").read_bytes()
    header = json.loads(content[20 : 20 + struct.unpack_from("<I", content, 12)[0]])
    header["accessors"][3] |= accessor
    write_glb(tmp_path / "m.glb", colours=[[1, 1, 1, 1]] * 4, header={"accessors": header["accessors"]})
    with pytest.raises(ValueError, match=rf"m.glb: {shape} colours for 4 vertices"):
        read_parts(tmp_path / "m.glb", tmp_path, 64)


def test_rays_continue_through_holes(tmp_path):
    """A board with a transparent right half, before a blue one: a frontal camera sees half red, half blue."""
    write_glb(tmp_path / "m.glb", material={"alphaMode": "MASK"}, image=HALF_CLEAR)
    write_glb(tmp_path / "n.glb", material={"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 1, 1]}})
    front, behind = (read_parts(tmp_path / name, tmp_path, 64)[0] for name in ("m.glb", "n.glb"))
    behind = replace(behind, mesh=Mesh(behind.mesh.vertices + np.array([0, 0, 1]), behind.mesh.faces))
    mesh = TexturedMesh.join([front, behind])
    camera = np.eye(4)
    camera[:3, 3] = [-0.5, -0.5, 2]
    rig = Rig(camera[None], focal=16.0, size=16)
    frames = render(mesh.mesh, mesh.colour, rig, ambient=1.0, supersampling=1, opacity=mesh.opacity)
    assert frames.images[0, :, 8, 7].tolist() == [255, 0, 0]
    assert frames.images[0, :, 8, 9].tolist() == [0, 0, 255]
    assert frames.depth[0, 8, [7, 9]] == pytest.approx([2, 3])
    assert frames.images[0, :, 8, 12].tolist() == [255, 255, 255], "beside both"
    half = replace(front, cutoff=None, opacity=np.full((1, 1), 0.25))
    mesh = TexturedMesh.join([half, behind])
    frames = render(mesh.mesh, mesh.colour, rig, ambient=1.0, supersampling=1, opacity=mesh.opacity)
    np.testing.assert_allclose(frames.images[0, :, 8, 8], [64, 0, 191], atol=1)
    assert frames.depth[0, 8, 8] == pytest.approx(3), "the surface behind which half is hidden"
    assert frames.mask[0, 8, 8] == 255


# ---- OBJ and its materials


def write_obj(folder, *, mtl="", texture=None, uv=((0, 0), (1, 0), (1, 1), (0, 1)), name="o") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"mtllib {name}.mtl", "usemtl m", *(f"v {x} {y} {z}" for x, y, z in SQUARE)]
    lines += [f"vt {u} {v}" for u, v in uv] + ["f 1/1 2/2 3/3", "f 1/1 3/3 4/4"]
    (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.mtl").write_text(f"newmtl m\nKd 1 1 1\n{mtl}\n")
    if texture is not None:
        Image.fromarray(texture).save(folder / "t.png")


@pytest.mark.parametrize(
    ("mtl", "opacity"), [("", 1.0), ("d 0.25", 0.25), ("Tr 0.25", 0.75), ("d 0.5\nTr 0.9", 0.5), ("d -halo 0.5", 0.5)]
)
def test_opacity_of_obj_materials(tmp_path, mtl, opacity):
    write_obj(tmp_path, mtl=mtl)
    assert look(read_parts(tmp_path / "o.obj", tmp_path, 64))[1] == pytest.approx(opacity)


def test_transparent_textures_of_obj_materials(tmp_path):
    write_obj(tmp_path, mtl="map_Kd t.png", texture=HALF_CLEAR)
    parts = read_parts(tmp_path / "o.obj", tmp_path, 64)
    assert [look(parts, x)[1] for x in (0.2, 0.8)] == pytest.approx([1, 0.4])


@pytest.mark.parametrize(
    ("old", "new", "notes"),
    [
        ("", "", []),
        ("f 1/1 3/3 4/4", "f 1 3 4", ["texture is not drawn: not all of its faces have texture coordinates"]),
        ("usemtl m", "usemtl M", ["drawn in grey: its material is not defined"]),
    ],
)
def test_textures_and_materials_that_are_not_drawn_are_noted(tmp_path, old, new, notes):
    write_obj(tmp_path, mtl="map_Kd t.png", texture=TWO_ROWS)
    file = tmp_path / "o.obj"
    file.write_text(file.read_text().replace(old, new))
    (part,) = read_parts(file, tmp_path, 64)
    assert [note.removeprefix("a part's ").removeprefix("a part is ") for note in part.notes] == notes


def test_a_texture_of_gltf_without_coordinates_is_noted(tmp_path):
    mesh = {"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}
    write_glb(tmp_path / "m.glb", material={}, image=TWO_ROWS, header={"meshes": [mesh]})
    (part,) = read_parts(tmp_path / "m.glb", tmp_path, 64)
    assert "not all of its faces have texture coordinates" in part.notes[0]


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_transparency_of_any_kind_of_texture(tmp_path, mode):
    write_obj(tmp_path, mtl="map_Kd t.png")
    clear = np.array([[1, 0]] * 2, np.uint8)
    if mode == "LA":
        Image.fromarray(np.dstack([np.full_like(clear, 80), clear * 255]), "LA").save(tmp_path / "t.png")
    else:
        picture = Image.fromarray(clear, "P")
        picture.putpalette([0, 255, 0, 80, 80, 80])
        picture.save(tmp_path / "t.png", transparency=0)
    parts = read_parts(tmp_path / "o.obj", tmp_path, 64)
    assert look(parts, 0.2) == ([80, 80, 80], 1)
    assert look(parts, 0.8)[1] == 0


def test_what_is_transparent_everywhere_is_named_and_a_part_of_it_left_out(tmp_path):
    write_obj(tmp_path / "m", mtl="d 0.0")
    text = (tmp_path / "m" / "o.obj").read_text()
    (tmp_path / "m" / "o.obj").write_text(text + "v 0.5 0.5 0.4\nf 1/1 2/2 5/1\n")
    store = import_(tmp_path / "m", tmp_path)
    remarks = [remark.text for remark in store.manifest.remarks]
    assert remarks == ["4 of 4 pictures show nothing (first frame 0)", *remarks[1:]]
    assert "all of it is transparent" in remarks[1]
    assert any("is empty" in problem for problem in check(store))
    write_obj(tmp_path, mtl="d 0.0")
    text = (tmp_path / "o.obj").read_text() + "v 9 9 9\nv 9 8 9\nv 8 9 9\nusemtl n\nf 5 6 7\n"
    (tmp_path / "o.obj").write_text(text.replace("usemtl m", "usemtl n", 1).replace("usemtl n\nf 5", "usemtl m\nf 5"))
    (tmp_path / "o.mtl").write_text("newmtl m\nd 0\nnewmtl n\nKd 1 0 0\n")
    parts = read_parts(tmp_path / "o.obj", tmp_path, 64)
    assert max(part.mesh.vertices.max() for part in parts) == 1


def test_opacity_pictures_of_their_own_are_refused_by_name(tmp_path):
    write_obj(tmp_path, mtl="map_d holes.png")
    with pytest.raises(ValueError, match=r"o.obj: material 'm' has an opacity picture of its own \(map_d holes.png\)"):
        read_parts(tmp_path / "o.obj", tmp_path, 64)


@pytest.mark.parametrize(
    ("v", "expected"),
    [(0, "green"), (1, "red"), (0.25, "green"), (0.75, "red"), (2, "red"), (-1, "green"), (1.25, "green")],
)
def test_coordinates_on_an_edge_read_their_own(tmp_path, v, expected):
    """v runs upwards in OBJ files: 0 is the picture's lower edge."""
    write_obj(tmp_path, mtl="map_Kd t.png", texture=TWO_ROWS, uv=[(0.5, v)] * 4)
    colour = [[255, 0, 0], [0, 255, 0]][expected == "green"]
    assert look(read_parts(tmp_path / "o.obj", tmp_path, 64))[0] == colour


def test_coordinates_up_to_the_edges_read_the_whole_picture(tmp_path):
    write_obj(tmp_path, mtl="map_Kd t.png", texture=TWO_ROWS)
    parts = read_parts(tmp_path / "o.obj", tmp_path, 64)
    assert [look(parts, 0.3, y)[0] for y in (0, 0.4, 0.6, 1)] == [[0, 255, 0]] * 2 + [[255, 0, 0]] * 2


# ---- Google Scanned Objects as they are downloaded


def write_google_scan(root, name="Mug_A", texture=None) -> None:
    write_obj(root / name / "meshes", mtl="map_Kd texture.png", name="model")
    text = (root / name / "meshes" / "model.obj").read_text()
    (root / name / "meshes" / "model.obj").write_text(text + "v 0.5 0.5 0.4\nf 1/1 2/2 5/1\n")
    (root / name / "materials" / "textures").mkdir(parents=True)
    Image.fromarray(TWO_ROWS if texture is None else texture).save(root / name / "materials/textures/texture.png")
    (root / name / "thumbnails").mkdir()
    Image.new("RGB", (8, 8)).save(root / name / "thumbnails" / "0.jpg")
    (root / name / "model.sdf").write_text("<sdf/>")


@pytest.mark.parametrize("root", ["", "Mug_A"])
def test_google_scans_are_read_as_they_are_downloaded(tmp_path, root):
    write_google_scan(tmp_path)
    parts = read_parts(tmp_path / "Mug_A/meshes/model.obj", tmp_path / root, 64)
    assert look(parts, 0.3, 0.9)[0] == [255, 0, 0]


def test_google_scans_are_imported_with_a_remark_on_the_upward_axis(tmp_path):
    write_google_scan(tmp_path / "gso", "Mug_A")
    write_google_scan(tmp_path / "gso", "Mug_B", texture=TWO_ROWS[::-1])
    store = import_(tmp_path / "gso", tmp_path)
    assert store.objects["object"].tolist() == ["Mug_A/meshes/model.obj", "Mug_B/meshes/model.obj"]
    assert set(store.objects["category"]) == {"mesh"}
    assert "z-up" in store.manifest.remarks[0].text
    assert import_(tmp_path / "gso", tmp_path, up="z").manifest.remarks == []
    first = [image[:, image.sum(axis=0) < 700] for image in store.images[:1]]
    assert first[0].size


def test_a_texture_of_another_object_is_never_taken(tmp_path):
    write_google_scan(tmp_path, "Mug_A")
    write_obj(tmp_path / "Mug_B" / "meshes", mtl="map_Kd texture.png", name="model")
    with pytest.raises(ValueError, match=r"Mug_B/meshes/texture.png: there is no such file"):
        read_parts(tmp_path / "Mug_B/meshes/model.obj", tmp_path, 64)


# ---- Vertices and faces that nobody sees


@pytest.mark.parametrize("stray", [[1e4, 0, 0], [5, 0, 0], [np.nan] * 3, [np.inf, 0, 0]])
@pytest.mark.parametrize("face", [[], [[8, 8, 8]]])
def test_vertices_that_no_face_uses_do_not_count(tmp_path, stray, face):
    """Vertices of a face without area do not count either."""
    box = trimesh.creation.box((1, 1.2, 0.8))
    for name, vertices, faces in (
        ("plain", box.vertices, box.faces.tolist()),
        ("stray", np.vstack([box.vertices, [stray]]), box.faces.tolist() + (face if np.isfinite(stray).all() else [])),
    ):
        rows = [" ".join(map(str, vertex)) for vertex in vertices] + [f"3 {a} {b} {c}" for a, b, c in faces]
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.off").write_text("\n".join(["OFF", f"{len(vertices)} {len(faces)} 0", *rows]) + "\n")
    plain, with_stray = (import_(tmp_path / name, tmp_path / f"home_{name}") for name in ("plain", "stray"))
    np.testing.assert_array_equal(plain.images, with_stray.images)
    assert plain.manifest.remarks == with_stray.manifest.remarks == []


def test_an_object_that_is_far_too_small_in_its_pictures_is_warned_of(tmp_path):
    """A distant speck that a face uses makes the rest tiny."""
    ball = trimesh.creation.icosphere(subdivisions=1)
    speck = trimesh.creation.icosphere(subdivisions=0, radius=0.01)
    speck.apply_translation([60, 0, 0])
    (tmp_path / "m").mkdir()
    both = trimesh.util.concatenate([ball, speck])
    both.visual.vertex_colors = [200, 30, 30, 255]
    both.export(tmp_path / "m" / "ball.ply")
    store = import_(tmp_path / "m", tmp_path)
    (remark,) = store.manifest.remarks
    assert remark.object == "ball.ply"
    assert "of 4 pictures show" in remark.text


def test_an_odd_folder_of_meshes_is_sound(tmp_path):
    (tmp_path / "m").mkdir()
    box = trimesh.creation.box((1, 1.2, 0.8))
    box.visual.vertex_colors = [200, 30, 30, 128]
    box.export(tmp_path / "m" / "clear.ply")
    box.visual.vertex_colors = [200, 30, 30, 255]
    box.export(tmp_path / "m" / "solid.ply")
    store = import_(tmp_path / "m", tmp_path)
    assert store.mask[store.objects["first_frame"][0]].max() in range(180, 200), "two walls of a half each"
    assert check(store) == [] or all("next" not in problem for problem in check(store))
