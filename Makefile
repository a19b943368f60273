# make demo   the main job on this machine, with nothing else installed
# make test   every test; installs what Python needs, uses the real parts that are there and names those that are not
# make test-amqp  the promises of the port, oslo.messaging both ways and every fault of the broker, over our own AMQP engine
# make check  format, lint, types, floors (make lint), quick tests
# make lab    a private RabbitMQ, PostgreSQL and tgtd, five services, two compute hosts (as root, on Debian)
# make compat-openstack  real nova 34 and cinder 29 as our clients (installs them once: 1 to 5 minutes, 700 MB)
# make bench  how fast our RPC is beside other libraries', and the buses; bench-buses: the buses alone; bench-survival: calls while the broker fails;
#             bench-attach: an attach and detach, and what further computes add; bench-flood: calls while 100,000 casts flood another queue; bench-plots: cost by calls in flight, size and clients, drawn;
#             bench-memory: what a client and a server hold in ten minutes of calls
# make repro  one case of the simulation with its whole trace: CASE='...' SEED=0
# make chaos  kill -9 at every failpoint of attach and detach, and outages: real processes, RabbitMQ, DATABASE=postgresql, CASES=0 (all)
# make fuzz   hostile bytes for the decoders, MINUTES=1, with atheris where it can be installed
# make repro  one case of the simulation with its whole trace: CASE='attach: nova-compute.cmp1|effect ...#1|after|crash' SEED=0
# make soak   the simulation at length: N=20000 random histories, as many pairs of faults, and every single fault; SEED=0
# make datapath  the proof in the guest: 50 rounds of each storage backend with each hypervisor, ROUNDS=50, and the suites' long form (make guest first)
# make guest  a small Linux guest of Debian's packages in .guest, for machines to boot
# make parts  the Debian packages of the real parts (as root); parts-storage: LVM's and Ceph's (218 MB, half a minute)
# make certify  every specification of the storage ports on every adapter, LVM and Ceph in full (5 minutes)

PYTHON ?= python3
MINUTES ?= 1
BIN := .venv/bin
# What starts a hundred processes shall not compile its sources a hundred times, also where the machine keeps no bytecode by default.
export PYTHONDONTWRITEBYTECODE :=
PARTS := tgt libiscsi-bin qemu-system-x86 qemu-block-extra qemu-utils rabbitmq-server postgresql mariadb-server redis-server \
	libvirt-daemon libvirt-daemon-driver-qemu python3-libvirt busybox-static cpio
STORAGE_PARTS := lvm2 ceph-mon ceph-osd ceph-common

.PHONY: certify parts-storage demo test test-amqp lint check format lab guest datapath repro soak chaos bench bench-attach bench-buses bench-flood bench-memory bench-plots bench-survival fuzz parts clean compat-openstack

demo: .venv/installed
	@$(BIN)/lite demo --embedded

# The simulation waits for nothing: two processes for each core make it a quarter slower.
test: .venv/installed-dev
	@failed=0; $(BIN)/pytest -n 4 --dist worksteal --ignore tests/simulation || failed=1; \
	$(BIN)/pytest -n 2 --dist worksteal tests/simulation || failed=1; exit $$failed

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-amqp: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --long --amqp tests/conformance/transport tests/compat tests/integration/test_survival.py tests/unit/rpc

check: lint
	$(BIN)/pytest -q tests/unit tests/property tests/architecture tests/typing

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lab: .venv/installed
	deploy/lab/lab.sh

compat-openstack: .venv/installed-dev .venv-openstack/installed
	$(BIN)/pytest tests/compat/test_real_nova_cinder.py tests/compat/test_golden_objects.py

certify: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --long tests/conformance/driver tests/conformance/target

repro: .venv/installed-dev
	$(BIN)/python -m tests.simulation --case '$(CASE)' --seed '$(or $(SEED),0)'

soak: .venv/installed-dev
	@failed=0; for tier in "1" "2 --sample $(or $(N),20000)" "3 --sample $(or $(N),20000)"; do \
	  echo "tier $$tier"; $(BIN)/python -m tests.simulation --tier $$tier --seed $(or $(SEED),0) || failed=1; done; exit $$failed

chaos: .venv/installed-dev
	$(BIN)/python -m tests.integration.chaos --database $(or $(DATABASE),postgresql) --cases $(or $(CASES),0)

guest: .guest/vmlinuz

.guest/vmlinuz: deploy/lab/guest.sh deploy/lab/guest-init
	deploy/lab/guest.sh .guest
	@touch $@

datapath: .venv/installed-dev .guest/vmlinuz
	$(BIN)/python -m tests.integration.datapath --rounds $(or $(ROUNDS),50)
	$(BIN)/pytest -q --long tests/conformance/hypervisor

bench: .venv-bench/installed
	.venv-bench/bin/python -m tests.bench.rpc_peers
	@$(MAKE) --no-print-directory bench-buses

bench-attach: .venv/installed-dev
	$(BIN)/python -m tests.bench.attach

bench-plots: .venv-bench/installed
	.venv-bench/bin/python -m tests.bench.rpc_peers.growth

bench-memory: .venv-bench/installed
	.venv-bench/bin/python -m tests.bench.rpc_peers.memory

bench-buses: .venv/installed-dev
	$(BIN)/python -m tests.bench.bus_roundtrip

bench-flood: .venv-bench/installed
	.venv-bench/bin/python -m tests.bench.rpc_peers --flood --peer ours --peer aiormq_raw --peer oslo

bench-survival: .venv/installed-dev
	$(BIN)/python -m tests.bench.survival

fuzz: .venv/installed-dev
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]' \
	|| echo "atheris cannot be installed here; hypothesis does it"
	@$(BIN)/python -m tests.property.wire.fuzz --minutes $(MINUTES)

parts: WANTED = $(PARTS)
parts-storage: WANTED = $(STORAGE_PARTS)
parts parts-storage:
	@missing=$$(dpkg-query -W -f '$${Status} $${Package}\n' $(WANTED) 2>/dev/null | awk '/^install ok installed/ {print $$4}' | sort > .venv-parts; \
	printf '%s\n' $(WANTED) | sort | comm -23 - .venv-parts; rm -f .venv-parts); \
	if [ -z "$$missing" ]; then echo "every Debian package is there"; \
	else apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi

clean:
	rm -rf .venv .venv-bench .venv-openstack build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"error: Python {sys.version.split()[0]} found, 3.11 or newer wanted: make PYTHON=python3.11 demo")'
	@$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/pip pyproject.toml
	@echo "installing into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/bin/pip pyproject.toml
	@echo "installing into .venv, with what the tests need ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch .venv/installed $@

.venv-bench/installed: pyproject.toml
	@echo "installing into .venv-bench, with the libraries to compare with ..."
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check --editable .
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check --editable '.[bench]' \
	|| echo "not all of them could be installed; those that are missing are left out"
	@npm install --silent --no-fund --no-audit --prefix .venv-bench amqplib@0.10 >/dev/null 2>&1 || echo "node or amqplib is missing; node_amqplib is left out"
	@touch $@

.venv-openstack/installed: tests/compat/requirements-openstack.txt
	@echo "installing nova and cinder into .venv-openstack ..."
	@$(PYTHON) -m venv --clear .venv-openstack
	@.venv-openstack/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
