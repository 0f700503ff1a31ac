"""The likelihood of a named text under an imported model is what transformers computes from the same ids.

The ids are compared too: they are written out by hand from the model's own special tokens, as its tokenizer.json spells them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from cases import BY_NAME, make
from tokenizers import Tokenizer, decoders, models

from lm.config import apply_overrides
from lm.data import pipeline
from lm.data.config import Component
from lm.data.held_out import held_out
from lm.data.tokenizer import build
from lm.evals import named_text
from lm.evals.__main__ import evaluate_loss
from lm.hf.runs import import_run
from lm.train.derived import layout_of

LETTERS = list("abcdefghijklmnop")


def imported(tmp_path, name, special):
    """(folder of the model, run, configuration) of a model whose special tokens have the ids from 0, and letters those that follow."""
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path / "model"
    make(BY_NAME[name]).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate([*special, *LETTERS])}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, tmp_path / "run", import_run(folder, tmp_path / "run", eos_token=special[0])


def write(tmp_path, length):
    (tmp_path / "text.txt").write_text("".join(np.random.default_rng(0).choice(LETTERS, length)))
    return str(tmp_path / "text.txt")


def rows_of(config, path, tmp_path, rows):
    data = pipeline.of_split(
        config.data, named_text.read(Component("text_files", (path,))), "named", build(config.data.tokenizer, [], ""), str(tmp_path), print
    )
    return held_out(data, layout_of(config.data), config.model.architecture, config.model.vocab_size, rows)


def nats(logits, targets):
    return float(torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(targets.astype(np.int64)), reduction="sum"))


def tensor(values):
    return torch.from_numpy(np.asarray(values, np.int64))[None]


def test_a_decoder_on_whole_documents(tmp_path):
    folder, run, config = imported(tmp_path, "gpt2", ["<|endoftext|>"])
    path = write(tmp_path, config.data.sequence_length - 3)
    found = evaluate_loss(run, text=[path])
    ids = [0, *(1 + LETTERS.index(letter) for letter in Path(path).read_text()), 0]
    model = BY_NAME["gpt2"].model_class.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(input_ids=tensor(ids[:-1])).logits[0]
    assert found["tokens"] == len(ids) - 1
    assert found["nats"] == pytest.approx(nats(logits, np.asarray(ids[1:])), rel=1e-5)


def test_t5_on_spans_with_its_own_sentinels(tmp_path):
    special = ["</s>", "<pad>", *(f"<extra_id_{i}>" for i in reversed(range(6)))]
    folder, run, config = imported(tmp_path, "t5_1.0", special)
    path, changes = write(tmp_path, 200), ["data.objective=span_corruption", "data.sequence_length=24"]
    found = evaluate_loss(run, text=[path], overrides=changes)
    batch = rows_of(apply_overrides(config, changes), path, tmp_path, found["rows"])
    model, total = BY_NAME["t5_1.0"].model_class.from_pretrained(folder).eval(), 0.0
    for i in range(found["rows"]):
        real, read = batch.weights[i] > 0, batch.encoder_segments[i] > 0
        inputs, targets = batch.encoder_tokens[i][read], batch.targets[i][real]
        assert [k for k in inputs if k < 8][:1] == [7]  # <extra_id_0>
        assert (targets[0], targets[-1], inputs[-1]) == (7, 0, 0)
        with torch.no_grad():
            logits = model(input_ids=tensor(inputs), decoder_input_ids=tensor(batch.tokens[i][real])).logits[0]
        total += nats(logits, targets)
    assert found["nats"] == pytest.approx(total, rel=1e-5)


def test_bert_on_masks_with_its_own_signs(tmp_path):
    folder, run, config = imported(tmp_path, "bert", ["[SEP]", "[PAD]", "[CLS]", "[MASK]"])
    path = write(tmp_path, 200)
    found = evaluate_loss(run, text=[path])
    batch = rows_of(config, path, tmp_path, found["rows"])
    model, total, labels = BY_NAME["bert"].model_class.from_pretrained(folder).eval(), 0.0, 0.0
    assert {2} == set(batch.tokens[:, 0].tolist())
    assert (batch.tokens == 3).any()
    for i in range(found["rows"]):
        read, real = batch.segments[i] > 0, batch.weights[i] > 0
        with torch.no_grad():
            out = model(input_ids=tensor(batch.tokens[i][read]), token_type_ids=tensor(batch.token_types[i][read]))
        total += nats(out.prediction_logits[0][batch.predict[i][real]], batch.targets[i][real])
        labels += nats(out.seq_relationship_logits, batch.labels[i]) * float(batch.label_weights[i, 0] > 0)
    assert found["nats"] == pytest.approx(total, rel=1e-5)
    assert found["label_nats"] * found["labels"] == pytest.approx(labels, rel=1e-5)
