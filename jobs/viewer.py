"""An exhibition in a browser on this machine, by viser, which is an extra: `pip install 'splatsweep[view]'`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobs.exhibits import Exhibition, Picture, Splats

if TYPE_CHECKING:
    from types import ModuleType

LOOPBACK = "127.0.0.1"
#: Rotation of a picture, real part first: its right along y, its lower edge along -z, and its front towards +x.
_FACING = (0.5, -0.5, -0.5, 0.5)


class ViewerMissingError(RuntimeError):
    """viser is not installed."""

    def __init__(self) -> None:
        super().__init__("viewing needs the package viser, which is not installed: pip install 'splatsweep[view]'")


def require_viewer() -> ModuleType:
    """The package viser.  Raises `ViewerMissingError` where it is not installed."""
    try:
        import viser
    except ImportError as error:
        raise ViewerMissingError from error
    module: ModuleType = viser
    return module


def serve(exhibition: Exhibition, title: str, port: int) -> Any:
    """A server on the loopback interface that shows an exhibition; `get_port()` is its port, the next one that is free.

    Each column can be hidden; all of it turns under one camera.
    """
    viser = require_viewer()
    server = viser.ViserServer(host=LOOPBACK, port=port, label=title, verbose=False)
    server.scene.set_up_direction("+z")
    shown: dict[str, list[Any]] = {}
    for index, exhibit in enumerate(exhibition.exhibits):
        handle = _add(server, f"/exhibits/{index}", exhibit.content)
        shown.setdefault(exhibit.column, []).append(handle)
    for index, label in enumerate(exhibition.labels):
        handle = server.scene.add_label(f"/labels/{index}", label.text, position=label.position)
        shown.get(label.text, []).append(handle)
    with server.gui.add_folder(title):
        for column, handles in shown.items():
            _add_switch(server, column, handles)

    def place(client: Any) -> None:
        client.camera.up_direction = (0.0, 0.0, 1.0)
        client.camera.position = exhibition.camera
        client.camera.look_at = exhibition.look_at

    server.on_client_connect(place)
    return server


def _add(server: Any, name: str, content: Splats | Picture) -> Any:
    if isinstance(content, Splats):
        return server.scene.add_gaussian_splats(
            name,
            centers=content.centers,
            covariances=content.covariances,
            rgbs=content.colours,
            opacities=content.opacities,
        )
    return server.scene.add_image(
        name,
        content.pixels,
        render_width=content.width,
        render_height=content.height,
        format="png",
        wxyz=_FACING,
        position=content.center,
    )


def _add_switch(server: Any, column: str, handles: list[Any]) -> None:
    """A box that shows and hides a column."""
    box = server.gui.add_checkbox(column, initial_value=True)

    def toggle(_: Any) -> None:
        for handle in handles:
            handle.visible = box.value

    box.on_update(toggle)
