"""What schemathesis asks, within what a test may do.

Always: the server that is tested dials nobody. Proxmox VE stands in no request that would be taken, so no made-up host is asked.
Names of things that are there are asked for as often as made-up ones, so that answers beyond "not found" are looked at too.
"""

import random

import schemathesis

THERE = {
    "name": ["home", "lab", "HOME"],
    "node": ["delly", "minipc"],
}


def without_pve(body):
    """A body that names no host to ask: a `pve` of the right shape is taken out, any other is refused anyhow."""
    if isinstance(body, dict):
        return {key: without_pve(value) for key, value in body.items() if key != "pve" or not isinstance(value, dict)}
    if isinstance(body, list):
        return [without_pve(value) for value in body]
    return body


@schemathesis.hook
def map_body(context, body):
    return without_pve(body)


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if not path_parameters:
        return path_parameters
    # By the value itself, so that the same seed asks the same.
    chance = random.Random(repr(sorted(path_parameters.items())))
    return {
        name: chance.choice(THERE[name]) if name in THERE and chance.random() < 0.5 else value
        for name, value in path_parameters.items()
    }
