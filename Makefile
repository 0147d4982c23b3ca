# make quickstart   three networks, their loss landscapes, one page
# make test         the test suite; make test-all: the slow ones too
# make lint         ruff
# make types        pyright: norms, models, analysis
# make docs         the documentation as a site, in site/
# make gallery      the pictures of docs/gallery.md
# make package      the wheel, installed alone and tried from another folder
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test test-all lint types docs gallery package clean

quickstart: $(VENV)/installed
	@echo 'training three networks, at once where the cores allow: two to four'
	@echo 'minutes on two cores, more than half of it compiling the first time'
	$(RUN) train.py --config=configs/quickstart.py --workdir=runs/quickstart \
	  --jobs=auto

test: $(VENV)/installed-test
	$(RUN) -m pytest

test-all: $(VENV)/installed-test
	$(RUN) -m pytest -m ''

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/installed-test
	$(VENV)/bin/pyright --pythonpath $(RUN)

docs: $(VENV)/installed-docs
	@echo "building site/, half a minute; then open site/index.html"
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build  # --quiet counts no warnings

gallery: quickstart $(VENV)/installed-test
	PYTHONPATH=. $(RUN) docs/gallery.py

package: $(VENV)/python
	rm -rf build dist
	$(VENV)/bin/pip wheel --quiet --no-deps --wheel-dir=dist .
	$(PYTHON) -m venv dist/environment
	dist/environment/bin/pip install --quiet dist/*.whl
	mkdir dist/elsewhere
	cd dist/elsewhere && ../environment/bin/bn_jax train --config=quickstart \
	  --config.steps=2 --only=standard
	test -s dist/elsewhere/runs/quickstart/report.html

clean:
	rm -rf $(VENV) build dist

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; make PYTHON=python3.12"; exit 2; }
	@echo 'making the environment $(VENV)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: requirements.txt | $(VENV)/python
	@echo 'installing the packages of requirements.txt: about a minute'
	$(VENV)/bin/pip install --progress-bar=off -r requirements.txt
	touch $@

$(VENV)/installed-test: requirements-test.txt requirements.txt | $(VENV)/python
	$(VENV)/bin/pip install --quiet -r requirements-test.txt
	touch $@

$(VENV)/installed-docs: requirements-docs.txt requirements.txt | $(VENV)/python
	$(VENV)/bin/pip install --quiet -r requirements-docs.txt
	touch $@
