"""Holds every AG-UI event that came (argv 2, one a line) against the protocol's schema (argv 1)."""

import json
import sys

from jsonschema import Draft202012Validator

validator = Draft202012Validator(json.load(open(sys.argv[1])))
frames = [json.loads(line) for line in open(sys.argv[2])]
assert len(frames) > 100, f"only {len(frames)} events"
bad = [(frame, error) for frame in frames for error in validator.iter_errors(frame)]
for frame, error in bad[:5]:
    print(frame, error.message, file=sys.stderr)
print(f"  {len(frames)} events of {len({frame['type'] for frame in frames})} types, {len(bad)} against the schema")
sys.exit(bool(bad))
