"""The viewer: an error names what is missing, and every exhibit reaches the server on the loopback interface."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jobs import viewer
from jobs.exhibits import Exhibit, Exhibition, Label, Picture, Splats
from jobs.viewer import ViewerMissingError, require_viewer, serve


def an_exhibition() -> Exhibition:
    splats = Splats(
        np.zeros((3, 3), np.float32),
        np.tile(np.eye(3, dtype=np.float32), (3, 1, 1)),
        np.full((3, 3), 0.5, np.float32),
        np.ones((3, 1), np.float32),
    )
    picture = Picture(np.zeros((4, 4, 3), np.uint8), (0.0, 2.0, 0.0), 2.0, 3.0)
    exhibits = tuple(Exhibit(column, "chair", content) for column, content in (("a", splats), ("b", picture)))
    labels = tuple(Label(text, (0.0, 0.0, 1.0)) for text in ("a", "b", "chair"))
    return Exhibition(exhibits, labels, (5.0, 0.0, 1.0), (0.0, 0.0, 0.5))


class FakeServer:
    """Records what is added, and the handlers of events."""

    def __init__(self, **options: Any) -> None:
        self.options, self.added, self.boxes, self.connected = options, [], {}, []
        self.up = ""
        self.scene = SimpleNamespace(
            set_up_direction=lambda up: setattr(self, "up", up),
            add_gaussian_splats=self._adder("splats"),
            add_image=self._adder("image"),
            add_label=self._adder("label"),
        )
        self.gui = SimpleNamespace(add_folder=lambda _: self, add_checkbox=self._box)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def on_client_connect(self, handler: Any) -> None:
        self.connected.append(handler)

    def _adder(self, kind: str) -> Any:
        def add(name: str, *_: Any, **options: Any) -> Any:
            handle = SimpleNamespace(kind=kind, name=name, visible=True, options=options)
            self.added.append(handle)
            return handle

        return add

    def _box(self, name: str, initial_value: bool) -> Any:
        box = SimpleNamespace(value=initial_value)
        box.on_update = lambda handler: setattr(box, "handler", handler)
        self.boxes[name] = box
        return box


def test_a_missing_viewer_is_an_error_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ViewerMissingError, match=r"pip install 'splatsweep\[view\]'"):
        require_viewer()


def test_everything_is_shown_on_the_loopback_and_columns_can_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "require_viewer", lambda: SimpleNamespace(ViserServer=FakeServer))
    server = serve(an_exhibition(), "quick", 8080)
    assert (server.options["host"], server.options["port"]) == ("127.0.0.1", 8080)
    assert [handle.kind for handle in server.added] == ["splats", "image", "label", "label", "label"]
    assert server.up == "+z"
    picture = server.added[1].options
    assert (picture["render_width"], picture["render_height"], picture["position"]) == (2.0, 3.0, (0.0, 2.0, 0.0))
    turned = Rotation.from_quat(picture["wxyz"], scalar_first=True)
    assert turned.apply([[1, 0, 0], [0, 1, 0]]) == pytest.approx(np.array([[0, 1, 0], [0, 0, -1]]))  # right, down
    box = server.boxes["b"]
    box.value = False
    box.handler(None)
    assert [handle.visible for handle in server.added] == [True, False, True, False, True]
    client = SimpleNamespace(camera=SimpleNamespace())
    server.connected[0](client)
    camera = SimpleNamespace(position=(5.0, 0.0, 1.0), look_at=(0.0, 0.0, 0.5), up_direction=(0.0, 0.0, 1.0))
    assert client.camera == camera


def test_the_real_viewer_takes_it() -> None:
    server = serve(an_exhibition(), "quick", 18080)
    try:
        assert server.get_host() == "127.0.0.1"
    finally:
        server.stop()
