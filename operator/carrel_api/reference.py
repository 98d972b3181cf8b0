"""The reference page of the custom resources, made from the schema: `python -m carrel_api.reference FILE` writes it.

A test compares the page with the file, so that a field without documentation cannot be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from carrel_api.crds import definitions

INTRODUCTION: Final = """\
# Custom resources

Group `carrel.dev`, version `v1alpha1`. An **AgentSession** is one person's or agent's isolated kernel; a
**SessionClass** is what the administrator allows sessions to be; a **SessionPool** keeps pods of a class ready, so that
sessions start in milliseconds. An AgentSession is no pod template: whoever may create sessions can run only the images,
in only the bounds, of a class.

This page is made from the schema (`python -m carrel_api.reference docs/reference/custom-resources.md`).

```yaml
apiVersion: carrel.dev/v1alpha1
kind: SessionClass
metadata:
  name: standard
  annotations: {carrel.dev/is-default-class: "true"}
spec:
  images:
    - {name: python, reference: "example.org/carrel-kernel@sha256:…"}
  runAsUser: 65532
---
apiVersion: carrel.dev/v1alpha1
kind: AgentSession
metadata: {name: desk, namespace: carrel-sessions}
spec:
  resources: {cpu: 1, memory: 2Gi}
  idleTimeoutSeconds: 3600
---
apiVersion: carrel.dev/v1alpha1
kind: SessionPool
metadata: {name: standard, namespace: carrel-sessions}
spec: {className: standard, replicas: 5}
```

`kubectl get ags` lists sessions, `kubectl get carrel` sessions, pools and classes.

## How a session stands

Conditions say it; there is no phase. `Ready` is True with reason `Bound` when the kernel can be worked with. Otherwise
its reason says what to do:

| reason | what happened | what to do |
|---|---|---|
| `ClassNotFound` | there is no such SessionClass, or no default one | name another, or have one made |
| `ImageNotInClass`, `DatasetNotInClass`, `EgressAboveClass` | the class does not offer it | ask for what it offers |
| `ResourcesAboveClass` | more than the class's maximum | ask for less, or for another class |
| `EnvironmentRefused` | a variable of the loader, the interpreter or Carrel | choose another name |
| `InvalidSpec` | the stored object is none that this operator understands | correct it, or upgrade the operator |
| `QuotaExceeded` | a ResourceQuota of the namespace; the message says which, what is used and what is needed | end \
other sessions, ask for less, or have the quota raised |
| `LimitRangeExceeded` | a LimitRange of the namespace; the message says which bounds | ask for what lies within, or \
have it changed |
| `RuntimeClassNotFound`, `PriorityClassNotFound` | the class names one that the cluster has not | correct the class |
| `PodRefused` | the API server refused the pod for another reason, which the message holds | the administrator's |
| `Unschedulable` | no node has room; the message is the scheduler's | wait, ask for less, or add nodes |
| `DatasetNotFound` | a data set of the class has no PersistentVolumeClaim here | leave it out, or have it made |
| `PodNotPrepared` | a node did not mount the volumes or make the sandbox within a minute; the message names what the \
class needs there: data sets, `caBundle`, `runtimeClassName`, `userNamespace` | the administrator's |
| `UserNotAssigned` | no user that is not root: not `runAsUser` of the class, not one of the cluster, not the \
image's | correct the class |
| `ImagePullFailed` | the image cannot be pulled; the message is the kubelet's | correct the class |
| `Starting` | the pod is on its way; the message says how far, and what was lost before | wait |
| `OOMKilled` | the pod went over its memory limit and starts again without its variables | ask for more memory |
| `Crashed` | the kernel host ended and starts again without its variables | see `status.lastTermination` |
| `NotIsolated` | the class demands isolation that was not seen; the message says what was | \
see [Isolation](operator.md#isolation) |
| `Suspended` | `operatingMode` is `Suspended` | use the session, or set it to `Running` |
| `Expired` | the session's life is over and it is retained | delete it, make another one |

| condition | meaning |
|---|---|
| `PodScheduled` | the pod has a node; in the scheduler's own words where not |
| `Isolated` | whether enforcement of the session's network policies was seen: [Isolation](operator.md#isolation) |
| `SnapshotRequested` | True when a gateway is to save the session's state, so that its pod can end; the message says \
what keeps it from that |
| `Suspended` | True when the pod is gone because it was asked for, or because the session idled |
| `Finished` | True when the session ended by its own terms: `Expired`, or `Idle` where no gateway saves its state |

A change of `resources`, `env` or `datasets` holds from the next pod on. Whether a session is within its class is
checked when a pod is made; a change of a class ends no pods, but closes egress that it no longer allows.
"""


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for manifest in definitions().values():
        schema = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        parts.append(f"\n## {manifest['spec']['names']['kind']}\n")
        sections = [name for name in ("spec", "status") if name in schema["properties"]]
        parts += [_table(name, schema["properties"][name]) for name in sections]
    return "".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page into the file that is named."""
    Path(arguments[0]).write_text(page(), encoding="utf-8")
    return 0


def _table(section: str, schema: dict[str, Any]) -> str:
    rows = [
        f"| `{path}` | {_type(part)} | {_default(part)} | {_description(part)} |\n"
        for path, part in _fields(schema, section)
    ]
    must = [f"* {entry['message']}\n" for entry in schema.get("x-kubernetes-validations", [])]
    after = ["\n", *must] if must else []
    return "".join(["\n| field | type | default | meaning |\n|---|---|---|---|\n", *rows, *after])


def _fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part
        yield from _fields(part, f"{path}.{name}")
        yield from _fields(part.get("items", {}), f"{path}.{name}[]")


def _type(part: dict[str, Any]) -> str:
    if part.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    if part["type"] == "array":
        return f"list of {_type(part['items'])}, at most {part['maxItems']}"
    if part["type"] == "integer":
        bounds = [str(part[key]) for key in ("minimum", "maximum") if key in part]
        return f"integer, {' to '.join(bounds)}" if len(bounds) == 2 else "integer"
    if part.get("format") == "date-time":
        return "time"
    limit = f", at most {part['maxLength']} characters" if "maxLength" in part else ""
    return {"string": "text", "boolean": "true or false", "object": "object"}[part["type"]] + limit


def _default(part: dict[str, Any]) -> str:
    value = part.get("default")
    return "" if value in (None, "", [], {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _description(part: dict[str, Any]) -> str:
    rules = [entry["message"] for entry in part.get("x-kubernetes-validations", [])]
    rules += [entry["message"] for entry in part.get("items", {}).get("x-kubernetes-validations", [])]
    return " ".join([part.get("description", ""), *(f"{text[0].upper()}{text[1:]}." for text in rules)]).strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
