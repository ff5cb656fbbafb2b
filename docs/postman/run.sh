#!/bin/sh
# Runs the collection in this directory twice in a row against a demo of its own, on
# free ports. Its exit code is newman's.
set -u
cd "$(dirname "$0")/../.."
newman=newman@6.2.2

command -v npx >/dev/null || {
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm
	else
		echo "test-postman: npx is missing, which runs newman"
		echo "  try: sudo apt-get install nodejs npm  (or: brew install node)"
		exit 1
	fi
} || exit 1

tmp=$(mktemp -d) || exit 1
demo=
stop() {
	[ -z "$demo" ] || { kill "$demo" 2>/dev/null; wait "$demo"; }
	rm -rf "$tmp"
}
trap stop EXIT
trap 'exit 130' INT TERM

go build -o "$tmp/proxy" ./proxy || exit 1
"$tmp/proxy" demo --addr 127.0.0.1:0 --backend-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 --write-env "$tmp/env" >"$tmp/log" 2>&1 &
demo=$!
until [ -f "$tmp/env" ]; do
	kill -0 "$demo" 2>/dev/null || { demo=; echo "test-postman: the demo has ended:"; cat "$tmp/log"; exit 1; }
	sleep 0.2
done
. "$tmp/env"

# In a file, since command lines are for everybody to see.
variable='{"key": "%s", "value": "%s"}'
printf "{\"name\": \"demo\", \"values\": [$variable, $variable, $variable, $variable]}" BASE_URL "$PROXY_URL" ADMIN_URL "$ADMIN_URL" \
	ADMIN_TOKEN "$ADMIN_TOKEN" API_TOKEN "$API_TOKEN" >"$tmp/environment.json"

for run in 1 2; do
	npx --yes $newman run docs/postman/walcache.postman_collection.json --environment "$tmp/environment.json" --color off || exit
done
