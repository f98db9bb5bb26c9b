# The few commands that people type. What they do stands in tests/run.sh, tests/lab and tests/providers/demo.py.
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-engines check lab lab-down goldens docs lock sbom bench bench-agent bench-failover bench-restart bench-switch bench-verdicts fuzz soak venv

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 23

demo: ## three chains in containers, with providers and an internet of their own, and a proof that they work
	@began=$$(date +%s.%N) && tests/lab/python.sh && tests/lab/engine.sh && tests/lab/base-image.sh && \
	.venv/bin/python tests/providers/demo.py up --began $$began

demo-down: ## remove everything that `make demo` started
	@tests/lab/python.sh
	@.venv/bin/python tests/providers/demo.py down

test: ## everything, on this machine and in a virtual machine with a stock kernel
	@tests/run.sh test

test-engines: ## the scenarios on a current Docker engine and Compose, which it builds; it runs beside the machine's own
	@tests/run.sh engines

check: ## style, types, layers, scripts and the quick tests: seconds, no Docker, no root
	@tests/run.sh check

lab: ## start the virtual machine with all images in it, for work on one test
	@tests/run.sh lab

lab-down: ## switch it off
	@tests/lab/vm.sh down

goldens: venv ## write the expected files of tests/{golden,errors,imports} and the schema anew; read the difference before a commit
	@.venv/bin/python -m pytest -q --regenerate tests/golden tests/errors tests/imports tests/unit/config/test_schema.py

docs: venv ## write anew what docs/ shows of the code: causes of failures, and whose files were tried
	@.venv/bin/python -m pytest -q --regenerate tests/golden/test_docs.py

sbom: venv ## list what each image carries, as CycloneDX, in sbom/
	@PYTHONPATH=. .venv/bin/python tests/lab/sbom.py sbom

bench: venv ## measure what users wait for and what a chain takes, beside baselines; PARTS="help render" runs some
	@tests/lab/engine.sh && tests/lab/base-image.sh && .venv/bin/python bench/bench.py $(PARTS)

bench-agent: venv ## measure the entry's agent with 100 exits and 10,000 clients, while a state is applied, and idle; APPLIES=5
	@tests/lab/engine.sh && tests/lab/base-image.sh && .venv/bin/python bench/agent_cost.py --applies $(or $(APPLIES),5)

bench-verdicts: venv ## how soon faults are noticed and how often by mistake, on a simulated clock; WRITE=1 puts it into docs/
	@nice .venv/bin/python bench/verdicts.py $(if $(WRITE),--write)

bench-failover: venv ## break exits under a client's traffic, 300 times in each way, and print how long it was without; goes on where it was; REPEATS=20 RTT="0 20 80" IDLE=500 RATE=100 FLOWS=10 MINUTES=60 WRITE=1 VM=1
	@tests/run.sh failover --repeats $(or $(REPEATS),300) --rtt $(or $(RTT),0) --minutes $(or $(MINUTES),600) \
	  $(if $(IDLE),--idle $(IDLE)) $(if $(RATE),--rate $(RATE)) $(if $(FLOWS),--flows $(FLOWS)) $(if $(WRITE),--write)

bench-switch: venv ## switch, drain and go back under traffic, through tunnels and (as root) in namespaces, and print what clients lost; SECONDS=60 RATE=2000
	@tests/lab/engine.sh && tests/lab/base-image.sh && tests/lab/tools.sh && \
	.venv/bin/python bench/switches.py --seconds $(or $(SECONDS),60) --rate $(or $(RATE),2000) && \
	.venv/bin/python bench/forwarding.py --seconds $(or $(SECONDS),60)

bench-restart: venv ## restart the entry under a thousand clients, and print how soon all are back, beside a bare wireguard-go; REPEATS=10
	@tests/lab/engine.sh && tests/lab/base-image.sh && .venv/bin/python bench/restart.py --repeats $(or $(REPEATS),10)

fuzz: venv ## change what providers hand out in many small ways, and see that nothing bad comes of it; COUNT=100000, SEED=8
	@PYTHONPATH=. .venv/bin/python tests/imports/fuzz.py $(or $(COUNT),100000) $(or $(SEED),8)

soak: venv ## break a chain again and again and print how it came back; STARTS=20 KILLS=60 MINUTES=60, VM=1 in the virtual machine
	@tests/run.sh soak --starts $(or $(STARTS),20) --kills $(or $(KILLS),60) --minutes $(or $(MINUTES),60)

lock: ## pin the dependencies anew from pyproject.toml; UPGRADE=1 takes the newest versions
	@tests/lab/python.sh lock $(if $(UPGRADE),--upgrade)

venv:
	@tests/lab/python.sh
