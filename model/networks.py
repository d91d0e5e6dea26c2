"""Names of trained networks, from which a training may start.

This file imports no torch: a sweep file is checked without it.
"""

from __future__ import annotations

import re

#: Published networks: name of the weights -> file in their authors' repository.
NETWORKS = {
    "splatter_image_cars": "model_cars.pth",
    "splatter_image_chairs": "model_chairs.pth",
    "splatter_image_hydrants": "model_hydrants.pth",
    "splatter_image_teddybears": "model_teddybears.pth",
    "splatter_image_objaverse": "model_latest.pth",
}

#: Form of the names of networks in files of the user's.
GIVEN_NETWORK = "network:NAME"


def is_given_network(name: str) -> bool:
    """Whether a name denotes a network in a file of the user's; it becomes a file name itself."""
    return re.fullmatch(r"network:(?!.*--)\w[\w.-]*", name) is not None


def is_network(name: str) -> bool:
    """Whether a name denotes a published network, or one in a file of the user's."""
    return name in NETWORKS or is_given_network(name)
