# Thin aliases of the u2edge command. Each target sets up what it needs in .venv and says what it runs.
#   make demo                         recognise speech with the bundled model (no torch needed)
#   make test                         lint, type-check, run all tests
#   make convert CKPT=exp/dir         WeNet experiment -> bundle in build/
#   make transcribe AUDIO="a.wav b.flac"
#   make docs                         build/api, the API reference
#   make wheel                        dist/u2edge-*.whl, with the int8 model inside
#   make calibrate quantize wer bench report CKPT=exp/dir DATA=manifest.jsonl
#                                     int8 with scales per expert, and the page that says what it cost (build/report)
# torch: on machines without a CUDA GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares gigabytes.

VENV   ?= .venv
CKPT   ?= models/reference
BUNDLE ?= models/reference-bundle
DATA   ?= $(CKPT)/samples
NAME   := $(notdir $(patsubst %/,%,$(CKPT)))
OUT    ?= build/$(NAME)-bundle
PROFILE ?= build/$(NAME).profile
# One that is shipped with the checkpoint serves until make calibrate was run.
FOUND   = $(firstword $(wildcard $(PROFILE) $(CKPT)/calibration.profile) $(PROFILE))
INT8   ?= build/$(NAME)-int8
REPORT ?= build/report
AUDIO  ?= models/reference/samples/*.flac
SPEECH ?= ../shared/speech
ARGS   ?=

# What the recognizer of our own model wants; say it for yours with ARGS.
ifeq ($(patsubst %/,%,$(CKPT)),models/reference)
DITHER := --dither 1
REENCODE := --reencode
endif

# The window where there is a screen for it, else the terminal, which needs 250 MB less.
DEMO := $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(QT_QPA_PLATFORM)$(filter-out Linux,$(shell uname -s)),.window,.demo)

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test check format convert transcribe calibrate quantize wer bench report both bundle digits pictures synthetic train scaling soak wheel docs clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	sh .ci/venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing the recognizer and the demo into $(VENV) (about 200 MB, a minute)"
	$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.window: pyproject.toml | $(BIN)/python
	@echo "installing the recognizer and the window into $(VENV) (about 450 MB, a minute or two)"
	$(PIP) -e '.[window]'
	@touch $@ $(VENV)/.demo

$(VENV)/.convert: pyproject.toml | $(BIN)/python
	@echo "installing torch and onnx into $(VENV) (about 1 GB)"
	$(PIP) -e '.[demo,convert]'
	@touch $@

$(VENV)/.quant: pyproject.toml | $(BIN)/python
	@echo "installing torch, onnx and neural-compressor into $(VENV) (about 1.2 GB)"
	$(PIP) -e '.[demo,quant]'
	@touch $@ $(VENV)/.convert $(VENV)/.demo

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing everything for development into $(VENV) (about 1.2 GB, some minutes)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.window $(VENV)/.convert $(VENV)/.quant

demo: $(VENV)/$(DEMO)
	$(BIN)/u2edge demo $(if $(filter file,$(origin BUNDLE)),,--bundle $(BUNDLE)) $(ARGS)

transcribe: $(VENV)/.demo
	$(BIN)/u2edge transcribe $(AUDIO) --bundle $(BUNDLE) $(ARGS)

convert: $(VENV)/.convert
	$(BIN)/u2edge convert $(CKPT) -o $(OUT) $(DITHER) $(REENCODE) --force $(ARGS)

calibrate: $(VENV)/.quant
	$(BIN)/u2edge calibrate $(CKPT) --data $(DATA) -o $(PROFILE) $(DITHER) $(ARGS)

quantize: $(VENV)/.quant
	test -e $(PROFILE) || test -e $(CKPT)/calibration.profile || $(MAKE) calibrate ARGS=
	$(BIN)/u2edge quantize $(CKPT) --profile $(FOUND) -o $(INT8) $(REENCODE) --force $(ARGS)

# Both bundles, made when they are not there yet.
both: $(VENV)/.quant
	test -e $(OUT)/manifest.json || $(MAKE) convert ARGS=
	test -e $(INT8)/manifest.json || $(MAKE) quantize ARGS=

wer: both
	$(BIN)/u2edge wer --bundle $(INT8) --baseline $(OUT) --data $(DATA) $(ARGS)

bench: both
	$(BIN)/u2edge bench --bundle $(INT8) --baseline $(OUT) $(ARGS)

report: both
	$(BIN)/u2edge report $(CKPT) --baseline $(OUT) --bundle $(INT8) --profile $(FOUND) --data $(DATA) -o $(REPORT) $(ARGS)

# What the tuner left in float: docs/quantization.md.
KEEP := $(foreach part,1.self_attn 1.conv_module 2.self_attn 3.conv_module,--keep encoder.encoders.$(part))

# The bundles that make demo runs, from the checkpoint and the profile in models/reference.
bundle: $(VENV)/.quant
	$(BIN)/u2edge convert models/reference -o models/reference-bundle --storage fp16 --dither 1 --reencode --force
	$(BIN)/u2edge quantize models/reference --profile models/reference/calibration.profile -o models/reference-int8 $(KEEP) --reencode --force

# The number in the README: word error rate on human digit strings of held-out speakers.
digits: $(VENV)/.dev
	$(BIN)/python -m recipes.reference.devset $(SPEECH)/digits-human build/dev-digits
	$(BIN)/python -m recipes.reference.evaluate build/dev-digits --bundle $(BUNDLE) $(ARGS)

# Resident memory over three hours of audio.
soak: $(VENV)/.demo
	$(BIN)/python -m recipes.soak --bundle $(BUNDLE) $(ARGS)

# The pictures of the demo in docs/.
PICTURE = QT_QPA_PLATFORM=offscreen $(BIN)/python -m demo.window.screenshot
SPOKEN := $(foreach n,human-1 synthetic-flite human-2 human-3,models/reference/samples/$(n).flac)
pictures: $(VENV)/.window
	$(PICTURE) docs/demo-dark.png --theme dark $(SPOKEN)
	$(PICTURE) docs/demo-light.png --theme light $(SPOKEN)
	$(PICTURE) docs/demo-compare.png --theme dark --compare $(SPOKEN)

synthetic: $(VENV)/.dev
	$(BIN)/python -m recipes.reference.synthesize build/synthetic --digits 6000 --sentences 4000

train: $(VENV)/.dev
	$(BIN)/python -m recipes.reference.train build/reference --speech $(SPEECH) --synthetic build/synthetic $(ARGS)

# Dense-S, MoE and Dense-L on the same data: hours on a CPU, resumable.
scaling: $(VENV)/.dev
	test -e build/dev-digits || $(BIN)/python -m recipes.reference.devset $(SPEECH)/digits-human build/dev-digits
	$(BIN)/python -m recipes.scaling.run build/scaling --speech $(SPEECH) --synthetic build/synthetic $(ARGS)

# One file that pip, pipx and uv install anywhere, the int8 reference model inside.
wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --outdir dist .
	@ls -l dist

# The API reference, from the docstrings.
docs: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python .ci/api build/api
	@echo "open build/api/index.html"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What tests of the microphone and the window need beside Python packages.
SYSTEM := gcc libc6-dev libasound2-dev libportaudio2 libglib2.0-0 libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 \
	fontconfig fonts-dejavu-core xvfb xauth libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxkbcommon-x11-0

test: check
	sh .ci/packages $(SYSTEM)
	$(BIN)/python -m pytest

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
