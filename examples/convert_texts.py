"""Turns public text sets (gzipped JSON lines with id, text, label) into events of the `messages` pipeline, one JSON object a line.

    python examples/convert_texts.py sms_spam --data DIRECTORY > sms.jsonl
    streamapp train messages --data sms.jsonl

DIRECTORY holds one folder per set; STREAMAPP_DATA is its default. The label travels with the event and is ignored by the worker.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES = {
    "sms_spam": "data.jsonl.gz",
    "youtube": "labelled.jsonl.gz",
    "youtube_unlabelled": "stream_unlabelled.jsonl.gz",
    "spamassassin": "data.jsonl.gz",
    "adversarial": "data.jsonl.gz",
    "davidson": "data.jsonl.gz",
}
CHANNELS = {"sms_spam": "sms", "adversarial": "sms", "youtube": "comments", "youtube_unlabelled": "comments", "spamassassin": "mail"}
KEPT = ("label", "attack", "orig_id", "group")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(FILES))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STREAMAPP_DATA", "../shared/data")))
    chosen = parser.parse_args()
    path = chosen.data / chosen.set.removesuffix("_unlabelled") / FILES[chosen.set]
    if not path.exists():
        sys.exit(f"{path} is not here; name the directory that holds the sets with --data or STREAMAPP_DATA")
    for event in events(chosen.set, path):
        sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")


def events(name: str, path: Path) -> Iterator[dict[str, Any]]:
    """Gives the events of one set in file order; where the writer is not known, every text has its own."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            event = {"event_id": row["id"], "user_id": row.get("user_id") or row["id"], "text": row["text"]}
            if row.get("ts"):
                event["event_time"] = row["ts"]
            if name in CHANNELS:
                event["channel"] = CHANNELS[name]
            yield event | {key: row[key] for key in KEPT if key in row}


if __name__ == "__main__":
    main()
