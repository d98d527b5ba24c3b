# Each target makes what it needs: the virtual environment, the compiled core and, when run as root, Debian's packages.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PACKAGES_BUILD := gcc libc6-dev python3-dev python3-venv

.PHONY: help venv core

help: ## name the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

venv: ## .venv with the project (editable) and every tool
	@.ci/need $(PACKAGES_BUILD)
	@PYTHON=$(PYTHON) .ci/venv $(VENV)

core: venv ## compile what changed in aioemu/core
	@$(BIN)/python aioemu/core/build.py
