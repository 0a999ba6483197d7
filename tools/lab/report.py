"""What the lab tells: a line for each step and check, a table at the end, or all of it as JSON."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass
class Report:
    """Checks in order and figures by name.  Lines go to ``out`` as they happen."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    checks: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def step(self, text: str) -> None:
        """Say what is done now; to nobody where the reader is gone (`| head`): the lab must still clear up."""
        try:
            print(text, file=self.out, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())

    def check(self, name: str, ok: bool, detail: str = "") -> bool:
        """Note a check and give its result back."""
        self.checks.append({"name": name, "ok": bool(ok), "detail": detail})
        self.step(f"  {'✓' if ok else '✗'} {name}{f': {detail}' if detail else ''}")
        return ok

    @property
    def ok(self) -> bool:
        """Whether there were checks and all of them hold."""
        return bool(self.checks) and all(check["ok"] for check in self.checks)

    def table(self) -> None:
        """Print the figures."""
        width = max(map(len, self.figures), default=0)
        self.step("\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in self.figures.items()))
        failed = [check["name"] for check in self.checks if not check["ok"]]
        verdict = (
            f"all {len(self.checks)} checks hold" if self.ok else f"failed: {', '.join(failed) or 'no check was made'}"
        )
        self.step(f"\n{verdict}")

    def as_data(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {"ok": self.ok, "checks": self.checks, "figures": self.figures}

    def print_json(self) -> None:
        """Write ``as_data`` to stdout."""
        json.dump(self.as_data(), sys.stdout, indent=2, ensure_ascii=False)
        print()
