#!/bin/sh
# make demo: run untrusted-install.sh in the profile `full`, with something at stake, and look for what it left.
set -eu
cd "$(dirname "$0")/.."
HEXE=${HEXE:-.venv/bin/hexe}
python=$(dirname "$HEXE")/python

# At stake: a secret in the environment, and a service on localhost.
export DEPLOY_TOKEN=demo-0123456789
ports=$(mktemp)
"$python" -c '
import signal, socket
signal.alarm(300)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    server.accept()[0].close()
' >"$ports" 2>/dev/null &
service=$!
trap 'kill $service 2>/dev/null; rm -f "$ports"' EXIT
until [ -s "$ports" ]; do kill -0 $service; sleep 0.1; done
port=$(cat "$ports")
linger=86400.$$

set -- run --isolation full --home private --ro-bind examples:/untrusted \
    --env "PORT=$port" --env "LINGER=$linger" -- sh /untrusted/untrusted-install.sh
echo "\$ hexe run --isolation full --home private --ro-bind examples:/untrusted \\"
echo "      --env PORT=$port --env LINGER=$linger -- sh /untrusted/untrusted-install.sh"
echo
status=0
"$HEXE" "$@" || status=$?
if [ "$status" -ge 100 ]; then
    echo "Hexe ended with $status: nothing can be said about the script." >&2
    exit "$status"
fi

echo
echo "Afterwards, on the host:"
if [ -e "$HOME/.hexe-demo-profile" ]; then
    echo "  the file that it wrote into its home is here: that is wrong"
    status=1
else
    echo "  the file that it wrote into its home: not here, that home was private"
fi
if grep -qsa "[8]6400\.$$" /proc/[0-9]*/cmdline; then
    echo "  the process that it left running is still there: that is wrong"
    status=1
else
    echo "  the process that it left running: dead, with everything else in the sandbox"
fi
exit "$status"
