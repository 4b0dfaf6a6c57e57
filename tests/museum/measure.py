"""Measure which checks see which exhibit, and write it down: ``cd tests && python -m museum.measure``.

Writes seen.json and docs/museum.md. What changes is to be looked at: a check that has gone blind is a fault of the check.
"""

from __future__ import annotations

import json
import sys

import pytest
from museum import page, training
from museum.checks import CHECKS
from museum.collection import EXHIBITS
from museum.instruments import SHARED
from museum.test_museum import SEEN_FILE, look, seen_by


def main(arguments: list[str]) -> None:
    SHARED.close_strict()
    old = json.loads(SEEN_FILE.read_text(encoding="utf-8")) if SEEN_FILE.exists() else {}
    seen = {}
    if "--page" in arguments:
        seen = old
    else:
        looked = look(CHECKS)
        for exhibit in EXHIBITS:
            found = seen_by(exhibit, looked)
            told = {name: old.get(exhibit.key, {}).get(name) for name in ("loss falls", "accuracy")}
            if "--training" in arguments or None in told.values():
                with pytest.MonkeyPatch.context() as patch:
                    exhibit.install(patch)
                    told["loss falls"] = training.loss_falls(exhibit.training)
                    told["accuracy"] = round(training.accuracy(exhibit.training), 3)
            seen[exhibit.key] = {"checks": list(found), **told}
            print(exhibit.key, told, flush=True)
            for name, what in found.items():
                print(f"    {name}: {what[:110]}", flush=True)
        SEEN_FILE.write_text(json.dumps(seen, indent=1) + "\n", encoding="utf-8")
    page.FILE.write_text(page.render(EXHIBITS, seen), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
