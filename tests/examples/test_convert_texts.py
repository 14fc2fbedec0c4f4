import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.config import load_pipeline
from streamapp.control.dataset import plan_of
from streamapp.control.release import assemble

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("STREAMAPP_DATA", ROOT.parent / "shared" / "data"))
SCRIPT = ROOT / "examples" / "convert_texts.py"


def convert(name: str, data: Path) -> list[dict[str, str]]:
    done = subprocess.run([sys.executable, SCRIPT, name, "--data", data], capture_output=True, text=True, check=True, encoding="utf-8")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_rows_become_events_with_their_label_and_an_own_writer_where_none_is_known(tmp_path: Path) -> None:
    rows = [
        {"id": "c-1", "text": "first £5", "label": "ham", "user_id": "u_1", "ts": "2015-01-02T03:04:05Z", "video": "v"},
        {"id": "c-2", "text": "second", "label": "spam"},
    ]
    (tmp_path / "youtube").mkdir()
    with gzip.open(tmp_path / "youtube/labelled.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    first, second = convert("youtube", tmp_path)
    assert first == {
        "event_id": "c-1", "user_id": "u_1", "text": "first £5", "event_time": "2015-01-02T03:04:05Z", "channel": "comments",
        "label": "ham",
    }  # fmt: skip
    assert second == {"event_id": "c-2", "user_id": "c-2", "text": "second", "channel": "comments", "label": "spam"}


def test_a_set_that_is_not_there_is_named_with_the_way_out(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, "sms_spam", "--data", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--data or STREAMAPP_DATA" in done.stderr


@pytest.mark.skipif(not (DATA / "sms_spam/data.jsonl.gz").exists(), reason="sms_spam is not here")
@pytest.mark.parametrize("name", ["sms_spam", "youtube", "adversarial"])
def test_every_text_of_a_shared_set_can_be_decided(name: str) -> None:
    events = convert(name, DATA)
    plan = plan_of(events, assemble(load_pipeline("messages"), {}, b"test"))
    assert len(plan) + len(plan.rejects) == len(events)
    assert {reject.code.value for reject in plan.rejects} <= {"blank_text"}
    assert plan.event_id[0] == events[0]["event_id"]
