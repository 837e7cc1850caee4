# make demo   install, make a labelled data set, train, evaluate and draw (about 10 minutes on 2 CPU cores)
# make test   install, lint and run the tests
# make clean  remove what the two made, the environment included

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUTPUT ?= output/demo

.PHONY: demo test lint format install clean
.DELETE_ON_ERROR:

install: $(READY)

# Runs again only when one of these files changes.
$(READY): setup.py requirements-torch.txt tools/install_detectron2.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-torch.txt
	$(BIN)/python tools/install_detectron2.py
	$(BIN)/python -m pip install --quiet -e '.[demo,dev,plots,sam3,serve,vector]'
	touch $@

demo: $(READY)
	$(BIN)/ovrs demo --output $(OUTPUT)

# A file's tests stay in one process: they share models. More than four processes would fill small memories.
test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) output *.egg-info .pytest_cache .ruff_cache
