"""What schemathesis asks, within what a test may do.

Always: the server that is tested dials nobody. Proxmox VE stands in no request that would be taken, so no made-up host is asked.
Names of things that are there are asked for as often as made-up ones, so that answers beyond "not found" are looked at too.
"""

import os
import random

import schemathesis

NAMES = {"name": ["home", "lab", "HOME"], "node": ["delly", "minipc"]}
PROXY_ID = os.environ["PROXY_ID"]


def there(operation, parameter):
    """What is there under a parameter of this operation."""
    if parameter == "id" and operation.path.startswith("/api/v1/proxies/"):
        # It stays for the others.
        return [] if operation.method.lower() == "delete" else [PROXY_ID]
    return NAMES.get(parameter, [])


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
    chosen = dict(path_parameters)
    for name in chosen:
        if (names := there(context.operation, name)) and chance.random() < 0.5:
            chosen[name] = chance.choice(names)
    return chosen


@schemathesis.check
def refused_without_credential(ctx, response, case):
    """Who shows no credential, or one that is made up, is told so, whatever else is wrong; but for what is open to all."""
    is_open = case.operation.definition.raw["security"] == [{}]
    is_described = case.method.lower() == case.operation.method.lower()
    if not is_open and is_described and response.status_code != 401:
        raise AssertionError(f"answered {response.status_code} and not 401")
