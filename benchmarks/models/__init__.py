"""Models on record: a command per model, `python -m benchmarks.models.NAME [FOLDER]`, writes results/models/NAME.json.

FOLDER is where the packages that the file names were installed, such as by `pip install --no-deps
--only-binary=:all: --target FOLDER silero-vad==6.2.3`. Their weights are read as data, no code of theirs is run, and
nothing of them is copied into the record. `making` measures; each other file converts one model, and checks that the
converted model does what the original does.
"""
