"""Prepares a text of 20 GB, kills that at random moments, and says how much memory and processor time each process took.

    python -m tests.nightly.large_text [--gigabytes 20] [--folder DIR] [--kills 3] [--bytes]

The text is generated: half of it in one .jsonl, the rest in a .txt, .parquet and .jsonl.gz. It is tokenised by a BPE of 8,192 pieces,
or with --bytes by bytes. Needs about four times its size on disk, which is freed at the end. Ends with 1
where a process held more than 1 GB, where a corpus that was
killed differs from one that was not, or where tokenising took more than 1 / .9 of the tokenizer's own processor time.
"""

import argparse
import gzip
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

MEMORY, EFFICIENCY = 1_000_000_000, 0.9
PROGRAM = """
import json, resource, sys, time
from lm.data import corpora, tokenizer, tokens
from lm.data.config import Component, HuggingFaceTokenizer
folder, data_dir = sys.argv[1:3]
made, facts = MADE, {}
def used():
    each = resource.getrusage(resource.RUSAGE_CHILDREN)
    return each.ru_utime + each.ru_stime
start = time.time(), used()
corpus = corpora.prepare(Component("text_files", paths=(folder + "/in",), streamed=True), data_dir)
facts["read"] = time.time() - start[0], used() - start[1]
start = time.time(), used()
caches = [tokens.prepare(corpus, split, made, data_dir) for split in ("train", "validation")]
facts["tokenise"] = time.time() - start[0], used() - start[1]
facts["memory"] = [1024 * resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
facts["bytes"], facts["tokens"] = sum(each.num_bytes for each in caches), sum(each.num_tokens for each in caches)
facts["fingerprint"] = corpus.fingerprint, [each.fingerprint for each in caches]
print("facts " + json.dumps(facts))
"""
OWN = """
import json, sys, time
from lm.data import tokenizer
from lm.data.config import HuggingFaceTokenizer
folder = sys.argv[1]
made, texts = MADE, []
with open(folder + "/in/a.jsonl") as file:
    for line in file:
        texts.append(json.loads(line)["text"])
        if sum(map(len, texts[-1:])) and len(texts) == 8_000:
            break
start, size = time.process_time(), sum(len(text.encode()) for text in texts)
for i in range(0, len(texts), 400):
    made.encode_batch(texts[i : i + 400])
print("facts " + json.dumps(size / (time.process_time() - start)))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--folder", default=None, help="where there is room (default: that of temporary files)")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--bytes", action="store_true")
    args = parser.parse_args()
    made = "tokenizer.Bytes()" if args.bytes else 'tokenizer.HuggingFace(HuggingFaceTokenizer(folder + "/tokenizer.json"))'
    program, alone = PROGRAM.replace("MADE", made), OWN.replace("MADE", made)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        size = _write(pathlib.Path(folder), args.gigabytes)
        print(f"text of {size / 1e9:.2f} GB", flush=True)
        for _ in range(args.kills):
            _killed(program, folder)
        facts = _facts(program, folder, folder + "/data", {})
        own = _facts(alone, folder, "", {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})
        same = not args.kills or _facts(program, folder, folder + "/again", {})["fingerprint"] == facts["fingerprint"]
    (seconds, used), (_, used_to_read) = facts["tokenise"], facts["read"]
    efficiency = facts["bytes"] / used / own if used else 1.0
    after = f", the same after {args.kills} kills: {same}" if args.kills else ""
    print(f"{facts['bytes'] / 1e9:.2f} GB, {facts['tokens']:,} tokens; fingerprint {facts['fingerprint'][0]}{after}")
    print(f"peak memory: this process {facts['memory'][0] / 1e6:,.0f} MB, workers {facts['memory'][1] / 1e6:,.0f} MB")
    print(f"last call: reading {used_to_read:.0f} s of processor time, tokenising {used:.0f} s in {seconds:.0f} s")
    print(f"the tokenizer alone {own / 1e6:.2f} MB/s a core; of that in the workers {efficiency:.2f}, per second of processor time")
    return int(max(facts["memory"]) > MEMORY or not same or (not args.kills and efficiency < EFFICIENCY))


def _write(folder: pathlib.Path, gigabytes: float) -> int:
    """Writes the tokenizer and the text; returns the bytes of the text."""
    import pyarrow
    import pyarrow.parquet
    import tokenizers

    texts = _texts(random.Random(0))
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer, bpe.decoder = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=8192, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((next(texts) for _ in range(1_000)), trainer)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "in").mkdir()
    shares, total = {"a.jsonl": 0.5, "b.txt": 0.2, "c.parquet": 0.2, "d.jsonl.gz": 0.1}, 0
    schema = pyarrow.schema([("text", pyarrow.string())])
    for name, share in shares.items():
        path, left = str(folder / "in" / name), share * gigabytes * 1e9
        if name == "c.parquet":
            with pyarrow.parquet.ParquetWriter(path, schema) as table:
                while left > 0:
                    group = [next(texts) for _ in range(10_000)]
                    table.write_table(pyarrow.table({"text": group}))
                    left, total = left - sum(map(len, group)), total + sum(map(len, group))
            continue
        with gzip.open(path, "wt", compresslevel=1) if name.endswith(".gz") else open(path, "w") as file:
            while left > 0:
                text = next(texts)
                file.write(text + "\n" if name == "b.txt" else json.dumps({"text": text}) + "\n")
                left, total = left - len(text), total + len(text)
    return total


def _texts(chosen: random.Random) -> Iterator[str]:
    """Yields documents of some kB in ASCII: windows of prose of made-up words, each with a number of its own."""
    syllables = ["ta", "ri", "on", "el", "st", "qua", "ne", "um", "pho", "gra", "ing", "er", "ous", "ly", "con", "pre"]
    words = ["".join(chosen.choices(syllables, k=chosen.randint(1, 4))) for _ in range(20_000)]
    weights = [1 / (i + 1) for i in range(len(words))]
    prose = " ".join(chosen.choices(words, weights, k=2_000_000))
    number = 0
    while True:
        first, length = chosen.randrange(len(prose) - 10_000), int(chosen.lognormvariate(7.5, 0.8)) % 9_000 + 200
        yield f"{number} {prose[first : first + length]}."
        number += 1


def _run(program: str, folder: str, data_dir: str, environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-c", program, folder, data_dir]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment, start_new_session=True)


def _killed(program: str, folder: str) -> None:
    """Starts the preparation and kills all of its processes."""
    process = _run(program, folder, folder + "/data", {})
    time.sleep(random.uniform(5, 40))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(list(pathlib.Path(folder, "data").rglob("*.work/units/[0-9]*")))
    print(f"killed; {done} parts were done", flush=True)


def _facts(program: str, folder: str, data_dir: str, environment: dict[str, str]):
    said, _ = _run(program, folder, data_dir, environment).communicate()
    lines = [line for line in said.splitlines() if line.startswith("facts ")]
    if not lines:
        raise RuntimeError(said)
    return json.loads(lines[-1].removeprefix("facts "))


if __name__ == "__main__":
    sys.exit(main())
