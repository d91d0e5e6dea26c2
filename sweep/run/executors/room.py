"""The room that trials request on a machine or a node, against the room that there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.run.executors.base import ExecutorOptions
from sweep.terminal import counted


class ResourcesError(ValueError):
    """Trials request resources that no node of the cluster has, now or later."""


@dataclass(frozen=True)
class Room:
    """The resources of one node, or of one kind of node that an autoscaler adds."""

    name: str
    cpus: float
    gpus: float

    @classmethod
    def of(cls, name: str, resources: Mapping[str, float]) -> Room:
        """Reads a mapping from Ray's resource names to amounts."""
        return cls(name, resources.get("CPU", 0.0), resources.get("GPU", 0.0))

    def holds(self, cpus: float, gpus: float) -> bool:
        """Whether a trial of this size fits."""
        # A share of a GPU lies within one GPU.
        return self.cpus >= cpus and self.gpus >= gpus

    def __str__(self) -> str:
        return f"{self.name}: {counted(self.cpus, 'CPU')}, {counted(self.gpus, 'GPU')}"


@dataclass(frozen=True)
class Autoscaler:
    """The cluster's autoscaler; `kinds` is empty where it does not list the kinds of node that it adds."""

    kinds: tuple[Room, ...]

    def may_add(self, cpus: float, gpus: float) -> bool:
        """Whether it may add a node that fits a trial of this size."""
        return not self.kinds or any(kind.holds(cpus, gpus) for kind in self.kinds)


def check_room(
    options: ExecutorOptions, nodes: Sequence[Room], autoscaler: Autoscaler | None, cluster: str | None
) -> str | None:
    """A phrase for what trials have to wait for; None where an existing node can run them.

    cluster: the value of RAY_ADDRESS; None for this machine.  Raises `ResourcesError` where no node can ever run one.
    """
    cpus, gpus = options.cpus_per_trial, options.gpus_per_trial
    if any(node.holds(cpus, gpus) for node in nodes):
        return None
    if autoscaler is not None and autoscaler.may_add(cpus, gpus):
        kinds = ", ".join(kind.name for kind in autoscaler.kinds if kind.holds(cpus, gpus))
        return f"the cluster's autoscaler to add a node{f' ({kinds})' if kinds else ''} with {requested(cpus, gpus)}"
    rooms = (*nodes, *(autoscaler.kinds if autoscaler else ()))
    if not any(room.cpus for room in rooms):  # only a head that runs no trials
        return f"a worker node to join the cluster, with {requested(cpus, gpus)}; no node has CPUs yet"
    most = {
        "cpus_per_trial": (cpus, int(max((room.cpus for room in rooms), default=0)), "CPU"),
        "gpus_per_trial": (gpus, int(max((room.gpus for room in rooms), default=0)), "GPU"),
    }
    where = "this machine" if cluster is None else f"a node of the cluster {cluster}"
    whole = "" if autoscaler is None else ", nor one that its autoscaler adds,"
    lacking = [
        f"run.{key} is {value:g}, but {where}{whole} has at most {counted(largest, unit)}; "
        f"lower it: --set run.{key}={largest}"
        for key, (value, largest, unit) in most.items()
        if value > largest
    ]
    if not lacking:
        listed = "; ".join(map(str, rooms))
        lacking = [f"run.cpus_per_trial {cpus} and run.gpus_per_trial {gpus:g} are on no node together ({listed})"]
    if cluster is None and gpus > most["gpus_per_trial"][1]:
        lacking.append("or run it on a cluster that has GPUs: `splatsweep submit`")
    raise ResourcesError("no trial could ever start: " + "\n".join(lacking))


def requested(cpus: float, gpus: float) -> str:
    """The resources that a trial requests, in words: 2 CPUs and 1 GPU."""
    return counted(cpus, "CPU") + (f" and {counted(gpus, 'GPU')}" if gpus else "")
