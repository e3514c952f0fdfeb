"""The route of the machine: its devices, who uses which, its load."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from tuner.serve.api.answers import NOT_MODIFIED
from tuner.serve.api.requests import Asking, Giving, Serving
from tuner.serve.machine import LoadMeter
from tuner.serve.records import User
from tuner.serve.service import Service
from tuner.serve.views import SearchView

router = APIRouter(tags=["machines"])


class DeviceView(BaseModel):
    """A device of the queue.

    Attributes:
        number: its number, from 0.
        name: `GPU 1`, `core 3`, or `worker 3` of a cluster.
        search: name of the search that has it; None if none has, or the user may not see it.
        owner: whose search it is.
        is_free: True if no search has it.
    """

    number: int
    name: str
    search: str | None = None
    owner: str | None = None
    is_free: bool = True


class LoadView(BaseModel):
    """The load of the machine of the server: cores in percent, memory and disk in bytes."""

    cores: list[float]
    memory: int
    all_memory: int
    disk: int
    all_disk: int
    waiting: float


class MachineView(BaseModel):
    """The machine, or the Ray cluster, that searches share.

    Attributes:
        address: address of the cluster; None for the machine of the server.
        devices: its devices.
        outside: searches that commands run without the queue, on any of the devices.
        waiting: number of searches that wait.
        load: load of the machine of the server.
    """

    address: str | None
    devices: list[DeviceView]
    outside: list[SearchView]
    waiting: int
    load: LoadView


@router.get("/machines", response_model=MachineView, responses=NOT_MODIFIED)
async def show_machine(
    request: Request, user: Asking, service: Serving, answers: Giving
) -> Response:
    """Show the devices, who uses them, and the load."""
    meter = cast(LoadMeter, request.app.state.meter)
    return await answers.give(request, user, lambda: machine_view(user, service, meter))


def machine_view(user: User, service: Service, meter: LoadMeter) -> MachineView:
    """Return the machine as a user may see it."""
    machine, active = service.machine, service.database.active()
    kind = "worker" if machine.address else "GPU" if machine.gpus else "core"
    names = machine.gpus or [str(number) for number in range(machine.number)]
    devices = [
        DeviceView(number=number, name=f"{kind} {name}")
        for number, name in enumerate(names[: machine.number])
    ]
    named = dict(service.names(user))
    for entry in active:
        for number in entry.device_numbers:
            if number < len(devices):
                is_seen = entry.name in named
                devices[number] = devices[number].model_copy(
                    update={
                        "search": entry.name if is_seen else None,
                        "owner": entry.owner if is_seen else None,
                        "is_free": False,
                    }
                )
    held = {entry.name for entry in active}
    outside = service.dispatcher.by_command
    views = service.views([(each, named[each]) for each in outside if each in named])
    return MachineView(
        address=machine.address, devices=devices,
        outside=[view for view in views if view.name not in held],
        waiting=sum(not entry.devices and entry.wanted == "run" for entry in active),
        load=LoadView(**vars(meter.read())),
    )  # fmt: skip
