"""What managers ask before they start a machine: options of the command line, processor models, what there is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

import aioemu
from aioemu.cli.draft import Draft
from aioemu.cli.reading import read_group
from aioemu.cli.table import by_group
from aioemu.config.option_groups import GROUPS, parameters
from aioemu.errors import ConfigError, MonitorError

SAMPLES = {"string": "x", "boolean": "on", "number": "1", "size": "1M"}


@pytest.fixture
async def vm() -> AsyncIterator[aioemu.Machine]:
    """A machine that waits, with the software processor."""
    async with aioemu.Machine(machine="q35", accel="tcg", paused=True) as machine:
        yield machine


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_each_parameter_is_one_of_the_command_line(group: str) -> None:
    """What is told of an option is what the option takes: no parameter is unknown to it."""
    option = by_group().get(group)
    if group == "global":
        return  # has a grammar of its own, with these three names
    assert option is not None, f"no option has the group {group}"
    for name, kind in parameters(group):
        try:
            read_group(Draft(), option, "here", None, [(name, SAMPLES[kind])])
        except ConfigError as exc:
            told = str(exc)  # other parameters may be missing, or the sample make no sense
            assert f"Invalid parameter '{name}'" not in told
            assert f"'{name}' is unexpected" not in told


async def test_options_are_told(vm: aioemu.Machine) -> None:
    """One option by name, or all; boards have what their declarations say."""
    every = {each["option"]: each["parameters"] for each in await vm.qmp("query-command-line-options")}
    [one] = await vm.qmp("query-command-line-options", option="smp-opts")

    assert {"name": "cores", "type": "number"} in one["parameters"]
    assert {"name": "pit", "type": "boolean"} in every["machine"]
    assert every["device"] == []
    with pytest.raises(MonitorError, match="invalid option name: nope"):
        await vm.qmp("query-command-line-options", option="nope")


async def test_models_are_expanded(vm: aioemu.Machine) -> None:
    """A model's features as they are here, with what the request changes; `static` builds on a model without any."""
    full = (await vm.qmp("query-cpu-model-expansion", type="full", model={"name": "qemu64"}))["model"]
    static = (await vm.qmp("query-cpu-model-expansion", type="static", model={"name": "qemu64"}))["model"]
    less = await vm.qmp("query-cpu-model-expansion", type="static", model={"name": "max", "props": {"sse4.1": False}})

    assert full["name"] == "qemu64"
    assert (full["props"]["pni"], full["props"]["sse3"], full["props"]["family"]) == (True, True, 15)
    assert static["name"] == "base"
    assert static["props"]["cx16"] is True
    assert static["props"]["vmx"] is False
    assert less["model"]["props"]["sse4.1"] is False
    json.dumps(full)


async def test_a_model_that_cannot_be_is_named(vm: aioemu.Machine) -> None:
    """The model, or the property."""
    for model, told in (
        ({"name": "nope"}, "^CPU model 'nope' not found$"),
        ({"name": "max", "props": {"zz": 1}}, "^Property 'max-x86_64-cpu.zz' not found$"),
        ({"name": "max", "props": [1]}, "'model.props', expected: object"),
        ({"name": "host"}, "kvm"),
    ):
        with pytest.raises(MonitorError, match=told):
            await vm.qmp("query-cpu-model-expansion", type="full", model=model)


async def test_what_there_is_not_is_said(vm: aioemu.Machine) -> None:
    """No screen."""
    assert await vm.qmp("query-display-options") == {"type": "none"}


async def test_a_static_model_runs() -> None:
    """What `static` answers may be given to -cpu: the same features come out."""
    async with aioemu.Machine(machine="q35", accel="tcg", paused=True, cpu="base,+fpu,+cx16") as vm:
        expanded = await vm.qmp(
            "query-cpu-model-expansion", type="static", model={"name": "base", "props": {"fpu": True}}
        )
        assert expanded["model"]["props"]["fpu"] is True
        assert expanded["model"]["props"]["cx16"] is False
