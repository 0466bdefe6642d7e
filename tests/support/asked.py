"""Verbs, as a control socket asks them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from fastbridge import MemorySwitch, Switch
from fastbridge.switch.verbs import switch_verbs


class Asked:
    """A switch, asked as by its socket. Each answer is as the schema of its verb says."""

    def __init__(self, switch: MemorySwitch | Switch) -> None:
        self.switch, self.verbs = switch, switch_verbs(switch)

    def __call__(self, verb: str, **params: Any) -> Any:
        answer = json.loads(json.dumps(self.verbs.call(verb, params), allow_nan=False))
        schema = self.verbs.schema()["verbs"][verb]
        jsonschema.validate(params, schema["params"])
        jsonschema.validate(answer, schema["result"])
        return answer

    def everything(self) -> list[Any]:
        """What a change would change."""
        return [self("port.list"), self("fdb.show"), self("neigh.show"), self("policy.show")]
