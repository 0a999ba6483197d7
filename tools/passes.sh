#!/usr/bin/env bash
# Every test, three ways: compiled, and beside it, on the second core, as plain Python and then compiled plainly.
# The second's words are shown when it is over.  Arguments: the Python to use, then pytest's.
set -u
python=$1
shift
# Compiled plainly, a kill at each store of the compare takes minutes; tests/test_plain.py kills it once.
plain_crashes=(tests/crash/test_ledger.py tests/crash/test_mirror.py tests/crash/test_rewriter.py)
log=$(mktemp)
beside=
trap '[ -z "$beside" ] || kill -- "-$beside" 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

set -m # a process group of its own, so that it can be ended whole
{
    interpreted=0 plain=0
    NUMBA_DISABLE_JIT=1 "$python" -m pytest tests/ring tests/crash tests/stages "$@" || interpreted=$?
    COLO_PLAIN_COMPILE=1 "$python" -m pytest tests/test_plain.py tests/ring "${plain_crashes[@]}" "$@" || plain=$?
    exit $((interpreted ? interpreted : plain))
} >"$log" 2>&1 &
beside=$!
set +m

compiled=0
"$python" -m pytest "$@" || compiled=$?
other=0
wait "$beside" || other=$?
beside=
echo "as plain Python, and compiled plainly:"
cat "$log"
exit $((compiled ? compiled : other))
