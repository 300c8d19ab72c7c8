"""Structured verdicts: JSON that names an option, for judges that give no log probabilities.

The server is asked for the schema (vLLM's structured outputs, OpenAI's response_format), and what comes back is
checked against it once more: a server may ignore the request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jsonschema

from judges.records import Call, Reading


def verdict_schema(options: Sequence[str]) -> dict[str, Any]:
    """`{"rationale": text, "answer": option}`; the rationale comes first, so that it can matter."""
    return {
        "type": "object",
        "properties": {
            "rationale": {"type": "string"},
            "answer": {"type": "string", "enum": list(options)},
        },
        "required": ["rationale", "answer"],
        "additionalProperties": False,
    }


def read_verdict(call: Call, written: Reading) -> Reading:
    """The reading of a verdict: all probability on the option named, or a status that says why not.

    Nothing is searched for in the text: what is not exactly the object is "no_answer".
    """
    if written.status != "ok":
        return written
    text = written.text or ""
    try:
        found = json.loads(text)
        jsonschema.validate(found, verdict_schema(call.options))
    except ValueError:
        return replace(written, status="no_answer", detail=f"not JSON: {text[:80]!r}")
    except RecursionError:
        return replace(written, status="no_answer", detail="JSON too deep to be a verdict")
    except jsonschema.ValidationError as error:
        return replace(written, status="no_answer", detail=f"not a verdict: {error.message[:200]}")
    logprobs = tuple(0.0 if option == found["answer"] else -math.inf for option in call.options)
    return replace(written, status="ok", logprobs=logprobs)
