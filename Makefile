# make quickstart   three networks, their loss landscapes, one page
# make test         the test suite; make test-all: the slow ones too
# make lint         ruff
# make docs         the documentation as a site, in site/
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test test-all lint docs clean

quickstart: $(VENV)/installed
	$(RUN) train.py --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/installed-test
	$(RUN) -m pytest

test-all: $(VENV)/installed-test
	$(RUN) -m pytest -m ''

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

docs: $(VENV)/installed-docs
	@echo "building site/, half a minute; then open site/index.html"
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build  # --quiet counts no warnings

clean:
	rm -rf $(VENV)

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: requirements.txt | $(VENV)/python
	$(VENV)/bin/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-test: requirements-test.txt requirements.txt | $(VENV)/python
	$(VENV)/bin/pip install --quiet -r requirements-test.txt
	touch $@

$(VENV)/installed-docs: requirements-docs.txt requirements.txt | $(VENV)/python
	$(VENV)/bin/pip install --quiet -r requirements-docs.txt
	touch $@
