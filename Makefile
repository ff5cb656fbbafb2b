# make test       all that must hold, on real PostgreSQL and Redis servers; under 10 minutes
# make race       the race of writers and readers at length, and the times and
#                 loads of the whole system, with their figures
# make test-faults  whole clusters with things breaking, 20 runs of each fault,
#                 different seeds, and the change log's model at length (90 minutes)
# make test-pages   the pages in a headless Chromium
# make test-postman  the Postman collection, run by newman, twice against a demo
# make measure    what things cost and how long they take, with their figures
# make bench      the hit path, and what a fill costs
# make generated  fails if generated code is not what its sources say (builds sqlc: 3 minutes)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: test servers race test-faults test-pages test-postman chromium measure bench generated

test: servers
	go vet ./...
	go run $(STATICCHECK) ./...
	go test -race -timeout 9m ./...

# The tests run servers of their own. As root on Debian a missing one is
# installed; elsewhere this says what to type.
servers:
	@have() { command -v "$$1" >/dev/null || ls /usr/lib/postgresql/*/bin/"$$1" /usr/pgsql-*/bin/"$$1" >/dev/null 2>&1; }; \
	missing=; \
	have postgres || missing="$$missing postgresql"; \
	have redis-server || missing="$$missing redis-server"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	else \
		echo "make: the tests need$$missing"; \
		echo "  try: sudo apt-get install$$missing  (or: brew install postgresql@17 redis)"; \
		exit 1; \
	fi

race: servers
	go test -count=1 -timeout 30m -v ./proxy -run 'TestRace|TestLatency|TestSystem' \
		-race.commits=20000 -race.reads=400000 -race.bound=50ms -latency.updates=1000 -floor.pages=10000

test-faults: servers
	go test -count=1 -timeout 30m -v ./proxy/changelog -run 'TestModel' -model.schedules=100000 -model.from=0
	go test -count=1 -race -timeout 85m -v ./proxy/faults -faults.runs=20

test-pages: servers chromium
	go vet -tags pages ./proxy/...
	go test -count=1 -timeout 10m -tags pages -run TestPages ./proxy/manage ./proxy/admin

chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; \
	else \
		echo "make: the pages are tested in Chromium"; \
		echo "  try: sudo apt-get install chromium"; \
		exit 1; \
	fi

test-postman: servers
	docs/postman/run.sh

measure: servers
	go test -count=1 -timeout 90m -v ./proxy -run 'TestMeasure' \
		-measure.log=10m -measure.entries=1000000 -measure.frozen=10s -measure.restarts=5 \
		-measure.drain=1000000 -measure.drain-rounds=3 -measure.each=3s -measure.rows=10000 \
		-measure.body=2147483648 -measure.events=60s
	go test -count=1 -timeout 10m -v ./proxy -run 'TestWrites' -writes.count=1000 -writes.wait=50ms

bench:
	go test -run '^$$' -bench . -benchmem ./proxy/cache ./proxy/wire ./proxy/coherence ./proxy/replication ./backend/api

generated:
	go generate ./...
	@git diff --exit-code -- backend/db || { echo "make: backend/db is not what schema/ and queries/ say"; echo "  try: go generate ./... and commit"; exit 1; }
