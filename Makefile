# The three commands a newcomer needs: make run, make install, make test.
# Everything lands in .venv, from lock files with hashes; a second call installs nothing.
PYTHON ?= python3
PORT ?=

FUZZ ?=

.PHONY: help run install dev test pytest test-long test-lake check fuzz format lock docs wheel clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

run: .venv/installed ## sync, search and serve: the whole product on http://127.0.0.1:8001 (PORT= for another)
	@exec .venv/bin/mirror run $(if $(PORT),--port $(PORT))

install: .venv/installed ## prepare .venv, with .venv/bin/mirror

dev: .venv/installed .venv/installed-dev ## prepare .venv for development

# The checks run beside the tests, which often wait for something, and two parts are installed at once.
test: ## ruff, mypy strict, pytest
	@$(MAKE) --no-print-directory --jobs=2 check pytest

# Without bytecode, every Python that a test starts would compile the program anew. Each process takes tests
# that stand side by side, so that what a file prepares is prepared once.
pytest: .venv/installed .venv/installed-dev .venv/installed-clients .venv/installed-plugins .venv/installed-npm
	env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest -n auto --dist worksteal

test-long: ## the same with ten times as many random examples, and a longer soak
	EXAMPLES=10 $(MAKE) test

test-lake: .venv/installed-lake ## the lake with Spark, other engines and an object store, which test leaves out
	PYTHONPATH=.venv/lake .venv/bin/python -m pytest -rs -s \
	    tests/test_lake_engines.py tests/test_lake_s3.py tests/test_lake_spark.py

check: .venv/unpacked .venv/installed-dev ## ruff, mypy strict, and no name that nothing uses
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/vulture

fuzz: .venv/unpacked .venv/installed-dev ## ask the served APIs 3,000 random things of each sort (FUZZ= for another number)
	FUZZ=$(or $(FUZZ),3000) .venv/bin/python -m pytest -q -x --timeout 0 tests/test_openapi_answers.py

format: .venv/installed-dev ## let ruff arrange the code
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

COMPILE = .venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock: .venv/installed-uv ## pin the newest versions that pyproject.toml allows, with hashes
	$(COMPILE) --extra build pyproject.toml -o requirements.lock
	$(COMPILE) --extra build --extra dev --extra mcp -c requirements.lock \
	    $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock) \
	    pyproject.toml -o requirements-dev.lock
	$(COMPILE) --overrides tests/clients.overrides -c requirements.lock -c requirements-dev.lock \
	    $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock requirements-dev.lock) \
	    tests/clients.in -o requirements-clients.lock
	$(COMPILE) $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock | grep -v dateutil) \
	    tests/plugins.in -o requirements-plugins.lock

docs: .venv/installed ## write docs/configuration.md from the descriptions of the settings
	.venv/bin/python -c 'from mirror.cli.setup import documentation; print(documentation(), end="")' > docs/configuration.md

wheel: .venv/installed ## build dist/*.whl
	.venv/bin/python -m pip --disable-pip-version-check -q wheel --no-deps --no-build-isolation -w dist .

clean: ## remove .venv and what the tools left; data/ stays
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Where Python has pip already, to unpack another one takes longer than to read what it has.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "bitbucket-mirror needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ..."; exit 2; }
	@if $(PYTHON) -m pip --version >/dev/null 2>&1; then pip=--without-pip; fi; \
	    $(PYTHON) -m venv $$pip .venv >/dev/null 2>&1 \
	    || { rm -rf .venv; echo "$(PYTHON) has neither venv nor pip; on Debian: apt install python3-venv python3-pip"; exit 2; }

# uv installs in a second what takes pip eight. It reads no settings of pip, such as an index of one's own, and some
# machines cannot run it: where it fails, pip installs, and tells what is wrong.
PIP = $$(if $(PYTHON) -m pip --version >/dev/null 2>&1; then echo $(PYTHON) -m pip --python .venv/bin/python; \
    else echo .venv/bin/python -m pip; fi) --disable-pip-version-check install -qq --no-compile --no-warn-script-location
install = .venv/bin/uv pip install -q --python .venv/bin/python $(1) 2>/dev/null || $(PIP) $(1)

# The stamps are written last: an installation cut short is done again, not trusted.
.venv/unpacked: .venv/installed-uv requirements.lock pyproject.toml
	@$(call install,--require-hashes -r requirements.lock)
	@$(call install,--no-deps --no-build-isolation -e .)
	@touch $@

.venv/installed-uv: .venv/bin/python requirements-dev.lock
	@echo "Installing into .venv (only the first time) ..."
	@awk '/^[a-z]/ { wanted = /^uv==/ } wanted' requirements-dev.lock > .venv/uv.lock
	@$(PIP) --retries 1 --require-hashes -r .venv/uv.lock 2>/dev/null || true
	@touch $@

# Where PYTHONDONTWRITEBYTECODE is set, each start would compile the program anew. To import it writes the bytecode of
# what it needs; most of the packages is never imported.
define import_all
import contextlib, importlib, pkgutil, mirror
for module in pkgutil.walk_packages(mirror.__path__, "mirror."):
    if not module.name.endswith("__main__"):
        with contextlib.suppress(Exception):  # some need packages that only some installations have
            importlib.import_module(module.name)
endef
export import_all

.venv/installed: .venv/unpacked
	@env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c "$$import_all"
	@touch $@

# Its lock file lists what requirements.lock does not, so that a new .venv gets both at once.
.venv/installed-dev: .venv/installed-uv requirements-dev.lock
	@$(call install,--no-deps --require-hashes -r requirements-dev.lock)
	@touch $@

# Spark, its Java, other engines and a server of S3 are large, and no part of the product: they have no lock file.
.venv/installed-lake: .venv/unpacked .venv/installed-dev tests/lake.in
	@command -v java >/dev/null || apt-get install -y openjdk-17-jre-headless \
	    || { echo "Spark needs Java 17; on Debian, as root: apt install openjdk-17-jre-headless"; exit 2; }
	@rm -rf .venv/lake
	@.venv/bin/python -m pip --disable-pip-version-check install -q --no-warn-script-location \
	    --target .venv/lake -r tests/lake.in \
	    || { echo "what tests/lake.in names cannot be installed from the package index of this machine"; exit 2; }
	@touch $@

# Two programs that the tests run, whose packages have names that others have, so they are apart (tests/clients.in).
.venv/installed-clients: .venv/unpacked requirements-clients.lock
	@rm -rf .venv/clients
	@$(call install,--no-deps --require-hashes -r requirements-clients.lock --target .venv/clients)
	@touch $@

# Plugins that one test attaches, apart from what all other tests run with (tests/plugins.in).
.venv/installed-plugins: .venv/unpacked requirements-plugins.lock
	@rm -rf .venv/plugins
	@$(call install,--no-deps --require-hashes -r requirements-plugins.lock --target .venv/plugins)
	@touch $@

# Packages of npm that tests run: a client of each API, and axe-core. Where they cannot be had, these tests are skipped.
.venv/installed-npm: .venv/bin/python tests/npm/package.json tests/npm/package-lock.json
	@rm -rf .venv/npm && cp -R tests/npm .venv/npm
	@npm ci --prefix .venv/npm --prefer-offline --fetch-retries=0 --fetch-timeout=20000 --no-audit --no-fund \
	    --ignore-scripts --silent >/dev/null && touch $@ \
	    || { rm -rf .venv/npm; echo "npm or its registry does not answer: tests with its packages are skipped"; }
